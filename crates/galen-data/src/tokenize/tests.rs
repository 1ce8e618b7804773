use super::*;
use crate::testing::{BOS, EOS, Words};

fn row(pieces: &[(&str, bool)], append_eos: bool) -> Rendered {
    let conversation = galen_types::Conversation::Pieces {
        origin: Origin::new("a.jsonl", 7),
        pieces: pieces.iter().map(|(t, s)| ((*t).to_owned(), *s)).collect(),
        append_eos,
    };
    crate::render_pieces(&conversation).unwrap()
}

/// Tokens of a row as text, supervised ones in brackets.
fn shown(row: &Rendered, encoder: &Words, train_on_inputs: bool) -> String {
    let encoded = encode(row, encoder, train_on_inputs).unwrap();
    let texts = encoded.ids.iter().zip(&encoded.mask).map(|(id, supervised)| {
        let text = encoder.decode(&[*id], false).unwrap();
        if *supervised { format!("[{text}]") } else { text }
    });
    texts.collect::<Vec<_>>().join("|")
}

/// Tokenizer, pieces, whether the end token is appended, and the tokens as `shown`.
type Case<'a> = (&'a Words, &'a [(&'a str, bool)], bool, &'a str);

#[test]
fn masks_are_exact_at_the_boundaries() {
    let plain = Words::default();
    let bos = Words { adds_bos: true, ..Words::default() };
    let both = Words { adds_bos: true, adds_eos: true, ..Words::default() };
    let cases: &[Case] = &[
        // A span starts on a token boundary of its own accord.
        (&plain, &[("say", false), (" A now", true)], false, "say|[ A]|[ now]"),
        // The prompt's last space would join the answer: the text is cut, as at inference.
        (&plain, &[("say ", false), ("A", true)], false, "say| |[A]"),
        (&plain, &[("ab", false), ("cd", true), ("ef", false)], false, "ab|[cdef]"),
        // Two straddled starts in one row.
        (
            &plain,
            &[("a", false), ("b", true), (".", false), ("c ", false), ("d", true)],
            false,
            "a|[b]|.|c| |[d]",
        ),
        // A token that begins in a span and ends behind it is supervised.
        (&plain, &[(".", false), ("b", true), ("c d", false)], false, ".|[bc]| d"),
        // Multi-byte characters.
        (&plain, &[("é", false), ("é", true)], false, "é|[é]"),
        // The end token is added once, supervised as the last piece is.
        (&plain, &[("a", false), (" b", true)], true, "a|[ b]|[</s>]"),
        (&plain, &[("a", true), (" b", false)], true, "[a]| b|</s>"),
        (&plain, &[("a", false), (" b</s>", true)], true, "a|[ b]|[</s>]"),
        // The beginning token is there once, whether the text writes it or not, also when the text is cut.
        (&bos, &[("a", false), (" b", true)], false, "<s>|a|[ b]"),
        (&bos, &[("<s>a", false), (" b", true)], false, "<s>|a|[ b]"),
        (&bos, &[("<s>a ", false), ("b", true)], false, "<s>|a| |[b]"),
        (&bos, &[("a ", false), ("b", true)], false, "<s>|a| |[b]"),
        // A tokenizer that adds an end token of its own.
        (&both, &[("a", false), (" b", true)], true, "<s>|a|[ b]|[</s>]"),
        (&both, &[("a ", false), ("b", true)], true, "<s>|a| |[b]|[</s>]"),
        // The beginning token counts with the span it touches; `Tokenized` clears what nothing predicts.
        (&both, &[("a", true), (" b", false)], false, "[<s>]|[a]| b|</s>"),
    ];
    for (encoder, pieces, append_eos, expect) in cases {
        assert_eq!(shown(&row(pieces, *append_eos), encoder, false), *expect, "{pieces:?}");
    }
    assert_eq!(shown(&row(&[("a", false), (" b", true)], true), &bos, true), "[<s>]|[a]|[ b]|[</s>]");
}

