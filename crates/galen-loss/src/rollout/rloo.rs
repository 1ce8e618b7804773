//! REINFORCE with a leave-one-out baseline (Ahmadian et al., arXiv 2402.14740): an answer's advantage is its
//! reward less the mean reward of the *other* answers of its group. The KL to the reference is part of the
//! reward.

use super::advantages::{self, Advantages, Rewards, STD_EPSILON};
use super::{Clip, RolloutBatch, clip_metrics};
use crate::error::not_negative;
use crate::numeric::{constant, sum};
use crate::pair::same_layout;
use crate::{LossError, Metrics, Result, SequenceLoss, Totals};

/// Settings of RLOO, by TRL's names and with its defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rloo {
    /// Weight of the KL in the reward.
    pub beta: f64,
    /// How far the ratio of a whole answer's probabilities may move: down, and up unless `epsilon_high` is
    /// set.
    pub epsilon: f64,
    /// How far up.
    pub epsilon_high: Option<f64>,
    /// Whether advantages are brought to mean 0 and deviation 1 over the batch.
    pub normalize_advantages: bool,
    /// Least and greatest reward.
    pub reward_clip_range: Option<(f64, f64)>,
}

impl Default for Rloo {
    fn default() -> Self {
        Self {
            beta: 0.05,
            epsilon: 0.2,
            epsilon_high: None,
            normalize_advantages: false,
            reward_clip_range: None,
        }
    }
}

impl Rloo {
    /// Refuses settings that have no meaning.
    pub fn check(&self) -> Result<()> {
        not_negative("beta", self.beta)?;
        not_negative("epsilon", self.epsilon)?;
        self.epsilon_high.map_or(Ok(()), |e| not_negative("epsilon_high", e))?;
        let (low, high) = self.reward_clip_range.unwrap_or((0.0, 1.0));
        let hint = "write the lower number first";
        let value = format!("[{low}, {high}]");
        LossError::unless(low <= high, "reward_clip_range", value, "it is no range", hint)
    }

    /// Leave-one-out advantages. `policy` and `reference` are log-probabilities of the answers at the time of
    /// sampling, needed where `beta` is not 0: the KL of an answer is the sum of their differences (it may be
    /// negative).
    ///
    /// # Errors
    /// [`LossError::Batch`] where the rewards are not whole groups or log-probabilities are missing.
    pub fn advantages(
        &self,
        rewards: &Rewards,
        policy: &[&[f32]],
        reference: Option<&[&[f32]]>,
    ) -> Result<Advantages> {
        rewards.check()?;
        let summed = rewards.summed();
        let mut shaped = summed.clone();
        if let Some((low, high)) = self.reward_clip_range {
            shaped.iter_mut().flatten().for_each(|r| *r = r.max(low).min(high));
        }
        let mut kl = (0.0, 0.0);
        if self.beta != 0.0 {
            let missing = || LossError::batch("reference", "its log-probabilities are missing");
            let reference = reference.ok_or_else(missing)?;
            same_layout("reference", reference, policy)?;
            crate::pair::same_number("policy", policy, shaped.len())?;
            for (i, reward) in shaped.iter_mut().enumerate() {
                let difference = sum(policy[i]) - sum(reference[i]);
                kl = (kl.0 + difference, kl.1 + policy[i].len() as f64);
                *reward = reward.map(|r| r - self.beta * difference);
            }
        }
        let (mut values, mut zero_std) = (Vec::with_capacity(shaped.len()), Vec::new());
        for group in shaped.chunks(rewards.num_generations) {
            let scored = group.iter().flatten().count() as f64;
            let total: f64 = group.iter().flatten().sum();
            zero_std.push(advantages::std(group.iter().copied()));
            // A lone score has no others to be compared with.
            let advantage = |r: &f64| r - (total - r) / (scored - 1.0);
            values.extend(group.iter().map(|r| r.as_ref().map(advantage).filter(|a| a.is_finite())));
        }
        if self.normalize_advantages {
            let mean = advantages::mean(values.iter().copied());
            let std = advantages::std(values.iter().copied());
            values.iter_mut().flatten().for_each(|a| *a = (*a - mean) / (std + STD_EPSILON));
        }
        let values = values.into_iter().map(|a| a.filter(|a| a.is_finite()).unwrap_or(0.0)).collect();
        let mut metrics = rewards.metrics(&summed, zero_std);
        metrics.weighted("kl", kl.0, kl.1);
        Ok(Advantages { values, metrics })
    }

    /// Totals of `completions` answers.
    pub fn totals(completions: usize) -> Totals {
        Totals { items: completions, tokens: 0 }
    }

    /// The clipped surrogate of whole answers' ratios, averaged over answers, and its gradient.
    ///
    /// # Errors
    /// [`LossError::Batch`] where the parts of the batch do not fit together.
    pub fn loss(&self, batch: &RolloutBatch, totals: Totals) -> Result<SequenceLoss> {
        batch.check()?;
        let clip = Clip::new(self.epsilon, self.epsilon_high);
        let (mut loss, mut gradient, mut stopped) = (0.0, Vec::new(), Vec::new());
        for ((tokens, old), advantage) in batch.completions.iter().zip(batch.old()).zip(batch.advantages) {
            let ratio = (sum(tokens) - sum(old)).exp();
            let (value, slope) = clip.surrogate(ratio, *advantage, f64::INFINITY);
            loss += value / totals.items();
            gradient.push(constant(slope * ratio / totals.items(), tokens.len()));
            let (low, high) = clip.stops(ratio, *advantage);
            stopped.push([f64::from(u8::from(low)), f64::from(u8::from(high)), 1.0]);
        }
        let mut metrics = Metrics::default();
        clip_metrics(&mut metrics, &stopped);
        Ok(SequenceLoss { loss, gradient, metrics })
    }
}
