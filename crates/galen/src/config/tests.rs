//! Configurations and what is said of them.

use super::*;
use crate::config::types::{AdapterKind, Targets};

const SOUND: &str = "base_model: m.gguf\nadapter: qlora\nlearning_rate: 2e-4\ndatasets:\n  - path: d.jsonl\n";

fn errors(text: &str, sets: &[&str]) -> Vec<String> {
    let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
    let (_, report) = check_text("c.yaml", text, &sets);
    report.errors.iter().map(ToString::to_string).collect()
}

#[test]
fn the_smallest_configuration_is_sound() {
    let (config, report) = check_text("c.yaml", SOUND, &[]);
    assert_eq!(report.errors, []);
    assert_eq!((config.adapter, config.load_in_4bit), (Some(AdapterKind::Qlora), Some(true)));
    assert_eq!((config.sequence_len, config.lora_target_modules), (512, Targets::AllLinear));
}

/// Lines added to the sound configuration (from line 6 on), and the whole first complaint.
#[test]
fn complaints_have_a_place_and_a_remedy() {
    for (added, expect) in [
        ("lora_rank: 8", "c.yaml:6: unknown key `lora_rank`\nhint: did you mean `lora_r`?"),
        ("adam_eps: 1e-5", "c.yaml:6: unknown key `adam_eps`\nhint: did you mean `adam_epsilon`?"),
        ("zzz: 1", "c.yaml:6: unknown key `zzz`"),
        ("\nlora_r: many", "c.yaml:7: `lora_r` takes an integer of 0 or more, not `many`"),
        ("lora_r: 0", "c.yaml:6: `lora_r` takes 1 to 4096"),
        ("lora_dropout: 1.5", "c.yaml:6: `lora_dropout` takes 0 or more and below 1, not `1.5`"),
        ("seed: 1\nseed: 2", "c.yaml:7: `seed` is set twice (first on line 6)\nhint: keep one of them"),
        (
            "lr_scheduler: cosin",
            "c.yaml:6: `lr_scheduler` takes `cosine`, `linear`, `constant`, `constant_with_warmup`, `warmup_stable_decay`, not `cosin`\nhint: did you mean `cosine`?",
        ),
        (
            "optimizer: adafactor",
            "c.yaml:6: `optimizer` `adafactor` is not built; AdamW is, under every name of its variants\nhint: `optimizer: adamw_torch` learns with a rate of about 1e-4 to 5e-4 for adapters",
        ),
        (
            "optimizer: adam_torch",
            "c.yaml:6: `optimizer` `adam_torch` is not built; AdamW is, under every name of its variants\nhint: did you mean `adamw_torch`?",
        ),
        (
            "load_in_8bit: true",
            "c.yaml:6: `load_in_8bit` with `adapter: qlora`\nhint: `adapter: lora` takes 8 bits",
        ),
        (
            "load_in_4bit: false",
            "c.yaml:6: `load_in_4bit: false` with `adapter: qlora`\nhint: set `load_in_4bit: true`, or `adapter: lora`",
        ),
        (
            "warmup_steps: 3\nwarmup_ratio: 0.1",
            "c.yaml:7: `warmup_ratio` and `warmup_steps` are both set\nhint: keep one of `warmup_steps` and `warmup_ratio`",
        ),
        ("warmup_steps: 0.1", "c.yaml:6: `warmup_steps` takes an integer of 0 or more, not `0.1`"),
        (
            "val_set_size: 0.1\neval_steps: 5\nevals_per_epoch: 2",
            "c.yaml:8: `evals_per_epoch` and `eval_steps` are both set\nhint: keep one of `eval_steps` and `evals_per_epoch`",
        ),
        (
            "save_steps: 5\nsaves_per_epoch: 2",
            "c.yaml:7: `saves_per_epoch` and `save_steps` are both set\nhint: keep one of `save_steps` and `saves_per_epoch`",
        ),
        (
            "save_strategy: epoch\nsave_steps: 5",
            "c.yaml:6: `save_strategy: epoch` and `save_steps` are both set\nhint: keep one, or set `save_strategy: steps`",
        ),
        (
            "eval_steps: 5",
            "c.yaml:6: `eval_steps` needs rows to validate on\nhint: set `val_set_size: 0.05` or `test_datasets:`",
        ),
        (
            "eval_task: t.yaml",
            "c.yaml:6: `eval_task` needs rows to validate on\nhint: set `val_set_size: 0.05` or `test_datasets:`",
        ),
        (
            "metric_for_best_model: acc",
            "c.yaml:6: `eval_acc` is the accuracy of `eval_task`, which is not set\nhint: name the task's YAML in `eval_task`",
        ),
        (
            "val_set_size: 0.1\nmetric_for_best_model: eval_accuracy",
            "c.yaml:7: `metric_for_best_model: eval_accuracy` is not measured\nhint: there is `eval_loss`, `eval_mean_token_accuracy`, \
             and `eval_acc` with `eval_task`",
        ),
        (
            "early_stopping_patience: 2",
            "c.yaml:6: `early_stopping_patience` needs rows to validate on\nhint: set `val_set_size: 0.05` or `test_datasets:`",
        ),
        (
            "val_set_size: 1",
            "c.yaml:6: `val_set_size` takes a share below 1, or a number of rows from 2, not `1`",
        ),
        (
            "val_set_size: 9\ntest_datasets: [{path: t.jsonl}]",
            "c.yaml:6: `val_set_size` and `test_datasets` are both set\nhint: keep `test_datasets`, with `val_set_size: 0`",
        ),
        (
            "micro_batch_size: 4\nbatch_size: 6",
            "c.yaml:7: `batch_size` of 6 is no multiple of `micro_batch_size` (4)\nhint: set `gradient_accumulation_steps` instead",
        ),
        (
            "batch_size: 6\ngradient_accumulation_steps: 6",
            "c.yaml:6: `batch_size` and `gradient_accumulation_steps` are both set\nhint: keep one of `gradient_accumulation_steps` and `batch_size`",
        ),
        (
            "chat_template: jinja",
            "c.yaml:6: `chat_template: jinja` without `chat_template_jinja`\nhint: `chat_template_jinja:` is the template's text or a file",
        ),
        (
            "chat_template: llama_3",
            "c.yaml:6: `chat_template: llama_3` is not built in\nhint: did you mean `llama3`?",
        ),
        (
            "rl: dpoo",
            "c.yaml:6: `rl` `dpoo` is not known\nhint: did you mean `dpo`? There is `dpo`, `kto`, `orpo`, `cpo`, `simpo`, `grpo`, `rloo`, `reward`",
        ),
        (
            "rl: grpo\ngradient_accumulation_steps: 8",
            "c.yaml:6: `trl.reward_funcs` is not set: nothing says what answers are worth\nhint: write `trl:` and below it `  reward_funcs: [exact_match]`; `docs/rewards.md` lists them",
        ),
        (
            "rl: dpo\nloss_type: [sigmoid, aott]",
            "c.yaml:7: `loss_type: aott` is not known\nhint: did you mean `aot`? There is `sigmoid`, `sigmoid_norm`, `robust`, `hinge`, `ipo`, `exo_pair`, `nca_pair`, `bco_pair`, `sppo_hard`, `aot`, `aot_unpaired`, `apo_zero`, `apo_down`, `discopop`, `sft`",
        ),
        (
            "rl: dpo\ndpo_loss_weights: [1, 2]",
            "c.yaml:7: `loss_weights: 2`: another number of weights\nhint: give one weight for each `loss_type`, or none",
        ),
        (
            "rl: dpo\ndpo_use_weighting: true",
            "c.yaml:7: `dpo_use_weighting`: WPO's weights need the squared probabilities of the whole vocabulary at every token, which are never formed\nhint: leave it out",
        ),
        (
            "rl_beta: 0.2",
            "c.yaml:6: `rl_beta` is of preference alignment, and `rl:` is not set\nhint: leave it out, or set `rl:`",
        ),
        (
            "    field_chosen: better",
            "c.yaml:6: `datasets[0].field_chosen` is of preference data, and `rl:` is not set\nhint: set `rl: dpo`, or leave it out",
        ),
        (
            "reward_model: true\nrl: dpo",
            "c.yaml:6: `reward_model: true` with `rl: dpo`\nhint: keep one of them: `reward_model: true` is `rl: reward`",
        ),
        (
            "reward_model: false\nrl: reward",
            "c.yaml:6: `reward_model: false` with `rl: reward`\nhint: leave `reward_model` out",
        ),
        (
            "rl: reward\nnum_labels: 2",
            "c.yaml:7: `num_labels`: only one value a sequence is built, a reward model's: set 1 or leave it out",
        ),
        (
            "rl: reward\nreport_samples: 2",
            "c.yaml:7: `report_samples` with a reward model, which writes no answers\nhint: leave it out",
        ),
        (
            "center_rewards_coefficient: 0.01",
            "c.yaml:6: `center_rewards_coefficient` is of preference alignment, and `rl:` is not set\nhint: leave it out, or set `rl:`",
        ),
        (
            "plugins: [a.b.KDPlugin]",
            "c.yaml:6: `plugins`: the plugin `a.b.KDPlugin` is Python and changes the training",
        ),
        (
            "bnb_config_kwargs: {bnb_4bit_quant_type: fp4}",
            "c.yaml:6: `bnb_config_kwargs`: `bnb_4bit_quant_type: fp4` is not built; NF4 with double quantisation is",
        ),
        (
            "roles_to_train: [user]",
            "c.yaml:6: `roles_to_train`: it belongs to a data set\nhint: put it into the entry of `datasets:`",
        ),
        (
            "field_messages: turns",
            "c.yaml:6: unknown key `field_messages`\nhint: `field_messages` belongs in an entry of `datasets:`",
        ),
        (
            "    learning_rate: 1",
            "c.yaml:6: unknown key `datasets[0].learning_rate`\nhint: `learning_rate` belongs at the top level, not in a dataset entry",
        ),
        ("    typ: alpaca", "c.yaml:6: unknown key `datasets[0].typ`\nhint: did you mean `type`?"),
        (
            "    shards: 4",
            "c.yaml:6: `datasets[0].shards`: training on one of N shards is not built\nhint: use `split: train[:10%]`",
        ),
        (
            "    train_on_eos: trun",
            "c.yaml:6: `datasets[0].train_on_eos` takes `all`, `turn`, `last`, `none`, not `trun`\nhint: did you mean `turn`?",
        ),
        (
            "    type: {formatt: x}",
            "c.yaml:6: `datasets[0].type` has no key `formatt`\nhint: did you mean `format`?",
        ),
        (
            "    train_on_eos: all\n    train_on_eot: last",
            "c.yaml:7: `datasets[0].train_on_eot` and `train_on_eos` differ: what ends a turn is trained by one rule\nhint: keep one of them",
        ),
        (
            "rl: dpo\nneftune_noise_alpha: 5",
            "c.yaml:7: `neftune_noise_alpha` with `rl:`\nhint: it is for supervised training",
        ),
        (
            "rl: dpo\ndpo_loss_type: aot\nmicro_batch_size: 1",
            "c.yaml:8: `dpo_loss_type: aot` with `micro_batch_size: 1`: it sorts the answers of a micro-batch, and there is one\nhint: set 2 or more",
        ),
        ("loraplus_lr_ratio: 0", "c.yaml:6: `loraplus_lr_ratio` takes a number above 0, not `0`"),
        (
            "special_tokens: {eos: x}",
            "c.yaml:6: `special_tokens` has no entry `eos`\nhint: did you mean `eos_token`?",
        ),
        ("max_memory: {gpu: 1GiB}", "c.yaml:6: `max_memory` has no device `gpu`; `cpu` or a number"),
        (
            "eval_strategy: epoch\nval_set_size: 0.1\nevaluation_strategy: steps",
            "c.yaml:8: `evaluation_strategy` is another name of `eval_strategy`, which is set too\nhint: keep one of them",
        ),
    ] {
        let said = errors(&format!("{SOUND}{added}\n"), &[]);
        assert_eq!(said.first().map(String::as_str), Some(expect), "{added}");
    }
}

