//! One step's gradient from answers that are sampled and judged.

use super::sample::slices;
use super::state::{Bits, Sampled};
use super::{Policy, PolicyLoss};
use crate::error::Result;
use crate::objective::{Place, StepGradient};
use galen_data::pack::pack_sequences;
use galen_loss::rollout::RolloutBatch;
use galen_loss::{Metrics, Totals};
use galen_model::{Pass, PassOptions};
use galen_ops::hook::ProjectionHook;
use galen_ops::profile::span;
use galen_types::{SequenceBatch, Tokenized, TokenizedAnswer};

impl Policy<'_> {
    /// Passes of `micro_batch_size` answers each. Answers without a gradient (masked, or of advantage 0 where no KL term
    /// moves them) need none: in the loss they stand with the generator's log-probabilities.
    pub(super) fn gradient(&self, at: &Place, sampled: &Sampled, metrics: Metrics) -> Result<StepGradient> {
        let advantages = sampled.advantages();
        let n = advantages.len();
        let masked = |i: usize| self.settings.mask_truncated && !sampled.answers[i].stopped;
        let counts = |i: usize| if masked(i) { 0 } else { sampled.answers[i].ids.len() };
        let totals: Totals = (0..n).map(|i| PolicyLoss::totals(counts(i))).sum();
        let options = PassOptions {
            training: true,
            checkpointing: at.settings.gradient_checkpointing,
            epoch: at.epoch,
            ..self.pass_options()
        };
        let learned: Vec<usize> =
            (0..n).filter(|i| !masked(*i) && self.loss.learns_from(advantages[*i])).collect();
        let idle: Vec<usize> = (0..n).filter(|i| !learned.contains(i)).collect();
        let parts: Vec<&[usize]> = learned.chunks(self.settings.answers_per_pass.max(1)).collect();
        let (mut out, losses) = at.each(&parts, |at, part, out| {
            let packed = self.pack(sampled, part)?;
            let pass = Pass::forward(at.model, Some(at.adapter), packed.batch(), options)?;
            let logps = packed.split(&pass.logps)?;
            let loss = self.part_loss(sampled, &advantages, part, &logps, totals)?;
            out.add_backward(at.adapter, pass, packed.scatter(&loss.gradient)?)?;
            Ok(loss)
        })?;
        out.metrics = metrics;
        for loss in losses {
            out.loss += loss.loss;
            out.metrics.merge(&loss.metrics);
        }
        for i in 0..n {
            let prompt = self.prompt_of(sampled, i).ids().len();
            out.tokens += (prompt + sampled.answers[i].ids.len()) as u64;
            out.supervised_tokens += counts(i) as u64;
        }
        if !idle.is_empty() {
            let empty: &[f32] = &[];
            let logps: Vec<&[f32]> = idle
                .iter()
                .map(|i| if masked(*i) { empty } else { &sampled.answers[*i].logps.0[..] })
                .collect();
            let advantages: Vec<f64> = vec![0.0; idle.len()];
            let batch = RolloutBatch {
                completions: &logps,
                old: None,
                reference: self.loss.moves_without_advantage().then_some(&logps[..]),
                advantages: &advantages,
            };
            let loss = self.loss.loss(&batch, totals)?;
            out.loss += loss.loss;
            out.metrics.merge(&loss.metrics);
        }
        Ok(out)
    }

    fn part_loss(
        &self,
        sampled: &Sampled,
        advantages: &[f64],
        part: &[usize],
        logps: &[&[f32]],
        totals: Totals,
    ) -> Result<galen_loss::SequenceLoss> {
        let of = |all: Vec<&'_ [f32]>| -> Option<Vec<Vec<f32>>> {
            (!all.is_empty()).then(|| part.iter().map(|i| all[*i].to_vec()).collect())
        };
        let (old, reference) = (of(slices(sampled.policy.as_ref())), of(slices(sampled.reference.as_ref())));
        let (old, reference) = (old.as_deref().map(views), reference.as_deref().map(views));
        let advantages: Vec<f64> = part.iter().map(|i| advantages[*i]).collect();
        let batch = RolloutBatch {
            completions: logps,
            old: old.as_deref(),
            reference: reference.as_deref(),
            advantages: &advantages,
        };
        Ok(self.loss.loss(&batch, totals)?)
    }

    /// Log-probabilities of all answers under the base with `hook`, without dropout.
    pub(super) fn answer_logps(
        &self,
        at: &Place,
        sampled: &Sampled,
        hook: Option<&dyn ProjectionHook>,
    ) -> Result<Vec<Bits>> {
        let all: Vec<usize> = (0..sampled.answers.len()).collect();
        let mut out = Vec::with_capacity(all.len());
        for part in all.chunks(self.settings.answers_per_pass.max(1)) {
            let packed = self.pack(sampled, part)?;
            let pass = Pass::forward(at.model, hook, packed.batch(), self.pass_options())?;
            out.extend(packed.split(&pass.logps)?.into_iter().map(|l| Bits(l.to_vec())));
        }
        Ok(out)
    }

    /// Log-probabilities are those of the distribution that tokens were drawn from, as far as its temperature goes.
    fn pass_options(&self) -> PassOptions {
        let temperature = self.settings.rollouts.sampling.temperature;
        PassOptions { temperature: (temperature > 0.0).then_some(temperature), ..PassOptions::default() }
    }

    fn prompt_of(&self, sampled: &Sampled, answer: usize) -> &galen_types::TokenizedPrompt {
        self.rows.train[sampled.rows[answer / self.settings.num_generations]]
    }

    fn pack(&self, sampled: &Sampled, part: &[usize]) -> Result<SequenceBatch> {
        let _span = span("pack");
        let answers = part
            .iter()
            .map(|i| self.prompt_of(sampled, *i).answered(&sampled.answers[*i].ids))
            .collect::<std::result::Result<Vec<TokenizedAnswer>, _>>()?;
        let sequences: Vec<&Tokenized> = answers.iter().map(TokenizedAnswer::tokens).collect();
        Ok(pack_sequences(&sequences, self.sharing)?)
    }
}

fn views(logps: &[Vec<f32>]) -> Vec<&[f32]> {
    logps.iter().map(Vec::as_slice).collect()
}
