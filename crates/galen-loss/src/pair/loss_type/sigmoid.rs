//! The logistic losses: DPO's own, its length-normalised form, and the one that knows labels are flipped.

use super::{BySide, LossType, Scored, apart, of_difference};
use crate::numeric::{log_sigmoid, sigmoid};
use crate::pair::Dpo;
use crate::{LossError, Result};

/// `-log sigmoid(z)`.
pub(in crate::pair) static SIGMOID: LossType =
    of_difference("sigmoid", "DPO, arXiv 2305.18290, Eq. 7: -log sigmoid(z)", plain);

/// The scores divided by the answers' numbers of tokens.
pub(super) static SIGMOID_NORM: LossType = of_difference(
    "sigmoid_norm",
    "length-normalised DPO, arXiv 2411.15124: scores divided by the number of tokens",
    normalised,
);

/// An unbiased estimate of the loss on true labels when each is flipped with probability `label_smoothing`.
pub(super) static ROBUST: LossType = LossType {
    check: below_half,
    ..of_difference(
        "robust",
        "robust DPO, arXiv 2403.00409: unbiased under labels flipped with `label_smoothing`",
        robust,
    )
};

fn plain(pair: &Scored, settings: &Dpo) -> (f64, BySide) {
    let z = settings.beta * pair.difference();
    apart(-log_sigmoid(z), -settings.beta * sigmoid(-z))
}

fn normalised(pair: &Scored, settings: &Dpo) -> (f64, BySide) {
    let [chosen, rejected] = pair.tokens;
    let z = settings.beta * (pair.score[0] / chosen - pair.score[1] / rejected);
    let slope = -settings.beta * sigmoid(-z);
    (-log_sigmoid(z), [slope / chosen, -slope / rejected])
}

/// `(-(1 - e) log sigmoid(z) + e log sigmoid(-z)) / (1 - 2e)`.
fn robust(pair: &Scored, settings: &Dpo) -> (f64, BySide) {
    let (z, e) = (settings.beta * pair.difference(), settings.label_smoothing);
    let value = (-(1.0 - e) * log_sigmoid(z) + e * log_sigmoid(-z)) / (1.0 - 2.0 * e);
    let slope = (-(1.0 - e) * sigmoid(-z) - e * sigmoid(z)) / (1.0 - 2.0 * e);
    apart(value, settings.beta * slope)
}

fn below_half(settings: &Dpo) -> Result<()> {
    let fine = (0.0..0.5).contains(&settings.label_smoothing);
    let what = "`loss_type: robust` needs it in [0, 0.5)";
    LossError::unless(fine, "label_smoothing", settings.label_smoothing, what, "0.1 is the paper's value")
}
