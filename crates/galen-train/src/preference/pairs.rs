//! Pairs: a chosen and a rejected answer to one prompt, computed once for both.

use super::displacement::{CHOSEN_SHIFT, Displacement};
use super::reference::{Part, Reference, RowSequences, slices};
use super::{divergence, validation};
use crate::error::Result;
use crate::objective::{Objective, Place, Remark, StepGradient, Validation};
use galen_data::pack::{Sharing, pack_sequences, packed_tokens, plan_batches};
use galen_loss::pair::{self, PairBatch, PairObjective};
use galen_loss::{Metrics, Totals};
use galen_model::{Pass, PassOptions};
use galen_ops::profile::span;
use galen_types::{Tokenized, TokenizedPair};
use serde_json::Value;

/// Rows of a pair run.
#[derive(Debug, Clone, Copy)]
pub struct PairRows<'a> {
    /// Training rows.
    pub train: &'a [TokenizedPair],
    /// Validation rows; may be empty.
    pub validation: &'a [TokenizedPair],
}

impl PairRows<'_> {
    fn part(&self, part: Part) -> &[TokenizedPair] {
        match part {
            Part::Train => self.train,
            Part::Validation => self.validation,
        }
    }
}

impl RowSequences for PairRows<'_> {
    fn rows(&self, part: Part) -> usize {
        self.part(part).len()
    }

    fn sequences(&self, part: Part, row: usize) -> Vec<&Tokenized> {
        self.part(part)[row].sequences().to_vec()
    }
}

/// Learns from pairs by any [`PairObjective`].
pub struct Pairs<'a> {
    /// The rows.
    pub rows: PairRows<'a>,
    /// The loss.
    pub loss: &'a dyn PairObjective,
    /// Where training started; asked only where the loss needs it.
    pub reference: Reference,
    /// What sequences may compute once.
    pub sharing: Sharing,
    /// Watches the chosen answers' log-probability.
    pub displacement: Displacement,
}

/// A micro-batch run forward: its loss, and the gradient of each of the pass's targets.
struct Forward<'a> {
    pass: Pass<'a>,
    loss: f64,
    gradient: Vec<f32>,
    metrics: Metrics,
    answers: Answers,
}

/// What was seen of the answers' tokens.
#[derive(Default, Clone, Copy)]
struct Answers {
    tokens: u64,
    supervised: u64,
    chosen: u64,
    correct: u64,
}

impl Pairs<'_> {
    /// Tokens of the prompt whose log-probabilities the loss reads: all that have a predecessor.
    fn prompt_targets(&self, pair: &TokenizedPair) -> usize {
        if self.loss.reads_prompt() { pair.chosen().prompt_tokens().saturating_sub(1) } else { 0 }
    }

    fn totals(&self, part: Part, rows: impl IntoIterator<Item = usize>) -> Totals {
        let of = |row: usize| {
            let pair = &self.rows.part(part)[row];
            self.loss.totals(pair.chosen().tokens().supervised_tokens(), self.prompt_targets(pair))
        };
        rows.into_iter().map(of).sum()
    }

    fn forward<'m>(
        &self,
        at: &Place<'m>,
        part: Part,
        rows: &[usize],
        totals: Totals,
        options: PassOptions,
    ) -> Result<Forward<'m>> {
        let pairs: Vec<&TokenizedPair> = rows.iter().map(|row| &self.rows.part(part)[*row]).collect();
        // Where the prompt counts too, the chosen sequence is supervised from its second token.
        let whole: Vec<Tokenized> = if self.loss.reads_prompt() {
            let all = |pair: &&TokenizedPair| {
                let t = pair.chosen().tokens();
                Tokenized::new(t.origin().clone(), t.row(), t.ids().to_vec(), vec![true; t.ids().len()])
            };
            pairs.iter().map(all).collect::<std::result::Result<_, _>>()?
        } else {
            Vec::new()
        };
        let chosen = |i: usize| whole.get(i).unwrap_or(pairs[i].chosen().tokens());
        let sequences: Vec<&Tokenized> =
            (0..pairs.len()).flat_map(|i| [chosen(i), pairs[i].rejected().tokens()]).collect();
        let packed = {
            let _span = span("pack");
            pack_sequences(&sequences, self.sharing)?
        };
        let pass = Pass::forward(at.model, Some(at.adapter), packed.batch(), options)?;
        let reference = if self.loss.needs_reference() {
            let _span = span("reference");
            Some(self.reference.logps(at.model, &self.rows, part, rows, self.sharing)?)
        } else {
            None
        };
        let _span = span("loss");
        let (mut prompts, mut sides) = (Vec::new(), [Vec::new(), Vec::new()]);
        for (logps, pair) in packed.split(&pass.logps)?.chunks(2).zip(&pairs) {
            let (prompt, chosen) = logps[0].split_at(self.prompt_targets(pair));
            prompts.push(prompt);
            sides[0].push(chosen);
            sides[1].push(logps[1]);
        }
        let reference = reference.as_ref().map(|logps| {
            let logps = slices(logps);
            [0, 1].map(|side| logps.iter().skip(side).step_by(2).copied().collect::<Vec<&[f32]>>())
        });
        let batch = PairBatch {
            chosen: &sides[0],
            rejected: &sides[1],
            reference: reference.as_ref().map(|[chosen, rejected]| pair::Reference { chosen, rejected }),
            prompt: self.loss.reads_prompt().then_some(&prompts[..]),
        };
        let result = self.loss.loss(&batch, totals)?;
        let mut metrics = result.metrics;
        if let Some([chosen, rejected]) = &reference {
            divergence(&mut metrics, &[&sides[0][..], &sides[1]].concat(), &[&chosen[..], rejected].concat());
            let shift = |(c, r): (&&[f32], &&[f32])| {
                c.iter().zip(*r).map(|(c, r)| f64::from(c - r)).sum::<f64>() / c.len().max(1) as f64
            };
            metrics.mean(CHOSEN_SHIFT, sides[0].iter().zip(chosen).map(shift));
        }
        let mut gradients = Vec::with_capacity(sequences.len());
        for (i, (chosen, rejected)) in result.d_chosen.into_iter().zip(result.d_rejected).enumerate() {
            let prompt = result.d_prompt.get(i).cloned().unwrap_or_default();
            gradients.push([prompt, chosen].concat());
            gradients.push(rejected);
        }
        let gradient = packed.scatter(&gradients)?;
        let mut answers = Answers::default();
        for (i, pair) in pairs.iter().enumerate() {
            let chosen = packed.ranges()[2 * i].clone();
            let chosen = chosen.start + self.prompt_targets(pair)..chosen.end;
            answers.tokens += pair.sequences().iter().map(|s| s.ids().len() as u64).sum::<u64>();
            answers.supervised += pair.sequences().iter().map(|s| s.supervised_tokens() as u64).sum::<u64>();
            answers.chosen += chosen.len() as u64;
            answers.correct += pass.correct[chosen].iter().filter(|c| **c).count() as u64;
        }
        Ok(Forward { pass, loss: result.loss, gradient, metrics, answers })
    }
}

