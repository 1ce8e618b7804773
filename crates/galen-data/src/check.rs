//! `galen data check`: what a data set holds and what is wrong with it, before any training.

use crate::dataset::Loaded;
use crate::tokenize::{TokenizeOptions, encode, is_plain};
use crate::{DataError, Fault};
use galen_types::{Conversation, Rendered, TextEncoder};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

mod preference;
pub use preference::{LengthBias, PreferenceCheck, RenderAnswer, check_preferences};

/// Rows that a list of the report names.
const NAMED: usize = 20;

/// What a data set holds. Lists name the first rows of their kind, as `file:line: reason`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// The dataset type that read the rows.
    pub kind: String,
    /// Rows of the files.
    pub rows: u64,
    /// Rows understood.
    pub readable: u64,
    /// Bad rows by fault; `empty_turn` and `template` among them.
    pub bad_rows: BTreeMap<Fault, u64>,
    /// The first bad rows.
    pub bad_row_examples: Vec<String>,
    /// Turns by role (chats only).
    pub turns: BTreeMap<String, u64>,
    /// Token lengths of the rows that could be tokenized.
    pub lengths: Option<Lengths>,
    /// Supervised tokens of all rows.
    pub supervised_tokens: u64,
    /// Rows longer than `sequence_len`, but for plain texts, which are cut into several rows.
    pub too_long: u64,
    /// Rows whose text is that of an earlier row.
    pub duplicates: u64,
    /// The first of them, as `file:line repeats file:line`.
    pub duplicate_examples: Vec<String>,
    /// Rows in which nothing is supervised.
    pub without_supervision: u64,
    /// The first of them.
    pub without_supervision_examples: Vec<String>,
}

/// Token lengths of rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lengths {
    /// Shortest.
    pub min: u64,
    /// Longest.
    pub max: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// The length that half of the rows do not exceed.
    pub p50: u64,
    /// The same for nine tenths.
    pub p90: u64,
    /// The same for 99 hundredths.
    pub p99: u64,
    /// All tokens.
    pub total: u64,
    /// (upper bound, rows above the bound before and up to this one): bounds double.
    pub histogram: Vec<(u64, u64)>,
}

impl Lengths {
    fn of(mut lengths: Vec<u64>) -> Option<Self> {
        lengths.sort_unstable();
        let (min, max) = (*lengths.first()?, *lengths.last()?);
        // The nearest-rank percentile.
        let rank = |p: usize| lengths[(lengths.len() * p).div_ceil(100).max(1) - 1];
        let total: u64 = lengths.iter().sum();
        let mut histogram = Vec::new();
        let mut bound = min.max(1).next_power_of_two();
        let mut from = 0;
        while from < lengths.len() {
            let to = lengths.partition_point(|l| *l <= bound);
            histogram.push((bound, (to - from) as u64));
            from = to;
            bound = bound.saturating_mul(2);
        }
        let (p50, p90, p99) = (rank(50), rank(90), rank(99));
        Some(Self { min, max, mean: total as f64 / lengths.len() as f64, p50, p90, p99, total, histogram })
    }

    /// A line of figures and the histogram.
    fn write(&self, f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
        writeln!(
            f,
            "{title}: min {}  median {}  mean {:.1}  p90 {}  p99 {}  max {}",
            self.min, self.p50, self.mean, self.p90, self.p99, self.max
        )?;
        let most = self.histogram.iter().map(|(_, n)| *n).max().unwrap_or(1).max(1);
        for (bound, count) in &self.histogram {
            let bar = "#".repeat((count * 40).div_ceil(most) as usize);
            writeln!(f, "  <= {bound:<7} {count:>8}  {bar}")?;
        }
        Ok(())
    }
}

/// How a row becomes text: the template for chats, [`crate::render_pieces`] for the rest.
pub type Render<'a> = &'a (dyn Fn(&Conversation) -> Result<Rendered, String> + Sync);

