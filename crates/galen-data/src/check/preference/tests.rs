use super::*;
use crate::dataset::BadRow;
use crate::template::{RenderOptions, render_answer};
use crate::testing::Words;
use galen_types::{Boundary, Labelled, Pair};

fn prompt(text: &str) -> Prompt {
    Prompt::Text { text: text.to_owned(), boundary: Boundary::Cut }
}

fn pair(line: u64, asked: &str, chosen: &str, rejected: &str) -> Preference {
    let answer = |text: &str| Answer::Text(text.to_owned());
    let (chosen, rejected) = (answer(chosen), answer(rejected));
    Preference::Pair(Pair {
        origin: Origin::new("p", line),
        prompt: prompt(asked),
        chosen,
        rejected,
        margin: None,
    })
}

fn labelled(line: u64, said: &str, label: bool) -> Preference {
    let completion = Answer::Text(said.to_owned());
    Preference::Labelled(Labelled { origin: Origin::new("p", line), prompt: prompt("q"), completion, label })
}

fn report(rows: Vec<Preference>, sequence_len: usize) -> PreferenceCheck {
    let bad_rows = vec![BadRow { fault: Fault::PromptMismatch, text: "p:99: they differ".to_owned() }];
    let render = |origin: &Origin, prompt: &Prompt, answer: &Answer| {
        render_answer(origin, prompt, answer, None, &RenderOptions::default()).map_err(|e| e.to_string())
    };
    check_preferences(
        &Loaded { kind: "preference", rows, bad_rows },
        &render,
        &Words::default(),
        sequence_len,
    )
}

#[test]
fn everything_is_counted_and_named() {
    let rows = vec![
        pair(1, "q", " a b", " c"),
        pair(2, "q", " a", " a"),
        pair(3, "q", " a b", " c"),
        pair(4, "q", " c", " a b"),
        pair(5, "UNTOKENIZABLE", " c", " d"),
        labelled(6, " x", true),
        labelled(7, " x", false),
        labelled(8, " a b c d e f", false),
    ];
    let found = report(rows, 6);
    assert_eq!((found.rows, found.readable), (9, 8));
    assert_eq!(found.bad_rows, BTreeMap::from([(Fault::PromptMismatch, 1), (Fault::Template, 1)]));
    assert_eq!(found.kinds, BTreeMap::from([("pair", 4), ("good", 1), ("bad", 2)]));
    assert_eq!((found.identical, &found.identical_examples[..]), (1, &["p:2".to_owned()][..]));
    assert_eq!(found.duplicate_examples, ["p:3 repeats p:1"]);
    assert_eq!(found.contradiction_examples, ["p:4 contradicts p:1", "p:7 contradicts p:6"]);
    assert_eq!((found.duplicates, found.contradictions, found.too_long), (1, 2, 1));
    assert!(!found.is_clean());
    // With the end token: 3, 2 | 2, 2 | 3, 2 | 2, 3.
    let bias = found.length_bias.unwrap();
    assert_eq!((bias.pairs, bias.chosen_tokens, bias.rejected_tokens), (4, 2.5, 2.25));
    assert_eq!((bias.chosen_longer, bias.biased), (0.625, false));
    let text = found.to_string();
    for part in ["prompts differ", "p:4 contradicts p:1", "p:99: they differ", "chosen 2.5  rejected 2.2"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert_eq!(serde_json::to_value(&found).unwrap()["bad_rows"]["prompt_mismatch"], 1);
}

#[test]
fn length_bias_needs_a_difference_and_enough_pairs() {
    let pairs = |longer: usize, shorter: usize| {
        let rows = [vec![(9, 5); longer], vec![(5, 9); shorter]].concat();
        LengthBias::of(&rows).unwrap()
    };
    assert_eq!(LengthBias::of(&[]), None);
    for (longer, shorter, biased) in [
        (8, 0, false),
        (16, 0, true),
        (120, 80, false),
        (130, 70, true),
        (70, 130, true),
        (5400, 4600, false),
    ] {
        let bias = pairs(longer, shorter);
        assert_eq!(bias.biased, biased, "{longer}:{shorter}");
        assert_eq!(bias.warning().is_some(), biased);
    }
    let text = pairs(130, 70).warning().unwrap();
    assert!(text.starts_with("the chosen answer is the longer one in `65 %` of `200` pairs"), "{text}");
}
