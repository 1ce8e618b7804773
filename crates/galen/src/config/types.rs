//! The values keys can take.

use super::field::{Field, Wrong, choices, nearest};
use super::yaml::{Node, Yaml};
use serde_json::{Value, json};
use std::collections::BTreeMap;

choices! {
    /// How the adapter sits on its base.
    pub enum AdapterKind {
        /// Low-rank deltas on a base in its own precision (or quantised, with `load_in_*`).
        Lora = "lora",
        /// The same over a 4-bit base.
        Qlora = "qlora",
    }
}

choices! {
    /// Initial values of the low-rank matrices.
    pub enum InitLora {
        /// PEFT's default: A Kaiming-uniform, B zero.
        Default = "true",
        /// A normal with standard deviation 1/r, B zero.
        Gaussian = "gaussian",
        /// A and B random: the adapter changes the model from the first step (for tests of other tools).
        Random = "false",
    }
}

choices! {
    /// Activations' precision as Axolotl spells it.
    pub enum Bf16 {
        /// Where the device has it.
        Auto = "auto",
        /// Always.
        On = "true",
        /// Always, evaluation too.
        Full = "full",
        /// Never.
        Off = "false",
    }
}

choices! {
    /// Whether activations are computed again in the backward pass instead of kept.
    pub enum Checkpointing {
        /// Recompute.
        On = "true" | "offload" | "offload_disk",
        /// Keep.
        Off = "false",
        /// Recompute only where `max_memory` would not hold them.
        Auto = "auto",
    }
}

choices! {
    /// Where bf16 products read the frozen weights.
    pub enum WeightCache {
        /// `bf16` where it fits, else `stream`.
        Auto = "auto",
        /// From a packed copy of two bytes a weight: fast.
        Bf16 = "bf16",
        /// From the stored blocks: small.
        Stream = "stream",
    }
}

choices! {
    /// What happens to a row longer than `sequence_len`.
    pub enum ExcessLength {
        /// It is left out, counted and reported.
        Drop = "drop",
        /// Its end is cut off; a row left without supervision is dropped.
        Truncate = "truncate",
        /// The run refuses to start.
        Raise = "raise",
    }
}

choices! {
    /// What happens to a row that cannot be read.
    pub enum OnBadRow {
        /// The run stops and names it.
        Error = "error",
        /// It is counted and left out.
        Skip = "skip",
    }
}

choices! {
    /// The course of the learning rate after warm-up (names of transformers).
    pub enum Scheduler {
        /// Half a cosine to 0.
        Cosine = "cosine",
        /// A line to 0.
        Linear = "linear",
        /// The same throughout; warm-up is ignored, as transformers does.
        Constant = "constant",
        /// The same after warm-up.
        ConstantWithWarmup = "constant_with_warmup",
        /// Constant, then a decay at the end.
        WarmupStableDecay = "warmup_stable_decay" | "wsd",
    }
}

choices! {
    /// When something happens.
    pub enum Strategy {
        /// Never.
        No = "no" | "false",
        /// Every so many steps.
        Steps = "steps",
        /// At the end of each epoch.
        Epoch = "epoch",
        /// When the validation metric improved (checkpoints only).
        Best = "best",
    }
}

choices! {
    /// Which end-of-turn tokens are trained.
    pub enum TrainOnEos {
        /// Every one.
        All = "all",
        /// Those of trained turns.
        Turn = "turn",
        /// The last of the conversation.
        Last = "last",
        /// None.
        None = "none",
    }
}

/// Names that mean AdamW, and how far each peer's variant is from it: exactly the same update, or the same with
/// quantised moments.
const ADAMW: &[(&str, bool)] = &[
    ("adamw", true),
    ("adamw_hf", true),
    ("adamw_torch", true),
    ("adamw_torch_fused", true),
    ("adamw_torch_xla", true),
    ("adamw_torch_npu_fused", true),
    ("adamw_apex_fused", true),
    ("adamw_anyprecision", true),
    ("optimi_adamw", true),
    ("paged_adamw", true),
    ("paged_adamw_32bit", true),
    ("adamw_bnb_8bit", false),
    ("adamw_8bit", false),
    ("paged_adamw_8bit", false),
    ("adamw_torch_8bit", false),
    ("adamw_torch_4bit", false),
    ("ao_adamw_8bit", false),
    ("ao_adamw_4bit", false),
    ("ao_adamw_fp8", false),
    ("flash_adamw", false),
];

