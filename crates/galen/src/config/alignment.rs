//! What `rl:` and its keys say: the family, its objective, and which keys it reads.

use super::field::{Field, Wrong, choices};
use super::table::Config;
use super::yaml::Node;
use galen_data::preference::{LengthLimits, RankedPairs as DataRankedPairs};
use galen_loss::pair::{self, Cpo, Dpo, Orpo, PairObjective};
use galen_loss::{FAMILIES, Kto, LossError, Reward, find};
use galen_train::preference::{Displacement, OnDisplacement as TrainOnDisplacement};
use galen_train::rollout::PolicyLoss;
use serde_json::Value;

/// `rl:`: a family of galen-loss, or `ipo` (Axolotl's name of `dpo` with that loss type).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rl {
    name: &'static str,
}

const IPO: &str = "ipo";
const REWARD: &str = "reward";

impl Rl {
    /// `rl: reward`.
    pub(super) const REWARD: Self = Self { name: REWARD };

    /// The family of that name, in any case.
    pub fn named(name: &str) -> Result<Self, LossError> {
        let name = name.to_ascii_lowercase();
        if name == IPO {
            return Ok(Self { name: IPO });
        }
        find(FAMILIES, &name).map(|family| Self { name: family.name })
    }
}

impl Field for Rl {
    fn type_name() -> String {
        let names: Vec<String> =
            FAMILIES.iter().map(|f| f.name).chain([IPO]).map(|name| format!("`{name}`")).collect();
        names.join(", ")
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        let name = String::parse(node)?;
        Self::named(&name).map_err(|e| {
            let wrong = Wrong::at(node, format!("`{}` is not known", name.to_ascii_lowercase()));
            match e {
                LossError::Unknown { hint, .. } => wrong.hint(hint),
                _ => wrong,
            }
        })
    }
    fn dump(&self) -> Value {
        self.name.into()
    }
}

choices! {
    /// What happens when chosen answers lose likelihood while margins rise.
    pub enum OnDisplacement {
        /// It is said once.
        Warn = "warn" | "true",
        /// The run ends with a checkpoint.
        Stop = "stop",
        /// Nothing.
        Off = "off" | "false",
    }
}

choices! {
    /// Which pairs a ranked list becomes.
    pub enum RankedPairs {
        /// The best over the worst.
        BestWorst = "best_worst",
        /// Each over the next worse.
        Adjacent = "adjacent",
        /// Each over every worse one.
        All = "all",
    }
}

/// What a run with `rl:` learns by.
pub enum Alignment {
    /// Pairs.
    Pairs(Box<dyn PairObjective>),
    /// Labelled answers.
    Labelled(Kto),
    /// Answers that the policy samples.
    Sampled(PolicyLoss),
    /// Pairs, for a reward model.
    Reward(Reward),
}

/// Keys of alignment and the values of `rl:` that read them; an empty list: all.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    ("rl_beta", &["dpo", IPO, "kto", "orpo", "cpo", "simpo", "grpo", "rloo"]),
    ("center_rewards_coefficient", &[REWARD]),
    ("dpo_loss_type", &["dpo", "cpo", "kto"]),
    ("dpo_loss_weights", &["dpo"]),
    ("dpo_label_smoothing", &["dpo", "cpo", "simpo"]),
    ("dpo_norm_loss", &["dpo"]),
    ("rpo_alpha", &["dpo", IPO]),
    ("ld_alpha", &["dpo", IPO]),
    ("f_divergence_type", &["dpo"]),
    ("f_alpha_divergence_coef", &["dpo"]),
    ("discopop_tau", &["dpo"]),
    ("kto_desirable_weight", &["kto"]),
    ("kto_undesirable_weight", &["kto"]),
    ("orpo_alpha", &["orpo"]),
    ("simpo_gamma", &["simpo", "cpo"]),
    ("cpo_alpha", &["simpo", "cpo"]),
    ("precompute_ref_log_probs", &["dpo", IPO, "kto"]),
    ("disable_dropout", &[]),
    ("max_prompt_length", &[]),
    ("max_completion_length", &[]),
    ("trl", &["grpo", "rloo"]),
    ("ranked_pairs", &["dpo", IPO, "orpo", "cpo", "simpo", REWARD]),
    ("likelihood_displacement", &["dpo", IPO]),
    ("likelihood_displacement_threshold", &["dpo", IPO]),
];

