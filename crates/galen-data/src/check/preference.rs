//! `galen data check` of preference data: what it holds, what is wrong with it, and what a policy might learn from it
//! instead of quality.

use super::{Lengths, name, write_lists};
use crate::dataset::Loaded;
use crate::preference::encoded;
use crate::{DataError, Fault};
use galen_types::{Answer, Origin, Preference, Prompt, RenderedAnswer, TextEncoder};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// How a prompt with one answer becomes text: [`crate::template::render_answer`] with the run's template.
pub type RenderAnswer<'a> = &'a (dyn Fn(&Origin, &Prompt, &Answer) -> Result<RenderedAnswer, String> + Sync);

/// A share of longer chosen answers this far from one half is worth a warning.
const BIASED: f64 = 0.1;
/// And so many standard errors of a fair coin's share.
const SURE: f64 = 3.0;

/// What a preference data set holds. Lists name the first rows of their kind, as `file:line: reason`.
///
/// Empty answers and answers to different prompts are bad rows ([`Fault::EmptyTurn`], [`Fault::PromptMismatch`]).
/// Of a ranked row the best and the worst answer are looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PreferenceCheck {
    /// The preference type that read the rows.
    pub kind: String,
    /// Rows of the files.
    pub rows: u64,
    /// Rows understood.
    pub readable: u64,
    /// Bad rows by fault.
    pub bad_rows: BTreeMap<Fault, u64>,
    /// The first bad rows.
    pub bad_row_examples: Vec<String>,
    /// Rows by kind: `pair`, `good`, `bad` (labelled answers), `ranked`, `prompt`.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Token lengths of prompt with answer, one for each answer.
    pub lengths: Option<Lengths>,
    /// Rows of which a sequence is longer than `sequence_len`.
    pub too_long: u64,
    /// Pairs whose answers are the same: they say nothing.
    pub identical: u64,
    /// The first of them.
    pub identical_examples: Vec<String>,
    /// Rows that repeat an earlier row.
    pub duplicates: u64,
    /// The first of them, as `file:line repeats file:line`.
    pub duplicate_examples: Vec<String>,
    /// Rows that say the opposite of an earlier one: the pair the other way round, the same answer with the other label.
    pub contradictions: u64,
    /// The first of them, as `file:line contradicts file:line`.
    pub contradiction_examples: Vec<String>,
    /// Whether the better answers are the longer ones (pairs only).
    pub length_bias: Option<LengthBias>,
}

/// Answer lengths of the better and the worse.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LengthBias {
    /// Pairs compared.
    pub pairs: u64,
    /// Mean tokens of the chosen answers.
    pub chosen_tokens: f64,
    /// Mean tokens of the rejected answers.
    pub rejected_tokens: f64,
    /// Share of pairs whose chosen answer is longer; equal lengths count half.
    pub chosen_longer: f64,
    /// Whether that share is more than a tenth from one half, and more than chance explains.
    pub biased: bool,
}

impl LengthBias {
    /// Of answer lengths, better before worse, tokens. Nothing of no pairs.
    pub fn of(pairs: &[(usize, usize)]) -> Option<Self> {
        let n = pairs.len() as f64;
        let mean = |of: fn(&(usize, usize)) -> usize| pairs.iter().map(of).sum::<usize>() as f64 / n;
        let longer: f64 =
            pairs.iter().map(|(a, b)| f64::from(u8::from(a > b)) + f64::from(u8::from(a == b)) / 2.0).sum();
        let share = longer / n;
        let off = (share - 0.5).abs();
        (!pairs.is_empty()).then(|| Self {
            pairs: pairs.len() as u64,
            chosen_tokens: mean(|p| p.0),
            rejected_tokens: mean(|p| p.1),
            chosen_longer: share,
            biased: off > BIASED && off > SURE * 0.5 / n.sqrt(),
        })
    }

    /// The warning, where there is one to give.
    pub fn warning(&self) -> Option<String> {
        let percent = self.chosen_longer * 100.0;
        self.biased.then(|| {
            format!(
                "the chosen answer is the longer one in `{percent:.0} %` of `{}` pairs (mean `{:.1}` tokens against \
                 `{:.1}`): length alone tells them apart\nhint: balance lengths, or train the policy by an objective that divides by \
                 them (`simpo`, `loss_type: ipo`, `ld_alpha`)",
                self.pairs, self.chosen_tokens, self.rejected_tokens
            )
        })
    }
}

/// A row's answers as text and tokens: better before worse.
struct Seen<'a> {
    row: &'a Preference,
    texts: Vec<String>,
    /// (tokens of prompt and answer, of the answer)
    tokens: Vec<(usize, usize)>,
}

/// Checks rows loaded with `OnBadRow::Skip`.
pub fn check_preferences(
    loaded: &Loaded<Preference>,
    render: RenderAnswer,
    encoder: &dyn TextEncoder,
    sequence_len: usize,
) -> PreferenceCheck {
    let mut report = PreferenceCheck {
        kind: loaded.kind.to_owned(),
        rows: (loaded.rows.len() + loaded.bad_rows.len()) as u64,
        readable: loaded.rows.len() as u64,
        ..PreferenceCheck::default()
    };
    for bad in &loaded.bad_rows {
        report.bad(bad.fault, bad.text.clone());
    }
    let seen: Vec<Result<Seen, DataError>> =
        loaded.rows.par_iter().map(|row| see(row, render, encoder)).collect();
    let mut said: HashMap<Statement, &Origin> = HashMap::new();
    let (mut lengths, mut pairs) = (Vec::new(), Vec::new());
    for seen in &seen {
        let seen = match seen {
            Ok(seen) => seen,
            Err(e) => {
                report.bad(Fault::Template, e.to_string());
                continue;
            }
        };
        *report.kinds.entry(kind_of(seen.row)).or_default() += 1;
        lengths.extend(seen.tokens.iter().map(|t| t.0 as u64));
        report.too_long += u64::from(seen.tokens.iter().any(|t| t.0 > sequence_len));
        if let ([better, worse], [chosen, rejected]) = (&seen.tokens[..], &seen.texts[..]) {
            pairs.push((better.1, worse.1));
            if chosen == rejected {
                report.identical += 1;
                name(&mut report.identical_examples, seen.row.origin().to_string());
                continue;
            }
        }
        report.compare(seen, &mut said);
    }
    report.lengths = Lengths::of(lengths);
    report.length_bias = LengthBias::of(&pairs);
    report
}

