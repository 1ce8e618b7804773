//! A guard against reward hacking: what is optimised rises while what is wanted falls (Gao et al., arXiv 2210.10760).

use crate::objective::Validation;
use galen_loss::Metrics;
use serde::{Deserialize, Serialize};

/// Metrics that stand for "what is optimised", the first that a step has.
const REWARDS: [&str; 2] = ["reward", "rewards/margins"];
/// What a [`crate::HeldOut`] calls its accuracy, and that figure's standard error.
const ACCURACY: [&str; 2] = ["eval_acc", "eval_acc_stderr"];

/// Rewards of training beside accuracy on held-out questions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RewardHacking {
    /// Rewards since the last validation: their sum and number.
    since: (f64, u64),
    /// Accuracy of the best validation, and the mean reward before it.
    best: Option<(f64, f64)>,
    said: bool,
}

impl RewardHacking {
    pub(crate) fn step(&mut self, metrics: &Metrics) {
        if let Some(reward) = REWARDS.iter().find_map(|name| metrics.get(name)) {
            self.since = (self.since.0 + reward, self.since.1 + 1);
        }
    }

    /// A warning where rewards rose since the best validation and accuracy fell by more than two standard errors.
    pub(crate) fn validation(&mut self, v: &Validation) -> Option<String> {
        let (sum, n) = std::mem::take(&mut self.since);
        let accuracy = v.get(ACCURACY[0])?;
        let error = v.get(ACCURACY[1]).unwrap_or(0.0);
        if n == 0 {
            return None;
        }
        let reward = sum / n as f64;
        let Some((best, reward_then)) = self.best.filter(|(best, _)| accuracy < *best) else {
            self.best = Some((accuracy, reward));
            self.said = false;
            return None;
        };
        let hacking = reward > reward_then && accuracy + 2.0 * error < best;
        (hacking && !std::mem::replace(&mut self.said, true)).then(|| {
            format!(
                "rewards rose from {reward_then:.3} to {reward:.3} while held-out accuracy fell from {:.1} % to {:.1} %\nhint: what is rewarded is no longer what is wanted: look at answers with high rewards, raise the weight of the KL, or end with the best validation (`load_best_model_at_end`, `metric_for_best_model: eval_acc`)",
                best * 100.0,
                accuracy * 100.0
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which validations of a course of (reward, accuracy) are warned of.
    fn warned(course: &[(f64, f64)]) -> Vec<usize> {
        let mut guard = RewardHacking::default();
        let mut out = Vec::new();
        for (i, (reward, accuracy)) in course.iter().enumerate() {
            let mut metrics = Metrics::default();
            metrics.mean("reward", [*reward]);
            guard.step(&metrics);
            let text = serde_json::to_string(&guard).unwrap();
            guard = serde_json::from_str(&text).unwrap();
            let metrics = [("eval_acc".to_owned(), *accuracy), ("eval_acc_stderr".to_owned(), 0.01)].into();
            let v = Validation { eval_loss: 0.0, eval_mean_token_accuracy: None, metrics };
            out.extend(guard.validation(&v).map(|_| i));
        }
        out
    }

    #[test]
    fn rising_rewards_with_falling_accuracy_are_said_once() {
        assert_eq!(warned(&[(0.1, 0.5), (0.2, 0.6), (0.3, 0.59), (0.4, 0.57), (0.5, 0.5)]), [3]);
        // Accuracy fell, but so did rewards; or nothing fell.
        assert_eq!(warned(&[(0.5, 0.6), (0.3, 0.4)]), [0usize; 0]);
        assert_eq!(warned(&[(0.1, 0.5), (0.2, 0.6), (0.3, 0.7)]), [0usize; 0]);
    }
}