/// Keys that only some loss types of a family read: key, family, types.
pub(super) const READ_BY_TYPES: &[(&str, &str, &[&str])] = &[
    ("dpo_label_smoothing", "dpo", &["robust", "exo_pair", "aot", "aot_unpaired"]),
    ("dpo_label_smoothing", "cpo", &["sigmoid", "simpo"]),
    ("discopop_tau", "dpo", &["discopop"]),
    ("simpo_gamma", "cpo", &["simpo"]),
];

/// The configuration's name of a setting of galen-loss.
pub(super) fn key_of(setting: &str) -> &str {
    match setting {
        "beta" => "rl_beta",
        "loss_type" => "dpo_loss_type",
        "loss_weights" => "dpo_loss_weights",
        "label_smoothing" => "dpo_label_smoothing",
        "desirable_weight" => "kto_desirable_weight",
        "undesirable_weight" => "kto_undesirable_weight",
        other => other,
    }
}

impl Config {
    /// The value of `rl:`.
    pub fn rl(&self) -> Option<&'static str> {
        self.rl.map(|rl| rl.name)
    }

    /// The objective of `rl:`, its settings checked; nothing without the key. Families that are not built are errors of the
    /// configuration's own check.
    pub fn alignment(&self) -> Result<Option<Alignment>, LossError> {
        let Some(rl) = self.rl() else { return Ok(None) };
        let pairs = |objective: Box<dyn PairObjective>| -> Result<Option<Alignment>, LossError> {
            objective.check()?;
            Ok(Some(Alignment::Pairs(objective)))
        };
        match rl {
            "dpo" | IPO => pairs(Box::new(self.dpo(rl)?)),
            "orpo" => {
                let default = Orpo::default();
                pairs(Box::new(Orpo { beta: self.orpo_alpha.or(self.rl_beta).unwrap_or(default.beta) }))
            }
            "cpo" => pairs(Box::new(self.cpo(self.one_loss_type("sigmoid")?)?)),
            "simpo" => pairs(Box::new(self.cpo("simpo")?)),
            "kto" => {
                let default = Kto::of(self.one_loss_type("kto")?)?;
                let kto = Kto {
                    beta: self.rl_beta.unwrap_or(default.beta),
                    desirable_weight: self.kto_desirable_weight.unwrap_or(default.desirable_weight),
                    undesirable_weight: self.kto_undesirable_weight.unwrap_or(default.undesirable_weight),
                    ..default
                };
                kto.check()?;
                Ok(Some(Alignment::Labelled(kto)))
            }
            "grpo" => Ok(Some(Alignment::Sampled(self.grpo()?))),
            "rloo" => Ok(Some(Alignment::Sampled(self.rloo()?))),
            REWARD => {
                let reward = Reward { center_rewards_coefficient: self.center_rewards_coefficient };
                reward.check()?;
                Ok(Some(Alignment::Reward(reward)))
            }
            _ => Ok(None),
        }
    }

    /// Whether the run trains a reward model, which gives a value and no text.
    pub fn trains_reward(&self) -> bool {
        self.rl() == Some(REWARD)
    }

    fn one_loss_type<'a>(&'a self, default: &'a str) -> Result<&'a str, LossError> {
        match &self.dpo_loss_type[..] {
            [] => Ok(default),
            [one] => Ok(one),
            more => Err(LossError::Setting {
                key: "loss_type",
                value: format!("[{}]", more.join(", ")),
                what: "several losses are summed with `rl: dpo` alone",
                hint: "keep one of them",
            }),
        }
    }

    fn dpo(&self, rl: &str) -> Result<Dpo, LossError> {
        let given: Vec<&str> = self.dpo_loss_type.iter().map(String::as_str).collect();
        let mut names = match (rl, &given[..]) {
            (IPO, _) => vec![IPO],
            (_, []) => vec!["sigmoid"],
            _ => given,
        };
        if self.dpo_norm_loss == Some(true) {
            if names != ["sigmoid"] {
                return Err(LossError::Setting {
                    key: "dpo_norm_loss",
                    value: "true".into(),
                    what: "only the loss type `sigmoid` has a length-normalised form",
                    hint: "leave it out, or name `sigmoid_norm` in `dpo_loss_type`",
                });
            }
            names = vec!["sigmoid_norm"];
        }
        let mut weights = if self.dpo_loss_weights.is_empty() {
            vec![1.0; names.len()]
        } else {
            self.dpo_loss_weights.clone()
        };
        // RPO's term is the likelihood of the chosen answer with this weight.
        if let Some(alpha) = self.rpo_alpha {
            names.push("sft");
            weights.push(alpha);
        }
        let default = Dpo::of(&names, Some(&weights))?;
        Ok(Dpo {
            beta: self.rl_beta.unwrap_or(default.beta),
            label_smoothing: self.dpo_label_smoothing.unwrap_or(default.label_smoothing),
            ld_alpha: self.ld_alpha,
            f_divergence: match &self.f_divergence_type {
                Some(name) => find(pair::F_DIVERGENCES, name)?,
                None => default.f_divergence,
            },
            f_alpha_divergence_coef: self.f_alpha_divergence_coef.unwrap_or(default.f_alpha_divergence_coef),
            discopop_tau: self.discopop_tau.unwrap_or(default.discopop_tau),
            ..default
        })
    }

    fn cpo(&self, loss_type: &str) -> Result<Cpo, LossError> {
        let default = Cpo::of(loss_type)?;
        Ok(Cpo {
            beta: self.rl_beta.unwrap_or(default.beta),
            label_smoothing: self.dpo_label_smoothing.unwrap_or(default.label_smoothing),
            cpo_alpha: self.cpo_alpha.unwrap_or(default.cpo_alpha),
            simpo_gamma: self.simpo_gamma.unwrap_or(default.simpo_gamma),
            ..default
        })
    }

    /// Dropout of the adapter's input: alignment has none unless `disable_dropout: false`.
    pub fn dropout(&self) -> f32 {
        if self.rl.is_some() && self.disable_dropout != Some(false) { 0.0 } else { self.lora_dropout as f32 }
    }

    /// Passes forward that a step makes beside the one it learns by: the reference's, and those of a KL estimate.
    pub fn forwards_beside(&self) -> f64 {
        let known = self.precompute_ref_log_probs == Some(true);
        match self.alignment() {
            Ok(Some(Alignment::Pairs(loss))) if loss.needs_reference() && !known => 1.0,
            Ok(Some(Alignment::Labelled(kto))) => match (kto.loss_type.needs_kl, known) {
                (true, false) => 3.0,
                (true, true) | (false, false) => 1.0,
                (false, true) => 0.0,
            },
            // Sampling reads the weights once a token of many answers; its share of the time is that of about a pass.
            Ok(Some(Alignment::Sampled(loss))) => {
                if loss.needs_reference() {
                    2.0
                } else {
                    1.0
                }
            }
            _ => 0.0,
        }
    }

    /// How long sequences of preference data may be.
    pub fn length_limits(&self) -> LengthLimits {
        // Where answers are sampled, `sequence_len` bounds the prompt and the answer comes on top.
        let (sequence_len, completion) = if self.samples_answers() {
            let answer = self.completion_limit();
            (self.sequence_len.saturating_add(answer), Some(answer))
        } else {
            (self.sequence_len, self.max_completion_length)
        };
        LengthLimits {
            sequence_len: sequence_len as usize,
            max_prompt_length: self.max_prompt_length.map(|n| n as usize),
            max_completion_length: completion.map(|n| n as usize),
            excess: self.excess(),
        }
    }

    /// Which pairs ranked lists become.
    pub fn ranked(&self) -> DataRankedPairs {
        match self.ranked_pairs.unwrap_or(RankedPairs::BestWorst) {
            RankedPairs::BestWorst => DataRankedPairs::BestWorst,
            RankedPairs::Adjacent => DataRankedPairs::Adjacent,
            RankedPairs::All => DataRankedPairs::All,
        }
    }

    /// The guard against likelihood displacement.
    pub fn displacement(&self) -> Displacement {
        let on = match self.likelihood_displacement.unwrap_or(OnDisplacement::Warn) {
            OnDisplacement::Warn => TrainOnDisplacement::Warn,
            OnDisplacement::Stop => TrainOnDisplacement::Stop,
            OnDisplacement::Off => TrainOnDisplacement::Off,
        };
        Displacement::new(on, self.likelihood_displacement_threshold.unwrap_or(0.1))
    }
}
