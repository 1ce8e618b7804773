//! Keys that change nothing here, other names of keys, and keys galen refuses.
//!
//! *No effect* is only for keys nothing learned depends on: kernels, memory, several devices, logging services.
//! Whatever would change what is learned and is not built is *refused*.

use super::key::{Key, State};
use super::table::Config;
use super::yaml::{Node, Yaml};

macro_rules! keys {
    ($($group:literal: $($name:literal)+ => $state:expr, $doc:literal;)+) => {
        &[$($(Key { name: $name, group: $group, doc: &[$doc], state: $state }),+),+]
    };
}

const QUIET: State<Config> = State::NoEffect { unless: |_| None };

const fn no(hint: &'static str) -> State<Config> {
    State::Refused { hint, off: Node::is_off }
}

const fn alias(name: &'static str) -> State<Config> {
    State::Alias(name)
}

/// Older and longer names.
pub static ALIASES: &[Key<Config>] = keys! {
    "Other names": "evaluation_strategy" => alias("eval_strategy"), "`eval_strategy`";
    "Other names": "model_revision" => alias("revision_of_model"), "`revision_of_model`";
    "Other names": "beta" => alias("rl_beta"), "`rl_beta`";
    "Other names": "loss_type" => alias("dpo_loss_type"), "`dpo_loss_type`";
    "Other names": "loss_weights" => alias("dpo_loss_weights"), "`dpo_loss_weights`";
    "Other names": "label_smoothing" => alias("dpo_label_smoothing"), "`dpo_label_smoothing`";
    "Other names": "desirable_weight" => alias("kto_desirable_weight"), "`kto_desirable_weight`";
    "Other names": "undesirable_weight" => alias("kto_undesirable_weight"), "`kto_undesirable_weight`";
    "Other names": "max_prompt_len" => alias("max_prompt_length"), "`max_prompt_length`";
    "Other names": "noisy_embedding_alpha" => alias("neftune_noise_alpha"), "`neftune_noise_alpha`";
    "Other names": "max_length" => alias("sequence_len"), "`sequence_len`";
};

