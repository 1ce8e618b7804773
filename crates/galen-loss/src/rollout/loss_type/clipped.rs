//! PPO's clipped surrogate under five means.

use super::{GrpoType, Logs, Mean, Policy};
use crate::rollout::Grpo;

const fn clipped(name: &'static str, mean: Mean, doc: &'static str) -> GrpoType {
    GrpoType { name, doc, mean, policy: Policy::OfRatio(surrogate), stops, logs: Logs::Clip }
}

pub(super) static GRPO: GrpoType = clipped(
    "grpo",
    Mean::AnswerThenAnswers,
    "GRPO, arXiv 2402.03300, Eq. 3: mean over an answer's tokens, then over answers",
);

pub(super) static BNPO: GrpoType =
    clipped("bnpo", Mean::Tokens, "mean over all tokens of the batch, of which the loop gives the totals");

pub(super) static DR_GRPO: GrpoType = clipped(
    "dr_grpo",
    Mean::Limit,
    "Dr. GRPO, arXiv 2503.20783: sum over tokens by answers times `max_completion_length`",
);

pub(in crate::rollout) static DAPO: GrpoType =
    clipped("dapo", Mean::Tokens, "DAPO, arXiv 2503.14476, Eq. 8: mean over all tokens of the step");

pub(super) static LUSPO: GrpoType = clipped(
    "luspo",
    Mean::Answers,
    "LUSPO, arXiv 2602.05261: sum over an answer's tokens; for `importance_sampling_level: sequence`",
);

fn surrogate(ratio: f64, advantage: f64, settings: &Grpo) -> (f64, f64) {
    settings.clip().surrogate(ratio, advantage, settings.delta.unwrap_or(f64::INFINITY))
}

fn stops(ratio: f64, advantage: f64, settings: &Grpo) -> (bool, bool) {
    settings.clip().stops(ratio, advantage)
}
