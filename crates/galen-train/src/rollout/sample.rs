//! Sampling answers, having them judged, and the validation that does both.

use super::drift::MEAN_LENGTH;
use super::journal::Line;
use super::state::{Bits, Sample, Sampled};
use super::{JudgedAnswer, Part, Policy, PolicyLoss, Scores};
use crate::error::{Error, Result};
use crate::objective::{Place, Validation};
use galen_data::order::SplitMix64;
use galen_loss::Metrics;
use galen_loss::rollout::Rewards;
use galen_model::{Completion, End, RolloutPrompt, Rollouts, Sampling};
use galen_ops::profile::span;
use galen_types::TokenizedPrompt;
use serde_json::Value;

impl Policy<'_> {
    /// Samples and judges the answers that the steps from here on learn from.
    pub(super) fn sample(&mut self, at: &Place, rows: &[usize]) -> Result<(Sampled, Metrics)> {
        let group = self.settings.num_generations;
        let mut sampled = if let Some(waiting) = Sampled::pending(&self.store, rows, group, at.step) {
            waiting
        } else {
            let sampled = self.draw(at, rows)?;
            sampled.keep(&self.store.dir)?;
            sampled
        };
        let answers: Vec<JudgedAnswer> = sampled
            .answers
            .iter()
            .enumerate()
            .map(|(i, a)| JudgedAnswer { row: rows[i / group], ids: &a.ids, end: a.end() })
            .collect();
        let scores = {
            let _span = span("rewards");
            self.judge
                .score(Part::Train, &answers)
                .map_err(|what| Error::Judge { step: at.step + 1, what })?
        };
        if self.settings.num_iterations > 1 || self.loss.needs_policy() {
            sampled.policy = Some(self.answer_logps(at, &sampled, Some(at.adapter))?);
        }
        if self.loss.needs_reference() {
            let _span = span("reference");
            sampled.reference = Some(self.answer_logps(at, &sampled, self.reference.hook(at.model))?);
        }
        let functions = self.judge.functions();
        let names: Vec<&str> = functions.iter().map(|(name, _)| name.as_str()).collect();
        let weights: Vec<f64> = functions.iter().map(|(_, weight)| *weight).collect();
        let rewards =
            Rewards { values: &scores.values, names: &names, weights: &weights, num_generations: group };
        let (policy, reference) = (slices(sampled.policy.as_ref()), slices(sampled.reference.as_ref()));
        let reference = sampled.reference.is_some().then_some(&reference[..]);
        let advantages = self.loss.advantages(&rewards, &policy, reference)?;
        sampled.advantages = advantages.values.iter().map(|a| a.to_bits()).collect();
        let mut metrics = lengths(&sampled.answers);
        metrics.merge(&advantages.metrics);
        self.write_down(at, &sampled, &scores, &names)?;
        Sampled::settle(&self.store.dir);
        Ok((sampled, metrics))
    }

    fn draw(&self, at: &Place, rows: &[usize]) -> Result<Sampled> {
        let _span = span("sample answers");
        let seeds: Vec<Vec<u64>> = rows
            .iter()
            .map(|row| {
                let seed = |j: usize| {
                    SplitMix64::keyed(&[self.settings.seed, at.step, *row as u64, j as u64]).next_u64()
                };
                (0..self.settings.num_generations).map(seed).collect()
            })
            .collect();
        let prompts: Vec<&TokenizedPrompt> = rows.iter().map(|row| self.rows.train[*row]).collect();
        let groups = generate(at, &self.settings.rollouts, &prompts, &seeds)?;
        Ok(Sampled {
            key: self.store.key.clone(),
            step: at.step,
            rows: rows.to_vec(),
            answers: groups.into_iter().flatten().map(Sample::from).collect(),
            advantages: Vec::new(),
            policy: None,
            reference: None,
        })
    }

    fn write_down(&mut self, at: &Place, sampled: &Sampled, scores: &Scores, names: &[&str]) -> Result<()> {
        for i in 0..self.store.journal.keeps(sampled.answers.len()) {
            let row = sampled.rows[i / self.settings.num_generations];
            let rewards = names.iter().zip(&scores.values[i]);
            let answer = &sampled.answers[i];
            let line = Line {
                step: at.step + 1,
                row: self.rows.train[row].origin().to_string(),
                prompt: &self.judge.prompt(Part::Train, row),
                completion: scores.texts.get(i).map_or("", String::as_str),
                rewards: rewards.map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect(),
                advantage: f64::from_bits(sampled.advantages[i]),
                tokens: answer.ids.len(),
                finish_reason: if answer.stopped { "stop" } else { "length" },
            };
            self.store.journal.write(at.step, &line)?;
        }
        Ok(())
    }

    /// One greedy answer to each prompt that is held out, judged by the same rewards.
    pub(super) fn held_out(&self, at: &Place) -> Result<Option<Validation>> {
        let rows = self.rows.validation;
        if rows.is_empty() {
            return Ok(None);
        }
        let greedy = Rollouts { sampling: Sampling::default(), ..self.settings.rollouts.clone() };
        let answers = generate(at, &greedy, rows, &vec![vec![0]; rows.len()])?;
        let answers: Vec<Completion> = answers.into_iter().flatten().collect();
        let judged: Vec<JudgedAnswer> = answers
            .iter()
            .enumerate()
            .map(|(row, a)| JudgedAnswer { row, ids: &a.ids, end: a.end })
            .collect();
        let scores = self
            .judge
            .score(Part::Validation, &judged)
            .map_err(|what| Error::Judge { step: at.step, what })?;
        let mut metrics = Metrics::default();
        let functions = self.judge.functions();
        for (k, (name, _)) in functions.iter().enumerate() {
            metrics.mean(format!("eval_rewards/{name}/mean"), scores.values.iter().filter_map(|v| v[k]));
        }
        metrics.mean("eval_reward", scores.totals.iter().copied().flatten());
        metrics.mean("eval_completions/mean_length", answers.iter().map(|a| a.ids.len() as f64));
        metrics.mean(
            "eval_completions/clipped_ratio",
            answers.iter().map(|a| f64::from(u8::from(a.end == End::Length))),
        );
        Ok(Some(Validation {
            eval_loss: -metrics.get("eval_reward").unwrap_or(0.0),
            eval_mean_token_accuracy: None,
            metrics: metrics.iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        }))
    }
}

