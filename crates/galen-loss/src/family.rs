//! The families of objectives that `rl:` chooses from.

use crate::registry::named;

/// The shape of rows a family learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// A prompt, a chosen and a rejected answer.
    Pairs,
    /// A prompt, an answer and whether it is desirable.
    Unpaired,
    /// Prompts whose answers the policy samples, and rewards of them.
    Rollouts,
}

/// A family of objectives.
pub struct Family {
    /// Value of `rl:`.
    pub name: &'static str,
    /// What it is, with its paper.
    pub doc: &'static str,
    /// Rows it learns from.
    pub data: Data,
}

named!(Family, "rl");

const fn family(name: &'static str, data: Data, doc: &'static str) -> Family {
    Family { name, doc, data }
}

/// Every family. `reward` trains a scalar head on pairs; the others train the policy.
pub static FAMILIES: &[&Family] = &[
    &family("dpo", Data::Pairs, "direct preference optimisation and its loss types (arXiv 2305.18290)"),
    &family("kto", Data::Unpaired, "Kahneman-Tversky optimisation of single answers (arXiv 2402.01306)"),
    &family("orpo", Data::Pairs, "odds ratio beside the likelihood, no reference (arXiv 2403.07691)"),
    &family("cpo", Data::Pairs, "contrastive preference optimisation, no reference (arXiv 2401.08417)"),
    &family("simpo", Data::Pairs, "length-normalised rewards with a margin, no reference (arXiv 2405.14734)"),
    &family("grpo", Data::Rollouts, "group relative policy optimisation (arXiv 2402.03300)"),
    &family("rloo", Data::Rollouts, "REINFORCE with a leave-one-out baseline (arXiv 2402.14740)"),
    &family("reward", Data::Pairs, "a reward model by Bradley-Terry likelihood (arXiv 2203.02155)"),
];
