//! Settings that depend on the length of the run, by Axolotl's and transformers' rules.

use super::table::Config;
use super::types::{Bf16, Scheduler, Steps, Strategy};

/// How often something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Every {
    /// Never.
    Never,
    /// After each of so many optimiser steps (at least 1).
    Steps(u64),
    /// At the end of each epoch.
    Epoch,
    /// After each validation that improved.
    Best,
}

/// Precision of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// bf16 where the device's kernels have it, else f32.
    Auto,
    /// bf16.
    Bf16,
    /// f32.
    F32,
}

impl Config {
    /// Passes of `micro_batch_size` rows in a step.
    pub fn accumulation(&self) -> u64 {
        let from_batch = self.batch_size.map(|b| b / self.micro_batch_size.max(1));
        self.gradient_accumulation_steps.or(from_batch).unwrap_or(1).max(1)
    }

    /// Precision of activations. `fp16` means whichever the device has.
    pub fn precision(&self) -> Precision {
        match self.bf16 {
            _ if self.float32 => Precision::F32,
            Bf16::On | Bf16::Full => Precision::Bf16,
            Bf16::Off if !self.fp16 => Precision::F32,
            Bf16::Auto | Bf16::Off => Precision::Auto,
        }
    }

    /// Whether rows are set aside to validate on.
    pub fn has_validation(&self) -> bool {
        self.val_set_size > 0.0 || !self.test_datasets.0.is_empty()
    }

    /// Optimiser steps of the run, from those of one epoch.
    pub fn total_steps(&self, steps_per_epoch: u64) -> u64 {
        let by_epochs = (self.num_epochs * steps_per_epoch as f64).ceil() as u64;
        match self.max_steps {
            Some(n) if n > 0 => n.unsigned_abs(),
            _ => by_epochs.max(1),
        }
    }

    /// Steps of warm-up in a run of `total` steps. A single one would have a rate of 0 and nothing else: it
    /// becomes two, as in Axolotl.
    pub fn warmup_of(&self, total: u64) -> u64 {
        let steps = match (self.warmup_steps, self.warmup_ratio) {
            _ if self.lr_scheduler == Scheduler::Constant => 0,
            (Some(n), _) => n,
            (None, Some(r)) => (r * total as f64) as u64,
            (None, None) => ((0.03 * total as f64) as u64).min(100),
        };
        if steps == 1 { 2 } else { steps }
    }

    /// When to validate in a run of `total` steps.
    pub fn eval_every(&self, total: u64) -> Every {
        if !self.has_validation() {
            return Every::Never;
        }
        self.every(self.eval_steps, self.evals_per_epoch, self.eval_strategy, total)
    }

    /// When to write a checkpoint in a run of `total` steps.
    pub fn save_every(&self, total: u64) -> Every {
        self.every(self.save_steps, self.saves_per_epoch, self.save_strategy, total)
    }

    fn every(
        &self,
        steps: Option<Steps>,
        per_epoch: Option<u64>,
        strategy: Option<Strategy>,
        total: u64,
    ) -> Every {
        let share = |share: f64| Every::Steps(((total as f64 * share).ceil() as u64).max(1));
        match (steps, per_epoch, strategy) {
            (_, _, Some(Strategy::No)) => Every::Never,
            (Some(Steps::Count(n)), _, _) => Every::Steps(n.max(1)),
            (Some(Steps::Share(s)), _, _) => share(s),
            (None, Some(n), _) if n as f64 * self.num_epochs > 1.0 => {
                share(1.0 / (n as f64 * self.num_epochs))
            }
            (None, _, Some(Strategy::Best)) => Every::Best,
            _ => Every::Epoch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_follow_axolotl() {
        let mut c = Config { num_epochs: 2.0, ..Config::default() };
        assert_eq!(c.total_steps(75), 150);
        assert_eq!((c.warmup_of(150), c.warmup_of(40), c.warmup_of(10_000)), (4, 2, 100));
        c.warmup_ratio = Some(0.1);
        assert_eq!(c.warmup_of(150), 15);
        c.lr_scheduler = Scheduler::Constant;
        assert_eq!(c.warmup_of(150), 0);
        assert_eq!(c.eval_every(150), Every::Never);
        c.val_set_size = 0.1;
        assert_eq!(c.eval_every(150), Every::Epoch);
        c.evals_per_epoch = Some(4);
        assert_eq!(c.eval_every(150), Every::Steps(19));
        c.saves_per_epoch = Some(1);
        assert_eq!(c.save_every(150), Every::Steps(75));
        c.eval_strategy = Some(Strategy::No);
        assert_eq!(c.eval_every(150), Every::Never);
        c.save_steps = Some(Steps::Share(0.25));
        assert_eq!(c.save_every(150), Every::Steps(38));
        c.max_steps = Some(7);
        assert_eq!(c.total_steps(75), 7);
        c.batch_size = Some(32);
        c.micro_batch_size = 4;
        assert_eq!((c.accumulation(), c.step_shape()), (8, (4, 8)));
    }
}