/// What a row says: its texts, better before worse, and the label of a single one.
type Statement<'a> = (Vec<&'a str>, bool);

fn see<'a>(
    whole: &'a Preference,
    render: RenderAnswer,
    encoder: &dyn TextEncoder,
) -> Result<Seen<'a>, DataError> {
    let answers: Vec<&Answer> = match whole {
        Preference::Pair(row) => vec![&row.chosen, &row.rejected],
        Preference::Labelled(row) => vec![&row.completion],
        Preference::Ranked(row) => {
            let by_score = |a: &&(Answer, f64), b: &&(Answer, f64)| a.1.total_cmp(&b.1);
            let (best, worst) = (row.answers.iter().max_by(by_score), row.answers.iter().min_by(by_score));
            best.into_iter().chain(worst).map(|(answer, _)| answer).collect()
        }
        // A prompt alone is not tokenized: what matters of it is whether it is there twice.
        Preference::Prompt(row) => {
            return Ok(Seen { texts: vec![format!("{:?}", row.prompt)], tokens: Vec::new(), row: whole });
        }
    };
    let (origin, prompt) = (whole.origin(), whole.prompt());
    let mut seen = Seen { row: whole, texts: Vec::new(), tokens: Vec::new() };
    for answer in answers {
        let rendered =
            render(origin, prompt, answer).map_err(|e| DataError::row(origin, Fault::Template, e))?;
        let (ids, prompt_tokens) = encoded(&rendered, encoder)?;
        seen.tokens.push((ids.len(), ids.len() - prompt_tokens));
        seen.texts.push(rendered.rendered.text().to_owned());
    }
    Ok(seen)
}

fn kind_of(row: &Preference) -> &'static str {
    match row {
        Preference::Pair(_) => "pair",
        Preference::Labelled(row) if row.label => "good",
        Preference::Labelled(_) => "bad",
        Preference::Ranked(_) => "ranked",
        Preference::Prompt(_) => "prompt",
    }
}

impl PreferenceCheck {
    fn bad(&mut self, fault: Fault, text: String) {
        *self.bad_rows.entry(fault).or_default() += 1;
        name(&mut self.bad_row_examples, text);
    }

    /// Whether the row repeats or contradicts one before it.
    fn compare<'a>(&mut self, seen: &'a Seen<'a>, said: &mut HashMap<Statement<'a>, &'a Origin>) {
        let texts: Vec<&str> = seen.texts.iter().map(String::as_str).collect();
        let label = matches!(seen.row, Preference::Labelled(row) if row.label);
        let opposite = match (seen.row, &texts[..]) {
            (Preference::Labelled(_), _) => Some((texts.clone(), !label)),
            (_, [better, worse]) => Some((vec![*worse, *better], label)),
            _ => None,
        };
        let origin = seen.row.origin();
        if let Some(first) = opposite.and_then(|o| said.get(&o)) {
            self.contradictions += 1;
            name(&mut self.contradiction_examples, format!("{origin} contradicts {first}"));
        }
        match said.entry((texts, label)) {
            Entry::Occupied(first) => {
                self.duplicates += 1;
                name(&mut self.duplicate_examples, format!("{origin} repeats {}", first.get()));
            }
            Entry::Vacant(place) => drop(place.insert(origin)),
        }
    }

    /// Whether anything was found that training would stop at or leave out.
    pub fn is_clean(&self) -> bool {
        self.bad_rows.is_empty() && self.too_long == 0
    }
}

impl fmt::Display for PreferenceCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rows                 {:>10}  (type `{}`)", self.rows, self.kind)?;
        writeln!(f, "readable             {:>10}", self.readable)?;
        for (fault, count) in &self.bad_rows {
            writeln!(f, "  {:<19}{count:>10}", fault.words())?;
        }
        for (kind, count) in &self.kinds {
            writeln!(f, "  {kind:<19}{count:>10}")?;
        }
        writeln!(f, "identical answers    {:>10}", self.identical)?;
        writeln!(f, "exact duplicates     {:>10}", self.duplicates)?;
        writeln!(f, "contradictions       {:>10}", self.contradictions)?;
        writeln!(f, "too long             {:>10}", self.too_long)?;
        if let Some(lengths) = &self.lengths {
            lengths.write(f, "tokens a sequence")?;
        }
        if let Some(bias) = &self.length_bias {
            writeln!(
                f,
                "answer tokens: chosen {:.1}  rejected {:.1}  chosen longer in {:.0} % of pairs",
                bias.chosen_tokens,
                bias.rejected_tokens,
                bias.chosen_longer * 100.0
            )?;
            if let Some(warning) = bias.warning() {
                writeln!(f, "warning: {warning}")?;
            }
        }
        write_lists(
            f,
            &[
                ("bad rows", &self.bad_row_examples),
                ("identical answers", &self.identical_examples),
                ("duplicates", &self.duplicate_examples),
                ("contradictions", &self.contradiction_examples),
            ],
        )
    }
}

#[cfg(test)]
mod tests;
