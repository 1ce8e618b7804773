use super::limits::Drop;
use super::*;
use crate::template::{RenderOptions, render_labelled, render_pair, render_prompt_row};
use crate::testing::{BOS, EOS, Words};
use crate::tokenize::ExcessLength;
use galen_types::{Answer, Boundary, Labelled, Origin, Pair, Preference, Prompt, PromptRow, Ranked};

fn origin(line: u64) -> Origin {
    Origin::new("p.jsonl", line)
}

fn pair(line: u64, prompt: &str, chosen: &str, rejected: &str, boundary: Boundary) -> Pair {
    let answer = |text: &str| Answer::Text(text.to_owned());
    let (chosen, rejected) = (answer(chosen), answer(rejected));
    Pair {
        origin: origin(line),
        prompt: Prompt::Text { text: prompt.to_owned(), boundary },
        chosen,
        rejected,
        margin: None,
    }
}

fn limits(
    sequence_len: usize,
    prompt: Option<usize>,
    answer: Option<usize>,
    excess: ExcessLength,
) -> LengthLimits {
    LengthLimits { sequence_len, max_prompt_length: prompt, max_completion_length: answer, excess }
}

#[test]
fn limits_cut_drop_or_raise() {
    use ExcessLength::{Drop as D, Raise, Truncate};
    // Ids 0..10, of which 6 are the prompt. What is left: its first id, number of ids, prompt tokens, whether cut.
    let cases = [
        (limits(10, None, None, D), Ok((0, 10, 6, false))),
        (limits(9, None, None, D), Err("`10` tokens of prompt and answer are more than `sequence_len: 9`")),
        (limits(10, Some(5), None, D), Err("`6` tokens of prompt are more than `max_prompt_length: 5`")),
        (limits(10, None, Some(3), D), Err("`4` tokens of answer are more than `max_completion_length: 3`")),
        (limits(9, None, None, Truncate), Ok((0, 9, 6, true))),
        (limits(10, Some(4), None, Truncate), Ok((2, 8, 4, true))),
        (limits(10, None, Some(1), Truncate), Ok((0, 7, 6, true))),
        (limits(5, Some(4), Some(3), Truncate), Ok((2, 5, 4, true))),
        (limits(6, None, None, Truncate), Err("its `6` tokens of prompt leave no room for an answer")),
        (limits(10, None, Some(0), Truncate), Err("its `6` tokens of prompt leave no room for an answer")),
        (limits(1, Some(0), None, Truncate), Err("its `0` tokens of prompt leave no room for an answer")),
    ];
    for (limits, expect) in cases {
        let cut = limits.cut(&origin(3), (0..10).collect(), 6).unwrap();
        let found = cut.map(|c| (c.ids[0], c.ids.len(), c.prompt_tokens, c.truncated));
        let found = found.map_err(|(Drop::TooLong(what) | Drop::CutAway(what))| what);
        assert_eq!(found, expect.map_err(str::to_owned), "{limits:?}");
    }
    let e = limits(9, None, None, Raise).cut(&origin(3), (0..10).collect(), 6).unwrap_err().to_string();
    assert!(e.starts_with("p.jsonl:3: `10` tokens") && e.contains("\nhint: raise `sequence_len`"), "{e}");
}

#[test]
fn every_pair_is_kept_or_counted() {
    let rows: Vec<_> = [
        pair(1, "a b", " c", " d e", Boundary::Cut),
        pair(2, "a b", " c d e f g", " d", Boundary::Cut),
        pair(3, "a b c d e f g h", " c", " d", Boundary::Cut),
        pair(4, "a", " b c d e f x", " b c d e f y", Boundary::Cut),
    ]
    .iter()
    .map(|p| render_pair(p, None, &RenderOptions::default()).unwrap())
    .collect();
    let encoder = Words { adds_bos: true, ..Words::default() };
    let (kept, report) =
        tokenize_pairs(&rows, &encoder, limits(7, None, None, ExcessLength::Truncate)).unwrap();
    let want = PreferenceReport {
        rows: 4,
        kept: 3,
        truncated: 2,
        dropped_too_long: 0,
        dropped_by_truncation: 1,
        identical: 1,
        tokens: 5 + 6 + 7 + 5 + 7 + 7,
        answer_tokens: 2 + 3 + 4 + 2 + 5 + 5,
        longest: 11,
        longest_prompt: 9,
        dropped_rows: vec!["p.jsonl:3: its `9` tokens of prompt leave no room for an answer".to_owned()],
        identical_rows: vec!["p.jsonl:4".to_owned()],
    };
    assert_eq!(report, want);
    let shown: Vec<_> =
        kept.iter().map(|p| (p.row(), p.chosen().prompt_ids()[0], p.chosen().tokens().row())).collect();
    assert_eq!(shown, [(0, BOS, 0), (1, BOS, 1), (3, BOS, 3)]);
    assert_eq!(kept[0].rejected().answer_ids().last(), Some(&EOS));
    let (kept, report) = tokenize_pairs(&rows, &encoder, limits(7, None, None, ExcessLength::Drop)).unwrap();
    assert_eq!((kept.len(), report.dropped_too_long, report.truncated), (1, 3, 0));
    let e =
        tokenize_pairs(&rows, &encoder, limits(2, None, None, ExcessLength::Drop)).unwrap_err().to_string();
    assert!(e.starts_with("no row is left to train on") && e.contains("hint: raise `sequence_len`"), "{e}");
}

