//! The two families that learn from groups of sampled answers.

use galen_loss::rollout::{Advantages, Aggregation, Grpo, Rewards, Rloo, RolloutBatch, Scale};
use galen_loss::{LossError, SequenceLoss, Totals};

/// From rewards to advantages, and from advantages to the loss.
#[derive(Clone, Copy)]
pub enum PolicyLoss {
    /// Group-relative policy optimisation.
    Grpo {
        /// The loss.
        loss: Grpo,
        /// What differences from the group's mean are divided by.
        scale: &'static Scale,
        /// Whether several rewards are summed first.
        aggregation: &'static Aggregation,
    },
    /// REINFORCE with the mean of the others as the baseline.
    Rloo(Rloo),
}

impl PolicyLoss {
    /// Whether the reference's log-probabilities are needed.
    pub fn needs_reference(&self) -> bool {
        match self {
            Self::Grpo { loss, .. } => loss.needs_reference(),
            Self::Rloo(loss) => loss.beta != 0.0,
        }
    }

    /// Whether the log-probabilities at the time of sampling are needed before the first step.
    pub(super) fn needs_policy(&self) -> bool {
        matches!(self, Self::Rloo(loss) if loss.beta != 0.0)
    }

    /// Whether an answer of advantage 0 has a gradient all the same.
    pub(super) fn moves_without_advantage(&self) -> bool {
        matches!(self, Self::Grpo { loss, .. } if loss.needs_reference())
    }

    pub(super) fn advantages(
        &self,
        rewards: &Rewards,
        policy: &[&[f32]],
        reference: Option<&[&[f32]]>,
    ) -> Result<Advantages, LossError> {
        match self {
            Self::Grpo { scale, aggregation, .. } => rewards.relative(scale, aggregation),
            Self::Rloo(loss) => loss.advantages(rewards, policy, reference),
        }
    }

    pub(super) fn totals(tokens: usize) -> Totals {
        Grpo::totals(tokens)
    }

    pub(super) fn loss(&self, batch: &RolloutBatch, totals: Totals) -> Result<SequenceLoss, LossError> {
        match self {
            Self::Grpo { loss, .. } => loss.loss(batch, totals),
            Self::Rloo(loss) => loss.loss(batch, totals),
        }
    }
}
