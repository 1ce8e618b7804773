//! A guard against answers that grow or shrink while rewards rise: length is what rewards are most often gamed by
//! (Singhal et al., arXiv 2310.03716).

use crate::objective::Remark;
use galen_loss::Metrics;
use serde_json::{Value, json};

/// Steps of a window.
const WINDOW: usize = 16;

/// Compares the answers' mean length with that of the run's first steps.
#[derive(Debug, Clone, Default)]
pub struct LengthDrift {
    first: Vec<f64>,
    recent: Vec<f64>,
    said: bool,
}

/// The metric that is watched.
pub(super) const MEAN_LENGTH: &str = "completions/mean_length";

impl LengthDrift {
    pub(super) fn remark(&mut self, metrics: &Metrics) -> Remark {
        let Some(length) = metrics.get(MEAN_LENGTH) else { return Remark::Nothing };
        if self.first.len() < WINDOW {
            self.first.push(length);
            return Remark::Nothing;
        }
        self.recent.push(length);
        let excess = self.recent.len().saturating_sub(WINDOW);
        self.recent.drain(..excess);
        if self.said || self.recent.len() < WINDOW {
            return Remark::Nothing;
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (before, now) = (mean(&self.first), mean(&self.recent));
        if now <= 2.0 * before && before <= 2.0 * now {
            return Remark::Nothing;
        }
        self.said = true;
        let (what, remedy) = if now > before {
            (
                "longer",
                "`soft_overlong_punishment` in `reward_funcs` or `loss_type: dr_grpo` takes the gain out of length",
            )
        } else {
            ("shorter", "a `length` reward, or `beta` above 0, holds them")
        };
        Remark::Warn(format!(
            "answers have become {what}: {now:.1} tokens over the last {WINDOW} steps, {before:.1} over the first\nhint: look whether they are also better (`log_completions` writes them down); {remedy}"
        ))
    }

    pub(super) fn state(&self) -> Value {
        json!({ "first": self.first, "recent": self.recent, "said": self.said })
    }

    pub(super) fn restore(&mut self, state: &Value) {
        let list = |name: &str| {
            let values = state[name].as_array().map(Vec::as_slice).unwrap_or_default();
            values.iter().filter_map(Value::as_f64).collect()
        };
        (self.first, self.recent) = (list("first"), list("recent"));
        self.said = state["said"].as_bool().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(lengths: &[f64]) -> Vec<usize> {
        let mut drift = LengthDrift::default();
        let said = |(i, length): (usize, &f64)| {
            let mut metrics = Metrics::default();
            metrics.mean(MEAN_LENGTH, [*length]);
            // A checkpoint at every step changes nothing.
            let mut again = LengthDrift::default();
            again.restore(&drift.state());
            drift = again;
            matches!(drift.remark(&metrics), Remark::Warn(_)).then_some(i)
        };
        lengths.iter().enumerate().filter_map(said).collect()
    }

    #[test]
    fn it_speaks_once_and_only_where_length_doubles_or_halves() {
        let course = |end: f64| [vec![10.0; WINDOW], vec![end; 2 * WINDOW]].concat();
        assert_eq!(run(&course(19.0)), [0usize; 0]);
        assert_eq!(run(&course(21.0)), [2 * WINDOW - 1]);
        assert_eq!(run(&course(4.9)), [2 * WINDOW - 1]);
    }
}
