//! Single answers, each good or bad (KTO).

use super::reference::{Part, Reference, RowSequences, slices};
use super::{divergence, validation};
use crate::error::Result;
use crate::objective::{Objective, Place, StepGradient, Validation};
use galen_data::pack::{Sharing, pack_sequences, plan_batches};
use galen_loss::{Kto, KtoBatch, Label, Metrics, SequenceLoss, Totals};
use galen_model::{Model, Pass, PassOptions};
use galen_ops::profile::span;
use galen_types::{SequenceBatch, Tokenized, TokenizedAnswer, TokenizedLabelled};

/// Rows of a run of labelled answers.
#[derive(Debug, Clone, Copy)]
pub struct LabelledRows<'a> {
    /// Training rows.
    pub train: &'a [TokenizedLabelled],
    /// Validation rows; may be empty.
    pub validation: &'a [TokenizedLabelled],
    /// For each training row its prompt with another row's answer ([`galen_data::preference::mismatched`]); empty where the
    /// loss needs no KL estimate.
    pub train_mismatched: &'a [TokenizedAnswer],
    /// The same for validation rows.
    pub validation_mismatched: &'a [TokenizedAnswer],
}

impl LabelledRows<'_> {
    fn part(&self, part: Part) -> (&[TokenizedLabelled], &[TokenizedAnswer]) {
        match part {
            Part::Train => (self.train, self.train_mismatched),
            Part::Validation => (self.validation, self.validation_mismatched),
        }
    }
}

impl RowSequences for LabelledRows<'_> {
    fn rows(&self, part: Part) -> usize {
        self.part(part).0.len()
    }

    /// The answer, then the mismatched one where there is one.
    fn sequences(&self, part: Part, row: usize) -> Vec<&Tokenized> {
        let (rows, mismatched) = self.part(part);
        let other = mismatched.get(row).map(TokenizedAnswer::tokens);
        std::iter::once(rows[row].answer.tokens()).chain(other).collect()
    }
}

/// Learns from labelled answers.
pub struct Labels<'a> {
    /// The rows.
    pub rows: LabelledRows<'a>,
    /// The loss.
    pub loss: Kto,
    /// Where training started.
    pub reference: Reference,
    /// What sequences may compute once.
    pub sharing: Sharing,
}

/// Log-probabilities of the reference for a micro-batch: of the answers and of the mismatched ones.
struct Known {
    answers: Vec<Vec<f32>>,
    mismatched: Vec<Vec<f32>>,
}

impl Labels<'_> {
    fn known(&self, model: &Model, part: Part, rows: &[usize]) -> Result<Known> {
        let _span = span("reference");
        let all = self.reference.logps(model, &self.rows, part, rows, self.sharing)?;
        if self.rows.part(part).1.is_empty() {
            return Ok(Known { answers: all, mismatched: Vec::new() });
        }
        let (mut answers, mut mismatched) = (Vec::new(), Vec::new());
        for (i, logps) in all.into_iter().enumerate() {
            if i % 2 == 0 { answers.push(logps) } else { mismatched.push(logps) }
        }
        Ok(Known { answers, mismatched })
    }

    /// The KL estimate over these micro-batches: [`Kto::kl`] of all their rows.
    fn kl(&self, at: &Place, part: Part, batches: &[Vec<usize>], known: &[Known]) -> Result<f64> {
        let mismatched = self.rows.part(part).1;
        if mismatched.is_empty() {
            return Ok(0.0);
        }
        let _span = span("kl");
        let (_, policy) = at.each(batches, |at, rows, _| {
            let sequences: Vec<&Tokenized> = rows.iter().map(|row| mismatched[*row].tokens()).collect();
            let packed = pack_sequences(&sequences, self.sharing)?;
            let pass = Pass::forward(at.model, Some(at.adapter), packed.batch(), PassOptions::default())?;
            Ok(packed.split(&pass.logps)?.into_iter().map(<[f32]>::to_vec).collect::<Vec<_>>())
        })?;
        let policy = policy.concat();
        let reference: Vec<&[f32]> = known.iter().flat_map(|k| slices(&k.mismatched)).collect();
        Ok(Kto::kl(&slices(&policy), &reference)?)
    }

    fn packed(&self, part: Part, rows: &[usize]) -> Result<SequenceBatch> {
        let _span = span("pack");
        let of = |row: &usize| self.rows.part(part).0[*row].answer.tokens();
        Ok(pack_sequences(&rows.iter().map(of).collect::<Vec<_>>(), self.sharing)?)
    }

    fn loss_of(
        &self,
        part: Part,
        rows: &[usize],
        logps: &[&[f32]],
        known: &Known,
        kl: f64,
        totals: Totals,
    ) -> Result<SequenceLoss> {
        let label = |row: &usize| {
            if self.rows.part(part).0[*row].label { Label::Desirable } else { Label::Undesirable }
        };
        let labels: Vec<Label> = rows.iter().map(label).collect();
        let reference = slices(&known.answers);
        let batch = KtoBatch { completions: logps, reference: &reference, labels: &labels, kl };
        let mut loss = self.loss.loss(&batch, totals)?;
        divergence(&mut loss.metrics, logps, &reference);
        Ok(loss)
    }

    fn lengths_of(&self, part: Part) -> Vec<usize> {
        self.rows.part(part).0.iter().map(|row| row.answer.tokens().ids().len()).collect()
    }
}