#[test]
fn a_boundary_is_cut_or_merged() {
    // A word and the space before it are one token.
    let text = |ids: &[u32], encoder: &Words| galen_types::TextEncoder::decode(encoder, ids, false).unwrap();
    for (boundary, prompt, answer) in
        [(Boundary::Cut, "say now", "ish</s>"), (Boundary::Merged, "say", " nowish</s>")]
    {
        let encoder = Words::default();
        let row = render_pair(&pair(1, "say now", "ish", "adays", boundary), None, &RenderOptions::default())
            .unwrap();
        let (kept, _) = tokenize_pairs(&[row], &encoder, limits(99, None, None, ExcessLength::Drop)).unwrap();
        let chosen = kept[0].chosen();
        assert_eq!(
            (text(chosen.prompt_ids(), &encoder), text(chosen.answer_ids(), &encoder)),
            (prompt.into(), answer.into())
        );
        assert_eq!(kept[0].rejected().prompt_tokens(), chosen.prompt_tokens());
    }
}

#[test]
fn an_answer_without_a_prompt_begins_behind_the_beginning_token() {
    let row = render_pair(&pair(1, "", "a b", "c", Boundary::Cut), None, &RenderOptions::default()).unwrap();
    let encoder = Words { adds_bos: true, ..Words::default() };
    let rows = [row];
    let (kept, _) = tokenize_pairs(&rows, &encoder, limits(99, None, None, ExcessLength::Drop)).unwrap();
    assert_eq!((kept[0].chosen().prompt_ids(), kept[0].chosen().answer_ids().len()), (&[BOS][..], 3));
    // Without one there is nothing to predict the first token from.
    let (kept, _) =
        tokenize_pairs(&rows, &Words::default(), limits(99, None, None, ExcessLength::Drop)).unwrap();
    assert_eq!(kept[0].chosen().tokens().mask(), [false, true, true]);
}

#[test]
fn prompts_leave_room_for_an_answer() {
    let row = |line, text: &str| {
        let prompt = Prompt::Text { text: text.to_owned(), boundary: Boundary::Cut };
        let row = PromptRow { origin: origin(line), prompt, fields: serde_json::Map::new() };
        render_prompt_row(&row, None, &RenderOptions::default()).unwrap()
    };
    let rows = [row(1, "a b c"), row(2, "a b c d e f g")];
    let run = |limits| {
        let (kept, report) = tokenize_prompts(&rows, &Words::default(), limits).unwrap();
        let lengths: Vec<_> = kept.iter().map(|p| (p.row(), p.ids().len())).collect();
        (lengths, report.dropped_too_long, report.truncated)
    };
    assert_eq!(run(limits(8, None, None, ExcessLength::Drop)), (vec![(0, 3), (1, 7)], 0, 0));
    assert_eq!(run(limits(8, None, Some(4), ExcessLength::Drop)), (vec![(0, 3)], 1, 0));
    assert_eq!(run(limits(8, None, Some(4), ExcessLength::Truncate)), (vec![(0, 3), (1, 4)], 0, 1));
    assert_eq!(run(limits(8, Some(5), None, ExcessLength::Truncate)), (vec![(0, 3), (1, 5)], 0, 1));
}

fn answers(scores: &[f64]) -> Preference {
    let answers = scores.iter().enumerate().map(|(i, s)| (Answer::Text(format!("a{i}")), *s)).collect();
    let prompt = Prompt::Text { text: "q".to_owned(), boundary: Boundary::Cut };
    Preference::Ranked(Ranked { origin: origin(9), prompt, answers })
}

