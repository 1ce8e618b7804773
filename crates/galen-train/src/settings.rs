//! What a training run is told, already resolved: no keys, no defaults, no files.

use galen_optim::{AdamWConfig, Schedule};

/// How a run trains.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainSettings {
    /// Rows (or bins, when packing) of a micro-batch.
    pub micro_batch_size: usize,
    /// Micro-batches of an optimiser step.
    pub gradient_accumulation_steps: usize,
    /// Optimiser steps of the whole run.
    pub total_steps: u64,
    /// `Some(sequence_len)`: fill bins of that many tokens.
    pub packing: Option<usize>,
    /// Compute what rows of a batch begin with in common once. Off where dropout or noise gives each row
    /// something of its own.
    pub share_prefixes: bool,
    /// Noise on the embeddings of supervised training: NEFTune's alpha.
    pub neftune_noise_alpha: Option<f64>,
    /// Keep only each block's input and run blocks again in backward.
    pub gradient_checkpointing: bool,
    /// Shape of the learning rate; its total is set by the run.
    pub lr_scheduler: String,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Optimiser.
    pub adamw: AdamWConfig,
    /// LoRA+: the learning rate of B over that of A.
    pub loraplus_lr_ratio: Option<f64>,
    /// Clip the global norm here; 0 never clips.
    pub max_grad_norm: f64,
    /// Steps made with the same rows running: the inner iterations of policy gradients, else 1.
    pub num_iterations: u64,
    /// Orders the rows.
    pub seed: u64,
    /// When to validate.
    pub eval: Cadence,
    /// When to write a checkpoint.
    pub save: Cadence,
    /// Checkpoints kept: the newest, and with `load_best_model_at_end` the best, always among them.
    pub save_total_limit: Option<usize>,
    /// What makes a checkpoint the best.
    pub metric_for_best_model: BestMetric,
    /// End with the best checkpoint's adapter rather than the last.
    pub load_best_model_at_end: bool,
    /// Stop after so many validations without a better one.
    pub early_stopping_patience: Option<u64>,
    /// Stop when the loss exceeds this `loss_watchdog_patience` steps running.
    pub loss_watchdog_threshold: Option<f64>,
    /// See [`TrainSettings::loss_watchdog_threshold`].
    pub loss_watchdog_patience: u64,
}

/// When something happens besides the end of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cadence {
    /// Never.
    Never,
    /// Every so many steps.
    Steps(u64),
    /// At the end of each epoch.
    Epoch,
    /// After each validation that is the best so far (checkpoints).
    Best,
}

impl Cadence {
    /// Whether it is due after step `step` (from 1) of a run with `per_epoch` steps an epoch; `best`: the step's
    /// validation is the best so far.
    pub fn due(self, step: u64, per_epoch: u64, best: bool) -> bool {
        match self {
            Self::Never => false,
            Self::Steps(n) => n > 0 && step.is_multiple_of(n),
            Self::Epoch => step.is_multiple_of(per_epoch.max(1)),
            Self::Best => best,
        }
    }
}

/// The figure of a validation that makes a checkpoint the best.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BestMetric {
    /// Its name: `eval_loss`, or another that the objective measures.
    pub name: String,
    /// Whether more is better.
    pub greater_is_better: bool,
}

impl Default for BestMetric {
    fn default() -> Self {
        Self { name: "eval_loss".into(), greater_is_better: false }
    }
}

impl TrainSettings {
    /// One step after another at one rate: batches of one row, no clipping, neither validation nor checkpoints. What checks or
    /// timings of steps begin with.
    pub fn steps(learning_rate: f64) -> Self {
        Self {
            micro_batch_size: 1,
            gradient_accumulation_steps: 1,
            total_steps: 1,
            packing: None,
            share_prefixes: true,
            neftune_noise_alpha: None,
            gradient_checkpointing: false,
            lr_scheduler: "constant".into(),
            learning_rate,
            warmup_steps: 0,
            adamw: AdamWConfig::default(),
            loraplus_lr_ratio: None,
            max_grad_norm: 0.0,
            num_iterations: 1,
            seed: 1,
            eval: Cadence::Never,
            save: Cadence::Never,
            save_total_limit: None,
            metric_for_best_model: BestMetric::default(),
            load_best_model_at_end: false,
            early_stopping_patience: None,
            loss_watchdog_threshold: None,
            loss_watchdog_patience: 3,
        }
    }

    /// The learning rate's course.
    pub fn schedule(&self) -> Schedule {
        Schedule {
            name: self.lr_scheduler.clone(),
            peak: self.learning_rate,
            warmup_steps: self.warmup_steps,
            total_steps: self.total_steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cadences_fall_where_they_should() {
        let steps = |c: Cadence| (1..=20).filter(|s| c.due(*s, 10, *s == 13)).collect::<Vec<_>>();
        assert!(steps(Cadence::Never).is_empty());
        assert_eq!(steps(Cadence::Steps(7)), [7, 14]);
        assert_eq!(steps(Cadence::Epoch), [10, 20]);
        assert_eq!(steps(Cadence::Best), [13]);
    }
}
