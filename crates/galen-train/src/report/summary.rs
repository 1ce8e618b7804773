//! A run in numbers: all that its reports are made from.

use galen_types::StepReport;
use serde::Serialize;

/// A name and its value, shown in a two-column table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// What it is (`config`, `galen`, `lora_r` ...).
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Fact {
    /// A fact from anything that prints.
    #[expect(clippy::needless_pass_by_value, reason = "numbers and literals are handed over")]
    pub fn new(name: impl Into<String>, value: impl ToString) -> Self {
        Self { name: name.into(), value: value.to_string() }
    }
}

/// One data file or set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataRow {
    /// The file as the configuration names it.
    pub name: String,
    /// `train`, `validation` ...
    pub role: String,
    /// Rows used.
    pub rows: u64,
    /// Tokens the loss covers, where counted.
    pub supervised_tokens: Option<u64>,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// One metric of one task, for one or more runs (base, adapter).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeasuredRow {
    /// The task.
    pub task: String,
    /// The metric.
    pub metric: String,
    /// Items.
    pub n: u64,
    /// Accuracy of guessing, where there is one.
    pub chance: Option<f64>,
    /// One a run, the base first: shares between 0 and 1.
    pub runs: Vec<Compared>,
    /// Last run less first: value and 95 % interval.
    pub difference: Option<(f64, [f64; 2])>,
    /// McNemar's exact p between first and last run.
    pub p_mcnemar: Option<f64>,
}

/// One run's value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// `base`, `adapter` ...
    pub run: String,
    /// Mean over the items.
    pub value: f64,
    /// 95 % interval.
    pub ci95: [f64; 2],
}

/// A row of the user's data with what was answered; only on request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleRow {
    /// What was asked.
    pub prompt: String,
    /// What is right.
    pub expected: String,
    /// The base model's answer.
    pub before: String,
    /// The adapter's answer.
    pub after: String,
}

/// A run in numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunSummary {
    /// The page's title: the run's name.
    pub title: String,
    /// The base model as the user named it.
    pub base_model: String,
    /// The adapter's method, as people write it: `LoRA`.
    pub method: String,
    /// Whether the adapter is pairs of matrices, which vLLM and llama.cpp serve as they are.
    pub low_rank: bool,
    /// When the run ended, as shown.
    pub finished: String,
    /// Every optimiser step.
    pub steps: Vec<StepReport>,
    /// (step, validation loss).
    pub eval_losses: Vec<(u64, f64)>,
    /// The evaluation's table; empty where nothing was evaluated.
    pub evaluation: Vec<MeasuredRow>,
    /// What was trained on.
    pub data: Vec<DataRow>,
    /// Settings worth seeing at once (`lora_r`, `learning_rate` ...).
    pub settings: Vec<Fact>,
    /// SHA-256 of configuration, data, model, template.
    pub hashes: Vec<Fact>,
    /// galen, instruction set, crates.
    pub versions: Vec<Fact>,
    /// The resolved configuration as YAML.
    pub config_yaml: String,
    /// Rows of the user's data: `None` unless `report_samples` asks.
    pub samples: Option<Vec<SampleRow>>,
}

impl RunSummary {
    /// Seconds spent in steps.
    pub fn seconds(&self) -> f64 {
        self.steps.iter().map(|s| s.step_seconds).sum()
    }