impl Objective for Pairs<'_> {
    fn lengths(&self) -> Vec<usize> {
        self.rows.train.iter().map(|pair| packed_tokens(&pair.sequences(), self.sharing)).collect()
    }

    fn origin(&self, row: usize) -> String {
        self.rows.train[row].origin().to_string()
    }

    fn step(&mut self, at: &Place, micro_batches: &[Vec<usize>]) -> Result<StepGradient> {
        let totals = self.totals(Part::Train, micro_batches.iter().flatten().copied());
        let options = PassOptions {
            training: true,
            checkpointing: at.settings.gradient_checkpointing,
            epoch: at.epoch,
            ..PassOptions::default()
        };
        let this = &*self;
        let (out, _) = at.each(micro_batches, |at, rows, out| {
            let Forward { pass, loss, gradient, metrics, answers } =
                this.forward(at, Part::Train, rows, totals, options)?;
            out.loss += loss;
            out.tokens += answers.tokens;
            out.supervised_tokens += answers.supervised;
            out.judged_tokens += answers.chosen;
            out.correct += answers.correct;
            out.metrics.merge(&metrics);
            out.add_backward(at.adapter, pass, gradient)
        })?;
        Ok(out)
    }

    fn validate(&mut self, at: &Place) -> Result<Option<Validation>> {
        let n = self.rows.validation.len();
        let totals = self.totals(Part::Validation, 0..n);
        let lengths: Vec<usize> =
            self.rows.validation.iter().map(|pair| packed_tokens(&pair.sequences(), self.sharing)).collect();
        let order: Vec<usize> = (0..n).collect();
        let (mut loss, mut correct, mut judged, mut metrics) = (0.0, 0, 0, Metrics::default());
        for rows in plan_batches(&lengths, &order, at.settings.micro_batch_size, at.settings.packing) {
            let made = self.forward(at, Part::Validation, &rows, totals, PassOptions::default())?;
            loss += made.loss;
            correct += made.answers.correct;
            judged += made.answers.chosen;
            metrics.merge(&made.metrics);
        }
        Ok((n > 0).then(|| validation(loss, correct, judged, &metrics)))
    }

    fn remark(&mut self, _step: u64, metrics: &Metrics) -> Remark {
        self.displacement.remark(metrics)
    }

    fn state(&self) -> Value {
        self.displacement.state()
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        self.displacement.restore(state);
        Ok(())
    }
}
