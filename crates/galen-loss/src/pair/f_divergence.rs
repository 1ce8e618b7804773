//! f-DPO (Wang et al., arXiv 2309.16240): the reward is `beta f'(u)` of the ratio `u = pi / pi_ref` instead
//! of `beta log u`. A score is `f'(u)` as a function of `log u`, up to a constant that cancels in a pair.

use crate::numeric::{log_sigmoid, sigmoid};
use crate::registry::named;

/// A divergence between policy and reference.
pub struct FDivergence {
    /// Value of `f_divergence_type`.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Score and its derivative, of `log u` and `f_alpha_divergence_coef`.
    pub(crate) score: fn(f64, f64) -> (f64, f64),
}

named!(FDivergence, "f_divergence_type");

/// The exponent of the alpha divergence is held below this, as in TRL (f32 would overflow above).
const MAX_EXPONENT: f64 = 80.0;

/// Every divergence. Adding one is its function and its line here.
pub static F_DIVERGENCES: &[&FDivergence] = &[
    &REVERSE_KL,
    &FDivergence { name: "forward_kl", doc: "forward KL, f' = -1/u", score: forward_kl },
    &FDivergence { name: "js_divergence", doc: "Jensen-Shannon, f' = log 2u/(1 + u)", score: js_divergence },
    &FDivergence {
        name: "alpha_divergence",
        doc: "alpha, f' = (u^(a-1) - 1)/(a - 1)",
        score: alpha_divergence,
    },
];

pub(super) static REVERSE_KL: FDivergence =
    FDivergence { name: "reverse_kl", doc: "reverse KL, f' = log u + 1: plain DPO", score: reverse_kl };

fn reverse_kl(log_u: f64, _: f64) -> (f64, f64) {
    (log_u, 1.0)
}

fn forward_kl(log_u: f64, _: f64) -> (f64, f64) {
    (-(-log_u).exp_m1(), (-log_u).exp())
}

fn js_divergence(log_u: f64, _: f64) -> (f64, f64) {
    (std::f64::consts::LN_2 + log_sigmoid(log_u), sigmoid(-log_u))
}

fn alpha_divergence(log_u: f64, alpha: f64) -> (f64, f64) {
    let power = alpha - 1.0;
    if power.abs() < 1e-6 {
        return reverse_kl(log_u, alpha);
    }
    let exponent = power * log_u;
    if exponent > MAX_EXPONENT {
        (MAX_EXPONENT.exp_m1() / power, 0.0)
    } else {
        (exponent.exp_m1() / power, exponent.exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alpha_divergence_at_its_ends() {
        // A ratio of e^-1000 would need e^500: it is held at e^80, flat.
        let (score, slope) = alpha_divergence(-1000.0, 0.5);
        assert_eq!((score, slope), (-2.0 * 80f64.exp_m1(), 0.0));
        // An exponent of 1 is the limit log u.
        assert_eq!(alpha_divergence(-3.0, 1.0), (-3.0, 1.0));
        // u = 4 at a = 1/2: (4^-1/2 - 1) / (-1/2) = 1, slope 4^-1/2.
        let (score, slope) = alpha_divergence(4f64.ln(), 0.5);
        assert!((score - 1.0).abs() < 1e-12 && (slope - 0.5).abs() < 1e-12);
    }
}
