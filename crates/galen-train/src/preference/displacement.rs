//! Likelihood displacement: the margin between answers grows while the chosen answer itself becomes less likely, so that
//! probability goes to answers nobody chose (Razin et al., arXiv 2410.08847).

use crate::objective::Remark;
use galen_loss::Metrics;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Mean over pairs of how much likelier a token of the chosen answer is than under the reference, nats.
pub(super) const CHOSEN_SHIFT: &str = "logps/chosen_shift";
const MARGINS: &str = "rewards/margins";
/// Steps looked back on; the later half is compared with the earlier.
const WINDOW: usize = 16;

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisplacement {
    /// Say so once.
    Warn,
    /// End the run with a checkpoint.
    Stop,
    /// Nothing.
    Off,
}

/// Watches for it. Objectives without a reference bring no shift to watch.
#[derive(Debug, Clone)]
pub struct Displacement {
    on: OnDisplacement,
    threshold: f64,
    seen: Seen,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    /// Shift and margin of the last steps, oldest first.
    steps: Vec<[f64; 2]>,
    /// The largest mean shift of a half so far; at least none. What falls from there falls, also where a run first taught
    /// the answers' common end (a line break, say), which makes every answer likelier.
    #[serde(default)]
    best: f64,
    told: bool,
}

impl Displacement {
    /// `threshold`: nats a token that chosen answers may lose, against the reference or against what the run had reached.
    pub fn new(on: OnDisplacement, threshold: f64) -> Self {
        Self { on, threshold, seen: Seen::default() }
    }

    pub(super) fn remark(&mut self, metrics: &Metrics) -> Remark {
        let (Some(shift), Some(margin)) = (metrics.get(CHOSEN_SHIFT), metrics.get(MARGINS)) else {
            return Remark::Nothing;
        };
        if self.on == OnDisplacement::Off || self.seen.told {
            return Remark::Nothing;
        }
        self.seen.steps.push([shift, margin]);
        if self.seen.steps.len() < WINDOW {
            return Remark::Nothing;
        }
        let mean =
            |of: usize, steps: &[[f64; 2]]| steps.iter().map(|s| s[of]).sum::<f64>() / steps.len() as f64;
        let (before, after) = self.seen.steps.split_at(WINDOW / 2);
        self.seen.best = self.seen.best.max(mean(0, before));
        let lost = self.seen.best - mean(0, after);
        let (fallen, rising) =
            (lost > self.threshold && mean(0, after) < mean(0, before), mean(1, after) > mean(1, before));
        self.seen.steps.remove(0);
        if !(fallen && rising) {
            return Remark::Nothing;
        }
        self.seen = Seen { told: true, ..Seen::default() };
        let text = format!(
            "likelihood displacement: chosen answers are `{lost:.3}` nats a token less likely than they were, while margins \
             rise: probability goes to answers nobody chose\nhint: `dpo_loss_type: apo_zero`, or `dpo_loss_type: \
             [sigmoid, sft]`, or a lower `learning_rate`; `likelihood_displacement: off` is silent"
        );
        if self.on == OnDisplacement::Stop { Remark::Stop(text) } else { Remark::Warn(text) }
    }

    pub(super) fn state(&self) -> Value {
        serde_json::to_value(&self.seen).unwrap_or(Value::Null)
    }

    pub(super) fn restore(&mut self, state: &Value) {
        self.seen = serde_json::from_value(state.clone()).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of shift and margin given by their number; the step (from 1) at which something is said.
    fn said_at(on: OnDisplacement, of: impl Fn(f64) -> [f64; 2]) -> Vec<(usize, Remark)> {
        let mut watch = Displacement::new(on, 0.1);
        let mut said = Vec::new();
        for step in 1..=60 {
            let [shift, margin] = of(f64::from(step));
            let mut metrics = Metrics::default();
            metrics.mean(CHOSEN_SHIFT, [shift]);
            metrics.mean(MARGINS, [margin]);
            // As if the run were resumed after every step.
            let state = watch.state();
            watch = Displacement::new(on, 0.1);
            watch.restore(&state);
            let remark = watch.remark(&metrics);
            if remark != Remark::Nothing {
                said.push((step as usize, remark));
            }
        }
        said
    }

    #[test]
    fn it_is_said_once_and_only_when_both_happen() {
        let falling = |step: f64| [-0.02 * step, 0.1 * step];
        let said = said_at(OnDisplacement::Warn, falling);
        assert_eq!(said.iter().map(|s| s.0).collect::<Vec<_>>(), [16], "the mean of steps 9 to 16 is -0.25");
        assert!(
            matches!(&said[0].1, Remark::Warn(text) if text.contains("0.250") && text.contains("apo_zero"))
        );
        assert!(matches!(said_at(OnDisplacement::Stop, falling)[..], [(16, Remark::Stop(_))]));
        assert!(said_at(OnDisplacement::Off, falling).is_empty());
        // Slower: the mean of the last eight passes -0.1 at step 24.
        let slow = said_at(OnDisplacement::Warn, |step| [-0.005 * step, 0.1 * step]);
        assert_eq!(slow.iter().map(|s| s.0).collect::<Vec<_>>(), [24]);
        // Likelier at first, for another reason: the mean of steps 19 to 26 is 0.131 below 2.
        let late = said_at(OnDisplacement::Warn, |step| [2.0 - 0.05 * (step - 20.0).max(0.0), 0.1 * step]);
        assert_eq!(late.iter().map(|s| s.0).collect::<Vec<_>>(), [26]);
        for of in [
            |step: f64| [0.02 * step, 0.1 * step],
            |step: f64| [-0.02 * step, -0.1 * step],
            |step: f64| [-0.0015 * step, 0.1 * step],
            |step: f64| [-0.5 + 0.001 * step, 0.1 * step],
        ] {
            assert!(said_at(OnDisplacement::Warn, of).is_empty());
        }
    }
}
