//! From keys to what the other crates take.

use super::schedule::{Every, Precision};
use super::table::Config;
use super::types::{AdapterKind, InitLora, Targets};
use galen_adapter::{AdapterConfig, Init};
use galen_data::tokenize::ExcessLength;
use galen_data::{DatasetSpec, OnBadRow};
use galen_ops::ops::Compute;
use galen_optim::AdamWConfig;
use galen_train::{BestMetric, Cadence, TrainSettings};

/// The arithmetic that this processor has instructions for.
pub fn native_compute() -> Compute {
    if galen_ops::isa().prefers_bf16() { Compute::Bf16 } else { Compute::F32 }
}

impl Config {
    /// A new adapter, by these keys.
    pub fn adapter_config(&self) -> AdapterConfig {
        let layers: Vec<usize> = self.peft_layers_to_transform.iter().map(|l| *l as usize).collect();
        AdapterConfig {
            method: if self.peft_use_dora { "dora" } else { "lora" }.into(),
            r: self.lora_r as usize,
            alpha: self.lora_alpha,
            dropout: self.dropout(),
            rslora: self.peft_use_rslora,
            targets: match &self.lora_target_modules {
                Targets::Unset | Targets::AllLinear => galen_adapter::Targets::All,
                Targets::Names(names) => galen_adapter::Targets::Names(names.clone()),
                Targets::Regex(pattern) => galen_adapter::Targets::Pattern(pattern.clone()),
            },
            layers: (!layers.is_empty()).then_some(layers),
            init: match self.peft_init_lora_weights {
                InitLora::Default => Init::Kaiming,
                InitLora::Gaussian => Init::Gaussian,
                InitLora::Random => Init::Random,
            },
            seed: self.seed,
        }
    }

    /// Whether what rows begin with in common is computed once: not where dropout or noise gives each its own.
    pub fn shares_prefixes(&self) -> bool {
        self.dropout() == 0.0 && self.neftune_noise_alpha.is_none_or(|alpha| alpha == 0.0)
    }

    /// How the base is held.
    pub fn base_precision(&self) -> galen_model::Precision {
        if self.adapter == Some(AdapterKind::Qlora) || self.load_in_4bit == Some(true) {
            galen_model::Precision::Nf4
        } else if self.load_in_8bit {
            galen_model::Precision::Q8
        } else {
            galen_model::Precision::Stored
        }
    }

    /// The arithmetic of matrix products.
    pub fn compute(&self) -> Compute {
        match self.precision() {
            Precision::F32 => Compute::F32,
            Precision::Bf16 => Compute::Bf16,
            Precision::Auto => native_compute(),
        }
    }

    /// How the run trains, given the steps of one epoch (`StepPlan::steps_per_epoch`) and whether activations are
    /// recomputed (`crate::plan::choose` decides for `auto`).
    pub fn train_settings(&self, steps_per_epoch: u64, gradient_checkpointing: bool) -> TrainSettings {
        let total = self.total_steps(steps_per_epoch);
        let (micro_batch_size, gradient_accumulation_steps) = self.step_shape();
        TrainSettings {
            micro_batch_size,
            gradient_accumulation_steps,
            total_steps: total,
            packing: self.packing(),
            share_prefixes: self.shares_prefixes(),
            neftune_noise_alpha: self.neftune_noise_alpha,
            gradient_checkpointing,
            lr_scheduler: self.lr_scheduler.name().into(),
            learning_rate: self.learning_rate,
            warmup_steps: self.warmup_of(total),
            loraplus_lr_ratio: self.loraplus_lr_ratio,
            adamw: AdamWConfig {
                beta1: self.adam_beta1,
                beta2: self.adam_beta2,
                eps: self.adam_epsilon,
                weight_decay: self.weight_decay,
            },
            max_grad_norm: self.max_grad_norm,
            num_iterations: self.iterations(),
            seed: self.seed,
            eval: cadence(self.eval_every(total)),
            save: cadence(self.save_every(total)),
            save_total_limit: Some(self.save_total_limit as usize),
            metric_for_best_model: self.best_metric(),
            load_best_model_at_end: self.load_best_model_at_end,
            early_stopping_patience: self.early_stopping_patience,
            loss_watchdog_threshold: self.loss_watchdog_threshold,
            loss_watchdog_patience: self.loss_watchdog_patience,
        }
    }

    /// What makes a validation the best.
    fn best_metric(&self) -> BestMetric {
        let Some(given) = &self.metric_for_best_model else { return BestMetric::default() };
        let name = if given.starts_with("eval_") { given.clone() } else { format!("eval_{given}") };
        let greater_is_better = self.greater_is_better.unwrap_or(!name.ends_with("loss"));
        BestMetric { name, greater_is_better }
    }

