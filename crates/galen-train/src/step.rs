//! One optimiser step's gradient: exactly that of the larger batch, however it is divided into micro-batches.

use crate::error::Result;
use crate::settings::TrainSettings;
use galen_adapter::Adapter;
use galen_data::pack::{MIN_SHARED_TOKENS, pack};
use galen_loss::sft;
use galen_model::{Model, Pass, PassOptions};
use galen_ops::profile::span;
use galen_ops::tensor::f32_view;
use galen_types::Tokenized;

/// A step's loss and gradients.
pub struct StepGradient {
    /// Mean negative log-probability of the step's supervised tokens.
    pub loss: f64,
    /// By block, in the layout of the adapter's buffers.
    pub gradients: Vec<Vec<f32>>,
    /// Tokens of the rows.
    pub tokens: u64,
    /// Of which supervised.
    pub supervised_tokens: u64,
    /// Supervised tokens whose most likely prediction is right.
    pub correct: u64,
}

/// The gradient of the mean loss over all supervised tokens of `micro_batches`.
pub fn step_gradient(
    model: &Model,
    adapter: &Adapter,
    micro_batches: &[Vec<&Tokenized>],
    settings: &TrainSettings,
    epoch: u64,
) -> Result<StepGradient> {
    let rows = || micro_batches.iter().flatten();
    let supervised: usize = rows().map(|r| r.supervised_tokens()).sum();
    let mut out = StepGradient {
        loss: 0.0,
        gradients: adapter.layers().iter().map(|l| vec![0.0; l.values.len()]).collect(),
        tokens: rows().map(|r| r.ids().len() as u64).sum(),
        supervised_tokens: supervised as u64,
        correct: 0,
    };
    let share = settings.share_prefixes && adapter.config.dropout == 0.0;
    let options = PassOptions { training: true, checkpointing: settings.gradient_checkpointing, epoch };
    for batch in micro_batches {
        let batch = {
            let _span = span("pack");
            pack(batch, share.then_some(MIN_SHARED_TOKENS))?
        };
        let pass = Pass::forward(model, Some(adapter), &batch, options)?;
        let (loss, gradient) = {
            let _span = span("loss");
            sft(&pass.logps, supervised)
        };
        out.loss += loss;
        out.correct += pass.correct.iter().filter(|c| **c).count() as u64;
        let gradients = &mut out.gradients;
        pass.backward(gradient, &mut |layer, leaves| {
            let _span = span("gradient sums");
            let Some(buffer) = gradients.get_mut(layer) else { return Ok(()) };
            let ranges = adapter.layers()[layer].entries.iter().flat_map(|e| &e.ranges);
            for (range, leaf) in ranges.zip(leaves) {
                if let Some(leaf) = leaf {
                    let leaf = f32_view(&leaf)?;
                    buffer[range.clone()].iter_mut().zip(leaf.iter()).for_each(|(g, l)| *g += l);
                }
            }
            Ok(())
        })?;
    }
    Ok(out)
}