/// AdamW under the name the configuration gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Optimizer {
    name: &'static str,
    full_state: bool,
}

impl Optimizer {
    /// The name that was written.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the peer of that name keeps its moments quantised, where galen keeps them in f32.
    pub fn quantised_elsewhere(&self) -> bool {
        !self.full_state
    }
}

impl Default for Optimizer {
    fn default() -> Self {
        Self { name: "adamw_torch_fused", full_state: true }
    }
}

impl Field for Optimizer {
    fn type_name() -> String {
        ADAMW.iter().map(|(n, _)| format!("`{n}`")).collect::<Vec<_>>().join(", ")
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        let word = String::parse(node)?;
        if let Some(&(name, full_state)) = ADAMW.iter().find(|(n, _)| *n == word) {
            return Ok(Self { name, full_state });
        }
        let wrong =
            Wrong::at(node, format!("`{word}` is not built; AdamW is, under every name of its variants"));
        Err(match nearest(&word, ADAMW.iter().map(|(n, _)| *n)) {
            Some(near) => wrong.hint(format!("did you mean `{near}`?")),
            None => {
                wrong.hint("`optimizer: adamw_torch` learns with a rate of about 1e-4 to 5e-4 for adapters")
            }
        })
    }
    fn dump(&self) -> Value {
        self.name.into()
    }
}

/// Which modules get an adapter, as `lora_target_modules` says it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Targets {
    /// Nothing was said.
    #[default]
    Unset,
    /// Every linear layer of the blocks (`all-linear`).
    AllLinear,
    /// A module whose path is one of these, or ends in `.` and one of these.
    Names(Vec<String>),
    /// A module whose whole path matches.
    Regex(String),
}

impl Field for Targets {
    fn type_name() -> String {
        "list of module names, a regular expression over whole module paths, or `all-linear`".into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        match &node.value {
            Yaml::Seq(_) => {
                let names = Vec::<String>::parse(node)?;
                match names.as_slice() {
                    [] => Ok(Self::Unset),
                    [one] if one == "all-linear" => Ok(Self::AllLinear),
                    _ => Ok(Self::Names(names)),
                }
            }
            Yaml::Null => Ok(Self::Unset),
            _ => {
                let text = String::parse(node)?;
                if text == "all-linear" {
                    return Ok(Self::AllLinear);
                }
                regex::Regex::new(&text)
                    .map_err(|e| Wrong::at(node, format!("is not a regular expression: {e}")))?;
                Ok(Self::Regex(text))
            }
        }
    }
    fn dump(&self) -> Value {
        match self {
            Self::Unset => Value::Null,
            Self::AllLinear => "all-linear".into(),
            Self::Names(names) => json!(names),
            Self::Regex(text) => text.as_str().into(),
        }
    }
}

/// A step count, or a share of the whole run (`0.25`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Steps {
    /// Every so many optimiser steps.
    Count(u64),
    /// Every such share of all optimiser steps, below 1.
    Share(f64),
}

impl Field for Steps {
    fn type_name() -> String {
        "integer, or a share of the run below 1".into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        let value = f64::parse(node)?;
        match value {
            v if v > 0.0 && v < 1.0 => Ok(Self::Share(v)),
            v if v >= 1.0 && v.fract() == 0.0 && v < 9.0e15 => Ok(Self::Count(v as u64)),
            _ => Err(Wrong::at(node, "takes a whole number of steps, or a share of the run below 1")),
        }
    }
    fn dump(&self) -> Value {
        match self {
            Self::Count(n) => (*n).into(),
            Self::Share(f) => (*f).into(),
        }
    }
}

/// Roles under the loss; unlike other lists, none of them is another thing than nothing said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles(pub Vec<String>);

impl Field for Roles {
    fn type_name() -> String {
        Vec::<String>::type_name()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        Field::parse(node).map(Self)
    }
    fn dump(&self) -> Value {
        self.0.iter().map(Field::dump).collect()
    }
}

