//! The keys of `trl:`: sampling, rewards and the loss of GRPO and RLOO, by Axolotl's and TRL's names.

use super::field::{Field, Wrong, choices};
use super::key::{Key, Report, State, key_table, read_map};
use super::yaml::{Node, Yaml};
use serde_json::Value;

choices! {
    /// What an answer's distance from its group's mean reward is divided by.
    pub enum ScaleRewards {
        /// The group's standard deviation.
        Group = "group" | "true",
        /// The batch's standard deviation.
        Batch = "batch",
        /// Nothing.
        None = "none" | "false",
    }
}

/// A value handed on as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Json(pub Value);

impl Field for Json {
    fn type_name() -> String {
        "name, map, or list of them".into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        Ok(Self(node.to_json()))
    }
    fn dump(&self) -> Value {
        self.0.clone()
    }
}

key_table! {
    /// `trl:` as it was written, every default filled in.
    pub struct Trl, TRL_HONOURED;

    ["Rewards"]
    /// What answers are worth: names or maps of `docs/rewards.md`, one or several. Required.
    reward_funcs: Json = Json::default();
    /// A weight for each of them; unset: 1 each.
    reward_weights: Vec<f64> = Vec::new();

    ["Sampling"]
    /// Answers sampled for each prompt; unset: 8, with `rloo` 2 (TRL's). `micro_batch_size` and the rows of a step count
    /// answers, as in TRL: their number a step must be a multiple of this.
    num_generations: Option<u64> = None, |n| match n { Some(0 | 1) => Err("takes 2 or more: an answer is compared with others".into()), _ => Ok(()) };
    /// Longest answer, tokens; unset: 512. `sequence_len` bounds the prompt, the answer comes on top.
    max_completion_length: Option<u64> = None, |n| match n { Some(0) => Err("takes 1 or more".into()), _ => Ok(()) };
    /// Divides the logits, when answers are drawn and in the loss.
    temperature: f64 = 1.0, |t| if *t > 0.0 { Ok(()) } else { Err("takes a number above 0: greedy answers are all the same".into()) };
    /// Keep the most likely tokens until their probabilities reach this; 1 keeps all.
    top_p: f64 = 1.0, |p| if (0.0..=1.0).contains(p) && *p > 0.0 { Ok(()) } else { Err("takes a number above 0, at most 1".into()) };
    /// Keep so many of the most likely tokens; 0 keeps all.
    top_k: u64 = 0;
    /// Keep tokens at least this share of the most likely one's probability; unset: all.
    min_p: Option<f64> = None, |p| match p { Some(p) if !(0.0..=1.0).contains(p) => Err("takes 0 to 1".into()), _ => Ok(()) };
    /// Divides the logits of tokens that the text has already; 1: not.
    repetition_penalty: f64 = 1.0, |p| if *p > 0.0 { Ok(()) } else { Err("takes a number above 0".into()) };
    /// Answers cut off at `max_completion_length` are not learned from.
    mask_truncated_completions: bool = false;

    ["The loss"]
    /// Steps made with the same answers.
    num_iterations: u64 = 1, |n| if *n >= 1 { Ok(()) } else { Err("takes 1 or more".into()) };
    /// Weight of the KL to the reference; unset: 0 with `grpo` (no reference is computed), 0.05 with `rloo`.
    beta: Option<f64> = None;
    /// How far a token's probability ratio may move.
    epsilon: f64 = 0.2;
    /// How far up; unset: `epsilon`.
    epsilon_high: Option<f64> = None;
    /// Greatest ratio of the unclipped side too; unset: none.
    delta: Option<f64> = None;
    /// `grpo`, `bnpo`, `dr_grpo`, `dapo`, `cispo`, `sapo`, `vespo`, `luspo`; unset: `dapo` (TRL's).
    loss_type: Option<String> = None;
    /// `token`, or `sequence` (GSPO).
    importance_sampling_level: Option<String> = None;
    /// What the distance from the group's mean is divided by; unset: `group`.
    scale_rewards: Option<ScaleRewards> = None;
    /// `sum_then_normalize`, or `normalize_then_sum` (GDPO).
    multi_objective_aggregation: Option<String> = None;
    /// Whether the KL is weighed by the ratio.
    use_bias_correction_kl: bool = true;
    /// Drops bad answers that the policy has left further behind than this, nats a token; unset: none.
    off_policy_mask_threshold: Option<f64> = None;
    /// Temperature of `sapo` for good answers.
    sapo_temperature_pos: f64 = 1.0;
    /// And for bad ones.
    sapo_temperature_neg: f64 = 1.05;
    /// Exponent of `vespo` for good answers.
    vespo_k_pos: f64 = 2.0;
    /// Its rate there.
    vespo_lambda_pos: f64 = 3.0;
    /// Exponent of `vespo` for bad answers.
    vespo_k_neg: f64 = 3.0;
    /// Its rate there.
    vespo_lambda_neg: f64 = 2.0;
    /// `rloo`: advantages brought to mean 0 and deviation 1 over the batch.
    normalize_advantages: bool = false;
    /// `rloo`: least and greatest reward.
    reward_clip_range: Vec<f64> = Vec::new(), |r| if r.is_empty() || r.len() == 2 { Ok(()) } else { Err("takes two numbers".into()) };

    ["What is kept"]
    /// Write every sampled answer with its rewards to `completions.jsonl`; with `report_samples` the first so many of each
    /// step are written anyhow.
    log_completions: bool = false;
}

