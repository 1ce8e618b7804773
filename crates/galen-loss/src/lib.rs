//! Owns: training objectives, each a pure function of token log-probabilities.
//! Takes: log-probabilities in nats and the totals of the optimiser step that means run over.
//! Gives: the loss, its gradient with respect to each log-probability, and metrics by TRL's names.
//! Never: touches tensors, models or data.
//!
//! | family | data | settings |
//! |---|---|---|
//! | sft | tokens | [`sft()`] |
//! | dpo, orpo, cpo, simpo | pairs | [`pair::Dpo`], [`pair::Orpo`], [`pair::Cpo`] (all [`pair::PairObjective`]) |
//! | kto | single answers, desirable or not | [`Kto`] |
//! | grpo, rloo | groups of sampled answers with rewards | [`rollout::Grpo`], [`rollout::Rloo`] |
//! | reward | pairs of scalars | [`Reward`] |
//!
//! # How a loop calls them
//!
//! A sequence is the slice of log-probabilities of its supervised tokens, in order. One forward pass yields
//! them for every sequence of a micro-batch; the objective returns `d loss / d logp` in the same layout, and
//! backward starts there. A mean runs over the whole optimiser step: the loop adds up [`Totals`] of all its
//! rows, known from their lengths before any forward pass, and hands the sum to every micro-batch, whose
//! losses and gradients are then *summed*. So accumulation gives the large batch's result. TRL averages the
//! means of its micro-batches instead; a loop that wants that result passes the micro-batch's own totals
//! times the number of micro-batches ([`Totals::times`]). Both agree where micro-batches are equally large.
//! Objectives that look across rows (`aot`, `aot_unpaired`; KTO's KL; the advantages of a group) see the rows
//! they are given.
//!
//! ```
//! use galen_loss::pair::{Dpo, PairBatch, PairObjective, Reference};
//! use galen_loss::{Metrics, Totals};
//!
//! let objective = Dpo { beta: 0.2, ..Dpo::of(&["sigmoid", "sft"], Some(&[1.0, 0.1]))? };
//! objective.check()?;
//! // A step of two micro-batches: chosen answers of 2 and of 1 token.
//! let totals: Totals = [2, 1].into_iter().map(|tokens| objective.totals(tokens, 0)).sum();
//! let mut metrics = Metrics::default();
//! for (chosen, rejected) in [(&[-1.0, -0.5][..], &[-2.0][..]), (&[-0.25], &[-1.0, -1.0])] {
//!     let reference = Reference { chosen: &[chosen], rejected: &[rejected] };
//!     let batch =
//!         PairBatch { chosen: &[chosen], rejected: &[rejected], reference: Some(reference), prompt: None };
//!     let step = objective.loss(&batch, totals)?;
//!     assert_eq!(step.d_chosen[0].len(), chosen.len()); // Backward starts from these.
//!     metrics.merge(&step.metrics);
//! }
//! assert_eq!(metrics.get("rewards/margins"), Some(0.0));
//! # Ok::<(), galen_loss::LossError>(())
//! ```
//!
//! Arithmetic is f64 inside; gradients are rounded to f32 once, at the end.

mod error;
mod family;
mod kto;
mod metrics;
mod numeric;
pub mod pair;
mod registry;
mod reward;
pub mod rollout;
mod sft;
mod totals;

pub use error::LossError;
pub use family::{Data, FAMILIES, Family};
pub use kto::{Kto, KtoBatch, KtoType, LOSS_TYPES as KTO_LOSS_TYPES, Label};
pub use metrics::Metrics;
pub use registry::{Named, find};
pub use reward::{Reward, RewardLoss};
pub use sft::{sft, sft_gradient};
pub use totals::Totals;

/// What [`find`] and settings return.
pub type Result<T> = std::result::Result<T, LossError>;

/// A loss over sequences: this micro-batch's share of it, its gradient, and what to log.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceLoss {
    /// This micro-batch's share of the step's loss.
    pub loss: f64,
    /// `d loss / d logp` of every token of every sequence, as the log-probabilities were given.
    pub gradient: Vec<Vec<f32>>,
    /// TRL's metrics.
    pub metrics: Metrics,
}