/// Checks rows loaded with `OnBadRow::Skip`.
pub fn check(
    loaded: &Loaded,
    render: Render,
    encoder: &dyn TextEncoder,
    options: TokenizeOptions,
) -> CheckReport {
    let mut report = CheckReport {
        kind: loaded.kind.to_owned(),
        rows: (loaded.rows.len() + loaded.bad_rows.len()) as u64,
        readable: loaded.rows.len() as u64,
        bad_rows: BTreeMap::new(),
        bad_row_examples: Vec::new(),
        turns: BTreeMap::new(),
        lengths: None,
        supervised_tokens: 0,
        too_long: 0,
        duplicates: 0,
        duplicate_examples: Vec::new(),
        without_supervision: 0,
        without_supervision_examples: Vec::new(),
    };
    for bad in &loaded.bad_rows {
        report.bad(bad.fault, bad.text.clone());
    }
    let outcomes: Vec<Result<(Rendered, usize, usize), DataError>> = loaded
        .rows
        .par_iter()
        .map(|row| {
            let rendered = render(row).map_err(|what| DataError::row(row.origin(), Fault::Template, what))?;
            let encoded = encode(&rendered, encoder, options.train_on_inputs)?;
            let supervised = encoded.mask.iter().skip(1).filter(|m| **m).count();
            Ok((rendered, encoded.ids.len(), supervised))
        })
        .collect();
    let mut seen: HashMap<&str, &Rendered> = HashMap::new();
    let mut lengths = Vec::new();
    for (row, outcome) in loaded.rows.iter().zip(&outcomes) {
        if let Conversation::Chat { messages, .. } = row {
            for message in messages {
                *report.turns.entry(message.role.clone()).or_default() += 1;
            }
        }
        let (rendered, tokens, supervised) = match outcome {
            Ok((rendered, tokens, supervised)) => (rendered, *tokens, *supervised),
            Err(e) => {
                report.bad(Fault::Template, e.to_string());
                continue;
            }
        };
        lengths.push(tokens as u64);
        report.too_long += u64::from(tokens > options.sequence_len && !is_plain(rendered));
        report.supervised_tokens += supervised as u64;
        if supervised == 0 {
            report.without_supervision += 1;
            name(&mut report.without_supervision_examples, rendered.origin().to_string());
        }
        if let Some(first) = seen.get(rendered.text()) {
            report.duplicates += 1;
            name(&mut report.duplicate_examples, format!("{} repeats {}", rendered.origin(), first.origin()));
        } else {
            seen.insert(rendered.text(), rendered);
        }
    }
    report.lengths = Lengths::of(lengths);
    report
}

fn name(list: &mut Vec<String>, text: String) {
    if list.len() < NAMED && !text.is_empty() {
        list.push(text);
    }
}

impl CheckReport {
    fn bad(&mut self, fault: Fault, text: String) {
        *self.bad_rows.entry(fault).or_default() += 1;
        name(&mut self.bad_row_examples, text);
    }

    /// Whether anything was found that training would stop at or leave out.
    pub fn is_clean(&self) -> bool {
        self.bad_rows.is_empty() && self.without_supervision == 0 && self.too_long == 0
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rows                 {:>10}  (type `{}`)", self.rows, self.kind)?;
        writeln!(f, "readable             {:>10}", self.readable)?;
        for (fault, count) in &self.bad_rows {
            writeln!(f, "  {:<19}{count:>10}", fault.words())?;
        }
        writeln!(f, "exact duplicates     {:>10}", self.duplicates)?;
        writeln!(f, "without supervision  {:>10}", self.without_supervision)?;
        writeln!(f, "too long             {:>10}", self.too_long)?;
        for (role, count) in &self.turns {
            writeln!(f, "turns of {role:<12}{count:>10}")?;
        }
        if let Some(l) = &self.lengths {
            writeln!(f, "tokens               {:>10}  ({} supervised)", l.total, self.supervised_tokens)?;
            l.write(f, "tokens a row")?;
        }
        write_lists(
            f,
            &[
                ("bad rows", &self.bad_row_examples),
                ("duplicates", &self.duplicate_examples),
                ("rows without supervision", &self.without_supervision_examples),
            ],
        )
    }
}

/// Lists of named rows, those that hold any.
fn write_lists(f: &mut fmt::Formatter<'_>, lists: &[(&str, &[String])]) -> fmt::Result {
    for (title, list) in lists {
        if !list.is_empty() {
            writeln!(f, "{title}:")?;
        }
        for text in *list {
            writeln!(f, "  {}", text.replace('\n', "\n    "))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