macro_rules! others {
    ($($($name:literal)+ => $state:expr, $doc:literal;)+) => {
        &[$($(Key { name: $name, group: "Sampled answers (`trl:`)", doc: &[$doc], state: $state }),+),+]
    };
}

const QUIET: State<Trl> = State::NoEffect { unless: |_| None };

const fn no(hint: &'static str) -> State<Trl> {
    State::Refused { hint, off: Node::is_off }
}

/// Keys of `trl:` that change nothing, or that galen refuses.
pub static TRL_OTHERS: &[Key<Trl>] = others! {
    "use_vllm" "vllm_*" "async_prefetch" "prefetch_depth" "use_data_producer" =>
        QUIET, "answers come from galen's own generator, with the adapter as it trains";
    "use_liger_loss" "use_liger_kernel" "cast_lm_head_to_fp32" => QUIET, "the head's sums are f32 always";
    "num_completions_to_print" "log_unique_prompts" "wandb_log_unique_prompts" =>
        QUIET, "`completions.jsonl` has them";
    "ds3_gather_for_generation" "cache_implementation" "use_transformers_paged" =>
        QUIET, "only of the peers' generators";
    "sync_ref_model" "ref_model_mixup_alpha" "ref_model_sync_steps" => no("leave it out"),
        "the reference is where training started; moving it is not built";
    "rollout_func" "tools" "environment_factory" => no("`reward_funcs: [{command: ...}]` runs a program of yours"),
        "Python functions are not run";
    "generation_kwargs" => no("`temperature`, `top_p`, `top_k`, `min_p`, `repetition_penalty` are keys of `trl:`"),
        "other settings of the peers' generators are not built";
    "steps_per_generation" "generation_batch_size" =>
        no("leave it out; `num_iterations` learns from the same answers again"),
        "answers are sampled at the beginning of the step that learns from them";
    "top_entropy_quantile" => no("leave it out"), "choosing tokens by entropy is not built";
    "replay_*" "streaming_partial_batch" "skip_zero_advantage_batches" => no("leave it out"), "not built";
};

impl Field for Trl {
    fn type_name() -> String {
        "map".into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        Self::parse_in(node, "trl", &mut Report::default())
    }
    fn parse_in(node: &Node, place: &str, report: &mut Report) -> Result<Self, Wrong> {
        let Yaml::Map(entries) = &node.value else {
            let hint = "write `trl:` and below it `  reward_funcs: [exact_match]`";
            return Err(Wrong::at(node, format!("takes a map, not {}", node.describe())).hint(hint));
        };
        Ok(read_map(entries, &[TRL_HONOURED, TRL_OTHERS], &format!("{place}."), outside, report))
    }
    fn dump(&self) -> Value {
        let default = Self::default();
        let set = TRL_HONOURED.iter().filter_map(|key| {
            let State::Honoured { get, .. } = key.state else { return None };
            let value = get(self);
            (value != get(&default)).then(|| (key.name.to_owned(), value))
        });
        let map: serde_json::Map<String, Value> = set.collect();
        if map.is_empty() { Value::Null } else { Value::Object(map) }
    }
}

fn outside(key: &str) -> Option<String> {
    super::tables()
        .any(|k| k.matches(key) && matches!(k.state, State::Honoured { .. }))
        .then(|| format!("`{key}` belongs at the top level, not in `trl:`"))
}
