//! Kahneman-Tversky optimisation (Ethayarajh et al., arXiv 2402.01306) of single answers that are desirable
//! or not.

use crate::error::{not_negative, positive_beta};
use crate::numeric::{constant, sigmoid, sum};
use crate::pair::same_layout;
use crate::registry::named;
use crate::{LossError, Metrics, Result, SequenceLoss, Totals, find};

/// Settings of KTO, by TRL's names and with its defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kto {
    /// `loss_type`.
    pub loss_type: &'static KtoType,
    /// Strength of the pull to the reference.
    pub beta: f64,
    /// Weight of desirable answers.
    pub desirable_weight: f64,
    /// Weight of undesirable answers.
    pub undesirable_weight: f64,
}

impl Default for Kto {
    fn default() -> Self {
        Self { loss_type: &KTO, beta: 0.1, desirable_weight: 1.0, undesirable_weight: 1.0 }
    }
}

/// A loss of an answer's log ratio.
pub struct KtoType {
    /// Value of `loss_type`.
    pub name: &'static str,
    /// What it is, with its paper.
    pub doc: &'static str,
    /// Whether rewards are measured from the KL estimate, so that the loop must make one.
    pub needs_kl: bool,
}

named!(KtoType, "loss_type");

static KTO: KtoType = KtoType {
    name: "kto",
    doc: "KTO, arXiv 2402.01306, Eq. 7: 1 - sigmoid(+-beta (x - KL))",
    needs_kl: true,
};
static APO_ZERO_UNPAIRED: KtoType = KtoType {
    name: "apo_zero_unpaired",
    doc: "APO-zero without pairs, arXiv 2408.06266, Eq. 7: 1 - sigmoid(+-beta x)",
    needs_kl: false,
};

/// Every loss type of KTO. Adding one is its line here.
pub static LOSS_TYPES: &[&KtoType] = &[&KTO, &APO_ZERO_UNPAIRED];

/// What is thought of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// To be made likelier.
    Desirable,
    /// To be made less likely.
    Undesirable,
}

/// Single answers: for each, the log-probabilities of its supervised tokens.
#[derive(Debug, Clone, Copy)]
pub struct KtoBatch<'a> {
    /// Under the policy.
    pub completions: &'a [&'a [f32]],
    /// Under the reference.
    pub reference: &'a [&'a [f32]],
    /// What is thought of them.
    pub labels: &'a [Label],
    /// [`Kto::kl`] of the step or the micro-batch; 0 where the loss type does not need it.
    pub kl: f64,
}

impl Kto {
    /// Defaults with a loss type.
    pub fn of(loss_type: &str) -> Result<Self> {
        Ok(Self { loss_type: find(LOSS_TYPES, loss_type)?, ..Self::default() })
    }

    /// Refuses settings that have no meaning.
    pub fn check(&self) -> Result<()> {
        positive_beta(self.beta)?;
        not_negative("desirable_weight", self.desirable_weight)?;
        not_negative("undesirable_weight", self.undesirable_weight)
    }

    /// For each row of a micro-batch the row whose answer stands behind its prompt in the KL estimate: the
    /// one before it, for the first the last, as in TRL. A micro-batch of one row has no other to take, so it
    /// needs two.
    pub fn mismatched(rows: usize) -> impl Iterator<Item = usize> {
        (0..rows).map(move |row| (row + rows - 1) % rows)
    }

    /// The estimate of KL(policy || reference): the mean log ratio of answers behind *another* row's prompt
    /// ([`Kto::mismatched`]), and at least 0. No gradient goes through it. TRL takes the mean over the
    /// micro-batch.
    ///
    /// # Errors
    /// [`LossError::Batch`] where the layouts differ.
    pub fn kl(policy: &[&[f32]], reference: &[&[f32]]) -> Result<f64> {
        same_layout("reference of the KL estimate", reference, policy)?;
        let total: f64 = policy.iter().zip(reference).map(|(p, r)| sum(p) - sum(r)).sum();
        Ok((total / policy.len().max(1) as f64).max(0.0))
    }

    /// Totals of `answers` rows.
    pub fn totals(answers: usize) -> Totals {
        Totals { items: answers, tokens: 0 }
    }

    /// The loss of a micro-batch of a step with these totals, and its gradient: Eq. 7 of the paper, the mean
    /// of `weight (1 - sigmoid(+-beta (log ratio - KL)))`.
    ///
    /// # Errors
    /// [`LossError::Batch`] where the parts of the batch do not fit together.
    pub fn loss(&self, batch: &KtoBatch, totals: Totals) -> Result<SequenceLoss> {
        same_layout("reference", batch.reference, batch.completions)?;
        if batch.labels.len() != batch.completions.len() {
            let what = format!("{} of `{}` answers", batch.labels.len(), batch.completions.len());
            return Err(LossError::batch("labels", what));
        }
        let anchor = if self.loss_type.needs_kl { batch.kl } else { 0.0 };
        let (mut loss, mut gradient) = (0.0, Vec::new());
        // Desirable first: number, reward, log-probability.
        let mut sums = [[0.0; 3]; 2];
        for (i, (tokens, label)) in batch.completions.iter().zip(batch.labels).enumerate() {
            let logp = sum(tokens);
            let log_ratio = logp - sum(batch.reference[i]);
            let (sign, weight, side) = match label {
                Label::Desirable => (1.0, self.desirable_weight, 0),
                Label::Undesirable => (-1.0, self.undesirable_weight, 1),
            };
            let gain = sign * self.beta * (log_ratio - anchor);
            loss += weight * sigmoid(-gain) / totals.items();
            let slope = -sign * weight * self.beta * sigmoid(gain) * sigmoid(-gain) / totals.items();
            gradient.push(constant(slope, tokens.len()));
            let row = [1.0, self.beta * log_ratio, logp];
            sums[side].iter_mut().zip(row).for_each(|(s, v)| *s += v);
        }
        let mut metrics = Metrics::default();
        metrics.mean("kl", [anchor]);
        let names = [("rewards/chosen", "logps/chosen"), ("rewards/rejected", "logps/rejected")];
        for ([number, reward, logp], (rewards, logps)) in sums.into_iter().zip(names) {
            metrics.weighted(rewards, reward, number);
            metrics.weighted(logps, logp, number);
        }
        if let (Some(chosen), Some(rejected)) =
            (metrics.get("rewards/chosen"), metrics.get("rewards/rejected"))
        {
            metrics.mean("rewards/margins", [chosen - rejected]);
        }
        Ok(SequenceLoss { loss, gradient, metrics })
    }
}
