//! Exact optimisation on preferences (Ji et al., arXiv 2402.00856, Eq. 16) for two answers: the reverse KL
//! between the policy's distribution over the pair, `(sigmoid(z), sigmoid(-z))`, and the labels', `(1 - e,
//! e)`.

use super::{BySide, LossType, Scored, apart, of_difference};
use crate::numeric::{log_sigmoid, sigmoid};
use crate::pair::Dpo;
use crate::{LossError, Result};

pub(super) static EXO_PAIR: LossType = LossType {
    check: above_zero,
    ..of_difference("exo_pair", "EXO, arXiv 2402.00856, Eq. 16: reverse KL to labels smoothed by e > 0", exo)
};

fn exo(pair: &Scored, settings: &Dpo) -> (f64, BySide) {
    let (z, e) = (settings.beta * pair.difference(), settings.label_smoothing);
    let (win, lose) = (sigmoid(z), sigmoid(-z));
    let (log_true, log_flipped) = ((-e).ln_1p(), e.ln());
    let value = win * (log_sigmoid(z) - log_true) + lose * (log_sigmoid(-z) - log_flipped);
    // log sigmoid(z) - log sigmoid(-z) = z; the derivatives of the logarithms cancel.
    apart(value, settings.beta * win * lose * (z - log_true + log_flipped))
}

fn above_zero(settings: &Dpo) -> Result<()> {
    let fine = settings.label_smoothing > 0.0 && settings.label_smoothing < 1.0;
    let what = "`loss_type: exo_pair` needs it in (0, 1)";
    LossError::unless(fine, "label_smoothing", settings.label_smoothing, what, "0.001 is the paper's value")
}
