//! Variational sequence-level soft policy optimisation (arXiv 2602.10693): the log-probability weighed with
//! `phi(w) = e^l w^k e^(-l w)` of the whole answer's ratio `w`, which is 1 at `w = 1`.

use super::{Answer, GrpoType, Logs, Mean, Policy};
use crate::rollout::Grpo;

pub(super) static VESPO: GrpoType = GrpoType {
    name: "vespo",
    doc: "VESPO, arXiv 2602.10693: -phi(w) A log pi, no gradient through phi; mean over all tokens",
    mean: Mean::Tokens,
    policy: Policy::Weighted(phi),
    stops: |_, _, _| (false, false),
    logs: Logs::Weight("vespo/phi_seq_mean"),
};

fn phi(_: f64, answer: &Answer, settings: &Grpo) -> f64 {
    let (k, lambda) = if answer.advantage >= 0.0 {
        (settings.vespo_k_pos, settings.vespo_lambda_pos)
    } else {
        (settings.vespo_k_neg, settings.vespo_lambda_neg)
    };
    // TRL's limits: a rate of 1e-4, a ratio of 1e-8 to e^20.
    let lambda = lambda.max(1e-4);
    let log_w = answer.log_ratio.clamp(1e-8f64.ln(), 20.0);
    let phi = (lambda + k * log_w - lambda * log_w.exp()).exp();
    if phi.is_finite() { phi } else { 0.0 }
}