fn options(sequence_len: usize, excess: ExcessLength) -> TokenizeOptions {
    TokenizeOptions { sequence_len, excess, train_on_inputs: false }
}

#[test]
fn every_row_is_kept_or_counted() {
    let rows = [
        row(&[("a b c", false), (" d e", true)], false),
        row(&[("a", false), (" b c d e f g", true)], false),
        row(&[("a b c d e", false), (" f", true)], false),
        row(&[("a b", false)], false),
        row(&[("a b c d e f g h i", true)], true),
    ];
    let encoder = Words::default();
    let (kept, report) = tokenize(&rows, &encoder, options(5, ExcessLength::Truncate)).unwrap();
    let expect = TokenizeReport {
        rows: 5,
        kept: 3,
        sequences: 4,
        truncated: 1,
        dropped_too_long: 0,
        dropped_by_truncation: 1,
        dropped_unsupervised: 1,
        tokens: 20,
        supervised_tokens: 2 + 4 + 4 + 4,
        longest: 10,
        dropped_rows: vec![
            "a.jsonl:7: none of the first `5` of `6` tokens is supervised".to_owned(),
            "a.jsonl:7: none of its `2` tokens is supervised".to_owned(),
        ],
    };
    assert_eq!(report, expect);
    assert_eq!(kept.iter().map(Tokenized::row).collect::<Vec<_>>(), [0, 1, 4, 4]);
    assert_eq!(kept[3].ids().last(), Some(&EOS));

    let (_, report) = tokenize(&rows, &encoder, options(5, ExcessLength::Drop)).unwrap();
    assert_eq!((report.dropped_too_long, report.truncated, report.kept), (2, 0, 2));
    let e = tokenize(&rows, &encoder, options(5, ExcessLength::Raise)).unwrap_err().to_string();
    assert!(e.starts_with("a.jsonl:7: `7` tokens are more than `sequence_len: 5`\nhint: "), "{e}");
}

#[test]
fn nothing_left_is_an_error() {
    let cut = [row(&[("a b c d e", false), (" f", true)], false)];
    let unsupervised = [row(&[("a b", false)], false)];
    let encoder = Words::default();
    for (rows, excess, hint) in [
        (&cut[..], ExcessLength::Truncate, "hint: raise `sequence_len`"),
        (&cut[..], ExcessLength::Drop, "hint: raise `sequence_len`"),
        (&unsupervised[..], ExcessLength::Drop, "hint: check `roles_to_train`"),
        (&[][..], ExcessLength::Drop, "hint: check `roles_to_train`"),
    ] {
        let e = tokenize(rows, &encoder, options(5, excess)).unwrap_err().to_string();
        assert!(e.starts_with("no row is left to train on") && e.contains(hint), "{e}");
    }
}

#[test]
fn the_tokenizers_refusals_name_the_row() {
    let no_eos = Words { no_eos: true, ..Words::default() };
    let rows = [row(&[("a b", true)], true)];
    let e = tokenize(&rows, &no_eos, options(9, ExcessLength::Drop)).unwrap_err().to_string();
    assert!(e.starts_with("a.jsonl:7: the tokenizer failed: it has no end-of-sequence token"), "{e}");
    let rows = [row(&[("UNTOKENIZABLE", true)], true)];
    let e = tokenize(&rows, &Words::default(), options(9, ExcessLength::Drop)).unwrap_err().to_string();
    assert_eq!(e, "a.jsonl:7: the tokenizer failed: it is said to be");
}

#[test]
fn order_does_not_depend_on_threads() {
    let encoder = Words { adds_bos: true, ..Words::default() };
    // One pass first, so that ids are given in a fixed order.
    let rows: Vec<_> =
        (0..500).map(|i| row(&[(&format!("w{i}"), false), (&format!(" x{}", i % 7), true)], false)).collect();
    for row in &rows {
        encode(row, &encoder, false).unwrap();
    }
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| tokenize(&rows, &encoder, options(9, ExcessLength::Drop)).unwrap())
    };
    assert_eq!(run(1), run(4));
    assert!(run(1).0.iter().all(|t| t.ids()[0] == BOS));
}
