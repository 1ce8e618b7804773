//! A reward model: a scalar an answer, trained by Bradley-Terry likelihood (Ouyang et al., arXiv 2203.02155,
//! Eq. 1).

use crate::error::not_negative;
use crate::numeric::{log_sigmoid, sigmoid};
use crate::{LossError, Metrics, Result, Totals};

/// Settings of a reward model, by TRL's names and with its defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reward {
    /// Weight of the squared sum of a pair's rewards, which keeps them around 0 (Eisenstein et al., arXiv
    /// 2312.09244, Eq. 2). The paper's value is 0.01.
    pub center_rewards_coefficient: Option<f64>,
}

/// A loss over pairs of scalars: this micro-batch's share of it, its gradient, and what to log.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardLoss {
    /// This micro-batch's share of the step's loss.
    pub loss: f64,
    /// `d loss / d reward` of the chosen answers.
    pub d_chosen: Vec<f32>,
    /// The same of the rejected answers.
    pub d_rejected: Vec<f32>,
    /// TRL's metrics.
    pub metrics: Metrics,
}

impl Reward {
    /// Refuses settings that have no meaning.
    pub fn check(&self) -> Result<()> {
        self.center_rewards_coefficient.map_or(Ok(()), |c| not_negative("center_rewards_coefficient", c))
    }

    /// Totals of `pairs` rows.
    pub fn totals(pairs: usize) -> Totals {
        Totals { items: pairs, tokens: 0 }
    }

    /// The mean of `-log sigmoid(chosen - rejected - margin) + coefficient (chosen + rejected)^2` and its
    /// gradient. `chosen` and `rejected` are one reward a pair, `margin` (Touvron et al., arXiv 2307.09288,
    /// Eq. 2) one number a pair or nothing.
    ///
    /// # Errors
    /// [`LossError::Batch`] where the parts differ in length.
    pub fn loss(
        &self,
        chosen: &[f32],
        rejected: &[f32],
        margin: Option<&[f32]>,
        totals: Totals,
    ) -> Result<RewardLoss> {
        for (part, len) in
            [("rejected", rejected.len()), ("margin", margin.map_or(chosen.len(), <[f32]>::len))]
        {
            if len != chosen.len() {
                return Err(LossError::batch(part, format!("{len} numbers of `{}` pairs", chosen.len())));
            }
        }
        let centre = self.center_rewards_coefficient.unwrap_or(0.0);
        let pairs = || chosen.iter().zip(rejected).map(|(c, r)| (f64::from(*c), f64::from(*r)));
        let (mut loss, mut d_chosen, mut d_rejected) = (0.0, Vec::new(), Vec::new());
        for (i, (c, r)) in pairs().enumerate() {
            let difference = c - r - margin.map_or(0.0, |m| f64::from(m[i]));
            loss += (centre * (c + r).powi(2) - log_sigmoid(difference)) / totals.items();
            let (slope, pull) = (-sigmoid(-difference), 2.0 * centre * (c + r));
            d_chosen.push(((pull + slope) / totals.items()) as f32);
            d_rejected.push(((pull - slope) / totals.items()) as f32);
        }
        let mut metrics = Metrics::default();
        let all = || pairs().flat_map(|(c, r)| [c, r]);
        metrics.min("min_reward", all());
        metrics.mean("mean_reward", all());
        metrics.max("max_reward", all());
        metrics.mean("accuracy", pairs().map(|(c, r)| f64::from(u8::from(c > r))));
        metrics.mean("margin", pairs().map(|(c, r)| c - r));
        Ok(RewardLoss { loss, d_chosen, d_rejected, metrics })
    }
}
