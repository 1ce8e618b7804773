//! Several completions each of several prompts, with the log-probability of every token drawn: what policy gradients
//! (GRPO, Shao et al. 2024) are estimated from.

use crate::generate::{Session, StepKernels};
use crate::model::Model;
use crate::sample::{Sampling, log_prob};
use galen_ops::hook::ProjectionHook;
use galen_ops::{Error, Result};
use rayon::prelude::*;

/// A prompt, and the seed of each completion it is to have.
#[derive(Debug, Clone, Copy)]
pub struct RolloutPrompt<'r> {
    /// At least one token.
    pub ids: &'r [u32],
    /// One completion each.
    pub seeds: &'r [u64],
}

/// Why a completion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Its last token is one of the stop tokens.
    Stop,
    /// It has as many tokens as it may have.
    Length,
}

/// A prompt's continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// The tokens drawn, the stop token included.
    pub ids: Vec<u32>,
    /// For each of them `ln p` under the model itself: temperature 1, no filter, no penalty. Equal to what
    /// [`crate::Pass`] gives for the same tokens within rounding.
    pub logps: Vec<f32>,
    /// Why it ended.
    pub end: End,
}

/// Draws completions of many prompts. A prompt goes through the model once for all its completions. A completion is a
/// function of model, adapter, prompt, seed and these settings: not of its neighbours, `together` or threads.
#[derive(Debug, Clone)]
pub struct Rollouts {
    /// How tokens are drawn; the seed is each completion's own.
    pub sampling: Sampling,
    /// At most so many tokens a completion.
    pub max_tokens: usize,
    /// Tokens that end a completion.
    pub stop_ids: Vec<u32>,
    /// Completions decoded at a time: bounds the memory of their caches.
    pub together: usize,
    /// [`StepKernels::Passes`] from about sixteen completions at a time on.
    pub kernels: StepKernels,
}

/// A completion on its way.
struct Live<'a> {
    place: (usize, usize),
    session: Session<'a>,
    seed: u64,
    /// The prompt's tokens, then those drawn.
    seen: Vec<u32>,
    logps: Vec<f32>,
}

impl Rollouts {
    /// Each prompt's completions, in the order of its seeds. The adapter's values are read at the beginning: a call
    /// after a training step samples from what that step left. Errors: an empty prompt; what the operations refuse.
    pub fn run(
        &self,
        model: &Model,
        hook: Option<&dyn ProjectionHook>,
        prompts: &[RolloutPrompt],
    ) -> Result<Vec<Vec<Completion>>> {
        let blank = || Completion { ids: Vec::new(), logps: Vec::new(), end: End::Length };
        let mut results: Vec<Vec<Completion>> =
            prompts.iter().map(|p| p.seeds.iter().map(|_| blank()).collect()).collect();
        if self.max_tokens == 0 {
            return Ok(results);
        }
        let family = Session::new(model, hook).with_kernels(self.kernels);
        let mut waiting =
            prompts.iter().enumerate().flat_map(|(i, p)| (0..p.seeds.len()).map(move |j| (i, j)));
        let mut prompt: Option<(usize, Session, Vec<f32>)> = None;
        let mut live: Vec<Live> = Vec::new();
        loop {
            while live.len() < self.together.max(1)
                && let Some((i, j)) = waiting.next()
            {
                let RolloutPrompt { ids, seeds } = prompts[i];
                let (_, session, logits) = match prompt.take() {
                    Some(same) if same.0 == i => prompt.insert(same),
                    _ if ids.is_empty() => {
                        let what = format!("prompt {i} has no token");
                        return Err(Error::Shape { op: "rollouts", what });
                    }
                    _ => {
                        let mut session = family.sibling();
                        let logits = session.feed(ids)?;
                        prompt.insert((i, session, logits))
                    }
                };
                let (session, seed, seen) = (session.clone(), seeds[j], ids.to_vec());
                let mut new = Live { place: (i, j), session, seed, seen, logps: Vec::new() };
                match self.draw(&mut new, logits) {
                    Some(end) => results[i][j] = new.finish(ids.len(), end),
                    None => live.push(new),
                }
            }
            if live.is_empty() {
                return Ok(results);
            }
            let ids: Vec<u32> = live.iter().filter_map(|l| l.seen.last().copied()).collect();
            let mut sessions: Vec<&mut Session> = live.iter_mut().map(|l| &mut l.session).collect();
            let logits = Session::step(&mut sessions, &ids)?;
            let rows = logits.par_chunks_exact(logits.len() / ids.len());
            let ends: Vec<Option<End>> =
                live.par_iter_mut().zip(rows).map(|(l, row)| self.draw(l, row)).collect();
            let mut going = Vec::with_capacity(live.len());
            for (l, end) in live.into_iter().zip(ends) {
                let (i, j) = l.place;
                match end {
                    Some(end) => results[i][j] = l.finish(prompts[i].ids.len(), end),
                    None => going.push(l),
                }
            }
            live = going;
        }
    }

    /// Draws the next token of a completion; says whether that was its last.
    fn draw(&self, live: &mut Live, logits: &[f32]) -> Option<End> {
        let sampling = Sampling { seed: live.seed, ..self.sampling.clone() };
        let id = sampling.next(logits, &live.seen, live.logps.len() as u64);
        live.seen.push(id);
        live.logps.push(log_prob(logits, id));
        if self.stop_ids.contains(&id) {
            Some(End::Stop)
        } else if live.logps.len() >= self.max_tokens {
            Some(End::Length)
        } else {
            None
        }
    }
}

impl Live<'_> {
    fn finish(mut self, prompt_tokens: usize, end: End) -> Completion {
        Completion { ids: self.seen.split_off(prompt_tokens), logps: self.logps, end }
    }
}
