use super::*;
use crate::testing::Words;
use galen_types::Origin;

fn row() -> Rendered {
    Rendered::new(Origin::new("a.jsonl", 3), "say\x1b[2J A".to_owned(), std::iter::once(7..9).collect(), true)
        .unwrap()
}

#[test]
fn doors_are_shown_plainly() {
    assert_eq!(rendered(&row(), false), "a.jsonl:3\nsay␛[2J[+ A+][+(end-of-sequence token)+]\n");
    let encoder = Words::default();
    let options = crate::tokenize::TokenizeOptions {
        sequence_len: 99,
        excess: crate::tokenize::ExcessLength::Drop,
        train_on_inputs: false,
    };
    let (rows, _) = crate::tokenize::tokenize(&[row()], &encoder, options).unwrap();
    assert_eq!(
        tokenized(&rows[0], &encoder, false),
        "a.jsonl:3  row 0  6 tokens, 2 supervised\nsay|␛|[|2J|[+ A+]|[+</s>+]|\n"
    );
    let batch = crate::pack::pack(&[&rows[0], &rows[0]], Some(2)).unwrap();
    assert_eq!(
        packed(&batch, &encoder, false),
        "7 tokens, 3 segments, 4 targets\nsegment 0  row 0  position 0  5 tokens\nsay|␛|[|2J|[+ A+]|\n\
         segment 1 after segment 0  row 0  position 5  1 tokens\n[+</s>+]|\n\
         segment 2 after segment 0  row 0  position 5  1 tokens\n[+</s>+]|\n"
    );
}

#[test]
fn colour_is_closed_and_data_cannot_write_escapes() {
    let text = rendered(&row(), true);
    assert!(text.contains("\x1b[32m A\x1b[0m"), "{text:?}");
    assert!(!text.contains("\x1b[2J"), "{text:?}");
    assert!(text.trim_end().ends_with(RESET));
    assert_eq!(visible("a\u{202e}\u{7f}\u{9b}\r\n"), "a\u{fffd}\u{2421}\u{fffd}␍\n");
}
