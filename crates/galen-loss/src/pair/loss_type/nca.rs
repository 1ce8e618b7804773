//! Noise contrastive alignment (Chen et al., arXiv 2402.05369) of two answers: besides the difference it
//! holds up each answer's likelihood.

use super::{BySide, LossType, Scored, of_scores};
use crate::numeric::{log_sigmoid, sigmoid};
use crate::pair::Dpo;

pub(super) static NCA_PAIR: LossType = of_scores(
    "nca_pair",
    "NCA, arXiv 2402.05369: -log s(bc) - (log s(-bc) + log s(-br))/2, s the logistic function",
    nca,
);

fn nca(pair: &Scored, settings: &Dpo) -> (f64, BySide) {
    let [c, r] = pair.rewards(settings);
    let value = -log_sigmoid(c) - 0.5 * log_sigmoid(-c) - 0.5 * log_sigmoid(-r);
    let slopes = [0.5 * sigmoid(c) - sigmoid(-c), 0.5 * sigmoid(r)];
    (value, slopes.map(|s| settings.beta * s))
}
