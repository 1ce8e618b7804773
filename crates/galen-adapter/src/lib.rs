//! Owns: adapter methods, their trainable values (a reward model's head among them), their initialisation and PEFT's two
//! files.
//! Takes: the names and shapes of a model's projections.
//! Gives: a [`galen_ops::hook::ProjectionHook`] for the model's passes, and flat buffers for the optimiser.
//! Never: knows a model family, loads base weights or decides when to step.

mod adapter;
mod config;
mod dora;
mod error;
mod init;
mod lora;
mod merge;
mod method;
mod peft;
mod placed;
mod random;
mod score;
mod targets;

pub use adapter::{Adapter, Entry, Layer};
pub use config::{AdapterConfig, Init};
pub use error::{Error, Result};
pub use merge::LowRank;
pub use method::{Extent, METHODS, Method, Parameter};
pub use peft::{BaseRecord, floats, load_peft, peft_base, save_peft};
pub use placed::Placed;
pub use random::uniform;
pub use targets::{ModuleShape, Targets};
