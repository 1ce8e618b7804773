//! Hinge on the difference of rewards, as in SLiC-HF.

use super::{BySide, LossType, Scored, apart, of_difference};
use crate::pair::Dpo;

pub(super) static HINGE: LossType =
    of_difference("hinge", "SLiC-HF, arXiv 2305.10425; RSO, arXiv 2309.06657: max(0, 1 - z)", hinge);

fn hinge(pair: &Scored, settings: &Dpo) -> (f64, BySide) {
    let short = 1.0 - settings.beta * pair.difference();
    apart(short.max(0.0), if short > 0.0 { -settings.beta } else { 0.0 })
}
