//! From rewards to advantages: how much better an answer is than its group.

use crate::registry::named;
use crate::{LossError, Metrics, Result};

/// Rewards of sampled answers, one group after the other.
#[derive(Debug, Clone, Copy)]
pub struct Rewards<'a> {
    /// For each answer the value of each reward function; `None` where a function does not apply.
    pub values: &'a [Vec<Option<f64>>],
    /// One weight a function.
    pub weights: &'a [f64],
    /// Answers a group.
    pub num_generations: usize,
}

/// One advantage an answer, and what to log.
#[derive(Debug, Clone, PartialEq)]
pub struct Advantages {
    /// In the order of the rewards; 0 for an answer that no function scored.
    pub values: Vec<f64>,
    /// `reward`, `reward_std`, `frac_reward_zero_std`. The caller names its reward functions and logs each itself.
    pub metrics: Metrics,
}

/// What the differences from the group's mean are divided by.
pub struct Scale {
    /// Value of `scale_rewards`.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    by: By,
}

named!(Scale, "scale_rewards");

#[derive(PartialEq)]
enum By {
    Group,
    Batch,
    Nothing,
}

pub(super) static GROUP: Scale = Scale {
    name: "group",
    doc: "the group's standard deviation (GRPO, arXiv 2402.03300, section 4.1.2)",
    by: By::Group,
};

/// Every scaling.
pub static SCALES: &[&Scale] = &[
    &GROUP,
    &Scale { name: "batch", doc: "the batch's standard deviation (arXiv 2508.08221)", by: By::Batch },
    &Scale { name: "none", doc: "nothing (Dr. GRPO, arXiv 2503.20783)", by: By::Nothing },
];

/// Added to a standard deviation before division.
pub(super) const STD_EPSILON: f64 = 1e-4;

impl Rewards<'_> {
    pub(super) fn check(&self) -> Result<()> {
        if self.num_generations < 2 || !self.values.len().is_multiple_of(self.num_generations) {
            let what = format!("{} answers are no groups of `{}`", self.values.len(), self.num_generations);
            return Err(LossError::batch("rewards", what));
        }
        match self.values.iter().position(|v| v.len() != self.weights.len()) {
            Some(i) => {
                let what = format!("{} rewards, `{}` weights", self.values[i].len(), self.weights.len());
                Err(LossError::batch(format!("rewards[{i}]"), what))
            }
            None => Ok(()),
        }
    }

    /// Weighted sum of an answer's rewards; `None` where no function scored it.
    pub(super) fn summed(&self) -> Vec<Option<f64>> {
        let sum = |values: &Vec<Option<f64>>| {
            let mut scored = values.iter().zip(self.weights).filter_map(|(v, w)| Some((*v)? * w)).peekable();
            scored.peek().is_some().then(|| scored.sum())
        };
        self.values.iter().map(sum).collect()
    }

    /// GRPO's advantages `(r - mean(group)) / (std + 1e-4)` (Shao et al., arXiv 2402.03300, section 4.1.2), the standard
    /// deviation with Bessel's correction. Answers that no function scored count neither in means nor in deviations.
    ///
    /// # Errors
    /// [`LossError::Batch`] where the rewards are not whole groups of two or more.
    pub fn relative(&self, scale: &Scale) -> Result<Advantages> {
        self.check()?;
        let summed = self.summed();
        let over_batch = std(summed.iter().copied());
        let mut values = Vec::with_capacity(summed.len());
        let mut zero_std = Vec::with_capacity(summed.len());
        for group in summed.chunks(self.num_generations) {
            let mean = mean(group.iter().copied());
            let std = if scale.by == By::Batch { over_batch } else { std(group.iter().copied()) };
            let divisor = if scale.by == By::Nothing { 1.0 } else { std + STD_EPSILON };
            for reward in group {
                // A deviation of one lone score is undefined: it teaches nothing.
                let advantage = reward.map(|r| (r - mean) / divisor);
                values.push(advantage.filter(|a| a.is_finite()).unwrap_or(0.0));
                zero_std.push(std);
            }
        }
        Ok(Advantages { values, metrics: reward_metrics(&summed, zero_std) })
    }
}

/// Mean of what there is; NaN of nothing.
pub(super) fn mean(values: impl Iterator<Item = Option<f64>>) -> f64 {
    let (sum, n) = values.flatten().fold((0.0, 0.0), |(s, n), v| (s + v, n + 1.0));
    sum / n
}

/// Standard deviation of what there is, with Bessel's correction; NaN of fewer than two.
pub(super) fn std(values: impl Iterator<Item = Option<f64>> + Clone) -> f64 {
    let mean = mean(values.clone());
    let (squares, n) = values.flatten().fold((0.0, 0.0), |(s, n), v: f64| (s + (v - mean).powi(2), n + 1.0));
    if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { f64::NAN }
}

/// `reward`, `reward_std` and the share of `zero_std` that are 0.
pub(super) fn reward_metrics(summed: &[Option<f64>], zero_std: Vec<f64>) -> Metrics {
    let mut metrics = Metrics::default();
    metrics.mean("reward", summed.iter().copied().flatten());
    let std = std(summed.iter().copied());
    metrics.mean("reward_std", [std].into_iter().filter(|s| s.is_finite()));
    metrics.mean("frac_reward_zero_std", zero_std.into_iter().map(|s| f64::from(u8::from(s.abs() <= 1e-8))));
    metrics
}
