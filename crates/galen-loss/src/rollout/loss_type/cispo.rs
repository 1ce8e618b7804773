//! CISPO (MiniMax-M1, arXiv 2506.13585): the log-probability weighed with the clipped ratio, so that no token
//! loses its gradient. As in TRL there is a clip above alone, `epsilon_high` being the greatest ratio itself.

use super::{Answer, GrpoType, Logs, Mean, Policy};
use crate::rollout::Grpo;

pub(super) static CISPO: GrpoType = GrpoType {
    name: "cispo",
    doc: "CISPO, arXiv 2506.13585: -min(w, epsilon_high) A log pi, no gradient through w",
    mean: Mean::Tokens,
    policy: Policy::Weighted(weight),
    stops: |ratio, advantage, settings| (false, ratio > greatest(settings) && advantage > 0.0),
    logs: Logs::StoppedAbove("cispo_clip_ratio"),
};

fn greatest(settings: &Grpo) -> f64 {
    settings.epsilon_high.unwrap_or(settings.epsilon)
}

fn weight(ratio: f64, _: &Answer, settings: &Grpo) -> f64 {
    ratio.min(greatest(settings))
}