/// The margin is that of the whole step's means, not the mean of its micro-batches'.
fn margins(metrics: &mut Metrics) {
    if let (Some(chosen), Some(rejected)) = (metrics.get("rewards/chosen"), metrics.get("rewards/rejected")) {
        metrics.set("rewards/margins", chosen - rejected);
    }
}

impl Objective for Labels<'_> {
    fn lengths(&self) -> Vec<usize> {
        self.lengths_of(Part::Train)
    }

    fn origin(&self, row: usize) -> String {
        self.rows.train[row].answer.tokens().origin().to_string()
    }

    fn step(&mut self, at: &Place, micro_batches: &[Vec<usize>]) -> Result<StepGradient> {
        let totals = Kto::totals(micro_batches.iter().map(Vec::len).sum());
        let this = &*self;
        let (_, known) = at.each(micro_batches, |at, rows, _| this.known(at.model, Part::Train, rows))?;
        let kl = self.kl(at, Part::Train, micro_batches, &known)?;
        let options = PassOptions {
            training: true,
            checkpointing: at.settings.gradient_checkpointing,
            epoch: at.epoch,
            ..PassOptions::default()
        };
        let batches: Vec<(&Vec<usize>, &Known)> = micro_batches.iter().zip(&known).collect();
        let (mut out, _) = at.each(&batches, |at, (rows, known), out| {
            let packed = this.packed(Part::Train, rows)?;
            let pass = Pass::forward(at.model, Some(at.adapter), packed.batch(), options)?;
            let loss = {
                let _span = span("loss");
                this.loss_of(Part::Train, rows, &packed.split(&pass.logps)?, known, kl, totals)?
            };
            let tokens = |row: &usize| this.rows.train[*row].answer.tokens().ids().len() as u64;
            out.loss += loss.loss;
            out.tokens += rows.iter().map(tokens).sum::<u64>();
            out.supervised_tokens += pass.correct.len() as u64;
            out.judged_tokens += pass.correct.len() as u64;
            out.correct += pass.correct.iter().filter(|c| **c).count() as u64;
            out.metrics.merge(&loss.metrics);
            out.add_backward(at.adapter, pass, packed.scatter(&loss.gradient)?)
        })?;
        margins(&mut out.metrics);
        Ok(out)
    }

    fn validate(&mut self, at: &Place) -> Result<Option<Validation>> {
        let n = self.rows.validation.len();
        let (lengths, order) = (self.lengths_of(Part::Validation), (0..n).collect::<Vec<usize>>());
        let batches = plan_batches(&lengths, &order, at.settings.micro_batch_size, at.settings.packing);
        let known = batches
            .iter()
            .map(|rows| self.known(at.model, Part::Validation, rows))
            .collect::<Result<Vec<_>>>()?;
        let kl = self.kl(at, Part::Validation, &batches, &known)?;
        let (mut loss, mut correct, mut judged, mut metrics) = (0.0, 0, 0, Metrics::default());
        for (rows, known) in batches.iter().zip(&known) {
            let packed = self.packed(Part::Validation, rows)?;
            let pass = Pass::forward(at.model, Some(at.adapter), packed.batch(), PassOptions::default())?;
            let logps = packed.split(&pass.logps)?;
            let made = self.loss_of(Part::Validation, rows, &logps, known, kl, Kto::totals(n))?;
            loss += made.loss;
            correct += pass.correct.iter().filter(|c| **c).count() as u64;
            judged += pass.correct.len() as u64;
            metrics.merge(&made.metrics);
        }
        margins(&mut metrics);
        Ok((n > 0).then(|| validation(loss, correct, judged, &metrics)))
    }
}