#[test]
fn types_galen_data_refuses_are_refused_with_their_line() {
    let said = errors(&format!("{SOUND}    type: gpteacher\n"), &[]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].starts_with("c.yaml:6: `datasets[0].type`: ") && said[0].contains("gpteacher"),
        "{said:?}"
    );
}

#[test]
fn what_is_missing_is_named() {
    let said = errors("seed: 1\n", &[]);
    for key in ["base_model", "datasets", "learning_rate", "adapter"] {
        assert!(
            said.iter().any(|s| s.starts_with(&format!("c.yaml: `{key}` is not set"))),
            "{key}: {said:?}"
        );
    }
    assert_eq!(
        errors("- 1\n", &[])[0],
        "c.yaml:1: a configuration is a map of keys, not a list\nhint: write `key: value` lines"
    );
}

#[test]
fn nulls_and_switches_that_are_off_ask_for_nothing() {
    let off = "lora_modules_to_save:\nrl: ~\nrelora: false\ndeepspeed: null\ngptq: false\nwandb_project:\n\
               neftune_noise_alpha: 0\nlora_model_dir:\nevals_per_epoch: 0\nspecial_tokens:\n";
    assert_eq!(errors(&format!("{SOUND}{off}"), &[]), [""; 0]);
}

#[test]
fn overrides_have_the_same_checks() {
    let set = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        check_text("c.yaml", SOUND, &sets)
    };
    let (config, report) = set(&[
        "lora_r=64",
        "datasets[0].path=x.jsonl",
        "datasets.0.roles_to_train=[user, assistant]",
        "chat_template_kwargs.enable_thinking=false",
        "output_dir=a=b",
        "lora_target_modules=[q_proj, v_proj]",
    ]);
    assert_eq!(report.errors, []);
    assert_eq!((config.lora_r, config.output_dir.as_str()), (64, "a=b"));
    assert_eq!(config.datasets.0[0].path, "x.jsonl");
    let roles = types::Roles(vec!["user".into(), "assistant".into()]);
    assert_eq!(config.datasets.0[0].roles_to_train, Some(roles));
    assert_eq!(config.chat_template_kwargs["enable_thinking"], serde_json::json!(false));
    assert_eq!(set(&["lora_r=64", "lora_r="]).0.lora_r, 8);
    for (bad, expect) in [
        ("lora_rank=8", "--set: unknown key `lora_rank`\nhint: did you mean `lora_r`?"),
        ("lora_r=x", "--set: `lora_r` takes an integer of 0 or more, not `x`"),
        ("lora_r", "--set: `lora_r` has no `=`\nhint: write `--set learning_rate=1e-4`"),
        ("datasets[3].path=x", "--set: `datasets[3].path=x`: there is no `3` in `datasets`"),
        ("=1", "--set: `=1` names no key\nhint: write `--set learning_rate=1e-4`"),
        (
            "load_in_8bit=true",
            "--set: `load_in_8bit` with `adapter: qlora`\nhint: `adapter: lora` takes 8 bits",
        ),
    ] {
        assert_eq!(errors(SOUND, &[bad]).first().map(String::as_str), Some(expect), "{bad}");
    }
}

