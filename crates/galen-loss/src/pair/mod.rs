//! Objectives of pairs: a chosen and a rejected answer to one prompt.

mod batch;
pub mod cpo;
mod dpo;
mod f_divergence;
pub mod loss_type;
mod orpo;

pub use batch::{PairBatch, Reference};
pub(crate) use batch::{same_layout, same_number};
pub use cpo::Cpo;
pub use dpo::{Dpo, Weighted};
pub use f_divergence::{F_DIVERGENCES, FDivergence};
pub use loss_type::{LOSS_TYPES, LossType};
pub use orpo::Orpo;

use crate::{Metrics, Result, Totals};

/// A loss over pairs: this micro-batch's share of it, its gradient, and what to log.
#[derive(Debug, Clone, PartialEq)]
pub struct PairLoss {
    /// This micro-batch's share of the step's loss.
    pub loss: f64,
    /// `d loss / d logp` of the chosen answers' tokens, as they were given.
    pub d_chosen: Vec<Vec<f32>>,
    /// The same of the rejected answers' tokens.
    pub d_rejected: Vec<Vec<f32>>,
    /// The same of the prompts' tokens; empty unless the batch brought them and the objective reads them.
    pub d_prompt: Vec<Vec<f32>>,
    /// TRL's metrics.
    pub metrics: Metrics,
}

/// An objective of pairs: its settings, checked once, and its loss.
pub trait PairObjective: Send + Sync {
    /// Refuses settings that have no meaning. Call it before training; [`PairObjective::loss`] does not
    /// repeat it.
    fn check(&self) -> Result<()>;

    /// Whether the loss needs the reference policy's log-probabilities.
    fn needs_reference(&self) -> bool;

    /// Whether the loss reads the log-probabilities of the prompt's tokens.
    fn reads_prompt(&self) -> bool {
        false
    }

    /// What one pair adds to a step's totals, from its numbers of supervised tokens. `prompt_tokens` counts
    /// those whose log-probabilities the batch will bring.
    fn totals(&self, chosen_tokens: usize, prompt_tokens: usize) -> Totals {
        let prompt_tokens = if self.reads_prompt() { prompt_tokens } else { 0 };
        Totals { items: 1, tokens: chosen_tokens + prompt_tokens }
    }

    /// Totals of a batch that is a whole step.
    fn totals_of(&self, batch: &PairBatch) -> Totals {
        let prompt = |i: usize| batch.prompt.and_then(|p| p.get(i)).map_or(0, |p| p.len());
        batch.chosen.iter().enumerate().map(|(i, chosen)| self.totals(chosen.len(), prompt(i))).sum()
    }

    /// The loss of a micro-batch of a step with these totals, and its gradient.
    ///
    /// # Errors
    /// [`crate::LossError::Batch`] where the parts of the batch do not fit together.
    fn loss(&self, batch: &PairBatch, totals: Totals) -> Result<PairLoss>;
}

/// Rewards, accuracies, margins and log-probabilities of pairs, one value a pair.
fn pair_metrics(rewards: [&[f64]; 2], logps: [&[f64]; 2]) -> Metrics {
    let mut metrics = Metrics::default();
    let [chosen, rejected] = rewards;
    let both = || chosen.iter().zip(rejected);
    metrics.mean("rewards/chosen", chosen.iter().copied());
    metrics.mean("rewards/rejected", rejected.iter().copied());
    metrics.mean("rewards/accuracies", both().map(|(c, r)| f64::from(u8::from(c > r))));
    metrics.mean("rewards/margins", both().map(|(c, r)| c - r));
    metrics.mean("logps/chosen", logps[0].iter().copied());
    metrics.mean("logps/rejected", logps[1].iter().copied());
    metrics
}
