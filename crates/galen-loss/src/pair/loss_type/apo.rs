//! Anchored preference optimisation (D'Oosterlinck et al., arXiv 2408.06266).

use super::{BySide, LossType, Scored, of_scores};
use crate::numeric::sigmoid;
use crate::pair::Dpo;

/// For chosen answers that are better than the model's own: up with the chosen, down with the rejected.
pub(super) static APO_ZERO: LossType =
    of_scores("apo_zero", "APO-zero, arXiv 2408.06266, Eq. 7: 1 - sigmoid(beta c) + sigmoid(beta r)", zero);

/// For chosen answers that are worse than the model's own: down with both, more with the rejected.
pub(super) static APO_DOWN: LossType =
    of_scores("apo_down", "APO-down, arXiv 2408.06266, Eq. 8: sigmoid(beta c) + 1 - sigmoid(z)", down);

/// Derivative of `sigmoid(beta x)` by x.
fn slope(reward: f64, beta: f64) -> f64 {
    beta * sigmoid(reward) * sigmoid(-reward)
}

fn zero(pair: &Scored, settings: &Dpo) -> (f64, BySide) {
    let [c, r] = pair.rewards(settings);
    (sigmoid(-c) + sigmoid(r), [-slope(c, settings.beta), slope(r, settings.beta)])
}

fn down(pair: &Scored, settings: &Dpo) -> (f64, BySide) {
    let [c, r] = pair.rewards(settings);
    let by_difference = slope(c - r, settings.beta);
    (sigmoid(c) + sigmoid(r - c), [slope(c, settings.beta) - by_difference, by_difference])
}
