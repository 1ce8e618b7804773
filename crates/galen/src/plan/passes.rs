//! The largest pass of a run, from its rows.

use super::PassShape;
use crate::config::Config;
use galen_data::pack::{MIN_SHARED_TOKENS, pack};
use galen_train::StepPlan;
use galen_types::Tokenized;
use std::collections::BTreeSet;

/// Epochs whose batches are looked at: those of later ones are like them.
const EPOCHS: u64 = 3;
/// Batches laid out as training lays them out: those with most tokens.
const LAID_OUT: usize = 16;

/// Rows and how steps take them.
pub struct Batches<'a> {
    /// The sequences of each of the plan's rows: one, or a pair's two.
    pub rows: &'a [Vec<&'a Tokenized>],
    /// Steps over rows of those lengths.
    pub plan: &'a StepPlan,
}

impl<'a> Batches<'a> {
    /// Micro-batches of an epoch.
    pub fn epoch(&self, epoch: u64) -> Vec<Vec<&'a Tokenized>> {
        let rows =
            |batch: &Vec<usize>| batch.iter().filter_map(|i| self.rows.get(*i)).flatten().copied().collect();
        self.plan.epoch(epoch).iter().flatten().map(rows).collect()
    }
}

/// The largest pass: T and N each the largest of the batches with most tokens, once laid out.
pub fn largest_pass(config: &Config, batches: &Batches) -> PassShape {
    if config.samples_answers() {
        return sampled_pass(config, batches);
    }
    let mut all: Vec<Vec<&Tokenized>> = (0..EPOCHS).flat_map(|epoch| batches.epoch(epoch)).collect();
    let tokens = |batch: &Vec<&Tokenized>| batch.iter().map(|r| r.ids().len()).sum::<usize>();
    all.sort_by_key(|batch| std::cmp::Reverse(tokens(batch)));
    let share = config.shares_prefixes().then_some(MIN_SHARED_TOKENS);
    let ids: BTreeSet<u32> = batches.rows.iter().flatten().flat_map(|r| r.ids().iter().copied()).collect();
    let mut largest = PassShape { ids: ids.len() as u64, ..PassShape::default() };
    for batch in all.iter().take(LAID_OUT) {
        let Ok(batch) = pack(batch, share) else { continue };
        let predicting: BTreeSet<u32> = batch.targets().iter().map(|t| t.index).collect();
        largest.tokens = largest.tokens.max(batch.ids().len() as u64);
        // A reward model's head is one row over few tokens.
        let n = if config.trains_reward() { 0 } else { predicting.len() as u64 };
        largest.predicting = largest.predicting.max(n);
    }
    largest
}

/// The largest pass over sampled answers, all as long as they may be, and the caches while they are drawn.
fn sampled_pass(config: &Config, batches: &Batches) -> PassShape {
    let mut prompts: Vec<u64> = batches.rows.iter().flatten().map(|row| row.ids().len() as u64).collect();
    prompts.sort_unstable_by_key(|len| std::cmp::Reverse(*len));
    let longest = |answers: u64| -> u64 {
        let n = answers.div_ceil(config.num_generations()) as usize;
        prompts.iter().take(n.max(1)).sum()
    };
    let (answers, limit) = (config.micro_batch_size, config.completion_limit());
    let together = config.rollout_settings(Vec::new()).rollouts.together as u64;
    let longest_prompt = prompts.first().copied().unwrap_or(0);
    let seen: BTreeSet<u32> = batches.rows.iter().flatten().flat_map(|r| r.ids().iter().copied()).collect();
    PassShape {
        tokens: longest(answers).saturating_add(answers.saturating_mul(limit)),
        predicting: answers.saturating_mul(limit),
        ids: (seen.len() as u64).saturating_add(answers.saturating_mul(limit)),
        cached: together.saturating_mul(longest_prompt.saturating_add(limit)),
    }
}
