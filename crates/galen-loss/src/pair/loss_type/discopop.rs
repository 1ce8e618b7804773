//! The loss that a language model found (Lu et al., arXiv 2406.08414, Eq. 5): logistic and exponential loss
//! mixed by `m = sigmoid(z/tau)`.

use super::{BySide, LossType, Scored, apart, of_difference};
use crate::numeric::{log_sigmoid, sigmoid};
use crate::pair::Dpo;
use crate::{LossError, Result};

pub(super) static DISCOPOP: LossType = LossType {
    check,
    ..of_difference(
        "discopop",
        "DiscoPOP, arXiv 2406.08414, Eq. 5: -(1 - m) log sigmoid(z) + m e^-z",
        discopop,
    )
};

fn discopop(pair: &Scored, settings: &Dpo) -> (f64, BySide) {
    let (z, tau) = (settings.beta * pair.difference(), settings.discopop_tau);
    let (mixed, rest) = (sigmoid(z / tau), sigmoid(-z / tau));
    // m e^-z as one exponential: e^-z alone overflows where m vanishes.
    let exponential = (log_sigmoid(z / tau) - z).exp();
    let value = -log_sigmoid(z) * rest + exponential;
    let by_mixture = mixed * rest * log_sigmoid(z) + rest * exponential;
    apart(value, settings.beta * (-sigmoid(-z) * rest - exponential + by_mixture / tau))
}

fn check(settings: &Dpo) -> Result<()> {
    let fine = settings.discopop_tau > 0.0 && settings.discopop_tau.is_finite();
    let hint = "0.05 is the paper's value";
    LossError::unless(fine, "discopop_tau", settings.discopop_tau, "it must be above 0", hint)
}
