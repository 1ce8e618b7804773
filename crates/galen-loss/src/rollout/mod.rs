//! Objectives of answers that the policy sampled, in groups of `num_generations` answers to one prompt.

mod advantages;
mod grpo;
pub mod loss_type;
mod rloo;

pub use advantages::{AGGREGATIONS, Advantages, Aggregation, Rewards, SCALES, Scale};
pub use grpo::{Grpo, Level};
pub use loss_type::{GrpoType, LOSS_TYPES};
pub use rloo::Rloo;

use crate::pair::same_layout;
use crate::{LossError, Metrics, Result};

/// Sampled answers: for each, the log-probabilities of its tokens. An answer that is masked out (cut off at
/// the length limit, with `mask_truncated_completions`) is an empty slice.
#[derive(Debug, Clone, Copy)]
pub struct RolloutBatch<'a> {
    /// Under the policy as it is now.
    pub completions: &'a [&'a [f32]],
    /// Under the policy that sampled them; `None` in the first of several inner iterations, where both are
    /// the same.
    pub old: Option<&'a [&'a [f32]]>,
    /// Under the reference, where a KL term needs it.
    pub reference: Option<&'a [&'a [f32]]>,
    /// One an answer.
    pub advantages: &'a [f64],
}

impl<'a> RolloutBatch<'a> {
    /// The log-probabilities that ratios are taken against.
    fn old(&self) -> &'a [&'a [f32]] {
        self.old.unwrap_or(self.completions)
    }

    fn check(&self) -> Result<()> {
        same_layout("old", self.old(), self.completions)?;
        if let Some(reference) = self.reference {
            same_layout("reference", reference, self.completions)?;
        }
        let (advantages, answers) = (self.advantages.len(), self.completions.len());
        let what = || format!("{advantages} numbers of `{answers}` answers");
        if advantages == answers { Ok(()) } else { Err(LossError::batch("advantages", what())) }
    }
}

/// Clipping at both ends: `epsilon` and `epsilon_high`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Clip {
    low: f64,
    high: f64,
}

impl Clip {
    fn new(epsilon: f64, epsilon_high: Option<f64>) -> Self {
        Self { low: 1.0 - epsilon, high: 1.0 + epsilon_high.unwrap_or(epsilon) }
    }

    /// PPO's clipped surrogate `-min(w A, clip(w) A)` (Schulman et al., arXiv 1707.06347, Eq. 7) and its
    /// derivative by `w`, where `w` itself is held below `delta`.
    fn surrogate(self, ratio: f64, advantage: f64, delta: f64) -> (f64, f64) {
        let free = ratio.min(delta) * advantage;
        let clipped = ratio.clamp(self.low, self.high) * advantage;
        let d_free = if ratio <= delta { advantage } else { 0.0 };
        let d_clipped = if (self.low..=self.high).contains(&ratio) { advantage } else { 0.0 };
        match free.total_cmp(&clipped) {
            std::cmp::Ordering::Less => (-free, -d_free),
            std::cmp::Ordering::Greater => (-clipped, -d_clipped),
            std::cmp::Ordering::Equal => (-free, -0.5 * (d_free + d_clipped)),
        }
    }

    /// Whether the clip stops this ratio below or above.
    fn stops(self, ratio: f64, advantage: f64) -> (bool, bool) {
        (ratio < self.low && advantage < 0.0, ratio > self.high && advantage > 0.0)
    }
}

/// TRL's `clip_ratio/*`: `stopped` holds for every answer how many ratios were stopped below, above, and how
/// many there were.
fn clip_metrics(metrics: &mut Metrics, stopped: &[[f64; 3]]) {
    let total = |k: usize| stopped.iter().map(|s| s[k]).sum::<f64>();
    metrics.weighted("clip_ratio/low_mean", total(0), total(2));
    metrics.weighted("clip_ratio/high_mean", total(1), total(2));
    metrics.weighted("clip_ratio/region_mean", total(0) + total(1), total(2));
    let shares = |k: usize| stopped.iter().filter(|s| s[2] > 0.0).map(move |s| s[k] / s[2]);
    metrics.min("clip_ratio/low_min", shares(0));
    metrics.max("clip_ratio/high_max", shares(1));
}
