//! Supervised fine-tuning: the mean negative log-probability of the supervised tokens.

use crate::error::Result;
use crate::objective::{Objective, Place, StepGradient, Validation};
use crate::settings::TrainSettings;
use galen_data::pack::{MIN_SHARED_TOKENS, pack, plan_batches};
use galen_loss::{sft, sft_gradient};
use galen_model::{Model, Noise, Pass, PassOptions};
use galen_ops::hook::ProjectionHook;
use galen_ops::profile::span;
use galen_types::Tokenized;
use std::collections::BTreeMap;

/// Rows with supervised tokens.
#[derive(Debug, Clone, Copy)]
pub struct Sft<'a> {
    /// Training rows.
    pub train: &'a [Tokenized],
    /// Validation rows; may be empty.
    pub validation: &'a [Tokenized],
}

impl Objective for Sft<'_> {
    fn lengths(&self) -> Vec<usize> {
        self.train.iter().map(|r| r.ids().len()).collect()
    }

    fn origin(&self, row: usize) -> String {
        self.train[row].origin().to_string()
    }

    fn step(&mut self, at: &Place, micro_batches: &[Vec<usize>]) -> Result<StepGradient> {
        let rows: Vec<Vec<&Tokenized>> =
            micro_batches.iter().map(|b| b.iter().map(|i| &self.train[*i]).collect()).collect();
        step_gradient(at, &rows)
    }

    fn validate(&mut self, at: &Place) -> Result<Option<Validation>> {
        validate(at.model, at.adapter, self.validation, at.settings)
    }
}

/// The gradient of the mean loss over all supervised tokens of `micro_batches`: exactly that of the larger batch,
/// however it is divided.
pub fn step_gradient(at: &Place, micro_batches: &[Vec<&Tokenized>]) -> Result<StepGradient> {
    let rows = || micro_batches.iter().flatten();
    let supervised: usize = rows().map(|r| r.supervised_tokens()).sum();
    let noise = at.settings.neftune_noise_alpha.filter(|alpha| *alpha > 0.0);
    let noise = noise.map(|alpha| Noise { alpha: alpha as f32, seed: at.settings.seed });
    let share = at.settings.share_prefixes && at.adapter.config.dropout == 0.0 && noise.is_none();
    let options = PassOptions {
        training: true,
        checkpointing: at.settings.gradient_checkpointing,
        epoch: at.epoch,
        noise,
        ..PassOptions::default()
    };
    let (mut out, all) = at.each(micro_batches, |at, batch, out| {
        let batch = {
            let _span = span("pack");
            pack(batch, share.then_some(MIN_SHARED_TOKENS))?
        };
        let pass = Pass::launch(at.model, Some(at.adapter), &batch, options)?;
        let gradient = sft_gradient(batch.targets().len(), supervised);
        out.add_leaves(at.adapter, |sink| pass.backward(gradient, sink))
    })?;
    out.tokens = rows().map(|r| r.ids().len() as u64).sum();
    (out.supervised_tokens, out.judged_tokens) = (supervised as u64, supervised as u64);
    // Nobody waited for an accelerator until here.
    for scores in all {
        let (logps, correct) = scores.read()?;
        let _span = span("loss");
        out.loss += sft(&logps, supervised).0;
        out.correct += correct.iter().filter(|c| **c).count() as u64;
    }
    Ok(out)
}

/// Means over all supervised tokens of the rows, without dropout. Nothing when there are none.
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
        eval_mean_token_accuracy: Some(right as f64 / n as f64),
        metrics: BTreeMap::new(),
    }))
}
