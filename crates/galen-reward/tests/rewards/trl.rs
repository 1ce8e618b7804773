//! TRL's numbers (`goldens/trl_rewards.py`).

use crate::bench::{Sample, completions, score};
use galen_reward::{Completion, Reward, RewardError, RewardSet};
use serde_json::{Value, json};

fn golden() -> Value {
    serde_json::from_str(include_str!("../goldens/trl_rewards.json")).unwrap()
}

fn close(got: Option<f64>, expect: &Value, tolerance: f64, what: &str) {
    match (got, expect.as_f64()) {
        (None, None) => assert!(expect.is_null(), "{what}"),
        (Some(got), Some(expect)) => {
            assert!((got - expect).abs() <= tolerance, "{what}: {got}, TRL {expect}");
        }
        other => panic!("{what}: {other:?}"),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn all_close(entry: &Value, samples: &[Sample], expect: &Value) {
    let got = score(entry, samples).unwrap();
    assert_eq!(got.len(), list(expect).len());
    for (i, (got, expect)) in got.into_iter().zip(list(expect)).enumerate() {
        close(got, expect, 1e-12, &format!("{entry} [{i}]"));
    }
}

#[test]
fn soft_overlong_punishment_and_repetition() {
    let golden = golden();
    for case in list(&golden["overlong"]) {
        let samples: Vec<_> = list(&case["lengths"])
            .iter()
            .map(|n| Sample::of_tokens(vec![1; usize::try_from(n.as_u64().unwrap()).unwrap()]))
            .collect();
        let entry = json!({"name": "soft_overlong_punishment", "max_completion_len": case["max_completion_len"],
            "soft_punish_cache": case["soft_punish_cache"]});
        all_close(&entry, &samples, &case["rewards"]);
    }
    for case in list(&golden["repetition"]) {
        let ids = |v: &Value| serde_json::from_value::<Vec<u32>>(v.clone()).unwrap();
        let samples: Vec<_> = list(&case["token_ids"]).iter().map(|v| Sample::of_tokens(ids(v))).collect();
        let entry = json!({"name": "repetition", "ngram_size": case["ngram_size"], "max_penalty": case["max_penalty"]});
        all_close(&entry, &samples, &case["rewards"]);
    }
}

#[test]
fn think_format() {
    let golden = golden();
    let texts = list(&golden["think"]["texts"]).iter();
    let samples: Vec<_> = texts.map(|t| Sample::new(t.as_str().unwrap(), 0)).collect();
    // What the hint for TRL's name says, and the template that comes near it.
    for entry in [
        json!({"regex": {"pattern": "(?s)^<think>(?!.*<think>).*?</think>"}}),
        json!({"format": {"template": "<think>...</think>...", "allow_empty": true}}),
    ] {
        all_close(&entry, &samples, &golden["think"]["rewards"]);
    }
}

struct Fixed(Vec<Option<f64>>);

impl Reward for Fixed {
    fn score(&self, _: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        Ok(self.0.clone())
    }
}

#[test]
fn the_weighted_sum_and_its_metrics() {
    for case in list(&golden()["sums"]) {
        let rows = list(&case["values"]);
        let mut set = RewardSet::new();
        for (k, weight) in list(&case["weights"]).iter().enumerate() {
            let column = rows.iter().map(|row| row[k].as_f64()).collect();
            set = set.with(format!("f{k}"), weight.as_f64().unwrap(), Box::new(Fixed(column)));
        }
        let samples: Vec<_> = rows.iter().map(|_| Sample::new("", 0)).collect();
        let rewards = set.score(&completions(&samples)).unwrap();
        for (i, expect) in list(&case["total"]).iter().enumerate() {
            close(rewards.total[i], expect, 1e-12, &format!("total {i}"));
        }
        let metrics = rewards.metrics();
        let (means, stds) = (list(&case["mean"]), list(&case["std"]));
        assert_eq!(metrics.len(), 2 * means.len());
        for (pair, (mean, std)) in metrics.chunks(2).zip(means.iter().zip(stds)) {
            close(pair[0].1, mean, 1e-12, &pair[0].0);
            // TRL forms n / (n - 1) in f32.
            close(pair[1].1, std, 1e-6, &pair[1].0);
        }
        assert_eq!(metrics[0].0, "rewards/f0/mean");
        assert_eq!(metrics[1].0, "rewards/f0/std");
        let names: Vec<_> = metrics.iter().rev().take(2).map(|m| m.0.as_str()).collect();
        assert_eq!(names, ["reward_std", "reward"]);
    }
}
