//! Self-play preference optimisation (Wu et al., arXiv 2405.00675, Eq. 4.7) with the winner's probability of
//! winning taken as 1.

use super::{BySide, LossType, Scored, of_scores};
use crate::pair::Dpo;

pub(super) static SPPO_HARD: LossType = of_scores(
    "sppo_hard",
    "SPPO, arXiv 2405.00675, Eq. 4.7 with hard labels: (c - 1/(2 beta))^2 + (r + 1/(2 beta))^2",
    sppo,
);

fn sppo(pair: &Scored, settings: &Dpo) -> (f64, BySide) {
    let half = 0.5 / settings.beta;
    let (win, lose) = (pair.score[0] - half, pair.score[1] + half);
    (win * win + lose * lose, [2.0 * win, 2.0 * lose])
}