/// What `rl:` and its keys become.
#[test]
fn alignment_keys_arrive_in_the_objective() {
    use crate::config::Alignment;
    let loss_of = |added: &str| {
        let (config, report) = check_text("c.yaml", &format!("{SOUND}micro_batch_size: 2\n{added}"), &[]);
        assert_eq!(report.errors, [], "{added}");
        match config.alignment().unwrap().unwrap() {
            Alignment::Pairs(loss) => {
                let one = [&[-1.0f32, -2.0][..]];
                let other = [&[-3.0f32][..]];
                let reference =
                    galen_loss::pair::Reference { chosen: &[&[-1.5, -2.5]], rejected: &[&[-2.0]] };
                let batch = galen_loss::pair::PairBatch {
                    chosen: &one,
                    rejected: &other,
                    reference: Some(reference),
                    prompt: None,
                };
                loss.loss(&batch, loss.totals_of(&batch)).unwrap().loss
            }
            Alignment::Labelled(kto) => {
                kto.beta * 100.0 + kto.desirable_weight * 10.0 + kto.undesirable_weight
            }
            Alignment::Reward(reward) => {
                reward.loss(&[1.0], &[0.5], None, galen_loss::Reward::totals(1)).unwrap().loss
            }
            Alignment::Sampled(_) => panic!("{added}: no loss of given answers"),
        }
    };
    // Scores 1 and -1.
    let sigmoid = |z: f64| (1.0 + (-z).exp()).ln();
    let nll = 1.5;
    for (added, expect) in [
        ("rl: dpo", sigmoid(0.1 * 2.0)),
        ("rl: dpo\nbeta: 0.5", sigmoid(1.0)),
        ("rl: dpo\nrl_beta: 0.5\nrpo_alpha: 2", sigmoid(1.0) + 2.0 * nll),
        (
            "rl: dpo\nrl_beta: 0.5\nloss_type: [sigmoid, sft]\nloss_weights: [0.5, 1]",
            0.5 * sigmoid(1.0) + nll,
        ),
        ("rl: dpo\nrl_beta: 0.5\ndpo_norm_loss: true", sigmoid(0.5 * (0.5 + 1.0))),
        ("rl: dpo\nrl_beta: 0.5\nld_alpha: 0", sigmoid(0.5 * (0.5 + 1.0))),
        ("rl: dpo\ndpo_loss_type: hinge", 1.0 - 0.1 * 2.0),
        ("rl: simpo\nrl_beta: 2\nsimpo_gamma: 1\ncpo_alpha: 0", sigmoid(2.0 * (-1.5 + 3.0) - 1.0)),
        ("rl: cpo\nrl_beta: 0.5\ncpo_alpha: 3", sigmoid(0.0) + 3.0 * nll),
        ("rl: reward", sigmoid(0.5)),
        ("reward_model: true\nnum_labels: 1\ncenter_rewards_coefficient: 0.1", sigmoid(0.5) + 0.1 * 2.25),
        ("reward_model: true\nrl: reward", sigmoid(0.5)),
        ("rl: kto\nrl_beta: 0.2\nkto_desirable_weight: 1.5\nundesirable_weight: 2", 20.0 + 15.0 + 2.0),
    ] {
        let got = loss_of(added);
        assert!((got - expect).abs() <= 1e-6, "{added}: {got} for {expect}");
    }
}