    /// The bin size with `sample_packing`.
    pub fn packing(&self) -> Option<usize> {
        self.sample_packing.then_some(self.sequence_len as usize)
    }

    /// What becomes of rows that are too long.
    pub fn excess(&self) -> ExcessLength {
        match self.excess_length_strategy {
            super::types::ExcessLength::Drop => ExcessLength::Drop,
            super::types::ExcessLength::Truncate => ExcessLength::Truncate,
            super::types::ExcessLength::Raise => ExcessLength::Raise,
        }
    }

    /// The entries of `datasets:` and of `test_datasets:` as galen-data takes them.
    pub fn dataset_specs(&self) -> Result<(Vec<DatasetSpec>, Vec<DatasetSpec>), serde_json::Error> {
        let specs = |list: &super::datasets::Datasets| -> Result<Vec<DatasetSpec>, serde_json::Error> {
            list.0.iter().map(super::DatasetEntry::spec).collect()
        };
        Ok((specs(&self.datasets)?, specs(&self.test_datasets)?))
    }

    /// What a bad row does.
    pub fn bad_rows(&self) -> OnBadRow {
        match self.on_bad_row {
            super::types::OnBadRow::Error => OnBadRow::Error,
            super::types::OnBadRow::Skip => OnBadRow::Skip,
        }
    }
}

fn cadence(every: Every) -> Cadence {
    match every {
        Every::Never => Cadence::Never,
        Every::Steps(n) => Cadence::Steps(n),
        Every::Epoch => Cadence::Epoch,
        Every::Best => Cadence::Best,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{check_text, types::Scheduler};
    use galen_adapter::{Init, Targets};
    use galen_train::Cadence;

    #[test]
    fn keys_arrive() {
        let text = "base_model: m\nadapter: lora\nlearning_rate: 3e-4\ndatasets: [{path: d.jsonl}]\nlora_r: 4\n\
                    lora_alpha: 6\nlora_dropout: 0.25\npeft_use_rslora: true\npeft_use_dora: true\npeft_layers_to_transform: [1, 3]\n\
                    peft_init_lora_weights: gaussian\nlora_target_modules: [q_proj]\nseed: 9\nmicro_batch_size: 2\n\
                    gradient_accumulation_steps: 3\nnum_epochs: 2\nwarmup_ratio: 0.1\nweight_decay: 0.01\n\
                    adam_beta1: 0.8\nadam_beta2: 0.95\nadam_epsilon: 1e-6\nmax_grad_norm: 0.5\nval_set_size: 0.1\n\
                    evals_per_epoch: 2\nsave_strategy: best\nsave_total_limit: 2\nlr_scheduler: linear\n\
                    early_stopping_patience: 5\nloss_watchdog_threshold: 4\nloss_watchdog_patience: 2\n\
                    logging_steps: 7\nsample_packing: true\nsequence_len: 99\nload_best_model_at_end: true\n";
        let (config, report) = check_text("c.yaml", text, &[]);
        assert_eq!(report.errors, []);
        let a = config.adapter_config();
        assert_eq!(a.method, "dora");
        assert_eq!((a.r, a.alpha, a.dropout, a.rslora, a.seed), (4, 6.0, 0.25, true, 9));
        assert_eq!(
            (a.targets, a.layers, a.init),
            (Targets::Names(vec!["q_proj".into()]), Some(vec![1, 3]), Init::Gaussian)
        );
        let t = config.train_settings(50, true);
        assert_eq!(
            (t.micro_batch_size, t.gradient_accumulation_steps, t.total_steps, t.packing),
            (2, 3, 100, Some(99))
        );
        assert_eq!(
            (t.learning_rate, t.warmup_steps, t.max_grad_norm, config.logging_steps),
            (3e-4, 10, 0.5, Some(7))
        );
        assert_eq!(
            (t.adamw.beta1, t.adamw.beta2, t.adamw.eps, t.adamw.weight_decay),
            (0.8, 0.95, 1e-6, 0.01)
        );
        assert_eq!((t.eval, t.save, t.save_total_limit), (Cadence::Steps(25), Cadence::Best, Some(2)));
        assert_eq!((t.early_stopping_patience, t.loss_watchdog_threshold), (Some(5), Some(4.0)));
        assert!(!t.share_prefixes && t.gradient_checkpointing && t.load_best_model_at_end);
    }

    /// Every scheduler the keys know is one galen-optim has.
    #[test]
    fn schedulers_exist() {
        for kind in [
            Scheduler::Cosine,
            Scheduler::Linear,
            Scheduler::Constant,
            Scheduler::ConstantWithWarmup,
            Scheduler::WarmupStableDecay,
        ] {
            assert!(galen_optim::SCHEDULES.iter().any(|s| s.name == kind.name()), "{}", kind.name());
        }
    }
}
