//! From rendered text to tokens, each with whether it is under the loss.
//!
//! A token is supervised iff its first byte lies in a supervised span. A token that would begin before a span and
//! end within it never comes to be: the text is cut at the span's start and both sides are encoded on their own,
//! which is what happens at inference, where the prompt is encoded alone and the answer is generated behind it. So
//! a span's first byte always begins a token, and no answer is lost to a space that belongs to the prompt. A token
//! that begins in a span and ends behind it is supervised: the model has to produce it.

use crate::DataError;
use galen_types::{Origin, Rendered, TextEncoder, Tokenized};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// What becomes of rows longer than `sequence_len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExcessLength {
    /// They are left out and counted.
    #[default]
    Drop,
    /// Their end is cut off.
    Truncate,
    /// The first one is an error.
    Raise,
}

/// How rows become tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenizeOptions {
    /// Longest row, tokens.
    pub sequence_len: usize,
    /// What becomes of longer ones. Plain text that is supervised throughout (type `completion`) is cut into
    /// several rows in any case.
    pub excess: ExcessLength,
    /// Every token is under the loss.
    pub train_on_inputs: bool,
}

/// Whether a row is plain text that is supervised throughout, which is cut into several where it is too long.
pub(crate) fn is_plain(row: &Rendered) -> bool {
    row.append_eos() && row.spans().len() == 1 && row.spans()[0] == (0..row.text().len())
}

/// What became of the rows. Every row given is kept or counted under one of the reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TokenizeReport {
    /// Rows given.
    pub rows: u64,
    /// Rows that are trained on (rows cut into several count once).
    pub kept: u64,
    /// Sequences that came of them.
    pub sequences: u64,
    /// Rows whose end was cut off.
    pub truncated: u64,
    /// Rows left out because they are longer than `sequence_len`.
    pub dropped_too_long: u64,
    /// Rows left out because truncation cut all their supervision away.
    pub dropped_by_truncation: u64,
    /// Rows left out because nothing in them is supervised.
    pub dropped_unsupervised: u64,
    /// Tokens of all sequences.
    pub tokens: u64,
    /// Supervised ones among them.
    pub supervised_tokens: u64,
    /// Tokens of the longest row given.
    pub longest: u64,
    /// The first rows left out, each as `file:line: reason`.
    pub dropped_rows: Vec<String>,
}

/// Dropped rows that a report names.
const NAMED: usize = 20;

/// Tokens of a row before lengths are looked at.
pub(crate) struct Encoded {
    pub(crate) ids: Vec<u32>,
    pub(crate) mask: Vec<bool>,
}

enum Fate {
    Kept { sequences: Vec<Tokenized>, truncated: bool },
    TooLong,
    CutAway,
    Unsupervised,
}

/// Tokenizes rows in parallel; the order is kept. Row `i` becomes sequences with row number `i`.
///
/// Errors: the tokenizer's own, a row that is too long under [`ExcessLength::Raise`], and no row left.
pub fn tokenize(
    rows: &[Rendered],
    encoder: &dyn TextEncoder,
    options: TokenizeOptions,
) -> Result<(Vec<Tokenized>, TokenizeReport), DataError> {
    let fates: Vec<Result<(usize, Fate), DataError>> = rows
        .par_iter()
        .enumerate()
        .map(|(i, row)| {
            let encoded = encode(row, encoder, options.train_on_inputs)?;
            Ok((encoded.ids.len(), fate(row, i as u64, encoded, options)?))
        })
        .collect();
    // The error is the first row's, whichever thread was first.
    let fates: Vec<(usize, Fate)> = fates.into_iter().collect::<Result<_, _>>()?;
    let mut report = TokenizeReport { rows: rows.len() as u64, ..TokenizeReport::default() };
    let mut out = Vec::with_capacity(rows.len());
    for (row, (len, fate)) in rows.iter().zip(fates) {
        report.longest = report.longest.max(len as u64);
        let reason = match fate {
            Fate::Kept { sequences, truncated } => {
                report.kept += 1;
                report.truncated += u64::from(truncated);
                for sequence in &sequences {
                    report.sequences += 1;
                    report.tokens += sequence.ids().len() as u64;
                    report.supervised_tokens += sequence.supervised_tokens() as u64;
                }
                out.extend(sequences);
                continue;
            }
            Fate::TooLong => {
                report.dropped_too_long += 1;
                format!("`{len}` tokens are more than `sequence_len: {}`", options.sequence_len)
            }
            Fate::CutAway => {
                report.dropped_by_truncation += 1;
                let max = options.sequence_len;
                format!("none of the first `{max}` of `{len}` tokens is supervised")
            }
            Fate::Unsupervised => {
                report.dropped_unsupervised += 1;
                format!("none of its `{len}` tokens is supervised")
            }
        };
        if report.dropped_rows.len() < NAMED {
            report.dropped_rows.push(format!("{}: {reason}", row.origin()));
        }
    }
    if out.is_empty() {
        return Err(none_left(&report));
    }
    Ok((out, report))
}

fn none_left(report: &TokenizeReport) -> DataError {
    let what = format!(
        "no row is left to train on: of `{}`, `{}` are too long, `{}` lost their supervision to truncation, `{}` have \
         none{}",
        report.rows,
        report.dropped_too_long,
        report.dropped_by_truncation,
        report.dropped_unsupervised,
        report.dropped_rows.first().map(|r| format!("\nfirst: {r}")).unwrap_or_default()
    );
    let hint = if report.dropped_too_long + report.dropped_by_truncation > 0 {
        "raise `sequence_len`"
    } else {
        "check `roles_to_train` and the roles in the data with `galen data inspect --stage rendered`"
    };
    DataError::Empty { what, hint: Some(hint.to_owned()) }
}