/// Keys nothing learned depends on.
pub static NO_EFFECT: &[Key<Config>] = keys! {
    "Loading": "model_type" "type_of_model" "cls_model_config" "tokenizer_type" "tokenizer_use_fast"
        "tokenizer_legacy" "tokenizer_save_jinja_files" "tokenizer_use_mistral_common" =>
        QUIET, "the model's own files say what it is; its tokenizer is read from `tokenizer.json` or the GGUF";
    "Loading": "trust_remote_code" => QUIET, "no code of a model's is ever run";
    "Loading": "low_cpu_mem_usage" "device_map" "lora_on_cpu" "experimental_skip_move_to_device"
        "embeddings_skip_upcast" "qlora_sharded_model_loading" =>
        QUIET, "weights are memory-mapped and stay as they are";
    "Loading": "resize_token_embeddings_to_32x" "mean_resizing_embeddings" =>
        QUIET, "no token is added, so the embedding keeps its size";
    "Loading": "is_falcon_derived_model" "is_llama_derived_model" "is_mistral_derived_model"
        "is_qwen_derived_model" "lora_fan_in_fan_out" => QUIET, "the model's own files say it";
    "Loading": "bnb_config_kwargs" => State::NoEffect { unless: bnb_unlike_ours },
        "4-bit weights are NF4 with double quantisation, as asked";
    "Loading": "hf_use_auth_token" => QUIET, "the hub's token is taken from its usual places";

    "Kernels and memory": "attn_implementation" "flash_attention" "sdp_attention" "xformers_attention"
        "flex_attention" "sage_attention" "eager_attention" "flex_attn_compile_kwargs" "flash_optimum"
        "flash_attn_cross_entropy" "flash_attn_fuse_mlp" "flash_attn_rms_norm" "sdpa_varlen" "large_head_attention" "flash_attn_d512"
        "gemma4_hybrid_attn_impl" "fused_attn_kernel" =>
        QUIET, "galen has one attention, exact, without a score matrix";
    "Kernels and memory": "lora_mlp_kernel" "lora_qkv_kernel" "lora_o_kernel" "lora_embedding_kernel"
        "chunked_cross_entropy" "chunked_cross_entropy_num_chunks" "cut_cross_entropy" "liger_rope"
        "liger_rms_norm" "liger_rms_norm_gated" "liger_layer_norm" "liger_swiglu" "liger_glu_activation"
        "liger_cross_entropy" "liger_fused_linear_cross_entropy" "tiled_mlp" "tiled_mlp_num_shards"
        "tiled_mlp_use_original_mlp" "dpo_use_liger_kernel" "use_kernels" "torch_compile" "torch_compile_backend" "torch_compile_mode"
        "torch_compile_options" =>
        QUIET, "galen's own kernels compute the same function";
    "Kernels and memory": "tf32" => QUIET, "sums are f32";
    "Kernels and memory": "fp8" "fp8_enable_fsdp_float8_all_gather" => QUIET, "computed in bf16 or f32, never below";
    "Kernels and memory": "peft_autocast_adapter_dtype" => QUIET, "the adapter is f32 in training";
    "Kernels and memory": "gradient_checkpointing_kwargs" "selective_checkpointing" "activation_offloading"
        "layer_offloading" "torch_empty_cache_steps" "gc_steps" "gc_collect_steps" =>
        QUIET, "memory only; `gradient_checkpointing` and `max_memory` govern it";
    "Kernels and memory": "plugins" => State::NoEffect { unless: plugin_that_learns },
        "these plugins bring kernels or logging";

    "Mixture of experts": "quantize_moe_experts" "experts_implementation" "use_scattermoe" "use_sonicmoe"
        "expert_parallel_*" "expert_backend" "nonexpert_quantization" "moe_*" "use_dsv4_kernels" "dsv4_*"
        "use_glm_dsa_kernels" "gemma4_fp8_nonexpert" "gemma4_nf4_nonexpert" "dense_mixer" =>
        QUIET, "only for bases with experts, which galen refuses when it loads them";

    "Several devices": "deepspeed" "deepcompile" "fsdp" "fsdp_config" "fsdp_version" "fsdp_final_state_dict_type"
        "fp32_norms" "fp32_norm_classes" "ddp" "ddp_*" "world_size" "local_rank" "dp_shard_size"
        "dp_replicate_size" "tensor_parallel_size" "context_parallel_size" "sequence_parallel_degree"
        "heads_k_stride" "ring_attn_func" "use_ray" "ray_run_name" "ray_num_workers" "resources_per_worker"
        "accelerator_config" =>
        QUIET, "one process: `gpus: N` trains on so many cards, each with the whole base";

    "Batches": "pad_to_sequence_len" "pad_to_multiple_of" "batch_flattening" "group_by_length" =>
        QUIET, "nothing is ever padded";
    "Batches": "eval_sample_packing" "eval_batch_size" => QUIET, "validation's loss is the same however it is batched";
    "Batches": "sample_packing_group_size" "sample_packing_bin_size" "sample_packing_sequentially"
        "sample_packing_mp_start_method" "sample_packing_eff_est" "multipack_real_batches" =>
        QUIET, "bins are filled by galen's own rule";
    "Batches": "shuffle_merged_datasets" "shuffle_before_merging_datasets" =>
        QUIET, "rows are shuffled anew each epoch, by `seed`";
    "Batches": "dpo_padding_free" "dpo_use_logits_to_keep" "precompute_ref_batch_size" =>
        QUIET, "nothing is padded, and only answers' tokens go through the head";
    "Batches": "remove_unused_columns" "dataloader_pin_memory" "dataloader_num_workers"
        "dataloader_prefetch_factor" "dataset_processes" "dataset_num_proc" "dataset_keep_in_memory"
        "dataset_prepared_path" "skip_prepare_dataset" "num_dataset_shards_to_save" "is_preprocess"
        "preprocess_iterable" "total_num_tokens" "total_supervised_tokens" =>
        QUIET, "data is read and tokenised at each start, on all threads";
    "Batches": "auto_find_batch_size" => QUIET, "`max_memory` and `galen plan` say beforehand what fits";

    "Logging": "wandb_*" "use_wandb" "mlflow_*" "use_mlflow" "hf_mlflow_log_artifacts" "comet_*" "use_comet"
        "swanlab_*" "use_swanlab" "trackio_*" "use_trackio" "otel_*" "use_otel_metrics" "use_tensorboard"
        "include_tokens_per_second" "include_tkps" "profiler_steps" "profiler_steps_start" "gradio_*" =>
        QUIET, "every run writes `log.jsonl`, TensorBoard events and `report.html`; no service is contacted";
    "Logging": "do_causal_lm_eval" "eval_causal_lm_metrics" "do_bench_eval" "bench_dataset" "bench_split"
        "eval_table_size" "eval_max_new_tokens" "generate_samples" "num_generation_samples" "generation_*"
        "lm_eval_*" => QUIET, "`galen eval` and `galen generate` measure the adapter";
    "Saving": "hub_*" "push_dataset_to_hub" => QUIET, "nothing is uploaded";
    "Saving": "save_safetensors" "save_only_model" "save_first_step" "dynamic_checkpoint" =>
        QUIET, "a checkpoint is safetensors with all state to resume; Ctrl-C writes one";
    "Saving": "merge_lora" "merge_method" "quantization" => QUIET, "a run ends with the adapter";
    "Other": "num_labels" => State::NoEffect { unless: labels_unlike_ours }, "a reward model gives one value";
    "Other": "strict" "axolotl_config_path" => QUIET, "unknown keys are refused always";
    "Other": "loraplus_lr_embedding" => QUIET, "no embedding is trained";
    "Other": "eaft_alpha" "eaft_k" => QUIET, "only with `use_eaft`, which is refused";
    "Other": "vllm" => QUIET, "answers are sampled by galen's own generator";
    "Other": "adam_epsilon2" "adam_beta3" "dion_*" "qgalore_*" "torchdistx_path" =>
        QUIET, "only for optimisers that are refused";
    "Other": "freeze_mm_modules" "image_size" "image_resize_algorithm" =>
        QUIET, "only for bases with images, which are refused";
};

