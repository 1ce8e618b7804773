//! Negative log-likelihood of the chosen answers, to be weighed with others (MPO, arXiv 2411.10442; Axolotl's
//! `rpo_alpha` is its weight beside `sigmoid`).

use super::{Form, LossType};

pub(super) static SFT: LossType = LossType {
    name: "sft",
    doc: "mean negative log-likelihood of the chosen answers' tokens",
    form: Form::ChosenTokens,
    any_divergence: true,
    check: |_| Ok(()),
};
