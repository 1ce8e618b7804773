//! From `trl:` to what the loop of sampled answers takes.

use super::table::Config;
use super::trl::ScaleRewards;
use galen_loss::rollout::{AGGREGATIONS, Grpo, LOSS_TYPES, Level, Rloo, SCALES};
use galen_loss::{LossError, find};
use galen_model::{Rollouts, Sampling, StepKernels};
use galen_reward::{ConfigError, Network, Outside, RewardSet, parse};
use galen_train::rollout::{Keep, PolicyLoss, RolloutSettings};
use serde_json::Value;

/// Longest answer where nothing is said (TRL's).
const MAX_COMPLETION_LENGTH: u64 = 512;
/// Answers decoded at a time.
const TOGETHER: usize = 32;
/// From so many on, a step goes through the kernels of training's passes.
const MANY: usize = 16;

impl Config {
    /// Whether `rl:` samples answers.
    pub fn samples_answers(&self) -> bool {
        matches!(self.rl(), Some("grpo" | "rloo"))
    }

    /// Answers to each prompt.
    pub fn num_generations(&self) -> u64 {
        self.trl.num_generations.unwrap_or(if self.rl() == Some("rloo") { 2 } else { 8 })
    }

    /// Longest answer that is sampled, tokens.
    pub fn completion_limit(&self) -> u64 {
        self.trl.max_completion_length.or(self.max_completion_length).unwrap_or(MAX_COMPLETION_LENGTH)
    }

    /// Rows of a micro-batch and micro-batches of a step, those of all cards, as the loop plans them. Where answers are sampled, rows are prompts
    /// and a step is one batch of them, which the objective divides into passes of `micro_batch_size` answers.
    pub fn step_shape(&self) -> (usize, usize) {
        if self.samples_answers() {
            let answers = self.micro_batch_size.saturating_mul(self.accumulation());
            ((answers / self.num_generations()).max(1) as usize, 1)
        } else {
            let passes = self.accumulation().saturating_mul(self.gpus);
            (self.micro_batch_size as usize, passes as usize)
        }
    }

    /// Steps made with the same rows.
    pub fn iterations(&self) -> u64 {
        if self.samples_answers() { self.trl.num_iterations } else { 1 }
    }

    pub(super) fn grpo(&self) -> Result<PolicyLoss, LossError> {
        let trl = &self.trl;
        let default = Grpo::default();
        let loss = Grpo {
            loss_type: find(LOSS_TYPES, trl.loss_type.as_deref().unwrap_or(default.loss_type.name))?,
            importance_sampling_level: match &trl.importance_sampling_level {
                Some(name) => find(Level::ALL, name)?,
                None => default.importance_sampling_level,
            },
            beta: trl.beta.or(self.rl_beta).unwrap_or(default.beta),
            epsilon: trl.epsilon,
            epsilon_high: trl.epsilon_high,
            delta: trl.delta,
            use_bias_correction_kl: trl.use_bias_correction_kl,
            max_completion_length: self.completion_limit() as usize,
            off_policy_mask_threshold: trl.off_policy_mask_threshold,
            sapo_temperature_pos: trl.sapo_temperature_pos,
            sapo_temperature_neg: trl.sapo_temperature_neg,
            vespo_k_pos: trl.vespo_k_pos,
            vespo_lambda_pos: trl.vespo_lambda_pos,
            vespo_k_neg: trl.vespo_k_neg,
            vespo_lambda_neg: trl.vespo_lambda_neg,
        };
        loss.check()?;
        let scale = match trl.scale_rewards.unwrap_or(ScaleRewards::Group) {
            ScaleRewards::Group => "group",
            ScaleRewards::Batch => "batch",
            ScaleRewards::None => "none",
        };
        let aggregation = trl.multi_objective_aggregation.as_deref().unwrap_or(AGGREGATIONS[0].name);
        Ok(PolicyLoss::Grpo {
            loss,
            scale: find(SCALES, scale)?,
            aggregation: find(AGGREGATIONS, aggregation)?,
        })
    }

    pub(super) fn rloo(&self) -> Result<PolicyLoss, LossError> {
        let (trl, default) = (&self.trl, Rloo::default());
        let loss = Rloo {
            beta: trl.beta.or(self.rl_beta).unwrap_or(default.beta),
            epsilon: trl.epsilon,
            epsilon_high: trl.epsilon_high,
            normalize_advantages: trl.normalize_advantages,
            reward_clip_range: match trl.reward_clip_range[..] {
                [low, high] => Some((low, high)),
                _ => None,
            },
        };
        loss.check()?;
        Ok(PolicyLoss::Rloo(loss))
    }

    /// The reward functions of `trl:`; no program is started and no socket opened.
    pub fn rewards<'a>(
        &self,
        network: Network,
        outside: &mut [Outside<'a>],
    ) -> Result<RewardSet<'a>, ConfigError> {
        let weights = match &self.trl.reward_weights[..] {
            [] => Value::Null,
            weights => weights.into(),
        };
        parse(&self.trl.reward_funcs.0, &weights, network, outside)
    }

    /// How answers are sampled and used; `stop_ids` end one.
    pub fn rollout_settings(&self, stop_ids: Vec<u32>) -> RolloutSettings {
        let trl = &self.trl;
        let (answers, iterations) = (self.num_generations() as usize, trl.num_iterations);
        let together = TOGETHER.min(self.step_shape().0.saturating_mul(answers));
        RolloutSettings {
            num_generations: answers,
            num_iterations: iterations,
            answers_per_pass: self.micro_batch_size as usize,
            mask_truncated: trl.mask_truncated_completions,
            rollouts: Rollouts {
                sampling: Sampling {
                    temperature: trl.temperature as f32,
                    top_k: trl.top_k as usize,
                    top_p: trl.top_p as f32,
                    min_p: trl.min_p.unwrap_or(0.0) as f32,
                    repeat_penalty: trl.repetition_penalty as f32,
                    seed: self.seed,
                },
                max_tokens: self.completion_limit() as usize,
                stop_ids,
                together,
                kernels: if together >= MANY { StepKernels::Passes } else { StepKernels::Blocks },
            },
            seed: self.seed,
        }
    }

    /// Which sampled answers are written down.
    pub fn kept_answers(&self) -> Keep {
        match (self.trl.log_completions, self.report_samples) {
            (true, _) => Keep::All,
            (false, 0) => Keep::Nothing,
            (false, n) => Keep::First(n as usize),
        }
    }
}