/// A run directory's `config.yaml` reads back as the configuration that wrote it.
#[test]
fn a_resolved_configuration_resolves_to_itself() {
    for added in [
        "",
        "val_set_size: 0.1\nevals_per_epoch: 4\nload_best_model_at_end: true\nsave_strategy: best\n\
         metric_for_best_model: eval_loss\nearly_stopping_patience: 3\nmicro_batch_size: 4\nbatch_size: 16\n",
        "lora_target_modules: 'model.layers.[\\d]+.mlp.(up|down)_proj'\npeft_layers_to_transform: [0, 1]\nbf16: full\n\
         max_memory: {cpu: 8GiB, 0: 1.5GB}\nspecial_tokens: {pad_token: '<|x|>', eos_token: \"a\\\"b\"}\n\
         eot_tokens: ['<end_of_turn>', 'no']\nchat_template_kwargs: {date: '2026', deep: {list: [1, [2]]}}\nmax_steps: -1\n",
        "chat_template_jinja: \"{{ messages }}\\n{# x #}\"\nsave_steps: 0.25\nseed: 7\ngradient_checkpointing: offload\n",
        "    type: {field_instruction: q, field_output: a, format: \"Q: {instruction}\\nA: \"}\n    roles: {user: [human]}\n",
        "    type: bradley_terry.chat_template\nreward_model: true\ncenter_rewards_coefficient: 0.01\n",
        "    type: prompt\nrl: rloo\nmicro_batch_size: 4\nval_set_size: 9\neval_task: t.yaml\neval_task_limit: 50\ntrl: {reward_funcs: [{length: {target: 3}}, \
         exact_match], reward_weights: [1, 0.5], scale_rewards: false, reward_clip_range: [-1, 1], log_completions: true}\n",
        "    type: chatml.intel\n    field_chosen: better\nrl: ipo\nbeta: 0.3\nmax_length: 100\nlikelihood_displacement: off\n\
         lora_dropout: 0.1\nprecompute_ref_log_probs: true\nranked_pairs: adjacent\n",
    ] {
        let (config, report) = check_text("c.yaml", &format!("{SOUND}{added}"), &[]);
        assert_eq!(report.errors, [], "{added}");
        let text = config.to_yaml();
        let (again, report) = check_text("config.yaml", &text, &[]);
        assert_eq!(report.errors, [], "{text}");
        assert_eq!(again, config, "{text}");
        assert_eq!(again.to_yaml(), text);
    }
}