fn fate(row: &Rendered, number: u64, encoded: Encoded, options: TokenizeOptions) -> Result<Fate, DataError> {
    let Encoded { mut ids, mut mask } = encoded;
    let supervised = |mask: &[bool]| mask.iter().skip(1).any(|m| *m);
    if !supervised(&mask) {
        return Ok(Fate::Unsupervised);
    }
    let (origin, len) = (row.origin(), ids.len());
    let max = options.sequence_len.max(1);
    if len > max {
        if is_plain(row) && max > 1 {
            let chunks = ids.chunks(max).zip(mask.chunks(max)).filter(|(_, m)| supervised(m));
            let sequences = chunks
                .map(|(i, m)| Tokenized::new(origin.clone(), number, i.to_vec(), m.to_vec()))
                .collect::<Result<_, _>>()?;
            return Ok(Fate::Kept { sequences, truncated: false });
        }
        match options.excess {
            ExcessLength::Drop => return Ok(Fate::TooLong),
            ExcessLength::Raise => return Err(too_long(origin, len, options.sequence_len)),
            ExcessLength::Truncate => {
                ids.truncate(max);
                mask.truncate(max);
                if !supervised(&mask) {
                    return Ok(Fate::CutAway);
                }
            }
        }
    }
    let sequences = vec![Tokenized::new(origin.clone(), number, ids, mask)?];
    Ok(Fate::Kept { sequences, truncated: len > max })
}

fn too_long(origin: &Origin, len: usize, max: usize) -> DataError {
    DataError::File {
        file: origin.to_string(),
        what: format!("`{len}` tokens are more than `sequence_len: {max}`"),
        hint: Some(
            "raise `sequence_len`, or set `excess_length_strategy` to `drop` or `truncate`".to_owned(),
        ),
    }
}

/// Encodes a row and marks what is supervised, without looking at its length.
pub(crate) fn encode(
    row: &Rendered,
    encoder: &dyn TextEncoder,
    train_on_inputs: bool,
) -> Result<Encoded, DataError> {
    let fail = |what: String| DataError::Tokenizer { origin: row.origin().clone(), what };
    let tokens = encode_cut(row, encoder).map_err(fail)?;
    let mut ids = Vec::with_capacity(tokens.len() + 1);
    let mut mask = Vec::with_capacity(tokens.len() + 1);
    let text_end = row.text().len();
    let end_supervised = row.spans().last().is_some_and(|s| s.end == text_end);
    let mut spans = row.spans().iter().peekable();
    for (id, range) in tokens {
        while spans.next_if(|s| s.end <= range.start).is_some() {}
        let inside = spans.peek().is_some_and(|s| s.start <= range.start);
        // What the tokenizer puts behind the text ends the last span.
        let ends = range.is_empty() && range.start == text_end && end_supervised;
        ids.push(id);
        mask.push(inside || ends || train_on_inputs);
    }
    if row.append_eos() {
        let Some((eos, _)) = encoder.eos() else {
            return Err(fail(
                "it has no end-of-sequence token, which must follow the text; its `tokenizer_config.json` is to name one as `eos_token`"
                    .to_owned(),
            ));
        };
        if ids.last() == Some(&eos) {
            if let Some(last) = mask.last_mut() {
                *last |= end_supervised;
            }
        } else {
            ids.push(eos);
            mask.push(end_supervised || train_on_inputs);
        }
    }
    Ok(Encoded { ids, mask })
}

type Tokens = Vec<(u32, std::ops::Range<usize>)>;

/// Encodes the text, cut at the span starts that a token would straddle.
fn encode_cut(row: &Rendered, encoder: &dyn TextEncoder) -> Result<Tokens, String> {
    let text = row.text();
    let mut cuts: Vec<usize> = Vec::new();
    loop {
        let tokens = encode_fragments(text, &cuts, encoder)?;
        let mut straddled: Vec<usize> = Vec::new();
        let mut starts = row.spans().iter().map(|s| s.start).peekable();
        for (_, range) in &tokens {
            while starts.next_if(|s| *s <= range.start).is_some() {}
            if let Some(start) = starts.next_if(|s| *s < range.end) {
                straddled.push(start);
            }
        }
        straddled.retain(|s| !cuts.contains(s));
        if straddled.is_empty() {
            return Ok(tokens);
        }
        cuts.extend(straddled);
        cuts.sort_unstable();
    }
}

fn encode_fragments(text: &str, cuts: &[usize], encoder: &dyn TextEncoder) -> Result<Tokens, String> {
    let mut tokens = encoder.encode(&text[..cuts.first().copied().unwrap_or(text.len())], true)?;
    if let (Some((bos, _)), [first, second, ..]) = (encoder.bos(), &tokens[..])
        && first.0 == bos
        && first.1.is_empty()
        && second.0 == bos
    {
        // The template wrote the token that the tokenizer adds: one is enough.
        tokens.remove(0);
    }
    if cuts.is_empty() {
        return Ok(tokens);
    }
    let eos = encoder.eos().map(|(id, _)| id);
    let end = tokens.pop_if(|(id, range)| range.start == range.end && Some(*id) == eos);
    for (i, start) in cuts.iter().enumerate() {
        let stop = cuts.get(i + 1).copied().unwrap_or(text.len());
        for (id, range) in encoder.encode(&text[*start..stop], false)? {
            tokens.push((id, range.start + start..range.end + start));
        }
    }
    tokens.extend(end.map(|(id, _)| (id, text.len()..text.len())));
    Ok(tokens)
}

#[cfg(test)]
mod tests;
