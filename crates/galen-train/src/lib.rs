//! Owns: the training loop, checkpoints, resume, validation and the run directory.
//! Takes: a model, an adapter, tokenised rows and resolved settings.
//! Gives: a trained adapter, a log, checkpoints from which a run goes on to the same bits.
//! Never: reads a configuration file, renders a template or prints.

pub mod checkpoint;
mod error;
#[cfg(test)]
mod fuzz;
mod hacking;
mod log;
mod memory;
mod objective;
mod on_device;
mod plan;
pub mod preference;
pub mod report;
pub mod rollout;
mod run;
mod settings;
mod sft;

pub use error::{Error, Result};
pub use hacking::RewardHacking;
pub use memory::{available_bytes, limit_bytes, peak_rss_bytes};
pub use objective::{HeldOut, Objective, Place, Remark, StepGradient, Validation};
pub use on_device::{OnDevice, Replica};
pub use plan::StepPlan;
pub use run::{Observer, Outcome, Run, module_shapes};
pub use settings::{BestMetric, Cadence, TrainSettings};
pub use sft::{Sft, step_gradient, validate};
