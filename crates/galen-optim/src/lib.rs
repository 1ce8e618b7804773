//! Owns: optimisers with f32 state, learning-rate schedules and gradient clipping.
//! Takes: flat buffers of values and gradients, one a block of the model.
//! Gives: the next values; the state as plain buffers that a checkpoint can hold.
//! Never: knows what the values mean.

mod adamw;
mod clip;
mod schedule;

pub use adamw::{AdamW, AdamWConfig, Faster};
pub use clip::{clip_factor, global_norm};
pub use schedule::{SCHEDULES, Schedule, ScheduleKind};
