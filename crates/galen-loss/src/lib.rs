//! Owns: training objectives, each a pure function of token log-probabilities.
//! Takes: log-probabilities in nats and how many supervised tokens they are averaged over.
//! Gives: the loss and its gradient with respect to each log-probability.
//! Never: touches tensors, models or data.

mod sft;

pub use sft::sft;
