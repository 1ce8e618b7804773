//! Loss types of DPO: each a file (or a few of one paper together) and a line in [`LOSS_TYPES`].
//!
//! Written with `c` and `r`, the scores of the chosen and rejected answer (`log pi/pi_ref` under
//! `reverse_kl`), `d = c - r` and `z = beta d`.

mod aot;
mod apo;
mod bco;
mod discopop;
mod exo;
mod hinge;
mod ipo;
mod nca;
mod sft;
mod sigmoid;
mod sppo;

use super::Dpo;
use crate::Result;
use crate::registry::named;
pub(super) use sigmoid::SIGMOID;

/// A loss of scored pairs.
pub struct LossType {
    /// Value of `loss_type`.
    pub name: &'static str,
    /// What it is, with paper and equation.
    pub doc: &'static str,
    /// How it is computed.
    pub(crate) form: Form,
    /// Whether it is a function of the difference of scores, so that any `f_divergence_type` may make them.
    pub any_divergence: bool,
    /// Refuses settings it has no meaning under.
    pub(crate) check: fn(&Dpo) -> Result<()>,
}

named!(LossType, "loss_type");

/// Derivatives by the chosen and the rejected answer's score.
pub(crate) type BySide = [f64; 2];

/// What a loss is a function of.
pub(crate) enum Form {
    /// One pair: its loss and the derivative by both scores.
    Pair(fn(&Scored, &Dpo) -> (f64, BySide)),
    /// All pairs together: their summed loss and its derivative by both scores of each.
    Batch(fn(&[Scored], &Dpo) -> (f64, Vec<BySide>)),
    /// Mean negative log-likelihood of the chosen answers' tokens.
    ChosenTokens,
}

/// A pair as a loss sees it; chosen first.
pub(crate) struct Scored {
    /// Log-probabilities of the answers under the policy.
    pub logp: [f64; 2],
    /// Under the reference.
    pub ref_logp: [f64; 2],
    /// Scores.
    pub score: [f64; 2],
    /// Their derivatives by the policy's log-probabilities.
    pub slope: [f64; 2],
    /// Tokens of the answers.
    pub tokens: [f64; 2],
}

impl Scored {
    /// Difference of the scores.
    fn difference(&self) -> f64 {
        self.score[0] - self.score[1]
    }

    /// Both scores times beta: implicit rewards.
    fn rewards(&self, settings: &Dpo) -> [f64; 2] {
        self.score.map(|s| settings.beta * s)
    }
}

/// Every loss type of DPO. Adding one is its file and its line here.
pub static LOSS_TYPES: &[&LossType] = &[
    &SIGMOID,
    &sigmoid::SIGMOID_NORM,
    &sigmoid::ROBUST,
    &hinge::HINGE,
    &ipo::IPO,
    &exo::EXO_PAIR,
    &nca::NCA_PAIR,
    &bco::BCO_PAIR,
    &sppo::SPPO_HARD,
    &aot::AOT,
    &aot::AOT_UNPAIRED,
    &apo::APO_ZERO,
    &apo::APO_DOWN,
    &discopop::DISCOPOP,
    &sft::SFT,
];

/// A loss type of one pair's two scores.
const fn of_scores(
    name: &'static str,
    doc: &'static str,
    of: fn(&Scored, &Dpo) -> (f64, BySide),
) -> LossType {
    LossType { name, doc, form: Form::Pair(of), any_divergence: false, check: |_| Ok(()) }
}

/// A loss type of one pair's difference of scores.
const fn of_difference(
    name: &'static str,
    doc: &'static str,
    of: fn(&Scored, &Dpo) -> (f64, BySide),
) -> LossType {
    LossType { name, doc, form: Form::Pair(of), any_divergence: true, check: |_| Ok(()) }
}

/// A derivative by the difference as derivatives by the two scores.
fn apart(value: f64, slope: f64) -> (f64, BySide) {
    (value, [slope, -slope])
}
