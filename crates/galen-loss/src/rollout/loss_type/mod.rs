//! Loss types of GRPO: each a line in [`LOSS_TYPES`], with a file where it is more than another mean of the
//! clipped surrogate.

mod cispo;
mod clipped;
mod sapo;
mod vespo;

use super::Grpo;
use crate::registry::named;
pub(super) use clipped::DAPO;

/// A loss of an answer's tokens.
pub struct GrpoType {
    /// Value of `loss_type`.
    pub name: &'static str,
    /// What it is, with its paper.
    pub doc: &'static str,
    /// What the sum over tokens is divided by.
    pub(crate) mean: Mean,
    /// A token's loss.
    pub(crate) policy: Policy,
    /// Whether a ratio is stopped below or above, for the metrics: of ratio and advantage.
    pub(crate) stops: fn(f64, f64, &Grpo) -> (bool, bool),
    /// What it logs beside the KL.
    pub(crate) logs: Logs,
}

named!(GrpoType, "loss_type");

/// What the sum over tokens is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mean {
    /// The answer's length; then the mean over answers.
    AnswerThenAnswers,
    /// The number of tokens of all answers.
    Tokens,
    /// The number of answers times the length limit.
    Limit,
    /// The number of answers.
    Answers,
}

/// How a token's loss comes about.
pub(crate) enum Policy {
    /// A function of the ratio and the advantage: value and derivative by the ratio.
    OfRatio(fn(f64, f64, &Grpo) -> (f64, f64)),
    /// `-weight A log pi`, no gradient through the weight: of the ratio and the answer.
    Weighted(fn(f64, &Answer, &Grpo) -> f64),
}

/// What a loss type logs.
pub(crate) enum Logs {
    /// `clip_ratio/*`.
    Clip,
    /// The share of ratios that are stopped above.
    StoppedAbove(&'static str),
    /// The mean weight.
    Weight(&'static str),
    /// Nothing.
    Nothing,
}

/// An answer as a weight sees it.
pub(crate) struct Answer {
    /// Its advantage.
    pub advantage: f64,
    /// Sum of its tokens' log ratios, each held within +-20.
    pub log_ratio: f64,
}

impl Answer {
    pub(super) fn new(advantage: f64, log_ratios: &[f64]) -> Self {
        Self { advantage, log_ratio: log_ratios.iter().map(|l| l.clamp(-20.0, 20.0)).sum() }
    }
}

/// Every loss type of GRPO. Adding one is its file and its line here.
pub static LOSS_TYPES: &[&GrpoType] = &[
    &clipped::GRPO,
    &clipped::BNPO,
    &clipped::DR_GRPO,
    &DAPO,
    &clipped::LUSPO,
    &cispo::CISPO,
    &sapo::SAPO,
    &vespo::VESPO,
];
