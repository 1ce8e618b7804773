//! Loss on rows that are not trained on.

use crate::error::Result;
use crate::settings::TrainSettings;
use galen_data::pack::{MIN_SHARED_TOKENS, pack, plan_batches};
use galen_model::{Model, Pass, PassOptions};
use galen_ops::hook::ProjectionHook;
use galen_types::Tokenized;
use serde::{Deserialize, Serialize};

/// Means over all supervised tokens of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Mean negative log-probability in nats.
    pub eval_loss: f64,
    /// Share of tokens whose most likely prediction is right.
    pub eval_mean_token_accuracy: f64,
}

/// Runs the rows through the model without dropout. Nothing when there are none.
pub fn validate(
    model: &Model,
    hook: &dyn ProjectionHook,
    rows: &[Tokenized],
    settings: &TrainSettings,
) -> Result<Option<Validation>> {
    let lengths: Vec<usize> = rows.iter().map(|r| r.ids().len()).collect();
    let order: Vec<usize> = (0..rows.len()).collect();
    let (mut loss, mut right, mut n) = (0f64, 0usize, 0usize);
    for batch in plan_batches(&lengths, &order, settings.micro_batch_size, settings.packing) {
        let batch: Vec<&Tokenized> = batch.iter().map(|i| &rows[*i]).collect();
        let batch = pack(&batch, Some(MIN_SHARED_TOKENS))?;
        let pass = Pass::forward(model, Some(hook), &batch, PassOptions::default())?;
        loss -= pass.logps.0.iter().map(|l| f64::from(*l)).sum::<f64>();
        right += pass.correct.iter().filter(|c| **c).count();
        n += pass.correct.len();
    }
    Ok((n > 0).then(|| Validation {
        eval_loss: loss / n as f64,
        eval_mean_token_accuracy: right as f64 / n as f64,
    }))
}