/// Special tokens by role. Every one must exist in the tokenizer: galen adds none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpecialTokens {
    /// `bos_token`.
    pub bos: Option<String>,
    /// `eos_token`.
    pub eos: Option<String>,
    /// `pad_token`: without effect, as training pads nothing.
    pub pad: Option<String>,
    /// `unk_token`.
    pub unk: Option<String>,
}

impl Field for SpecialTokens {
    fn type_name() -> String {
        "map with `bos_token`, `eos_token`, `pad_token`, `unk_token`".into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        let Yaml::Map(entries) = &node.value else {
            return Err(Wrong::at(node, format!("takes {}", Self::type_name())));
        };
        let mut tokens = Self::default();
        for entry in entries {
            let slot = match entry.key.as_str() {
                "bos_token" => &mut tokens.bos,
                "eos_token" => &mut tokens.eos,
                "pad_token" => &mut tokens.pad,
                "unk_token" => &mut tokens.unk,
                "additional_special_tokens" if entry.node.is_off() => continue,
                "additional_special_tokens" => {
                    return Err(Wrong {
                        line: Some(entry.line),
                        message:
                            "cannot add tokens (`additional_special_tokens`): their embeddings would need \
                                  training"
                                .into(),
                        hint: Some("use tokens the model's vocabulary already has".into()),
                    });
                }
                other => {
                    let names = ["bos_token", "eos_token", "pad_token", "unk_token"];
                    return Err(Wrong {
                        line: Some(entry.line),
                        message: format!("has no entry `{other}`"),
                        hint: nearest(other, names).map(|n| format!("did you mean `{n}`?")),
                    });
                }
            };
            *slot = Option::<String>::parse(&entry.node)?;
        }
        Ok(tokens)
    }
    fn dump(&self) -> Value {
        let roles = [
            ("bos_token", &self.bos),
            ("eos_token", &self.eos),
            ("pad_token", &self.pad),
            ("unk_token", &self.unk),
        ];
        let map: serde_json::Map<_, _> =
            roles.iter().filter_map(|(k, v)| v.as_ref().map(|v| ((*k).to_owned(), json!(v)))).collect();
        if map.is_empty() { Value::Null } else { Value::Object(map) }
    }
}

/// Memory limits by device: `cpu`, or a CUDA device number. Bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MaxMemory(pub BTreeMap<String, u64>);

impl Field for MaxMemory {
    fn type_name() -> String {
        "map of `cpu` or a device number to a size (`8GiB`)".into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        let Yaml::Map(entries) = &node.value else {
            return Err(Wrong::at(node, format!("takes a {}", Self::type_name())));
        };
        let mut map = BTreeMap::new();
        for entry in entries {
            if entry.key != "cpu" && entry.key.parse::<u32>().is_err() {
                return Err(Wrong::at(node, format!("has no device `{}`; `cpu` or a number", entry.key)));
            }
            let text = entry.node.text().unwrap_or_default();
            let bytes = parse_bytes(text)
                .ok_or_else(|| Wrong::at(&entry.node, format!("takes sizes like `8GiB`, not `{text}`")))?;
            map.insert(entry.key.clone(), bytes);
        }
        Ok(Self(map))
    }
    fn dump(&self) -> Value {
        if self.0.is_empty() {
            return Value::Null;
        }
        Value::Object(self.0.iter().map(|(k, v)| (k.clone(), (*v).into())).collect())
    }
}

/// `8GiB`, `500MB`, `1073741824`: bytes. Units of accelerate: KB is 1000, KiB 1024.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_uppercase();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale: f64 = match unit.trim() {
        "" | "B" => 1.0,
        "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KIB" => 1024.0,
        "MIB" => 1_048_576.0,
        "GIB" => 1_073_741_824.0,
        "TIB" => 1_099_511_627_776.0,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * scale;
    (1.0..9.0e18).contains(&bytes).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::parse;

    #[test]
    fn a_broken_expression_is_refused() {
        assert!(Targets::parse(&parse("'(['").unwrap()).is_err());
        assert_eq!(Targets::parse(&parse("[all-linear]").unwrap()), Ok(Targets::AllLinear));
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("8GiB", Some(8 << 30)),
            ("20 gb", Some(20_000_000_000)),
            ("1.5MiB", Some(1_572_864)),
            ("1024", Some(1024)),
            ("8 parsec", None),
            ("", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
    }
}
