//! Owns: the training loop, checkpoints, resume, validation and the run directory.
//! Takes: a model, an adapter, tokenised rows and resolved settings.
//! Gives: a trained adapter, a log, checkpoints from which a run goes on to the same bits.
//! Never: reads a configuration file, renders a template or prints.

pub mod checkpoint;
mod error;
#[cfg(test)]
mod fuzz;
mod log;
mod memory;
mod plan;
pub mod report;
mod settings;
mod sft;
mod step;
mod validate;

pub use error::{Error, Result};
pub use memory::{available_bytes, peak_rss_bytes};
pub use plan::StepPlan;
pub use settings::{BestMetric, Cadence, TrainSettings};
pub use sft::{Observer, Outcome, SftRun, module_shapes};
pub use step::{StepGradient, step_gradient};
pub use validate::{Validation, validate};
