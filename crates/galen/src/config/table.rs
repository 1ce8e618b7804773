//! The honoured keys: Axolotl's names and defaults, deviations stated in the key's own lines.

use super::alignment::{OnDisplacement, RankedPairs, Rl};
use super::datasets::Datasets;
use super::device::Device;
use super::key::key_table;
use super::trl::Trl;
use super::types::{
    AdapterKind, Bf16, Checkpointing, ExcessLength, InitLora, MaxMemory, OnBadRow, Optimizer, Scheduler,
    SpecialTokens, Steps, Strategy, Targets, WeightCache,
};
use serde_json::{Map, Value};

key_table! {
    /// A configuration, every default filled in. What a run directory's `config.yaml` holds.
    pub struct Config, HONOURED;

    ["Model"]
    /// The model to adapt: a folder with `config.json`, safetensors and `tokenizer.json`; a `.gguf` file;
    /// `ORG/REPO[@REV]` or `ORG/REPO:QUANT` on the hub; or a catalogue name.
    base_model: String = String::new(), |m| if m.is_empty() { Err("is empty".into()) } else { Ok(()) };
    /// The hub name written into the adapter as its base, where `base_model` is a file.
    base_model_name_or_path: Option<String> = None;
    /// Commit, tag or branch of `base_model` on the hub.
    revision_of_model: Option<String> = None;
    /// Where `config.json` lies; must be `base_model` itself.
    base_model_config: Option<String> = None;
    /// Where the tokenizer lies; must be `base_model` itself.
    tokenizer_config: Option<String> = None;
    /// Memory limits, `{cpu: 8GiB, 0: 20GiB}`: what `weight_cache: auto` and `gradient_checkpointing: auto` keep below;
    /// unset, four fifths of what is free.
    max_memory: MaxMemory = MaxMemory::default();

    /// Where to train: `cpu`; `cuda:N`, a card by its number, in a build with `--features cuda`; or `auto`, such a card where
    /// there is one that has kernels for all this configuration asks for, else the processor.
    device: Device = Device::Auto;
    /// Cards to train on together, from that of `device` on, each with the whole base. A step is `micro_batch_size` x
    /// `gradient_accumulation_steps` rows on each of them. Not in Axolotl, whose launcher has it.
    gpus: u64 = 1, at_least_one;

    ["Precision"]
    /// Operands of matrix products in bf16: `auto` where the processor has instructions for it. Sums, the residual
    /// stream, the adapter and the optimiser's state are f32 always.
    bf16: Bf16 = Bf16::Auto;
    /// The same leave: trains in bf16 or f32, both of wider range than f16, so that no loss scaling is needed.
    fp16: bool = false;
    /// The same as `bf16: true`.
    bfloat16: bool = false;
    /// The same as `fp16: true`.
    float16: bool = false;
    /// f32 operands only.
    float32: bool = false;
    /// Where bf16 products read the base: `bf16`, a packed copy of two bytes a weight (fast); `stream`, the stored
    /// blocks (small, a tenth slower); `auto`, the copy where the run then stays below `max_memory`, by the arithmetic of
    /// `galen plan`.
    weight_cache: WeightCache = WeightCache::Auto;

    ["Adapter"]
    /// `lora`, or `qlora` over a 4-bit base. A `.gguf` base is used in its own blocks by either.
    adapter: Option<AdapterKind> = None;
    /// 4-bit NF4 with double quantisation, made at load; `qlora` implies it. A quantised GGUF stays as it is.
    load_in_4bit: Option<bool> = None;
    /// The base's projections in 8-bit blocks (`Q8_0`: 32 values to a scale), made at load. A quantised GGUF stays as it is.
    load_in_8bit: bool = false;
    /// Rank. Default PEFT's.
    lora_r: u64 = 8, |r| if (1..=4096).contains(r) { Ok(()) } else { Err("takes 1 to 4096".into()) };
    /// Scale: the delta is multiplied by `lora_alpha / lora_r`. Default PEFT's.
    lora_alpha: f64 = 8.0, positive;
    /// Dropout on the adapter's input.
    lora_dropout: f64 = 0.0, below_one;
    /// Module names, or one regular expression over whole paths, or `all-linear`. Unset with `lora_target_linear`
    /// unset too: every linear layer of the blocks (Axolotl leaves it to PEFT: `q_proj` and `v_proj`).
    lora_target_modules: Targets = Targets::Unset;
    /// Every linear layer of the blocks, also beside `lora_target_modules`.
    lora_target_linear: Option<bool> = None;
    /// Go on training this adapter: a folder of PEFT's or mlx-lm's, a GGUF adapter. Its rank, scale and method stay.
    lora_model_dir: Option<String> = None;
    /// Rank-stabilised scale: `lora_alpha / sqrt(lora_r)`.
    peft_use_rslora: bool = false;
    /// DoRA (Liu et al. 2024): A and B change the direction of each weight's rows, and their length is trained too. A
    /// step takes longer, with `lora_dropout` about twice as long.
    peft_use_dora: bool = false;
    /// Block numbers that get an adapter; unset: all.
    peft_layers_to_transform: Vec<u64> = Vec::new();
    /// Initial values of A and B.
    peft_init_lora_weights: InitLora = InitLora::Default;

    ["Data"]
    /// What is trained on.
    datasets: Datasets = Datasets::default();
    /// What is validated on; instead of `val_set_size`.
    test_datasets: Datasets = Datasets::default();
    /// Rows set aside for validation: a share below 1, or a number of rows from 2.
    val_set_size: f64 = 0.0, share_or_count;
    /// Longest row, and with `sample_packing` the size of a bin; tokens.
    sequence_len: u64 = 512, |n| if (2..=1 << 22).contains(n) { Ok(()) } else { Err("takes 2 to 4194304".into()) };
    /// A row longer than `sequence_len`: `drop` it, `truncate` it, or `raise`. Counted and reported always. Plain text (`type:
    /// completion`) is cut into rows instead.
    excess_length_strategy: ExcessLength = ExcessLength::Drop;
    /// Bins of `sequence_len` filled with whole rows; attention never crosses rows.
    sample_packing: bool = false;
    /// Train on prompts too: on every token, also of turns that say `train: false`.
    train_on_inputs: bool = false;
    /// `tokenizer_default`, a built-in name (`chatml`, `llama3` ...), `tokenizer_default_fallback_NAME`, or `jinja`.
    /// Unset: the model's own; a model without one must be given one.
    chat_template: Option<String> = None;
    /// A template of one's own: its text or a file.
    chat_template_jinja: Option<String> = None;
    /// Variables handed to the template.
    chat_template_kwargs: Map<String, Value> = Map::new();
    /// Tokens by role, as the tokenizer has them: none are added or moved. `pad_token` has no effect: nothing is padded.
    special_tokens: SpecialTokens = SpecialTokens::default();
    /// Tokens that end a turn, trained by `train_on_eot`.
    eot_tokens: Vec<String> = Vec::new();
    /// A row that cannot be read, or that its template refuses: `error` stops, `skip` counts. Not in Axolotl.
    on_bad_row: OnBadRow = OnBadRow::Error;
    /// How many rows of the data the report and the card show, each with what base and adapter answer (validation rows,
    /// where there are any). Not in Axolotl.
    report_samples: u64 = 0;

    ["Training"]
    /// Rows (with `sample_packing`: bins) of a pass.
    micro_batch_size: u64 = 1, at_least_one;
    /// Passes a step. The loss is that of the larger batch exactly: normalised by its supervised tokens.
    gradient_accumulation_steps: Option<u64> = None, |n| n.as_ref().map_or(Ok(()), at_least_one);
    /// Rows of a step, instead of `gradient_accumulation_steps`.
    batch_size: Option<u64> = None, |n| n.as_ref().map_or(Ok(()), at_least_one);
    /// Passes over the data; may be a fraction.
    num_epochs: f64 = 1.0, positive;
    /// Optimiser steps of the run, whatever `num_epochs` says; -1 or unset: `num_epochs` decides.
    max_steps: Option<i64> = None, |n| match n { Some(0) => Err("takes 1 or more, or -1".into()), _ => Ok(()) };
    /// AdamW under every name of its variants; moments are f32 whatever the name says.
    optimizer: Optimizer = Optimizer::default();
    /// The highest rate. Required.
    learning_rate: f64 = 0.0, positive;
    /// LoRA+ (Hayou et al. 2024): the rate of the adapter's B matrices (and DoRA's magnitudes) over `learning_rate`, which A
    /// keeps. The paper advises 16 or more, with a lower `learning_rate`.
    loraplus_lr_ratio: Option<f64> = None, |r| r.as_ref().map_or(Ok(()), positive);
    /// The course of the rate.
    lr_scheduler: Scheduler = Scheduler::Cosine;
    /// Steps of warm-up.
    warmup_steps: Option<u64> = None;
    /// Warm-up as a share of all steps. Neither set: 3 %, at most 100 steps.
    warmup_ratio: Option<f64> = None, |r| r.as_ref().map_or(Ok(()), below_one);
    /// Decoupled weight decay.
    weight_decay: f64 = 0.0, not_negative;
    /// Decay of the first moment.
    adam_beta1: f64 = 0.9, below_one;
    /// Decay of the second moment.
    adam_beta2: f64 = 0.999, below_one;
    /// Added to the root of the second moment.
    adam_epsilon: f64 = 1e-8, positive;
    /// Largest L2 norm of all gradients together; 0: no clipping.
    max_grad_norm: f64 = 1.0, not_negative;
    /// NEFTune (Jain et al. 2024): uniform noise on the embeddings of training rows, at most this over the root of a row's tokens
    /// times the hidden size. The paper's is 5 to 15; 0: none. What rows begin with in common is then computed for each.
    neftune_noise_alpha: Option<f64> = None, |a| a.as_ref().map_or(Ok(()), not_negative);
    /// Activations computed again instead of kept: same numbers, less memory, about a third more time. `offload`
    /// means `true` here; `auto`, where the run would pass `max_memory` otherwise, by the arithmetic of `galen plan`.
    gradient_checkpointing: Checkpointing = Checkpointing::Off;
    /// Seed of everything random. The same seed gives the same bits.
    seed: u64 = 42;

    ["Alignment"]
    /// The family of objectives; `galen align` trains by it. `ipo` is `dpo` with that loss type.
    rl: Option<Rl> = None;
    /// The same as `rl: reward`.
    reward_model: Option<bool> = None;
    /// Weight of the squared sum of a pair's rewards, which keeps a reward model's around 0; unset: none. 0.01 is usual.
    center_rewards_coefficient: Option<f64> = None, |c| c.as_ref().map_or(Ok(()), not_negative);
    /// Strength of the pull to the reference; `orpo`: weight of the odds ratio; `cpo`, `simpo`: scale of the rewards. Unset: 0.1
    /// (TRL's).
    rl_beta: Option<f64> = None, |b| b.as_ref().map_or(Ok(()), positive);
    /// The loss, with `dpo` one or several: `sigmoid`, `hinge`, `ipo`, `robust`, `exo_pair`, `nca_pair`, `bco_pair`, `sppo_hard`,
    /// `aot`, `aot_unpaired`, `apo_zero`, `apo_down`, `discopop`, `sigmoid_norm`, `sft`; `cpo`: `sigmoid`, `hinge`, `ipo`, `simpo`;
    /// `kto`: `kto`, `apo_zero_unpaired`.
    dpo_loss_type: Vec<String> = Vec::new();
    /// Weights of several losses in their sum; unset: 1 each.
    dpo_loss_weights: Vec<f64> = Vec::new();
    /// Probability that a label is wrong; reads as in TRL: in `robust`, `exo_pair`, `aot*` of `dpo`, and in `cpo`, `simpo`.
    dpo_label_smoothing: Option<f64> = None;
    /// Divides log-probabilities by the answers' lengths: `dpo_loss_type: sigmoid_norm`.
    dpo_norm_loss: Option<bool> = None;
    /// Weight of the chosen answers' negative log-likelihood beside the loss: `sft` in `dpo_loss_type`.
    rpo_alpha: Option<f64> = None, |a| a.as_ref().map_or(Ok(()), not_negative);
    /// Weight of an answer's tokens beyond the shorter one's length (LD-DPO).
    ld_alpha: Option<f64> = None;
    /// Divergence that scores are derived from: `reverse_kl`, `forward_kl`, `js_divergence`, `alpha_divergence`.
    f_divergence_type: Option<String> = None;
    /// Exponent of `alpha_divergence`; unset: 0.5.
    f_alpha_divergence_coef: Option<f64> = None;
    /// Temperature of the loss type `discopop`; unset: 0.05.
    discopop_tau: Option<f64> = None, |t| t.as_ref().map_or(Ok(()), positive);
    /// Weight of good answers; unset: 1.
    kto_desirable_weight: Option<f64> = None;
    /// Weight of bad answers; unset: 1.
    kto_undesirable_weight: Option<f64> = None;
    /// Weight of the odds ratio: `rl_beta` of `orpo`.
    orpo_alpha: Option<f64> = None;
    /// Margin of `simpo`; unset: 0.5.
    simpo_gamma: Option<f64> = None;
    /// Weight of the chosen answers' negative log-likelihood in `cpo` and `simpo`; unset: 1, TRL's, also for `simpo`, whose paper
    /// has 0.
    cpo_alpha: Option<f64> = None;
    /// Compute the reference's log-probabilities once, before the first step, and keep them in the cache folder: the same bits, a
    /// forward pass less in every step.
    precompute_ref_log_probs: Option<bool> = None;
    /// No dropout, whatever `lora_dropout` says. Unset: true (TRL's).
    disable_dropout: Option<bool> = None;
    /// Longest prompt, tokens; `excess_length_strategy: truncate` cuts its beginning off. Unset: `sequence_len` alone counts.
    max_prompt_length: Option<u64> = None, |n| n.as_ref().map_or(Ok(()), at_least_one);
    /// Longest answer, tokens; `truncate` cuts its end off.
    max_completion_length: Option<u64> = None, |n| n.as_ref().map_or(Ok(()), at_least_one);
    /// Sampling, rewards and loss of `grpo` and `rloo`: a map, below.
    trl: Trl = Trl::default();
    /// A task of `galen eval` (a YAML file, or a built-in's name) answered at every validation: its first metric under its first
    /// filter is `eval_acc`, whatever it is called, and its fall while rewards rise is warned of. Not in Axolotl.
    eval_task: Option<String> = None;
    /// Only its first so many questions. Not in Axolotl.
    eval_task_limit: Option<u64> = None, |n| n.as_ref().map_or(Ok(()), at_least_one);
    /// Pairs that a ranked list becomes; unset: `best_worst`. Not in Axolotl.
    ranked_pairs: Option<RankedPairs> = None;
    /// What happens when chosen answers become less likely than under the reference while margins rise, over 16 steps; unset:
    /// `warn`. Not in Axolotl.
    likelihood_displacement: Option<OnDisplacement> = None;
    /// Nats a token that they may lose first; unset: 0.1. Not in Axolotl.
    likelihood_displacement_threshold: Option<f64> = None, |t| t.as_ref().map_or(Ok(()), not_negative);

    ["Validation"]
    /// Steps, or a share of the run, between validations. Nothing set but rows to validate on: every epoch
    /// (Axolotl: never).
    eval_steps: Option<Steps> = None;
    /// Validations an epoch: the run is divided by it times `num_epochs`, also where `max_steps` ends it earlier.
    evals_per_epoch: Option<u64> = None;
    /// `no` (at the end alone), `steps` or `epoch`.
    eval_strategy: Option<Strategy> = None, |s| match s {
        Some(Strategy::Best) => Err("takes `no`, `steps` or `epoch`, not `best`".into()),
        _ => Ok(()),
    };
    /// The figure of a validation by which it is the best: `eval_loss` (unset), `eval_acc` (with `eval_task`), or any other that
    /// `log.jsonl` has; the `eval_` may be left out.
    metric_for_best_model: Option<String> = None;
    /// Whether a higher figure is better; unset: false for losses, true for the others (transformers').
    greater_is_better: Option<bool> = None;
    /// End with the best checkpoint's adapter instead of the last.
    load_best_model_at_end: bool = false;
    /// Stop after so many validations without improvement.
    early_stopping_patience: Option<u64> = None;
    /// Stop when the loss stays above this (3 steps, see `loss_watchdog_patience`).
    loss_watchdog_threshold: Option<f64> = None, |t| t.as_ref().map_or(Ok(()), positive);
    /// Steps in a row above the threshold.
    loss_watchdog_patience: u64 = 3, at_least_one;

    ["Output"]
    /// The run directory.
    output_dir: String = "./model-out".into();
    /// Steps, or a share of the run, between checkpoints. Nothing set: every epoch.
    save_steps: Option<Steps> = None;
    /// Checkpoints an epoch.
    saves_per_epoch: Option<u64> = None;
    /// `no`, `steps`, `epoch` or `best`.
    save_strategy: Option<Strategy> = None;
    /// Checkpoints kept: the newest, and with `load_best_model_at_end` the best, always among them.
    save_total_limit: u64 = 4, at_least_one;
    /// Steps between log lines on the terminal (`log.jsonl` has every step). Unset: the progress bar alone.
    logging_steps: Option<u64> = None, |n| n.as_ref().map_or(Ok(()), at_least_one);
    /// Go on from this checkpoint directory.
    resume_from_checkpoint: Option<String> = None;
    /// Go on from the last checkpoint in `output_dir`, where there is one.
    auto_resume_from_checkpoints: bool = false;
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "checks take any value by reference")]
fn positive(v: &f64) -> Result<(), String> {
    if *v > 0.0 { Ok(()) } else { Err(format!("takes a number above 0, not `{v}`")) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as above")]
fn not_negative(v: &f64) -> Result<(), String> {
    if *v >= 0.0 { Ok(()) } else { Err(format!("takes 0 or more, not `{v}`")) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as above")]
fn below_one(v: &f64) -> Result<(), String> {
    if (0.0..1.0).contains(v) { Ok(()) } else { Err(format!("takes 0 or more and below 1, not `{v}`")) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as above")]
fn at_least_one(v: &u64) -> Result<(), String> {
    if *v >= 1 { Ok(()) } else { Err("takes 1 or more".into()) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as above")]
fn share_or_count(v: &f64) -> Result<(), String> {
    if (0.0..1.0).contains(v) || (*v >= 2.0 && v.fract() == 0.0) {
        Ok(())
    } else {
        Err(format!("takes a share below 1, or a number of rows from 2, not `{v}`"))
    }
}
