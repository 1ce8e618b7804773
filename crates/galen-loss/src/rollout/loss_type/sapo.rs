//! Soft adaptive policy optimisation (arXiv 2511.20347): a logistic gate instead of a clip.

use super::{GrpoType, Logs, Mean, Policy};
use crate::numeric::sigmoid;
use crate::rollout::Grpo;

pub(super) static SAPO: GrpoType = GrpoType {
    name: "sapo",
    doc: "SAPO, arXiv 2511.20347: -4/T sigmoid(T (w - 1)) A; mean over an answer's tokens, then over answers",
    mean: Mean::AnswerThenAnswers,
    policy: Policy::OfRatio(gate),
    stops: |_, _, _| (false, false),
    logs: Logs::Nothing,
};

fn gate(ratio: f64, advantage: f64, settings: &Grpo) -> (f64, f64) {
    let [positive, other] = [settings.sapo_temperature_pos, settings.sapo_temperature_neg];
    let temperature = if advantage > 0.0 { positive } else { other };
    let x = temperature * (ratio - 1.0);
    (-4.0 / temperature * sigmoid(x) * advantage, -4.0 * sigmoid(x) * sigmoid(-x) * advantage)
}