/// Every honoured key is read: each dumps something else than its default once set, and back.
#[test]
fn the_table_is_consistent() {
    let names: Vec<&str> = tables().map(|k| k.name).collect();
    for (i, name) in names.iter().enumerate() {
        assert!(!names[..i].contains(name), "`{name}` is there twice");
    }
    for key in tables() {
        assert!(!docs::text(key).is_empty(), "`{}` has no documentation", key.name);
        if let State::Alias(of) = key.state {
            assert!(tables().any(|k| k.name == of && k.state_name() == "honoured"), "{of}");
        }
        // A pattern must not swallow an honoured key.
        if key.name.ends_with('*') {
            let swallowed: Vec<_> =
                table::HONOURED.iter().filter(|k| key.matches(k.name)).map(|k| k.name).collect();
            assert_eq!(swallowed, [""; 0], "`{}`", key.name);
        }
    }
}

#[test]
fn every_honoured_key_is_read() {
    let samples: &[(&str, &str)] = &[
        ("base_model", "x"),
        ("base_model_name_or_path", "x"),
        ("revision_of_model", "x"),
        ("base_model_config", "x"),
        ("tokenizer_config", "x"),
        ("max_memory", "{cpu: 1GiB}"),
        ("device", "cuda:1"),
        ("gpus", "2"),
        ("bf16", "true"),
        ("weight_cache", "stream"),
        ("fp16", "true"),
        ("bfloat16", "true"),
        ("float16", "true"),
        ("float32", "true"),
        ("adapter", "lora"),
        ("load_in_4bit", "true"),
        ("load_in_8bit", "true"),
        ("lora_r", "9"),
        ("lora_alpha", "9"),
        ("lora_dropout", "0.1"),
        ("lora_target_modules", "[q]"),
        ("lora_target_linear", "true"),
        ("lora_model_dir", "x"),
        ("peft_use_rslora", "true"),
        ("peft_use_dora", "true"),
        ("peft_layers_to_transform", "[1]"),
        ("peft_init_lora_weights", "gaussian"),
        ("datasets", "[{path: x}]"),
        ("test_datasets", "[{path: x}]"),
        ("val_set_size", "0.1"),
        ("sequence_len", "9"),
        ("excess_length_strategy", "raise"),
        ("sample_packing", "true"),
        ("train_on_inputs", "true"),
        ("chat_template", "chatml"),
        ("chat_template_jinja", "x"),
        ("chat_template_kwargs", "{a: 1}"),
        ("special_tokens", "{pad_token: x}"),
        ("eot_tokens", "[x]"),
        ("on_bad_row", "skip"),
        ("report_samples", "3"),
        ("micro_batch_size", "9"),
        ("gradient_accumulation_steps", "9"),
        ("batch_size", "9"),
        ("num_epochs", "9"),
        ("max_steps", "9"),
        ("optimizer", "adamw_8bit"),
        ("learning_rate", "1e-3"),
        ("loraplus_lr_ratio", "16"),
        ("neftune_noise_alpha", "5"),
        ("lr_scheduler", "linear"),
        ("warmup_steps", "9"),
        ("warmup_ratio", "0.1"),
        ("weight_decay", "0.1"),
        ("adam_beta1", "0.5"),
        ("adam_beta2", "0.5"),
        ("adam_epsilon", "0.5"),
        ("max_grad_norm", "9"),
        ("gradient_checkpointing", "auto"),
        ("seed", "9"),
        ("rl", "dpo"),
        ("reward_model", "true"),
        ("center_rewards_coefficient", "9"),
        ("rl_beta", "9"),
        ("dpo_loss_type", "[hinge, sft]"),
        ("dpo_loss_weights", "[1, 0.5]"),
        ("dpo_label_smoothing", "0.1"),
        ("dpo_norm_loss", "true"),
        ("rpo_alpha", "9"),
        ("ld_alpha", "0.5"),
        ("f_divergence_type", "x"),
        ("f_alpha_divergence_coef", "0.1"),
        ("discopop_tau", "9"),
        ("kto_desirable_weight", "9"),
        ("kto_undesirable_weight", "9"),
        ("orpo_alpha", "9"),
        ("simpo_gamma", "9"),
        ("cpo_alpha", "9"),
        ("precompute_ref_log_probs", "true"),
        ("disable_dropout", "false"),
        ("max_prompt_length", "9"),
        ("max_completion_length", "9"),
        ("trl", "{top_k: 9}"),
        ("eval_task", "x"),
        ("eval_task_limit", "9"),
        ("ranked_pairs", "all"),
        ("likelihood_displacement", "stop"),
        ("likelihood_displacement_threshold", "9"),
        ("eval_steps", "9"),
        ("evals_per_epoch", "9"),
        ("eval_strategy", "steps"),
        ("metric_for_best_model", "loss"),
        ("greater_is_better", "false"),
        ("load_best_model_at_end", "true"),
        ("early_stopping_patience", "9"),
        ("loss_watchdog_threshold", "9"),
        ("loss_watchdog_patience", "9"),
        ("output_dir", "x"),
        ("save_steps", "9"),
        ("saves_per_epoch", "9"),
        ("save_strategy", "steps"),
        ("save_total_limit", "9"),
        ("logging_steps", "9"),
        ("resume_from_checkpoint", "x"),
        ("auto_resume_from_checkpoints", "true"),
    ];
    assert_eq!(samples.len(), table::HONOURED.len());
    for key in table::HONOURED {
        let State::Honoured { set, get, .. } = key.state else { panic!("{}", key.name) };
        let (_, text) =
            samples.iter().find(|(name, _)| *name == key.name).unwrap_or_else(|| panic!("{}", key.name));
        let mut config = Config::default();
        let before = get(&config);
        set(&mut config, &yaml::parse(text).unwrap(), key.name, &mut Report::default()).unwrap();
        assert_ne!(get(&config), before, "{}", key.name);
    }
}

