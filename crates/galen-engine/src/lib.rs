//! Owns: generation for many at a time - the [`Engine`] trait, the native engine (continuous batching over one base,
//! an adapter a request).
//! Takes: a model, adapters, and from the caller how messages become tokens and how adapters are read.
//! Gives: streams of text with log-probabilities.
//! Never: knows a chat template, where files come from, or a command line.

mod answer;
mod continuation;
mod engine;
mod native;
mod request;
mod text;

pub use answer::{Answer, Event, Finish, Piece, TokenLogprobs};
pub use continuation::{Continuation, Next};
pub use engine::{Engine, EngineError, ModelCard, Stats};
pub use native::{LoadedAdapter, Native, NativeOptions, Worker};
pub use request::{Encode, Input, Options, Request};
