//! Which rows each step of a run sees: a function of the data's lengths and the seed alone, so that a resumed run
//! knows its place from the step's number.

use galen_data::order::epoch_order;
use galen_data::pack::plan_batches;

/// The steps of a run.
#[derive(Debug, Clone)]
pub struct StepPlan {
    lengths: Vec<usize>,
    steps_per_epoch: u64,
    micro_batch_size: usize,
    accumulation: usize,
    packing: Option<usize>,
    seed: u64,
    iterations: usize,
}

impl StepPlan {
    /// `lengths`: tokens of each row. A step is `accumulation` micro-batches of `micro_batch_size` rows, or, with
    /// `packing: Some(sequence_len)`, of so many bins.
    pub fn new(
        lengths: Vec<usize>,
        micro_batch_size: usize,
        accumulation: usize,
        packing: Option<usize>,
        seed: u64,
    ) -> Self {
        let mut plan = Self {
            lengths,
            steps_per_epoch: 0,
            micro_batch_size,
            accumulation: accumulation.max(1),
            packing,
            seed,
            iterations: 1,
        };
        plan.steps_per_epoch = plan.epoch(0).len() as u64;
        plan
    }

    /// The same plan with each step made so many times running (the inner iterations of policy gradients).
    #[must_use]
    pub fn repeated(mut self, iterations: u64) -> Self {
        self.iterations = iterations.max(1) as usize;
        self.steps_per_epoch = self.epoch(0).len() as u64;
        self
    }

    /// Optimiser steps of a pass over the data.
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// Steps of one epoch: micro-batches of row numbers each.
    pub fn epoch(&self, epoch: u64) -> Vec<Vec<Vec<usize>>> {
        let order = epoch_order(self.lengths.len(), self.seed, epoch);
        let batches = plan_batches(&self.lengths, &order, self.micro_batch_size, self.packing);
        let steps = batches.chunks(self.accumulation);
        steps.flat_map(|step| std::iter::repeat_n(step.to_vec(), self.iterations)).collect()
    }
}
