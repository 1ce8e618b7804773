//! Identity preference optimisation (Azar et al., arXiv 2310.12036, Eq. 17), `beta` being its tau. As in TRL
//! the scores are means over tokens, so that the target margin does not depend on length.

use super::{BySide, LossType, Scored, of_difference};
use crate::pair::Dpo;

pub(super) static IPO: LossType = of_difference(
    "ipo",
    "IPO, arXiv 2310.12036, Eq. 17: (c/|c| - r/|r| - 1/(2 beta))^2, scores divided by the number of tokens",
    ipo,
);

fn ipo(pair: &Scored, settings: &Dpo) -> (f64, BySide) {
    let [chosen, rejected] = pair.tokens;
    let off = pair.score[0] / chosen - pair.score[1] / rejected - 0.5 / settings.beta;
    (off * off, [2.0 * off / chosen, -2.0 * off / rejected])
}
