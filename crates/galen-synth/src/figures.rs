//! What came of a pipeline, gathered from its journals: counts of everything, and examples.

use crate::config::Pipeline;
use crate::diversity::Diversity;
use crate::engines::Teacher;
use crate::error::SynthError;
use crate::journal::{Fate, Head, Line, Lines, Rows};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Rows that a reason has as examples.
const EXAMPLES: usize = 5;

/// All figures of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Rows it began with.
    pub seeds: usize,
    /// Seeds by what became of them: a seed is kept when one of its rows is; filtered or failed with the last reason.
    pub seeds_kept: usize,
    /// See `seeds_kept`.
    pub seeds_filtered: usize,
    /// See `seeds_kept`.
    pub seeds_failed: usize,
    /// Rows at the end.
    pub rows: usize,
    /// Step by step.
    pub steps: Vec<StepFigures>,
    /// Engine by engine.
    pub engines: Vec<EngineFigures>,
    /// Files written.
    pub outputs: Vec<OutputFigures>,
    /// Words of the final rows.
    pub diversity: Diversity,
    /// The field whose words those are.
    pub diversity_field: String,
    /// By value of the `coverage` field: seeds, seeds kept, rows kept.
    pub coverage: BTreeMap<String, [usize; 3]>,
    /// The `coverage` field.
    pub coverage_field: Option<String>,
    /// Some of the final rows.
    pub samples: Vec<Map<String, Value>>,
}

/// What a step did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StepFigures {
    /// Its label.
    pub label: String,
    /// Its kind.
    pub kind: &'static str,
    /// Rows it was given.
    pub input: usize,
    /// Of them those that went on.
    pub kept: usize,
    /// Rows it gave.
    pub output: usize,
    /// Rows taken out, by reason.
    pub filtered: BTreeMap<String, Reason>,
    /// Rows that something went wrong with, by reason.
    pub failed: BTreeMap<String, Reason>,
    /// Means of what it measured: mean, and of how many values.
    pub figures: BTreeMap<String, Mean>,
    /// Tokens of prompts, tokens of answers, requests.
    pub usage: [u64; 3],
}

/// A mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Mean {
    /// Of the values.
    pub mean: f64,
    /// How many.
    pub n: usize,
}

/// Rows that ended for one reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Reason {
    /// How many.
    pub rows: usize,
    /// The first of them: id, and what was said.
    pub examples: Vec<[String; 2]>,
}

/// What an engine was asked.
#[derive(Debug, Clone, Serialize)]
pub struct EngineFigures {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Its model.
    pub model: String,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of answers.
    pub completion_tokens: u64,
    /// Requests.
    pub requests: u64,
    /// At its prices, in their currency.
    pub cost: f64,
}

/// A file written.
#[derive(Debug, Clone, Serialize)]
pub struct OutputFigures {
    /// Within `output_dir`.
    pub path: String,
    /// The kind of rows.
    pub kind: &'static str,
    /// How many.
    pub rows: usize,
    /// Of the file.
    pub sha256: String,
}

impl Figures {
    pub(crate) fn gather(
        pipeline: &Pipeline,
        teachers: &BTreeMap<String, Teacher>,
        n_seeds: usize,
        seeds: &Path,
        journals: &[PathBuf],
        rows: &Rows,
        outputs: Vec<OutputFigures>,
    ) -> Result<Self, SynthError> {
        let mut fates: HashMap<String, Fate> = HashMap::with_capacity(n_seeds);
        let mut steps = Vec::new();
        for (planned, path) in pipeline.steps.iter().zip(journals) {
            steps.push(step(&planned.label, planned.entry.name, path, &mut fates)?);
        }
        let mut diversity = crate::diversity::Counter::default();
        let mut kept_of: HashMap<String, usize> = HashMap::new();
        let mut samples = Vec::new();
        let every = rows.len().div_ceil(pipeline.report_samples.max(1)).max(1);
        for (i, row) in rows.iter().enumerate() {
            let row = row?;
            if let Some(Value::String(text)) = row.fields.get(&pipeline.diversity) {
                diversity.add(text);
            }
            if let Some(from) = row.seeds.first() {
                fates.insert(from.clone(), Fate::Kept);
                *kept_of.entry(from.clone()).or_default() += 1;
            }
            if i % every == 0 && samples.len() < pipeline.report_samples {
                let mut fields = row.fields;
                fields.insert("id".into(), row.id.into());
                samples.push(fields);
            }
        }
        let mut coverage: BTreeMap<String, [usize; 3]> = BTreeMap::new();
        if let Some(field) = &pipeline.coverage {
            let mut lines = Lines::open(seeds)?;
            lines.text()?;
            while let Some((_, line)) = lines.line::<Line>()? {
                let value = line.rows.first().and_then(|r| r.fields.get(field));
                let value =
                    value.map_or("(none)".to_owned(), |v| v.as_str().map_or(v.to_string(), str::to_owned));
                let kept = kept_of.get(&line.id).copied().unwrap_or_default();
                let counts = coverage.entry(value).or_default();
                counts[0] += 1;
                counts[1] += usize::from(kept > 0);
                counts[2] += kept;
            }
        }
        let count = |fate| fates.values().filter(|f| **f == fate).count();
        let engines = engines(pipeline, teachers, &steps);
        Ok(Self {
            seeds: n_seeds,
            seeds_kept: count(Fate::Kept),
            seeds_filtered: count(Fate::Filtered),
            seeds_failed: count(Fate::Failed),
            rows: rows.len(),
            steps,
            engines,
            outputs,
            diversity: diversity.figures(),
            diversity_field: pipeline.diversity.clone(),
            coverage,
            coverage_field: pipeline.coverage.clone(),
            samples,
        })
    }
}

