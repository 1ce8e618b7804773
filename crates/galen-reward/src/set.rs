//! Several rewards and their weighted sum.

use crate::{Completion, Reward, RewardError, Turn};

/// Rewards with labels and weights, in the configuration's order.
pub struct RewardSet<'a> {
    functions: Vec<Function<'a>>,
}

struct Function<'a> {
    label: String,
    weight: f64,
    reward: Box<dyn Reward + 'a>,
}

impl std::fmt::Debug for RewardSet<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.functions.iter().map(|r| (&r.label, r.weight))).finish()
    }
}

/// What each function gave, and what they come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewards {
    /// One entry a function, in the configuration's order.
    pub functions: Vec<FunctionRewards>,
    /// Weighted sum over the functions that apply, one a completion; `None` where none does. TRL's `nansum`, with
    /// its unscorable completions as `None`: they carry no learning signal and belong in no mean.
    pub total: Vec<Option<f64>>,
}

/// The values of one function.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionRewards {
    /// Its label: the NAME of TRL's `rewards/NAME/mean`.
    pub label: String,
    /// One a completion; `None` where it does not apply.
    pub values: Vec<Option<f64>>,
}

/// Mean and standard deviation of the values that are there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// `None` without values.
    pub mean: Option<f64>,
    /// With n - 1 in the denominator, as TRL's `nanstd`; `None` below two values.
    pub std: Option<f64>,
}

impl Spread {
    /// Of `values`, those that are `None` left out.
    pub fn of(values: &[Option<f64>]) -> Self {
        let there: Vec<f64> = values.iter().copied().flatten().collect();
        let n = there.len() as f64;
        if there.is_empty() {
            return Self { mean: None, std: None };
        }
        let mean = there.iter().sum::<f64>() / n;
        let squares: f64 = there.iter().map(|v| (v - mean) * (v - mean)).sum();
        Self { mean: Some(mean), std: (there.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) }
    }
}

impl Rewards {
    /// TRL's metrics: `rewards/NAME/mean` and `rewards/NAME/std` a function, then `reward` and `reward_std`. `None` is
    /// what TRL logs as NaN.
    pub fn metrics(&self) -> Vec<(String, Option<f64>)> {
        let mut out = Vec::new();
        for function in &self.functions {
            let spread = Spread::of(&function.values);
            out.push((format!("rewards/{}/mean", function.label), spread.mean));
            out.push((format!("rewards/{}/std", function.label), spread.std));
        }
        let spread = Spread::of(&self.total);
        out.push(("reward".into(), spread.mean));
        out.push(("reward_std".into(), spread.std));
        out
    }
}

impl<'a> RewardSet<'a> {
    /// An empty set.
    pub fn new() -> Self {
        Self { functions: Vec::new() }
    }

    /// With one more reward; labels are told apart by the caller.
    #[must_use]
    pub fn with(mut self, label: impl Into<String>, weight: f64, reward: Box<dyn Reward + 'a>) -> Self {
        self.functions.push(Function { label: label.into(), weight, reward });
        self
    }

    /// Labels and weights, in order.
    pub fn functions(&self) -> impl Iterator<Item = (&str, f64)> {
        self.functions.iter().map(|f| (f.label.as_str(), f.weight))
    }

    /// The label of a reward that looks at tokens, if one does.
    pub fn reads_tokens(&self) -> Option<&str> {
        self.functions.iter().find(|f| f.reward.reads_tokens()).map(|f| f.label.as_str())
    }

    /// Starts programs, so that one that cannot start is known before anything is sampled.
    pub fn start(&self) -> Result<(), RewardError> {
        self.functions.iter().try_for_each(|f| f.reward.start())
    }

    /// Judges `completions`. Rewards that wait for others run beside each other and beside those computed here; values,
    /// sums and which error is returned (the first function's in order) do not depend on who is done first.
    pub fn score(&self, completions: &[Completion<'_>]) -> Result<Rewards, RewardError> {
        let results = std::thread::scope(|scope| {
            let beside: Vec<_> = self
                .functions
                .iter()
                .map(|f| {
                    (f.reward.turn() == Turn::Beside).then(|| scope.spawn(|| f.reward.score(completions)))
                })
                .collect();
            let here: Vec<_> = self
                .functions
                .iter()
                .map(|f| (f.reward.turn() == Turn::Caller).then(|| f.reward.score(completions)))
                .collect();
            let joined = beside.into_iter().zip(here).map(|(thread, here)| match (thread, here) {
                (Some(thread), _) => {
                    Some(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                }
                (None, here) => here,
            });
            joined.collect::<Vec<_>>()
        });
        let mut functions = Vec::new();
        for (function, result) in self.functions.iter().zip(results) {
            let values = result.unwrap_or_else(|| Ok(Vec::new()))?;
            check(&function.label, &values, completions)?;
            functions.push(FunctionRewards { label: function.label.clone(), values });
        }
        let total = (0..completions.len())
            .map(|i| self.total(&functions, i, &completions[i]))
            .collect::<Result<_, _>>()?;
        Ok(Rewards { functions, total })
    }

    fn total(
        &self,
        functions: &[FunctionRewards],
        i: usize,
        completion: &Completion<'_>,
    ) -> Result<Option<f64>, RewardError> {
        let terms = self.functions.iter().zip(functions).filter_map(|(f, r)| Some(f.weight * r.values[i]?));
        let sum = terms.fold(None, |sum, term| Some(sum.unwrap_or(0.0) + term));
        match sum {
            Some(sum) if !f64::is_finite(sum) => {
                let what = format!("the weighted sum for the row at {} is `{sum}`", completion.origin);
                Err(RewardError::Answer { reward: "reward_weights".into(), what })
            }
            sum => Ok(sum),
        }
    }
}

impl Default for RewardSet<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// A reward's answer has one finite value, or none, a completion.
fn check(label: &str, values: &[Option<f64>], completions: &[Completion<'_>]) -> Result<(), RewardError> {
    let wrong = |what: String| RewardError::Answer { reward: label.to_owned(), what };
    if values.len() != completions.len() {
        return Err(wrong(format!("gave `{}` values for `{}` completions", values.len(), completions.len())));
    }
    match values.iter().position(|v| v.is_some_and(|v| !v.is_finite())) {
        Some(i) => {
            let value = values[i].unwrap_or_default();
            Err(wrong(format!("gave `{value}` for a completion of the row at {}", completions[i].origin)))
        }
        None => Ok(()),
    }
}