/// Keys that would change what is learned, and are not built.
pub static REFUSED: &[Key<Config>] = keys! {
    "Adapters": "lora_modules_to_save" => no("leave it out; the base stays frozen"),
        "training whole modules beside the adapter is not built yet";
    "Adapters": "lora_target_parameters" => no("name linear layers in `lora_target_modules`"),
        "adapters on experts' stacked weights are not built";
    "Adapters": "lora_exclude_modules" => no("name the layers wanted in `lora_target_modules`"), "not built";
    "Adapters": "lora_rank_pattern" "lora_alpha_pattern" => no("one `lora_r` for all layers"),
        "ranks by layer are not built yet";
    "Adapters": "peft_layers_pattern" "peft_layer_replication" => no("`peft_layers_to_transform` counts blocks"),
        "not built";
    "Adapters": "peft" "loftq_config" => no("leave it out"), "LoftQ initialisation is not built";
    "Adapters": "peft_trainable_token_indices" "peft_ensure_weight_tying" => no("leave it out"),
        "training embedding rows is not built";
    "Adapters": "relora" "relora_*" "jagged_restart_*" => no("leave it out"), "ReLoRA is not built";
    "Adapters": "use_mora" "mora_*" "mora" => no("leave it out"), "MoRA is not built";
    "Adapters": "unfrozen_parameters" => no("set `adapter: lora`"), "the base stays frozen";
    "Adapters": "nvfp4_merge_aware" "nvfp4_merge_aware_start_step" => no("leave it out"), "not built";
    "Adapters": "qat" => no("leave it out"), "quantisation-aware training is not built";

    "Base": "gpu_memory_limit" => no("use `max_memory: {0: 20GiB}`"), "another spelling of `max_memory`";
    "Base": "model_config" "overrides_of_model_config" "model_kwargs" "overrides_of_model_kwargs" =>
        no("edit the model's own `config.json`"), "overriding the model's configuration is not built";
    "Base": "model_quantization_config" "model_quantization_config_kwargs" => no("use `load_in_4bit: true`"),
        "this quantisation is not built";
    "Base": "gptq" "gptq_*" => no("use a GGUF, or the unquantised model with `load_in_4bit: true`"),
        "GPTQ weights are not read";
    "Base": "reinit_weights" => no("leave it out"), "training from random weights is not built";
    "Base": "shrink_embeddings" => no("leave it out"), "the base stays as it is";
    "Base": "tokens" "added_tokens_overrides" => no("use tokens the vocabulary has"),
        "adding tokens would need trained embeddings";
    "Base": "fix_untrained_tokens" => no("leave it out"), "the base stays as it is";
    "Base": "use_onebitllms" "llama4_linearized_experts" "scaling_softmax" "scaling_softmax_*" "use_pose"
        "pose_*" "rope_scaling" "s2_attention" => no("leave it out"), "it changes the model's function";
    "Base": "processor_type" "processor_kwargs" "processor_config" "role_boundaries" "is_multimodal" =>
        no("use the text-only model of the family"), "images and sound are not built";

    "Objectives": "ebft" => no("`rl: grpo` learns from sampled answers"), "not built";
    "Objectives": "dpo_use_weighting" => no("leave it out"),
        "WPO's weights need the squared probabilities of the whole vocabulary at every token, which are never formed";
    "Objectives": "sync_ref_model" "ref_model_mixup_alpha" "ref_model_sync_steps" => no("leave it out"),
        "the reference is where training started; moving it is not built";
    "Objectives": "dpo_generate_during_eval" => no("`galen eval` and `galen generate` measure the adapter"),
        "not built";
    "Objectives": "process_reward_model" => no("`rl: reward` learns a reward of whole answers"),
        "rewards of single steps are not built";
    "Objectives": "use_eaft" => no("leave it out"), "this loss is not built";
    "Objectives": "liger_use_token_scaling" "kd_*" "diffusion" "grokfast_*" "spectrum_*" "lisa_*" "llmcompressor"
        "nemo_gym_*" "hatchery" "trainer_cls" => no("leave it out"), "it changes the training, and is not built";

    "Data": "pretraining_dataset" "pretrain_*" "pretraining_*" "streaming" "streaming_*" =>
        no("use `datasets:` with `type: completion`"), "streaming is not built";
    "Data": "dataset_shard_num" "dataset_shard_idx" => no("use `split: train[:10%]`"), "not built";
    "Data": "dataset_exact_deduplication" => no("`galen data dedup FILE --out kept.jsonl` writes a file without them"),
        "training drops no rows";
    "Data": "min_sample_len" "eval_sequence_len" => no("leave it out"), "not built";
    "Data": "curriculum_sampling" => no("leave it out"), "training in file order is not built";
    "Data": "dataloader_drop_last" => no("leave it out; the last, smaller batch is weighed by its tokens"), "not built";
    "Data": "max_packed_sequence_len" => no("use `sample_packing: true`"), "Axolotl has dropped it too";
    "Data": "default_system_message" => no("write it into the rows, or use `chat_template_jinja`"), "not built";
    "Data": "roles_to_train" "train_on_eos" "train_on_eot" => no("put it into the entry of `datasets:`"),
        "it belongs to a data set";

    "Optimiser": "optim_args" "optim_target_modules" => no("use `adam_beta1`, `adam_beta2`, `adam_epsilon`"), "not built";
    "Optimiser": "embedding_lr" "embedding_lr_scale" "lr_groups" => no("one `learning_rate`"), "not built";
    "Optimiser": "lr_scheduler_kwargs" "lr_quadratic_warmup" "cosine_min_lr_ratio" "cosine_constant_lr_ratio"
        "lr_div_factor" => no("leave it out, or choose another `lr_scheduler`"), "this course is not built yet";
};