fn generate(
    at: &Place,
    rollouts: &Rollouts,
    prompts: &[&TokenizedPrompt],
    seeds: &[Vec<u64>],
) -> Result<Vec<Vec<Completion>>> {
    let prompts: Vec<RolloutPrompt> =
        prompts.iter().zip(seeds).map(|(p, seeds)| RolloutPrompt { ids: p.ids(), seeds }).collect();
    // An answer does not depend on those beside it.
    let shares: Vec<&[RolloutPrompt]> = prompts.chunks(prompts.len().div_ceil(at.devices()).max(1)).collect();
    let all = at.deal(&shares, |at, share| Ok(rollouts.run(at.model, Some(at.adapter), share)?))?;
    Ok(all.into_iter().flatten().collect())
}

/// TRL's figures of the answers, and their entropy: the mean of `-log p` of the tokens drawn, which at temperature 1 has
/// the entropy as its expectation.
fn lengths(answers: &[Sample]) -> Metrics {
    let mut metrics = Metrics::default();
    let all = || answers.iter().map(|a| a.ids.len() as f64);
    let ended = || answers.iter().filter(|a| a.stopped).map(|a| a.ids.len() as f64);
    metrics.mean(MEAN_LENGTH, all());
    metrics.min("completions/min_length", all());
    metrics.max("completions/max_length", all());
    metrics.mean("completions/clipped_ratio", answers.iter().map(|a| f64::from(u8::from(!a.stopped))));
    metrics.mean("completions/mean_terminated_length", ended());
    metrics.min("completions/min_terminated_length", ended());
    metrics.max("completions/max_terminated_length", ended());
    metrics.mean("entropy", answers.iter().flat_map(|a| a.logps.0.iter().map(|l| -f64::from(*l))));
    metrics
}

pub(super) fn slices(logps: Option<&Vec<Bits>>) -> Vec<&[f32]> {
    logps.into_iter().flatten().map(|bits| &bits.0[..]).collect()
}

impl PolicyLoss {
    /// Whether an answer has a gradient at all, and so needs a pass.
    pub(super) fn learns_from(&self, advantage: f64) -> bool {
        advantage != 0.0 || self.moves_without_advantage()
    }
}