    /// The smallest validation loss with its step.
    pub fn best_eval_loss(&self) -> Option<(u64, f64)> {
        self.eval_losses
            .iter()
            .copied()
            .filter(|(_, loss)| loss.is_finite())
            .min_by(|a, b| a.1.total_cmp(&b.1))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run like the quickstart's.
    pub fn sample_run() -> RunSummary {
        let step = |i: u64| {
            let t = i as f64 / 225.0;
            // Noise from a fixed rule, so that the page is always the same.
            let noise = ((i.wrapping_mul(2_654_435_761) >> 7) % 1000) as f64 / 1000.0 - 0.5;
            StepReport {
                step: i,
                epoch: 3.0 * t,
                loss: 0.35 + 3.1 * (-5.0 * t).exp() + 0.35 * noise,
                learning_rate: 5e-4 * (0.5 * (1.0 + (std::f64::consts::PI * t).cos())) * (t * 20.0).min(1.0),
                grad_norm: 1.4 + 5.0 * (-8.0 * t).exp() + 0.8 * noise,
                num_tokens: 896 * i,
                supervised_tokens: 32,
                tokens_per_second: 420.0 + 20.0 * noise,
                mean_token_accuracy: Some(
                    (0.08 + 0.72 * (1.0 - (-4.0 * t).exp()) + 0.12 * noise).clamp(0.0, 1.0),
                ),
                step_seconds: 2.15,
                peak_rss_bytes: 1_203_000_000,
                device: "cpu".into(),
                metrics: std::collections::BTreeMap::new(),
            }
        };
        let value = |run: &str, value, lo, hi| Compared { run: run.into(), value, ci95: [lo, hi] };
        let hash = "3f5a90c1d2b44e6f8a7b3c2d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f";
        let data = |name: &str, role: &str, rows, tokens| DataRow {
            name: name.into(),
            role: role.into(),
            rows,
            supervised_tokens: tokens,
            sha256: hash.into(),
        };
        RunSummary {
            title: "icd10-letters".into(),
            base_model: "smollm2-135m-instruct (Q4_1)".into(),
            method: "LoRA".into(),
            low_rank: true,
            finished: "2026-11-23 09:30".into(),
            steps: (1..=225).map(step).collect(),
            eval_losses: [(75, 1.02), (150, 0.81), (225, 0.78)].into(),
            evaluation: vec![
                MeasuredRow {
                    task: "icd10_letter".into(),
                    metric: "acc".into(),
                    n: 360,
                    chance: Some(1.0 / 12.0),
                    runs: vec![value("base", 0.069, 0.044, 0.097), value("adapter", 0.700, 0.653, 0.747)],
                    difference: Some((0.631, [0.578, 0.683])),
                    p_mcnemar: Some(3.05e-64),
                },
                MeasuredRow {
                    task: "icd10_letter_full".into(),
                    metric: "acc".into(),
                    n: 2412,
                    chance: None,
                    runs: vec![value("base", 0.071, 0.061, 0.081), value("adapter", 0.688, 0.670, 0.706)],
                    difference: Some((0.617, [0.596, 0.637])),
                    p_mcnemar: Some(0.0),
                },
            ],
            data: vec![
                data("train.jsonl", "train", 1200, Some(2400)),
                data("validation.jsonl", "validation", 120, None),
            ],
            settings: vec![
                Fact::new("adapter", "qlora"),
                Fact::new("lora_r", 16),
                Fact::new("lora_alpha", 32),
                Fact::new("learning_rate", "5e-4, cosine"),
                Fact::new("sequence_len", 256),
                Fact::new("seed", 1),
            ],
            hashes: ["config", "data", "model", "chat template"].map(|name| Fact::new(name, hash)).into(),
            versions: vec![
                Fact::new("galen", "0.1.0"),
                Fact::new("instruction set", "x86-64-v4 (avx512_bf16)"),
                Fact::new("threads", 2),
            ],
            config_yaml:
                "base_model: smollm2-135m-instruct\nadapter: qlora\nlora_r: 16\nlearning_rate: 0.0005\n"
                    .into(),
            samples: None,
        }
    }

    #[test]
    fn best_validation_passes_over_nan() {
        let mut run = sample_run();
        run.eval_losses.push((300, f64::NAN));
        assert_eq!(run.best_eval_loss(), Some((225, 0.78)));
        assert!((run.seconds() - 225.0 * 2.15).abs() < 1e-6);
    }
}