/// Reads a step's journal. `fates`: of seeds, by the last step that took out one of their rows; a failure counts only where
/// no row of the seed was filtered.
fn step(
    label: &str,
    kind: &'static str,
    path: &Path,
    fates: &mut HashMap<String, Fate>,
) -> Result<StepFigures, SynthError> {
    let mut out = StepFigures { label: label.to_owned(), kind, ..StepFigures::default() };
    let mut sums: BTreeMap<String, (f64, usize)> = BTreeMap::new();
    let mut ended: Vec<(usize, Line)> = Vec::new();
    let mut lines = Lines::open(path)?;
    if let Some(head) = lines.text()?.and_then(|text| Head::parse(&text)) {
        out.usage = head.spent_before;
    }
    while let Some((_, line)) = lines.line::<Line>()? {
        out.input += 1;
        out.output += line.rows.len();
        for (total, part) in out.usage.iter_mut().zip(line.usage) {
            *total += part;
        }
        for (name, values) in &line.figures {
            let sum = sums.entry(name.clone()).or_default();
            for value in values.as_array().into_iter().flatten().filter_map(Value::as_f64) {
                *sum = (sum.0 + value, sum.1 + 1);
            }
        }
        let reasons = match line.fate {
            Fate::Kept => {
                out.kept += 1;
                continue;
            }
            Fate::Filtered => &mut out.filtered,
            Fate::Failed => &mut out.failed,
        };
        reasons.entry(line.reason.clone()).or_default().rows += 1;
        let fate = fates.entry(line.from.clone()).or_insert(line.fate);
        *fate = (*fate).min(line.fate);
        let detail = line.detail.chars().take(600).collect();
        ended.push((line.i, Line { rows: Vec::new(), figures: Map::new(), detail, ..line }));
        // The first by number, whoever was done first; few are kept.
        if ended.len() > 4096 {
            examples(&mut out, &mut ended);
        }
    }
    examples(&mut out, &mut ended);
    let mean = |(name, (sum, n)): (String, (f64, usize))| (name, Mean { mean: sum / n.max(1) as f64, n });
    out.figures = sums.into_iter().map(mean).collect();
    Ok(out)
}

fn examples(out: &mut StepFigures, ended: &mut Vec<(usize, Line)>) {
    ended.sort_by_key(|(i, _)| *i);
    for (_, line) in ended.drain(..) {
        let reasons = if line.fate == Fate::Filtered { &mut out.filtered } else { &mut out.failed };
        let examples = &mut reasons.entry(line.reason).or_default().examples;
        if examples.len() < EXAMPLES {
            examples.push([line.id, line.detail]);
        }
    }
}

fn engines(
    pipeline: &Pipeline,
    teachers: &BTreeMap<String, Teacher>,
    steps: &[StepFigures],
) -> Vec<EngineFigures> {
    let of = |(name, teacher): (&String, &Teacher)| {
        let mut usage = [0_u64; 3];
        for (planned, figures) in pipeline.steps.iter().zip(steps) {
            if planned.used.engines.contains(name) {
                usage.iter_mut().zip(figures.usage).for_each(|(total, part)| *total += part);
            }
        }
        let cost = (usage[0] as f64 * teacher.prices[0] + usage[1] as f64 * teacher.prices[1]) / 1e6;
        EngineFigures {
            name: name.clone(),
            kind: teacher.kind,
            model: teacher.model.clone(),
            prompt_tokens: usage[0],
            completion_tokens: usage[1],
            requests: usage[2],
            cost,
        }
    };
    teachers.iter().map(of).collect()
}
