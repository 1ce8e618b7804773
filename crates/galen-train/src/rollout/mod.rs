//! Learning from answers that the policy samples itself (GRPO, RLOO).
//!
//! ```text
//! prompts -> generator, adapter as it is -> answers -> kept on disk -> judge -> rewards -> advantages --+-> loss
//!                                              \-> pass over prompt and answers, prompts shared -> log-probs -+
//! adapter gradient <- backward <- gradient of each target <-----------------------------------------------+
//! ```
//!
//! An optimiser step sees `num_generations` answers to each of its prompts. With several inner iterations the same answers
//! serve so many steps. Answers are on the disk before they are judged: a judge that fails costs none.

mod drift;
mod gradient;
mod journal;
mod judge;
mod policy;
mod sample;
mod state;

pub use drift::LengthDrift;
pub use journal::Keep;
pub use judge::{Judge, JudgedAnswer, Part, Scores};
pub use policy::PolicyLoss;
pub use state::Store;

use crate::error::{Result, run_error};
use crate::objective::{Objective, Place, Remark, StepGradient, Validation};
use crate::preference::Reference;
use galen_data::pack::Sharing;
use galen_loss::Metrics;
use galen_model::Rollouts;
use galen_types::TokenizedPrompt;
use serde_json::Value;

/// Prompts of a run.
#[derive(Debug, Clone, Copy)]
pub struct PromptRows<'a> {
    /// Prompts to learn on.
    pub train: &'a [&'a TokenizedPrompt],
    /// Prompts to validate on; may be empty.
    pub validation: &'a [&'a TokenizedPrompt],
}

/// How answers are sampled and used.
#[derive(Debug, Clone)]
pub struct RolloutSettings {
    /// Answers to each prompt, two or more.
    pub num_generations: usize,
    /// Optimiser steps that learn from the same answers.
    pub num_iterations: u64,
    /// Answers of a pass.
    pub answers_per_pass: usize,
    /// Answers cut off at the length limit are not learned from.
    pub mask_truncated: bool,
    /// How answers are drawn.
    pub rollouts: Rollouts,
    /// Seed of the draws.
    pub seed: u64,
}

/// Learns from sampled answers.
pub struct Policy<'a> {
    /// The prompts.
    pub rows: PromptRows<'a>,
    /// The loss.
    pub loss: PolicyLoss,
    /// How answers are sampled and used.
    pub settings: RolloutSettings,
    /// Where training started; asked only where the loss needs it.
    pub reference: Reference,
    /// What sequences may compute once.
    pub sharing: Sharing,
    /// What answers are worth.
    pub judge: &'a dyn Judge,
    /// Watches the answers' length.
    pub drift: LengthDrift,
    /// What it keeps of its answers.
    pub store: Store,
}

impl Objective for Policy<'_> {
    fn lengths(&self) -> Vec<usize> {
        self.rows.train.iter().map(|p| p.ids().len()).collect()
    }

    fn origin(&self, row: usize) -> String {
        self.rows.train[row].origin().to_string()
    }

    fn step(&mut self, at: &Place, micro_batches: &[Vec<usize>]) -> Result<StepGradient> {
        let rows: Vec<usize> = micro_batches.iter().flatten().copied().collect();
        let iteration = at.step % self.settings.num_iterations.max(1);
        let first = at.step - iteration;
        let mut metrics = Metrics::default();
        let group = self.settings.num_generations;
        let sampled = match self.store.sampled.take().filter(|s| s.judged(&rows, group, first)) {
            Some(sampled) => sampled,
            None if iteration > 0 => {
                let what = format!("the checkpoint lacks the answers sampled for step {}", first + 1);
                return run_error(self.store.dir.display(), what);
            }
            None => {
                let (sampled, measured) = self.sample(at, &rows)?;
                metrics = measured;
                sampled
            }
        };
        let gradient = self.gradient(at, &sampled, metrics);
        self.store.sampled = Some(sampled);
        gradient
    }

    fn validate(&mut self, at: &Place) -> Result<Option<Validation>> {
        self.held_out(at)
    }

    fn remark(&mut self, _step: u64, metrics: &Metrics) -> Remark {
        self.drift.remark(metrics)
    }

    fn state(&self) -> Value {
        // Answers that further iterations learn from: the policy that sampled them is gone by then.
        let answers = if self.settings.num_iterations > 1 { self.store.sampled.as_ref() } else { None };
        serde_json::json!({ "drift": self.drift.state(), "sampled": answers })
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        self.drift.restore(&state["drift"]);
        self.store.sampled = serde_json::from_value(state["sampled"].clone()).ok().flatten();
        Ok(())
    }
}