/// `docs/config.md` is what `galen plan --list-keys` prints.
#[test]
fn the_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md");
    let page = docs::page();
    if std::env::var_os("GALEN_BLESS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(written, page, "write it with `galen plan --list-keys > docs/config.md`");
}

#[test]
fn notes_tell_users_of_the_peers() {
    let text = format!(
        "{SOUND}optimizer: paged_adamw_8bit\nlr_scheduler: constant\nwarmup_ratio: 0.1\nfp16: true\n"
    );
    let (_, report) = check_text("c.yaml", &text, &[]);
    let keys: Vec<&str> = report.notes.iter().map(|(k, _)| k.as_str()).collect();
    assert_eq!(keys, ["fp16", "lora_target_modules", "lr_scheduler", "optimizer"]);
}

/// What the family reads, but the chosen type of loss does not.
#[test]
fn a_loss_type_that_does_not_read_a_key_is_noted() {
    let noted = |added: &str| {
        let text = format!("{SOUND}{added}\n");
        let (_, report) = check_text("c.yaml", &text, &[]);
        assert_eq!(report.errors, [], "{added}");
        report.notes.iter().map(|(k, _)| k.clone()).filter(|k| k != "lora_target_modules").collect::<Vec<_>>()
    };
    for (added, expect) in [
        ("rl: dpo\ndpo_label_smoothing: 0.1", &["dpo_label_smoothing"][..]),
        ("rl: dpo\ndpo_label_smoothing: 0.1\ndpo_loss_type: robust", &[]),
        ("rl: cpo\ndpo_label_smoothing: 0.1", &[]),
        ("rl: cpo\ndpo_label_smoothing: 0.1\ndpo_loss_type: hinge", &["dpo_label_smoothing"]),
        ("rl: cpo\nsimpo_gamma: 0.1", &["simpo_gamma"]),
        ("rl: kto\nmicro_batch_size: 2\nranked_pairs: all", &["ranked_pairs"]),
    ] {
        assert_eq!(noted(added), expect, "{added}");
    }
}

