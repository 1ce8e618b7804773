//! GRPO and RLOO against TRL: losses of given advantages, advantages of given rewards.

use crate::golden::{Golden, all_near, near, same_metrics, slices};
use galen_loss::rollout::{AGGREGATIONS, Grpo, Rewards, Rloo, RolloutBatch, SCALES};
use galen_loss::{SequenceLoss, Totals, find};
use serde_json::Value;

struct Rollouts {
    file: Golden,
    old: Vec<Vec<Vec<f32>>>,
    completions: Vec<Vec<Vec<f32>>>,
    reference: Vec<Vec<Vec<f32>>>,
    advantages: Vec<Vec<f64>>,
}

impl Rollouts {
    fn open() -> Self {
        let file = Golden::open("rollouts.safetensors");
        let [old, completions, reference] =
            ["old", "completions", "reference"].map(|n| file.sequences(n, "lengths"));
        let advantages = per_row(&file, "advantages", 1);
        Self { file, old, completions, reference, advantages }
    }

    /// Every variant of a family: the loss that `of` makes of its settings, a case and its batch.
    fn hold(&self, family: &str, of: impl Fn(&Value, usize, RolloutBatch) -> SequenceLoss) {
        let names = self.file.names("metrics");
        for (variant, settings) in self.file.variants(family) {
            let losses = self.file.numbers(&format!("{variant}/loss"));
            assert_eq!(losses.len(), 64);
            let gradient = self.file.sequences(&format!("{variant}/gradient"), "lengths");
            let metrics = self.file.numbers(&format!("{variant}/metrics"));
            for (case, wanted) in losses.iter().enumerate() {
                let what = format!("{variant}, case {case}");
                let [completions, old, reference] =
                    [&self.completions, &self.old, &self.reference].map(|s| slices(&s[case]));
                let off_policy = settings.get("old") != Some(&Value::Bool(false));
                let batch = RolloutBatch {
                    completions: &completions,
                    old: off_policy.then_some(&old[..]),
                    reference: Some(&reference),
                    advantages: &self.advantages[case],
                };
                let found = of(&settings, case, batch);
                near(found.loss, *wanted, &what);
                all_near(&found.gradient, &gradient[case], &what);
                same_metrics(&found.metrics, &names, &metrics[case * names.len()..][..names.len()], &what);
            }
        }
    }
}

/// Numbers of which every answer has `width`, by case.
fn per_row(file: &Golden, name: &str, width: usize) -> Vec<Vec<f64>> {
    let mut values = file.numbers(name).into_iter();
    file.counts("rows").iter().map(|rows| values.by_ref().take(rows * width).collect()).collect()
}

#[test]
fn grpo_equals_trl() {
    let rollouts = Rollouts::open();
    let [beta, epsilon, epsilon_high, delta, threshold] =
        ["beta", "epsilon", "epsilon_high", "delta", "threshold"].map(|n| rollouts.file.numbers(n));
    let [steps, tokens] = ["steps", "tokens"].map(|n| rollouts.file.counts(n));
    rollouts.hold("grpo/", |settings, case, batch| {
        let flag = |name: &str, value: f64| settings.get(name).map(|_| value);
        let level = settings.get("level").and_then(Value::as_str).unwrap_or("token");
        let loss_type = settings["loss_type"].as_str().unwrap();
        let settings = Grpo {
            beta: flag("kl", beta[case]).unwrap_or(0.0),
            epsilon: epsilon[case],
            epsilon_high: flag("high", epsilon_high[case]),
            delta: flag("delta", delta[case]),
            use_bias_correction_kl: settings.get("corrected").is_none(),
            max_completion_length: 16,
            off_policy_mask_threshold: flag("threshold", threshold[case]),
            ..Grpo::of(loss_type, level).unwrap()
        };
        settings.check().unwrap();
        // TRL's mean of `steps` micro-batches, or its mean over the tokens of all of them.
        let own: Totals = batch.completions.iter().map(|c| Grpo::totals(c.len())).sum();
        let totals = match loss_type {
            "dapo" | "cispo" | "vespo" => Totals { tokens: tokens[case], ..own },
            _ => own.times(steps[case]),
        };
        settings.loss(&batch, totals).unwrap()
    });
}

#[test]
fn rloo_equals_trl() {
    let rollouts = Rollouts::open();
    let [epsilon, epsilon_high] = ["epsilon", "epsilon_high"].map(|n| rollouts.file.numbers(n));
    rollouts.hold("rloo/", |settings, case, batch| {
        let high = settings.get("high").map(|_| epsilon_high[case]);
        let settings = Rloo { epsilon: epsilon[case], epsilon_high: high, ..Rloo::default() };
        settings.check().unwrap();
        settings.loss(&batch, Rloo::totals(batch.completions.len())).unwrap()
    });
}

#[test]
fn advantages_equal_trl() {
    let rollouts = Rollouts::open();
    let file = &rollouts.file;
    let rewards = per_row(file, "rewards", 2);
    let beta = file.numbers("beta");
    let names = file.names("reward_metrics");
    let group = file.json("group").as_u64().unwrap() as usize;
    for (variant, settings) in file.variants("advantages/") {
        let wanted = per_row(file, &format!("{variant}/values"), 1);
        assert_eq!(wanted.len(), 64);
        let metrics = file.numbers(&format!("{variant}/metrics"));
        for (case, wanted) in wanted.iter().enumerate() {
            let what = format!("{variant}, case {case}");
            let values: Vec<Vec<Option<f64>>> = rewards[case]
                .chunks(2)
                .map(|row| row.iter().map(|v| Some(*v).filter(|v| !v.is_nan())).collect())
                .collect();
            let rewards = Rewards {
                values: &values,
                names: &["a", "b"],
                weights: &[1.0, 0.25],
                num_generations: group,
            };
            let found = if settings.get("rloo").is_some() {
                let rloo = Rloo {
                    beta: if settings.get("kl").is_some() { 0.0 } else { beta[case] },
                    normalize_advantages: settings.get("normalize").is_some(),
                    reward_clip_range: settings.get("clip").map(|_| (-0.5, 1.0)),
                    ..Rloo::default()
                };
                let [old, reference] = [&rollouts.old, &rollouts.reference].map(|s| slices(&s[case]));
                rloo.advantages(&rewards, &old, Some(&reference)).unwrap()
            } else {
                let scale = settings.get("scale").and_then(Value::as_str).unwrap_or("group");
                let aggregation = settings.get("aggregation").and_then(Value::as_str);
                let aggregation = find(AGGREGATIONS, aggregation.unwrap_or("sum_then_normalize")).unwrap();
                rewards.relative(find(SCALES, scale).unwrap(), aggregation).unwrap()
            };
            assert_eq!(found.values.len(), wanted.len());
            for (i, (found, wanted)) in found.values.iter().zip(wanted).enumerate() {
                near(*found, *wanted, &format!("{what}[{i}]"));
            }
            same_metrics(&found.metrics, &names, &metrics[case * names.len()..][..names.len()], &what);
        }
    }
}
