//! Learning from answers of which some are better: pairs (DPO, ORPO, CPO and what is of their form; reward models) and labelled
//! answers (KTO).
//!
//! ```text
//! micro-batch of rows -> sequences, prompts shared -> pass -> log-probabilities by sequence ----+
//!                                \-> reference: the same model without the adapter, or cached --+-> loss
//! adapter gradient <- backward <- gradient of each target <- gradient by sequence <-------------+
//! ```
//!
//! A step's means run over all rows of its micro-batches, so accumulation gives the larger batch's result.

mod displacement;
mod labelled;
mod pairs;
mod reference;
mod reward;

pub use displacement::{Displacement, OnDisplacement};
pub use labelled::{LabelledRows, Labels};
pub use pairs::{PairRows, Pairs};
pub use reference::{Part, Reference, RowSequences};
pub use reward::{RewardPairs, rewards};

use crate::objective::Validation;
use galen_adapter::Adapter;
use galen_data::pack::Sharing;
use galen_loss::Metrics;

/// What the sequences of a run may compute once: with dropout only those of one row, whose masks are the same.
pub fn sharing(adapter: &Adapter) -> Sharing {
    if adapter.config.dropout == 0.0 { Sharing::AcrossRows } else { Sharing::WithinRow }
}

/// A validation of these figures; `correct` of `judged` tokens are predicted right, none where none are predicted.
fn validation(loss: f64, correct: u64, judged: u64, metrics: &Metrics) -> Validation {
    Validation {
        eval_loss: loss,
        eval_mean_token_accuracy: (judged > 0).then(|| correct as f64 / judged as f64),
        metrics: metrics.iter().map(|(name, value)| (format!("eval_{name}"), value)).collect(),
    }
}

/// How far answers have moved from the reference: half the squared log ratio of each token, an estimate of the KL divergence that
/// is never below 0 (`reference_kl`). `answers` and `reference` hold a slice an answer.
fn divergence(metrics: &mut Metrics, answers: &[&[f32]], reference: &[&[f32]]) {
    let ratios =
        answers.iter().zip(reference).flat_map(|(a, r)| a.iter().zip(*r)).map(|(a, r)| f64::from(a - r));
    metrics.mean("reference_kl", ratios.map(|r| r * r / 2.0));
}
