//! What a training step reports: one object a line of `log.jsonl`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One optimiser step. Field names are the file contract.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// 1-based optimiser step.
    pub step: u64,
    /// Passes over the data so far, fractional.
    pub epoch: f64,
    /// Mean negative log-probability of the step's supervised tokens, in nats.
    pub loss: f64,
    /// Learning rate the step used.
    pub learning_rate: f64,
    /// Global L2 norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Tokens seen so far, as rows count them (a shared prefix counts once a row).
    pub num_tokens: u64,
    /// Supervised tokens of this step.
    pub supervised_tokens: u64,
    /// Tokens of this step over its seconds.
    pub tokens_per_second: f64,
    /// Share of supervised tokens whose most likely prediction is right, where tokens are predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_token_accuracy: Option<f64>,
    /// Seconds the step took.
    pub step_seconds: f64,
    /// Largest resident memory so far, bytes.
    pub peak_rss_bytes: u64,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// What else the objective measured, by TRL's names (`rewards/chosen` ...).
    #[serde(flatten)]
    pub metrics: BTreeMap<String, f64>,
}
