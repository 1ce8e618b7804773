//! Owns: weights and their files, tokenizers, one differentiable forward per model family, generation.
//! Takes: a model's files; packed batches; token ids.
//! Gives: log-probabilities and hidden states with their gradients, logits, text.
//! Never: knows what an adapter does to a projection, or why a log-probability is wanted.

pub mod arch;
mod block;
mod cache;
mod divergence;
mod generate;
mod model;
mod pass;
mod pooled;
mod precision;
mod rollout;
mod routed;
mod sample;
mod scores;
mod teacher;
pub mod tokenizer;
pub mod weights;

pub use block::{Block, BlockRun, Context, MODULES, Module};
pub use cache::KvLayer;
pub use divergence::Divergence;
pub use generate::{Session, StepKernels};
pub use model::{LoadError, LoadOptions, Model, ModuleSize, WeightCache};
pub use pass::{Launched, Noise, Pass, PassOptions, Sink};
pub use pooled::PooledPass;
pub use precision::Precision;
pub use rollout::{Completion, End, RolloutPrompt, Rollouts};
pub use sample::{Sampling, argmax, log_prob};
pub use scores::Scores;
pub use teacher::Predictions;
pub use weights::{ModelConfig, Weights, WeightsError};