/// `bnb_config_kwargs` that ask for another quantisation than ours.
fn bnb_unlike_ours(node: &Node) -> Option<String> {
    let Yaml::Map(entries) = &node.value else {
        return (!node.is_off()).then(|| "takes a map".to_owned());
    };
    entries.iter().find_map(|e| {
        let text = e.node.text().unwrap_or_default().to_ascii_lowercase();
        let same = match e.key.as_str() {
            "bnb_4bit_use_double_quant" => text == "true",
            "bnb_4bit_quant_type" => text == "nf4",
            // Ours computes in bf16 or f32 always.
            "bnb_4bit_compute_dtype" | "bnb_4bit_quant_storage" | "llm_int8_enable_fp32_cpu_offload" => true,
            _ => false,
        };
        (!same).then(|| format!("`{}: {text}` is not built; NF4 with double quantisation is", e.key))
    })
}

/// Another number of labels than a reward model's one.
fn labels_unlike_ours(node: &Node) -> Option<String> {
    let one = node.is_off() || node.text() == Some("1");
    (!one).then(|| "only one value a sequence is built, a reward model's: set 1 or leave it out".to_owned())
}

/// A plugin that changes what is learned.
fn plugin_that_learns(node: &Node) -> Option<String> {
    const HARMLESS: &[&str] = &[
        "CutCrossEntropyPlugin",
        "LigerPlugin",
        "KernelsPlugin",
        "ExpertParallelPlugin",
        "SwanLabPlugin",
        "LMEvalPlugin",
    ];
    let Yaml::Seq(items) = &node.value else {
        return (!node.is_off()).then(|| "takes a list".to_owned());
    };
    items.iter().find_map(|item| {
        let path = item.text().unwrap_or_default();
        let class = path.rsplit('.').next().unwrap_or_default();
        (!HARMLESS.contains(&class))
            .then(|| format!("the plugin `{path}` is Python and changes the training"))
    })
}
