//! From rendered preference rows to tokens.
//!
//! With [`Boundary::Cut`] the tokens are those of the prompt alone followed by the answer's, as when the answer was
//! generated. TRL encodes prompt and answer as one text and trains from the first token that differs from the prompt
//! alone; the two agree wherever no token would hold bytes of both, as behind the generation prompt of a chat template
//! and in text whose prompt ends on a token's end. [`Boundary::Merged`] is TRL's way.

use super::limits::{Cut, Drop, LengthLimits, PreferenceReport};
use crate::DataError;
use crate::tokenize::encode;
use galen_types::{
    Boundary, Rendered, RenderedAnswer, RenderedLabelled, RenderedPair, RenderedPrompt, TextEncoder,
    TokenizedAnswer, TokenizedLabelled, TokenizedPair, TokenizedPrompt,
};
use rayon::prelude::*;

/// Ids of prompt and answer, and how many are the prompt's.
type Encoded = (Vec<u32>, usize);

/// Tokenizes pairs in parallel; the order is kept. Pair `i` has row number `i`. A pair is left out whole if one half is.
///
/// Errors: the tokenizer's own, a row that is too long under `Raise`, and no row left.
pub fn tokenize_pairs(
    rows: &[RenderedPair],
    encoder: &dyn TextEncoder,
    limits: LengthLimits,
) -> Result<(Vec<TokenizedPair>, PreferenceReport), DataError> {
    let fates = each(rows, |i, row| {
        let origin = row.chosen.rendered.origin();
        let (mut chosen, mut rejected) = (encoded(&row.chosen, encoder)?, encoded(&row.rejected, encoder)?);
        if row.chosen.boundary == Boundary::Merged {
            // One prompt for both: what its tokens alone have in common with either.
            let prompt = chosen.1.min(rejected.1);
            (chosen.1, rejected.1) = (prompt, prompt);
        }
        let lengths = [(chosen.0.len(), chosen.1), (rejected.0.len(), rejected.1)];
        let halves = [limits.cut(origin, chosen.0, chosen.1)?, limits.cut(origin, rejected.0, rejected.1)?];
        let fate = match halves {
            [Err(reason), _] | [_, Err(reason)] => Err(reason),
            [Ok(chosen), Ok(rejected)] => {
                let truncated = chosen.truncated || rejected.truncated;
                let [chosen, rejected] = [chosen, rejected].map(|c| answer(&row.chosen.rendered, i, c));
                Ok((TokenizedPair::new(chosen?, rejected?, row.margin)?, truncated))
            }
        };
        Ok((fate, lengths.to_vec()))
    })?;
    collect(
        fates,
        |i| rows[i].chosen.rendered.origin(),
        |report, pair: &TokenizedPair| {
            for half in [pair.chosen(), pair.rejected()] {
                report.tokens += half.tokens().ids().len() as u64;
                report.answer_tokens += half.answer_ids().len() as u64;
            }
            if pair.chosen().tokens().ids() == pair.rejected().tokens().ids() {
                report.identical(pair.origin());
            }
        },
    )
}

/// The same for labelled answers.
pub fn tokenize_labelled(
    rows: &[RenderedLabelled],
    encoder: &dyn TextEncoder,
    limits: LengthLimits,
) -> Result<(Vec<TokenizedLabelled>, PreferenceReport), DataError> {
    let fates = each(rows, |i, row| {
        let (ids, prompt_tokens) = encoded(&row.answer, encoder)?;
        let lengths = vec![(ids.len(), prompt_tokens)];
        let fate = match limits.cut(row.answer.rendered.origin(), ids, prompt_tokens)? {
            Err(reason) => Err(reason),
            Ok(cut) => {
                let truncated = cut.truncated;
                let answer = answer(&row.answer.rendered, i, cut)?;
                Ok((TokenizedLabelled { answer, label: row.label }, truncated))
            }
        };
        Ok((fate, lengths))
    })?;
    collect(
        fates,
        |i| rows[i].answer.rendered.origin(),
        |report, row: &TokenizedLabelled| {
            report.tokens += row.answer.tokens().ids().len() as u64;
            report.answer_tokens += row.answer.answer_ids().len() as u64;
        },
    )
}

