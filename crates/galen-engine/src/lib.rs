//! Owns: generation for many at a time - the [`Engine`] trait, the native engine (continuous batching over one base,
//! an adapter a request), mistralrs-core as the second (a cargo feature), an OpenAI-compatible endpoint as the third;
//! OpenAI's requests and answers, the HTTP server and batch files over it.
//! Takes: a model, adapters, and from the caller how messages become tokens and how adapters are read.
//! Gives: streams of text with log-probabilities; a server; files of answers.
//! Never: knows a chat template, where files come from, or a command line.

mod admission;
mod answer;
pub mod batch;
mod continuation;
mod endpoint;
mod engine;
mod grammar;
pub mod http;
#[cfg(feature = "mistralrs")]
mod mistralrs;
mod native;
pub mod openai;
mod request;
mod text;

pub use answer::{Answer, Event, Finish, Piece, TokenLogprobs};
pub use continuation::{Continuation, Next};
pub use endpoint::{Endpoint, EndpointOptions};
pub use engine::{Engine, EngineError, ModelCard, Stats};
pub use galen_model::Sampling;
#[cfg(feature = "mistralrs")]
pub use mistralrs::{Mistralrs, MistralrsOptions, MistralrsWorker};
pub use native::{LoadedAdapter, Loader, Native, NativeOptions, Worker};
pub use request::{Encode, Input, Options, Request};