#[test]
fn ranked_lists_become_pairs() {
    let said = |answer: &Answer| match answer {
        Answer::Text(text) => text.clone(),
        Answer::Turns(_) => "turns".to_owned(),
    };
    for (how, scores, expect) in [
        (RankedPairs::BestWorst, &[0.5, 2.0, 1.0][..], "a1>a0"),
        (RankedPairs::Adjacent, &[0.5, 2.0, 1.0], "a1>a2 a2>a0"),
        (RankedPairs::All, &[0.5, 2.0, 1.0], "a1>a2 a1>a0 a2>a0"),
        (RankedPairs::Adjacent, &[1.0, 1.0, 2.0], "a2>a0"),
        (RankedPairs::All, &[1.0, 1.0, 2.0], "a2>a0 a2>a1"),
        (RankedPairs::BestWorst, &[1.0, 1.0], ""),
    ] {
        let made = into_pairs(vec![answers(scores)], how).unwrap();
        let pairs: Vec<_> =
            made.pairs.iter().map(|p| format!("{}>{}", said(&p.chosen), said(&p.rejected))).collect();
        assert_eq!(pairs.join(" "), expect, "{how:?} {scores:?}");
        assert_eq!(made.tied.is_empty(), !expect.is_empty());
    }
}

#[test]
fn rows_of_another_kind_are_refused_or_converted() {
    let text = |answer: &str| Answer::Text(answer.to_owned());
    let prompt = || Prompt::Text { text: "q".to_owned(), boundary: Boundary::Cut };
    let labelled = |line| {
        Preference::Labelled(Labelled {
            origin: origin(line),
            prompt: prompt(),
            completion: text("x"),
            label: true,
        })
    };
    let e = into_pairs(vec![labelled(4)], RankedPairs::All).unwrap_err().to_string();
    assert_eq!(e, "p.jsonl:4: it has one answer, a pair has two\nhint: labelled answers are for `rl: kto`");
    let rows = vec![
        Preference::Pair(pair(1, "q", "good", "bad", Boundary::Cut)),
        answers(&[1.0, 3.0, 2.0]),
        labelled(4),
        Preference::Pair(pair(5, "q", "yes", "no", Boundary::Cut)),
    ];
    let unpaired: Vec<_> = into_labelled(rows.clone())
        .unwrap()
        .0
        .iter()
        .map(|l| (l.origin.line(), l.completion.clone(), l.label))
        .collect();
    let want = [
        (1, "good", true),
        (9, "a1", true),
        (1, "bad", false),
        (9, "a0", false),
        (4, "x", true),
        (5, "yes", true),
        (5, "no", false),
    ];
    assert_eq!(unpaired, want.map(|(line, said, label)| (line, text(said), label)));
    assert_eq!(into_prompts(rows).len(), 4);
    // TRL unpairs a thousand rows at a time.
    let many = (0..1500).map(|i| Preference::Pair(pair(i, "q", "y", "n", Boundary::Cut))).collect();
    let labels: Vec<bool> = into_labelled(many).unwrap().0.iter().map(|l| l.label).collect();
    assert_eq!(labels, [vec![true; 1000], vec![false; 1000], vec![true; 500], vec![false; 500]].concat());
}

#[test]
fn mismatched_answers_go_round_within_a_batch() {
    let row = |line, prompt: &str, said: &str| {
        let prompt = Prompt::Text { text: prompt.to_owned(), boundary: Boundary::Cut };
        let row =
            Labelled { origin: origin(line), prompt, completion: Answer::Text(said.to_owned()), label: true };
        render_labelled(&row, None, &RenderOptions::default()).unwrap()
    };
    let rows =
        [row(1, "a", " x"), row(2, "b", " y"), row(3, "c", " z"), row(4, "d", " w"), row(5, "e", " v")];
    let encoder = Words::default();
    let (kept, _) = tokenize_labelled(&rows, &encoder, limits(9, None, None, ExcessLength::Drop)).unwrap();
    let text = |ids: &[u32]| galen_types::TextEncoder::decode(&encoder, ids, true).unwrap();
    let others = mismatched(&kept, 2, 9).unwrap();
    let shown: Vec<_> = others.iter().map(|o| text(o.tokens().ids())).collect();
    assert_eq!(shown, ["a y", "b x", "c w", "d z", "e v"]);
    assert_eq!(mismatched(&kept, 2, 2).unwrap()[0].answer_ids().len(), 1);
    assert!(mismatched(&kept, 2, 1).is_err());
}
