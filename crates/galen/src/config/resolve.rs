//! What keys say together: contradictions, and settings that follow from others.

use super::alignment::{self, Alignment, Rl};
use super::datasets::Kind;
use super::given;
use super::key::{Report, Verdict};
use super::table::Config;
use super::types::{AdapterKind, Bf16, InitLora, Scheduler, Strategy, Targets};
use super::yaml::Entry;
use crate::session::reward_model::outside_unopened;
use galen_loss::LossError;
use galen_reward::Network;

/// Checks the keys against each other and fills in what follows from them. Notes for users of the peers go into
/// the report. Running a resolved configuration resolves to itself.
pub fn resolve(config: &mut Config, entries: &[Entry], report: &mut Report) {
    let mut check = Check { entries, report };
    check.required();
    check.base(config);
    check.adapter(config);
    check.data(config);
    check.alignment(config);
    check.steps(config);
    check.validation(config);
    check.saving(config);
}

struct Check<'a> {
    entries: &'a [Entry],
    report: &'a mut Report,
}

impl Check<'_> {
    fn has(&self, key: &str) -> bool {
        given(self.entries, key).is_some()
    }

    /// A complaint placed at `key`, or at the file where it is not written.
    fn wrong(&mut self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        let line = given(self.entries, key).map(|e| e.line);
        let hint = Some(hint.into());
        let message = message.into();
        if let Some(line) = line {
            self.report.complain(line, key, "wrong", message, hint);
        } else {
            let origin = self.report.file.clone();
            let verdict =
                Verdict { key: key.into(), state: "wrong", origin: origin.clone(), text: message.clone() };
            self.report.verdicts.push(verdict);
            self.report.errors.push(crate::error::ConfigError { origin, message, hint });
        }
    }

    /// Two keys that say the same thing.
    fn one_of(&mut self, a: &str, b: &str) {
        if self.has(a) && self.has(b) {
            self.wrong(b, format!("`{b}` and `{a}` are both set"), format!("keep one of `{a}` and `{b}`"));
        }
    }

    fn required(&mut self) {
        for (key, hint) in [
            ("base_model", "`base_model:` is a folder, a `.gguf` file, a hub name or a catalogue name"),
            ("datasets", "write `datasets:` and below it `  - path: FILE`"),
            ("learning_rate", "`learning_rate: 2e-4` is usual for adapters"),
        ] {
            // A key that is there but wrong has had its complaint.
            if !self.has(key) {
                self.wrong(key, format!("`{key}` is not set"), hint);
            }
        }
        if !self.has("adapter") {
            let message = "`adapter` is not set: training every weight is not built";
            self.wrong("adapter", message, "`adapter: lora`, or `adapter: qlora` over a 4-bit base");
        }
    }

    fn base(&mut self, config: &mut Config) {
        for (key, value) in
            [("base_model_config", &config.base_model_config), ("tokenizer_config", &config.tokenizer_config)]
        {
            if value.as_ref().is_some_and(|v| *v != config.base_model) {
                let message =
                    format!("`{key}` is not `base_model`: reading them from elsewhere is not built");
                self.wrong(key, message, "put the files beside the weights");
            }
        }
        // The spellings "without mixed precision" mean the same where nothing is mixed.
        if std::mem::take(&mut config.bfloat16) {
            config.bf16 = if config.bf16 == Bf16::Full { Bf16::Full } else { Bf16::On };
        }
        config.fp16 |= std::mem::take(&mut config.float16);
        if config.float32 && matches!(config.bf16, Bf16::On | Bf16::Full) {
            self.wrong("float32", "`float32` and `bf16` are both on", "keep one of them");
        }
        if config.fp16 && matches!(config.bf16, Bf16::Auto | Bf16::Off) {
            self.report
                .note("fp16", "trains in bf16 or f32, whichever the device has; no loss scaling is needed");
        }
    }

    fn adapter(&mut self, config: &mut Config) {
        if config.load_in_8bit && config.load_in_4bit == Some(true) {
            self.wrong("load_in_8bit", "`load_in_8bit` and `load_in_4bit` are both on", "keep one of them");
        } else if config.adapter == Some(AdapterKind::Qlora) {
            if config.load_in_8bit {
                self.wrong(
                    "load_in_8bit",
                    "`load_in_8bit` with `adapter: qlora`",
                    "`adapter: lora` takes 8 bits",
                );
            } else if config.load_in_4bit == Some(false) {
                let hint = "set `load_in_4bit: true`, or `adapter: lora`";
                self.wrong("load_in_4bit", "`load_in_4bit: false` with `adapter: qlora`", hint);
            }
            config.load_in_4bit = Some(true);
        }
        if config.lora_target_linear == Some(true) {
            // Together they mean the union, which is every linear layer.
            config.lora_target_modules = Targets::AllLinear;
        } else if config.lora_target_modules == Targets::Unset {
            let note = "neither it nor `lora_target_linear` is set: every linear layer of the blocks gets an adapter \
                        (Axolotl leaves the choice to PEFT: `q_proj`, `v_proj`)";
            self.report.note("lora_target_modules", note);
            config.lora_target_modules = Targets::AllLinear;
        }
        config.lora_target_linear = None;
        if config.peft_init_lora_weights == InitLora::Random {
            self.report
                .note("peft_init_lora_weights", "`false`: the adapter changes the model before any training");
        }
    }

    fn data(&mut self, config: &mut Config) {
        if config.val_set_size > 0.0 && !config.test_datasets.0.is_empty() {
            self.wrong(
                "val_set_size",
                "`val_set_size` and `test_datasets` are both set",
                "keep `test_datasets`, with `val_set_size: 0`",
            );
        }
        let top = (config.chat_template.clone(), config.chat_template_jinja.clone());
        if let Some(name) = self.template("chat_template", top.0.as_deref(), top.1.as_deref()) {
            config.chat_template = Some(name);
        }
        for list in [&mut config.datasets, &mut config.test_datasets] {
            for entry in &mut list.0 {
                let (name, jinja) = (entry.chat_template.clone(), entry.chat_template_jinja.clone());
                if let Some(name) = self.template("datasets", name.as_deref(), jinja.as_deref()) {
                    entry.chat_template = Some(name);
                }
            }
        }
    }

    /// Checks a template's name; returns `jinja` where only its text was given.
    fn template(&mut self, key: &str, name: Option<&str>, jinja: Option<&str>) -> Option<String> {
        let Some(name) = name else { return jinja.is_some().then(|| "jinja".to_owned()) };
        match (name, jinja) {
            ("jinja", None) => {
                let hint = "`chat_template_jinja:` is the template's text or a file";
                self.wrong(key, "`chat_template: jinja` without `chat_template_jinja`", hint);
            }
            ("jinja" | "tokenizer_default", _) => {}
            (_, Some(_)) => {
                let message = format!("`chat_template: {name}` and `chat_template_jinja` are both set");
                self.wrong(key, message, "keep one of them");
            }
            (_, None) => {
                let built_in = name.strip_prefix("tokenizer_default_fallback_").unwrap_or(name);
                if let Some(hint) = super::docs::unknown_template(built_in) {
                    self.wrong(key, format!("`chat_template: {name}` is not built in"), hint);
                }
            }
        }
        None
    }

    /// `reward_model` is `rl: reward` by Axolotl's name.
    fn reward_model(&mut self, config: &mut Config) {
        match (config.reward_model.take(), config.rl()) {
            (Some(true), None) if !self.is_on("rl") => config.rl = Some(Rl::REWARD),
            (Some(true), Some(rl)) if !config.trains_reward() => {
                let message = format!("`reward_model: true` with `rl: {rl}`");
                self.wrong("reward_model", message, "keep one of them: `reward_model: true` is `rl: reward`");
            }
            (Some(false), Some(_)) if config.trains_reward() => {
                let message = "`reward_model: false` with `rl: reward`";
                self.wrong("reward_model", message, "leave `reward_model` out");
            }
            _ => {}
        }
        if config.trains_reward() && config.report_samples > 0 {
            let message = "`report_samples` with a reward model, which writes no answers";
            self.wrong("report_samples", message, "leave it out");
        }
    }

    fn alignment(&mut self, config: &mut Config) {
        self.reward_model(config);
        let aligned = self.has("rl") || config.rl.is_some();
        let kind = if aligned { Kind::Preference } else { Kind::Supervised };
        for (key, list) in [("datasets", &config.datasets), ("test_datasets", &config.test_datasets)] {
            if let Some(entry) = given(self.entries, key) {
                list.check(&entry.node, key, kind, self.report);
            }
        }
        let stray: Vec<&str> = alignment::KEYS.iter().map(|k| k.0).filter(|key| self.is_on(key)).collect();
        let Some(rl) = config.rl() else {
            if kind == Kind::Supervised {
                for key in stray {
                    let message = format!("`{key}` is of preference alignment, and `rl:` is not set");
                    self.wrong(key, message, "leave it out, or set `rl:`");
                }
            }
            return;
        };
        for (key, readers) in alignment::KEYS.iter().filter(|k| stray.contains(&k.0)) {
            if !readers.is_empty() && !readers.contains(&rl) {
                self.report.note(key, format!("`rl: {rl}` does not read it"));
            }
        }
        if rl == "orpo" && self.has("orpo_alpha") {
            self.one_of("orpo_alpha", "rl_beta");
        }
        self.loss_types(config, rl);
        match config.alignment() {
            Err(e) => {
                let text = e.to_string();
                let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, "see `docs/align.md`"));
                let key = match &e {
                    LossError::Unknown { key, .. } | LossError::Setting { key, .. } => alignment::key_of(key),
                    LossError::Batch { .. } => "rl",
                };
                self.wrong(key, what, hint);
            }
            Ok(None) => {
                let hint = "`rl: dpo`, `kto`, `orpo`, `cpo`, `simpo`, `grpo`, `rloo` and `reward` are";
                self.wrong("rl", format!("`rl: {rl}` is not built yet"), hint);
            }
            Ok(Some(Alignment::Sampled(_))) => self.sampled(config),
            Ok(Some(Alignment::Labelled(kto))) if kto.loss_type.needs_kl && config.micro_batch_size < 2 => {
                let message = "`rl: kto` with `micro_batch_size: 1`: the KL estimate puts another row's answer behind \
                               each prompt of a micro-batch, and there is none";
                self.wrong(
                    "micro_batch_size",
                    message,
                    "set 2 or more, or `dpo_loss_type: apo_zero_unpaired`",
                );
            }
            Ok(Some(_)) => {}
        }
        if config.disable_dropout != Some(false) && config.lora_dropout > 0.0 {
            self.report
                .note("lora_dropout", "alignment has no dropout (as in TRL) unless `disable_dropout: false`");
        }
        if config.sample_packing && !config.samples_answers() {
            self.report.note(
                "sample_packing",
                "`micro_batch_size` counts bins of `sequence_len` tokens: steps of more rows, and fewer of them, than without",
            );
        }
        if config.train_on_inputs {
            self.wrong(
                "train_on_inputs",
                "`train_on_inputs` with `rl:`",
                "leave it out: answers alone are compared",
            );
        }
        if config.neftune_noise_alpha.is_some_and(|alpha| alpha > 0.0) {
            self.wrong(
                "neftune_noise_alpha",
                "`neftune_noise_alpha` with `rl:`",
                "it is for supervised training",
            );
        }
    }

    /// Keys that no chosen loss type reads, and types that want several rows at a time.
    fn loss_types(&mut self, config: &Config, rl: &str) {
        let chosen: Vec<&str> = match (&config.dpo_loss_type[..], rl) {
            ([], "dpo" | "cpo") => vec!["sigmoid"],
            (given, _) => given.iter().map(String::as_str).collect(),
        };
        for (key, family, readers) in alignment::READ_BY_TYPES {
            if *family == rl && self.is_on(key) && !chosen.iter().any(|c| readers.contains(c)) {
                let (types, others) = (chosen.join("`, `"), readers.join("`, `"));
                self.report.note(key, format!("`dpo_loss_type: {types}` does not read it; `{others}` would"));
            }
        }
        let sorts = chosen.iter().find(|c| ["aot", "aot_unpaired"].contains(c));
        if let Some(name) = sorts.filter(|_| rl == "dpo" && config.micro_batch_size < 2) {
            let message = format!(
                "`dpo_loss_type: {name}` with `micro_batch_size: 1`: it sorts the answers of a micro-batch, and there is one"
            );
            self.wrong("micro_batch_size", message, "set 2 or more");
        }
    }

    /// What sampling answers asks of the other keys.
    fn sampled(&mut self, config: &Config) {
        if config.trl.reward_funcs.0.is_null() {
            let hint =
                "write `trl:` and below it `  reward_funcs: [exact_match]`; `docs/rewards.md` lists them";
            let key = if self.has("trl") { "trl" } else { "rl" };
            self.wrong(key, "`trl.reward_funcs` is not set: nothing says what answers are worth", hint);
        } else if let Err(e) = config.rewards(Network::Allowed, &mut [outside_unopened()]) {
            let text = e.to_string();
            let (what, hint) =
                text.split_once("\nhint: ").unwrap_or((&text, "`docs/rewards.md` lists rewards"));
            self.wrong("trl", format!("`trl.{}", what.trim_start_matches('`')), hint);
        }
        let (answers, group) = (config.micro_batch_size * config.accumulation(), config.num_generations());
        if answers % group != 0 {
            let message = format!(
                "a step has {answers} answers (`micro_batch_size` x `gradient_accumulation_steps`), which are no groups of `num_generations: {group}`"
            );
            self.wrong("micro_batch_size", message, "both count answers; set a multiple");
        }
        if config.sample_packing {
            let message = "`sample_packing` with answers that are sampled";
            self.wrong(
                "sample_packing",
                message,
                "leave it out: prompts are shared and nothing is padded anyhow",
            );
        }
    }

    /// Whether a key is written and asks for something.
    fn is_on(&self, key: &str) -> bool {
        given(self.entries, key).is_some_and(|e| !e.node.is_off())
    }

    fn steps(&mut self, config: &mut Config) {
        self.one_of("warmup_steps", "warmup_ratio");
        self.one_of("gradient_accumulation_steps", "batch_size");
        if let Some(batch) = config.batch_size {
            let micro = config.micro_batch_size.max(1);
            if batch % micro != 0 {
                let message =
                    format!("`batch_size` of {batch} is no multiple of `micro_batch_size` ({micro})");
                self.wrong("batch_size", message, "set `gradient_accumulation_steps` instead");
            }
        }
        config.gradient_accumulation_steps = Some(config.accumulation());
        config.batch_size = None;
        let warms_up =
            config.warmup_steps.is_some_and(|n| n > 0) || config.warmup_ratio.is_some_and(|r| r > 0.0);
        if config.lr_scheduler == Scheduler::Constant && warms_up {
            let note = "`constant` has no warm-up (as in transformers); `constant_with_warmup` has";
            self.report.note("lr_scheduler", note);
        }
        if config.optimizer.quantised_elsewhere() {
            let note =
                format!("`{}` is AdamW here with its moments in f32, not quantised", config.optimizer.name());
            self.report.note("optimizer", note);
        }
    }

    fn validation(&mut self, config: &mut Config) {
        // 0 means "no" where a count is asked for.
        config.evals_per_epoch = config.evals_per_epoch.filter(|n| *n > 0);
        config.early_stopping_patience = config.early_stopping_patience.filter(|n| *n > 0);
        let per_epoch = config.evals_per_epoch.is_some();
        if config.eval_steps.is_some() && per_epoch {
            self.one_of("eval_steps", "evals_per_epoch");
        }
        self.cadence("eval", config.eval_strategy, config.eval_steps.is_some(), per_epoch);
        let asks = [
            ("eval_steps", config.eval_steps.is_some()),
            ("eval_strategy", config.eval_strategy.is_some_and(|s| s != Strategy::No)),
            ("load_best_model_at_end", config.load_best_model_at_end),
            ("early_stopping_patience", config.early_stopping_patience.is_some()),
            ("save_strategy", config.save_strategy == Some(Strategy::Best)),
            ("eval_task", config.eval_task.is_some()),
        ];
        let validates = config.has_validation() && config.eval_strategy != Some(Strategy::No);
        for (key, asked) in asks {
            if asked && !validates {
                let message = format!("`{key}` needs rows to validate on");
                self.wrong(key, message, "set `val_set_size: 0.05` or `test_datasets:`");
            }
        }
        if per_epoch && !config.has_validation() {
            self.report
                .note("evals_per_epoch", "no rows are set aside (`val_set_size`), so nothing is validated");
        }
        let best_by = config.metric_for_best_model.as_deref();
        if matches!(best_by, Some("eval_acc" | "acc")) && config.eval_task.is_none() {
            let hint = "name the task's YAML in `eval_task`";
            self.wrong(
                "metric_for_best_model",
                "`eval_acc` is the accuracy of `eval_task`, which is not set",
                hint,
            );
        }
        // What a supervised run measures is known before it has begun; the figures of others follow from their rewards.
        let known = ["loss", "mean_token_accuracy", "acc", "acc_stderr"];
        let supervised = config.rl().is_none() && config.reward_model != Some(true);
        if let Some(name) = best_by.filter(|m| supervised && !known.contains(&m.trim_start_matches("eval_")))
        {
            let message = format!("`metric_for_best_model: {name}` is not measured");
            self.wrong(
                "metric_for_best_model",
                message,
                "there is `eval_loss`, `eval_mean_token_accuracy`, and `eval_acc` with `eval_task`",
            );
        }
        let of_a_loss = config.metric_for_best_model.as_ref().is_none_or(|m| m.ends_with("loss"));
        if config.greater_is_better == Some(true) && of_a_loss {
            self.wrong("greater_is_better", "`greater_is_better: true` for a loss", "leave it out");
        }
    }

    fn saving(&mut self, config: &mut Config) {
        config.saves_per_epoch = config.saves_per_epoch.filter(|n| *n > 0);
        self.cadence(
            "save",
            config.save_strategy,
            config.save_steps.is_some(),
            config.saves_per_epoch.is_some(),
        );
        if config.save_steps.is_some() && config.saves_per_epoch.is_some() {
            self.one_of("save_steps", "saves_per_epoch");
        }
    }

    /// `*_strategy` against `*_steps` and `*s_per_epoch`.
    fn cadence(&mut self, what: &str, strategy: Option<Strategy>, steps: bool, per_epoch: bool) {
        let key = format!("{what}_strategy");
        match strategy {
            Some(Strategy::Steps) if !steps && !per_epoch => {
                let hint = format!("set `{what}_steps`, or `{key}: epoch`");
                self.wrong(&key, format!("`{key}: steps` without `{what}_steps`"), hint);
            }
            Some(s) if s != Strategy::Steps && (steps || per_epoch) => {
                let other = if steps { format!("{what}_steps") } else { format!("{what}s_per_epoch") };
                let message = format!("`{key}: {}` and `{other}` are both set", s.name());
                self.wrong(&key, message, format!("keep one, or set `{key}: steps`"));
            }
            _ => {}
        }
    }
}
