//! `SimPO` (Meng et al., arXiv 2405.14734, Eq. 6): `-log sigmoid(beta (r_w - r_l) - gamma)` of rewards that
//! are mean log-probabilities a token.

use super::{Cpo, CpoType};

pub(super) static SIMPO: CpoType =
    CpoType { name: "simpo", doc: "SimPO, arXiv 2405.14734, Eq. 6", averages: true, of: simpo };

fn simpo(x: f64, settings: &Cpo) -> (f64, f64) {
    settings.smoothed(x - settings.simpo_gamma / settings.beta)
}