/// The same for prompts. `max_completion_length` (or one token) is kept free behind them within `sequence_len`; a
/// longer prompt loses its beginning under `Truncate`.
pub fn tokenize_prompts(
    rows: &[RenderedPrompt],
    encoder: &dyn TextEncoder,
    limits: LengthLimits,
) -> Result<(Vec<TokenizedPrompt>, PreferenceReport), DataError> {
    let room = limits.sequence_len.saturating_sub(limits.max_completion_length.unwrap_or(1)).max(1);
    let max = limits.max_prompt_length.map_or(room, |max| max.clamp(1, room));
    let limits = LengthLimits {
        sequence_len: max,
        max_prompt_length: Some(max),
        max_completion_length: None,
        excess: limits.excess,
    };
    let fates = each(rows, |i, row| {
        let rendered = Rendered::new(row.origin.clone(), row.text.clone(), Vec::new(), false)?;
        let ids = encode(&rendered, encoder, false)?.ids;
        let prompt_tokens = ids.len();
        let lengths = vec![(prompt_tokens, prompt_tokens)];
        let fate = match limits.cut_prompt(&row.origin, ids)? {
            Err(reason) => Err(reason),
            Ok((ids, truncated)) => Ok((TokenizedPrompt::new(row.origin.clone(), i, ids)?, truncated)),
        };
        Ok((fate, lengths))
    })?;
    collect(
        fates,
        |i| &rows[i].origin,
        |report, row: &TokenizedPrompt| {
            report.tokens += row.ids().len() as u64;
        },
    )
}

fn answer(row: &Rendered, number: u64, cut: Cut) -> Result<TokenizedAnswer, DataError> {
    Ok(TokenizedAnswer::new(row.origin().clone(), number, cut.ids, cut.prompt_tokens)?)
}

/// A row kept (and whether something was cut off) or the reason it is left out, and (length, prompt length) of each
/// of its sequences.
type Fate<T> = (Result<(T, bool), Drop>, Vec<(usize, usize)>);

fn each<R: Sync, T: Send>(
    rows: &[R],
    one: impl Fn(u64, &R) -> Result<Fate<T>, DataError> + Sync,
) -> Result<Vec<Fate<T>>, DataError> {
    // The error is the first row's, whichever thread was first.
    let fates: Vec<_> = rows.par_iter().enumerate().map(|(i, row)| one(i as u64, row)).collect();
    fates.into_iter().collect()
}

fn collect<'a, T>(
    fates: Vec<Fate<T>>,
    origin: impl Fn(usize) -> &'a galen_types::Origin,
    count: impl Fn(&mut PreferenceReport, &T),
) -> Result<(Vec<T>, PreferenceReport), DataError> {
    let mut report = PreferenceReport { rows: fates.len() as u64, ..PreferenceReport::default() };
    let mut out = Vec::with_capacity(fates.len());
    for (i, (fate, lengths)) in fates.into_iter().enumerate() {
        for (length, prompt) in lengths {
            report.longest = report.longest.max(length as u64);
            report.longest_prompt = report.longest_prompt.max(prompt as u64);
        }
        match fate {
            Ok((row, truncated)) => {
                report.kept += 1;
                report.truncated += u64::from(truncated);
                count(&mut report, &row);
                out.push(row);
            }
            Err(reason) => report.drop_row(origin(i), &reason),
        }
    }
    if out.is_empty() {
        return Err(report.none_left());
    }
    Ok((out, report))
}

/// Tokens of a prompt with its answer, as in training but whatever their number.
pub fn encode_answer(row: &RenderedAnswer, encoder: &dyn TextEncoder) -> Result<Vec<u32>, DataError> {
    Ok(encoded(row, encoder)?.0)
}

/// Encodes prompt and answer, without looking at lengths.
pub(crate) fn encoded(row: &RenderedAnswer, encoder: &dyn TextEncoder) -> Result<Encoded, DataError> {
    let rendered = &row.rendered;
    let start = rendered.spans().first().map_or(0, |s| s.start);
    let prompt =
        || Rendered::new(rendered.origin().clone(), rendered.text()[..start].to_owned(), Vec::new(), false);
    match row.boundary {
        Boundary::Cut => {
            let encoded = encode(rendered, encoder, false)?;
            let first = encoded.mask.iter().position(|m| *m).unwrap_or(encoded.ids.len());
            // A beginning-of-sequence token touches an answer without a prompt; it is not the model's to write.
            let begins =
                first == 0 && encoder.bos().is_some_and(|(bos, _)| encoded.ids.first() == Some(&bos));
            Ok((encoded.ids, first + usize::from(begins)))
        }
        Boundary::Merged => {
            let whole = std::iter::once(0..rendered.text().len()).collect();
            let both = Rendered::new(
                rendered.origin().clone(),
                rendered.text().to_owned(),
                whole,
                rendered.append_eos(),
            )?;
            let both = encode(&both, encoder, false)?.ids;
            let alone = encode(&prompt()?, encoder, false)?.ids;
            let common = alone.iter().zip(&both).take_while(|(a, b)| a == b).count();
            Ok((both, common))
        }
    }
}
