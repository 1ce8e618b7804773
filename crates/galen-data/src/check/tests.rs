use super::*;
use crate::dataset::BadRow;
use crate::testing::Words;
use crate::tokenize::ExcessLength;
use galen_types::Origin;

fn loaded() -> Loaded {
    let row = |line, prompt: &str, answer: &str| Conversation::Pieces {
        origin: Origin::new("a", line),
        pieces: vec![(prompt.to_owned(), false), (answer.to_owned(), true)],
        append_eos: true,
    };
    Loaded {
        kind: "alpaca",
        rows: vec![
            row(1, "q one", " a"),
            row(2, "q one", " a"),
            row(3, "a rather long prompt", " b c d e f"),
            Conversation::Pieces {
                origin: Origin::new("a", 4),
                pieces: vec![("q".to_owned(), false)],
                append_eos: false,
            },
            row(6, "UNTOKENIZABLE", " x"),
        ],
        bad_rows: vec![BadRow { fault: Fault::EmptyTurn, text: "a:5: `output` is empty".to_owned() }],
    }
}

fn options() -> TokenizeOptions {
    TokenizeOptions { sequence_len: 8, excess: ExcessLength::Drop, train_on_inputs: false }
}

fn render(row: &Conversation) -> Result<Rendered, String> {
    crate::render_pieces(row).map_err(|e| e.to_string())
}

#[test]
fn everything_is_counted_and_named() {
    let report = check(&loaded(), &render, &Words::default(), options());
    assert_eq!((report.rows, report.readable), (6, 5));
    assert_eq!(report.bad_rows, BTreeMap::from([(Fault::EmptyTurn, 1), (Fault::Template, 1)]));
    assert_eq!((report.duplicates, &report.duplicate_examples[..]), (1, &["a:2 repeats a:1".to_owned()][..]));
    assert_eq!(report.without_supervision_examples, ["a:4"]);
    assert_eq!(report.too_long, 1);
    assert_eq!(report.supervised_tokens, 2 + 2 + 6);
    let lengths = report.lengths.clone().unwrap();
    assert_eq!((lengths.min, lengths.max, lengths.total, lengths.p50), (1, 10, 19, 4));
    assert_eq!(lengths.histogram, [(1, 1), (2, 0), (4, 2), (8, 0), (16, 1)]);
    assert!(!report.is_clean());
    let text = report.to_string();
    for part in
        ["empty turn", "a:2 repeats a:1", "a:6: the tokenizer failed", "<= 16", "a:5: `output` is empty"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    assert!(serde_json::to_value(&report).unwrap()["bad_rows"]["empty_turn"] == 1);
}

/// What training does not leave out is not complained of.
#[test]
fn plain_texts_are_cut_and_inputs_may_be_learned() {
    let row = |line, supervised, append_eos| Conversation::Pieces {
        origin: Origin::new("a", line),
        pieces: vec![("one two three four five six seven eight nine ten".to_owned(), supervised)],
        append_eos,
    };
    let loaded = |row| Loaded { kind: "completion", rows: vec![row], bad_rows: vec![] };
    let plain = check(&loaded(row(1, true, true)), &render, &Words::default(), options());
    assert!(plain.is_clean(), "{plain}");
    let inputs = TokenizeOptions { sequence_len: 20, train_on_inputs: true, ..options() };
    let learned = check(&loaded(row(1, false, false)), &render, &Words::default(), inputs);
    assert!(learned.is_clean() && learned.supervised_tokens > 0, "{learned}");
    assert!(!check(&loaded(row(1, false, false)), &render, &Words::default(), options()).is_clean());
}

#[test]
fn percentiles_are_nearest_rank() {
    let lengths = Lengths::of((1..=200).collect()).unwrap();
    assert_eq!((lengths.p50, lengths.p90, lengths.p99, lengths.mean), (100, 180, 198, 100.5));
    assert_eq!(Lengths::of(vec![]), None);
}