#[test]
fn a_missing_or_huge_file_is_an_error() {
    let (_, report) = check(std::path::Path::new("no/such.yaml"), &[]);
    assert!(report.errors[0].to_string().starts_with("no/such.yaml: cannot be read"), "{:?}", report.errors);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big.yaml");
    std::fs::write(&path, vec![b'#'; (yaml::MAX_BYTES + 1) as usize]).unwrap();
    assert_eq!(check(&path, &[]).1.errors.len(), 1);
}

/// What `trl:` becomes.
#[test]
fn keys_of_trl_arrive_in_the_loop_of_sampled_answers() {
    use crate::config::Alignment;
    use galen_train::rollout::{Keep, PolicyLoss};
    let text = format!(
        "{SOUND}rl: grpo\nmicro_batch_size: 12\nreport_samples: 3\ntrl: {{reward_funcs: [exact_match], num_generations: 4, \
         max_completion_length: 33, temperature: 0.7, top_p: 0.9, top_k: 5, min_p: 0.1, repetition_penalty: 1.2, \
         num_iterations: 2, beta: 0.3, epsilon: 0.1, epsilon_high: 0.4, loss_type: grpo, mask_truncated_completions: true}}\n"
    );
    let (config, report) = check_text("c.yaml", &text, &[]);
    assert_eq!(report.errors, []);
    assert_eq!((config.step_shape(), config.iterations()), ((3, 1), 2));
    assert_eq!(config.kept_answers(), Keep::First(3));
    let settings = config.rollout_settings(vec![2]);
    assert_eq!((settings.num_generations, settings.num_iterations, settings.answers_per_pass), (4, 2, 12));
    assert!(settings.mask_truncated);
    let rollouts = &settings.rollouts;
    assert_eq!((rollouts.max_tokens, rollouts.together, &rollouts.stop_ids[..]), (33, 12, &[2][..]));
    let drawn = &rollouts.sampling;
    assert_eq!((drawn.temperature, drawn.top_p, drawn.top_k), (0.7, 0.9, 5));
    assert_eq!((drawn.min_p, drawn.repeat_penalty), (0.1, 1.2));
    let Some(Alignment::Sampled(PolicyLoss::Grpo { loss, .. })) = config.alignment().unwrap() else {
        panic!()
    };
    assert_eq!((loss.beta, loss.epsilon, loss.epsilon_high), (0.3, 0.1, Some(0.4)));
    assert_eq!((loss.loss_type.name, loss.max_completion_length), ("grpo", 33));
}
