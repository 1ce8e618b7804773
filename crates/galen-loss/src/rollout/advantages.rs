//! From rewards to advantages: how much better an answer is than its group.

use crate::registry::named;
use crate::{LossError, Metrics, Result};

/// Rewards of sampled answers, one group after the other.
#[derive(Debug, Clone, Copy)]
pub struct Rewards<'a> {
    /// For each answer the value of each reward function; `None` where a function does not apply.
    pub values: &'a [Vec<Option<f64>>],
    /// Names of the functions, for the metrics.
    pub names: &'a [&'a str],
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
    /// `reward`, `reward_std`, `frac_reward_zero_std`, and `rewards/NAME/mean` and `/std` of each function.
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

static GROUP: Scale = Scale {
    name: "group",
    doc: "the group's standard deviation (GRPO, arXiv 2402.03300, section 4.1.2)",
    by: By::Group,
};

/// Every scaling, the default first.
pub static SCALES: &[&Scale] = &[
    &GROUP,
    &Scale { name: "batch", doc: "the batch's standard deviation (arXiv 2508.08221)", by: By::Batch },
    &Scale { name: "none", doc: "nothing (Dr. GRPO, arXiv 2503.20783)", by: By::Nothing },
];

/// Whether several reward functions are summed before or after they are normalised.
pub struct Aggregation {
    /// Value of `multi_objective_aggregation`.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    sums_first: bool,
}

named!(Aggregation, "multi_objective_aggregation");

static SUM_FIRST: Aggregation = Aggregation {
    name: "sum_then_normalize",
    doc: "the weighted sum of rewards is compared with the group's",
    sums_first: true,
};

/// Every aggregation, the default first.
pub static AGGREGATIONS: &[&Aggregation] = &[
    &SUM_FIRST,
    &Aggregation {
        name: "normalize_then_sum",
        doc: "each reward is compared with the group's, then their weighted sum with the batch's \
              (GDPO, arXiv 2601.05242); `scale_rewards` has no part in it",
        sums_first: false,
    },
];

/// Added to a standard deviation before division.
pub(super) const STD_EPSILON: f64 = 1e-4;

impl Rewards<'_> {
    pub(super) fn check(&self) -> Result<()> {
        if self.num_generations < 2 || !self.values.len().is_multiple_of(self.num_generations) {
            let what = format!("{} answers are no groups of `{}`", self.values.len(), self.num_generations);
            return Err(LossError::batch("rewards", what));
        }
        if self.names.len() != self.weights.len() {
            let what = format!("{} names, `{}` weights", self.names.len(), self.weights.len());
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

    /// GRPO's advantages `(r - mean(group)) / (std + 1e-4)` (Shao et al., arXiv 2402.03300, section 4.1.2),
    /// the standard deviation with Bessel's correction. Answers that no function scored count neither in
    /// means nor in deviations.
    ///
    /// # Errors
    /// [`LossError::Batch`] where the rewards are not whole groups of two or more.
    pub fn relative(&self, scale: &Scale, aggregation: &Aggregation) -> Result<Advantages> {
        self.check()?;
        let summed = self.summed();
        let (values, zero_std) =
            if aggregation.sums_first { self.scaled(&summed, scale) } else { self.normalised() };
        // A deviation of one lone score is undefined: it teaches nothing.
        let values = values.into_iter().map(|a| a.filter(|a| a.is_finite()).unwrap_or(0.0)).collect();
        Ok(Advantages { values, metrics: self.metrics(&summed, zero_std) })
    }

    /// Advantages of summed rewards, and the deviation that stands behind each.
    fn scaled(&self, summed: &[Option<f64>], scale: &Scale) -> (Vec<Option<f64>>, Vec<f64>) {
        let over_batch = std(summed.iter().copied());
        let (mut values, mut stds) = (Vec::new(), Vec::new());
        for group in summed.chunks(self.num_generations) {
            let mean = mean(group.iter().copied());
            let std = if scale.by == By::Batch { over_batch } else { std(group.iter().copied()) };
            let divisor = if scale.by == By::Nothing { 1.0 } else { std + STD_EPSILON };
            values.extend(group.iter().map(|reward| reward.map(|r| (r - mean) / divisor)));
            stds.extend(group.iter().map(|_| std));
        }
        (values, stds)
    }

    /// Each function's rewards compared within the group, summed, and the sums within the batch.
    fn normalised(&self) -> (Vec<Option<f64>>, Vec<f64>) {
        let mut relative = Vec::with_capacity(self.values.len());
        for group in self.values.chunks(self.num_generations) {
            let column = |k: usize| group.iter().map(move |values| values[k]);
            let of = |k: usize| (mean(column(k)), std(column(k)) + STD_EPSILON);
            let moments: Vec<_> = (0..self.weights.len()).map(of).collect();
            let compare = |(value, (mean, std)): (&Option<f64>, &(f64, f64))| value.map(|v| (v - mean) / std);
            relative.extend(group.iter().map(|v| v.iter().zip(&moments).map(compare).collect::<Vec<_>>()));
        }
        // A function's lone score within a group has no deviation and adds nothing, the answer stays scored.
        let sum = |(values, relative): (&Vec<Option<f64>>, &Vec<Option<f64>>)| {
            let terms = relative.iter().zip(self.weights).filter_map(|(v, w)| Some((*v)? * w));
            values.iter().any(Option::is_some).then(|| terms.filter(|t| t.is_finite()).sum())
        };
        let sums: Vec<Option<f64>> = self.values.iter().zip(&relative).map(sum).collect();
        let (mean, std) = (mean(sums.iter().copied()), std(sums.iter().copied()));
        let values = sums.iter().map(|s| s.map(|s| (s - mean) / (std + STD_EPSILON))).collect();
        (values, vec![std; sums.len()])
    }

    /// Of summed rewards, each function's, and the share of `stds` that are 0.
    pub(super) fn metrics(&self, summed: &[Option<f64>], stds: Vec<f64>) -> Metrics {
        let mut metrics = Metrics::default();
        let defined = |std: f64| [std].into_iter().filter(|s| s.is_finite());
        metrics.mean("reward", summed.iter().copied().flatten());
        metrics.mean("reward_std", defined(std(summed.iter().copied())));
        metrics.mean("frac_reward_zero_std", stds.into_iter().map(|s| f64::from(u8::from(s.abs() <= 1e-8))));
        for (k, name) in self.names.iter().enumerate() {
            let column = self.values.iter().map(|values| values[k]);
            metrics.mean(format!("rewards/{name}/mean"), column.clone().flatten());
            metrics.mean(format!("rewards/{name}/std"), defined(std(column)));
        }
        metrics
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
