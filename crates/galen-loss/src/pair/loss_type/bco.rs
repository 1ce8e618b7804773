//! Binary classifier optimisation (Jung et al., arXiv 2404.04656) on pairs. The paper's reward shift, a
//! running mean of rewards, is 0 here as in TRL 1.16: there is no state.

use super::{BySide, LossType, Scored, of_scores};
use crate::numeric::{log_sigmoid, sigmoid};
use crate::pair::Dpo;

pub(super) static BCO_PAIR: LossType = of_scores(
    "bco_pair",
    "BCO, arXiv 2404.04656, without reward shift: -log s(bc) - log s(-br), s the logistic function",
    bco,
);

fn bco(pair: &Scored, settings: &Dpo) -> (f64, BySide) {
    let [c, r] = pair.rewards(settings);
    (-log_sigmoid(c) - log_sigmoid(-r), [-settings.beta * sigmoid(-c), settings.beta * sigmoid(r)])
}
