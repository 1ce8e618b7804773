//! The engine of galen's own model: one worker owns it and extends all running sequences a token at a time
//! (continuous batching, Yu et al. 2022), each under its own adapter.

mod adapters;
mod queue;
mod sequence;
mod worker;

pub use adapters::LoadedAdapter;
pub use worker::Worker;

use crate::admission::Limits;
use crate::answer::Answer;
use crate::engine::{Engine, EngineError, ModelCard, Stats};
use crate::grammar::{Constraint, Grammars};
use crate::request::{Encode, Request};
use adapters::Adapters;
use galen_model::tokenizer::Tokenizer;
use galen_model::{Model, StepKernels};
use queue::{Job, Queue};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a [`Native`] engine is set up.
#[derive(Clone)]
pub struct NativeOptions {
    /// The base's served name.
    pub name: String,
    /// How the base's inputs become tokens.
    pub encode: Arc<dyn Encode>,
    /// What steps go through: [`StepKernels::Blocks`] for a few sequences at a time, [`StepKernels::PassesApart`] for
    /// many. One for all, as an answer must not depend on its neighbours.
    pub kernels: StepKernels,
    /// Most sequences in the batch, and most completions of a request.
    pub max_sequences: usize,
    /// Most requests that wait.
    pub max_waiting: usize,
    /// Most tokens of prompt and answer; at most the model's own context is used.
    pub max_model_tokens: Option<usize>,
    /// Memory for keys and values: a request waits until what it may come to need is free.
    pub cache_bytes: u64,
}

/// What requests and the worker share.
struct Shared {
    queue: Queue,
    adapters: Adapters,
    counts: Counts,
    tokenizer: Arc<Tokenizer>,
    grammars: Grammars,
    limits: Limits,
    kernels: StepKernels,
    /// Tokens that a sequence's memory grows by.
    page_tokens: usize,
    /// The bound on tokens whose keys and values are held.
    most_reserved_tokens: u64,
}

#[derive(Default)]
struct Counts {
    running: AtomicU64,
    reserved: AtomicU64,
    prompt_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    steps: AtomicU64,
    cancelled: AtomicU64,
}

/// The front of the engine: takes requests from any thread. Dropping it does not stop the worker;
/// [`Engine::stop`] does.
#[derive(Clone)]
pub struct Native {
    shared: Arc<Shared>,
}

/// Reads an adapter by its path for the model, on the worker's thread.
pub type Loader = Box<dyn Fn(&str, &Model) -> Result<LoadedAdapter, String> + Send>;

impl Native {
    /// An engine over a model, and its worker, which must be run on some thread.
    pub fn new(
        model: Model,
        tokenizer: Arc<Tokenizer>,
        options: NativeOptions,
        loader: Loader,
    ) -> (Self, Worker) {
        let config = &model.config;
        let values = 2 * config.n_layers * config.n_kv_heads * config.head_dim;
        // A growing vector may hold room for as much again, a growing pool of bf16 pages be there twice.
        let value_bytes = if model.device().is_some() { 3 * 2 } else { 2 * size_of::<f32>() };
        let token_bytes = (values * value_bytes).max(1) as u64;
        let context = config.max_position_embeddings;
        let max_model_tokens = options.max_model_tokens.map_or(context, |most| most.min(context));
        let vocab_size = config.vocab_size;
        let shared = Arc::new(Shared {
            queue: Queue::new(options.max_waiting),
            adapters: Adapters::new(options.name, options.encode),
            counts: Counts::default(),
            grammars: Grammars::new(tokenizer.clone(), vocab_size),
            tokenizer,
            limits: Limits { vocab_size, max_model_tokens, max_sequences: options.max_sequences.max(1) },
            kernels: options.kernels,
            page_tokens: model.page_tokens(),
            most_reserved_tokens: options.cache_bytes / token_bytes,
        });
        (Self { shared: shared.clone() }, Worker::new(model, shared, loader))
    }

    /// Serves an adapter that is read already.
    pub fn serve_adapter(&self, name: &str, loaded: LoadedAdapter) -> Result<(), EngineError> {
        self.shared.adapters.insert(name, loaded)
    }
}

impl Engine for Native {
    fn models(&self) -> Vec<ModelCard> {
        self.shared.adapters.cards(self.shared.limits.max_model_tokens)
    }

    fn generate(&self, request: Request) -> Result<Answer, EngineError> {
        let shared = &self.shared;
        let Some(served) = shared.adapters.find(&request.model) else {
            return Err(EngineError::UnknownModel(request.model));
        };
        let invalid = |field, what| EngineError::Invalid { field, what };
        let (n, options) = (request.options.n, Arc::new(request.options));
        shared.limits.check(&options)?;
        // Before the work of tokenising; the queue decides for good.
        shared.queue.has_room(request.inputs.len())?;
        let mut prompts = Vec::with_capacity(request.inputs.len());
        for input in &request.inputs {
            // Where nothing is asked for, what the cache has room for is enough: in whole pages.
            let held = (shared.most_reserved_tokens / n as u64) as usize;
            let held = held / shared.page_tokens * shared.page_tokens;
            let (ids, max_tokens) = shared.limits.admit(&*served.encode, input, &options, held)?;
            let reserved = ((ids.len() + max_tokens).next_multiple_of(shared.page_tokens) * n) as u64;
            if reserved > shared.most_reserved_tokens {
                let most = shared.most_reserved_tokens;
                let what = format!(
                    "the request may come to hold {reserved} tokens, and the cache has room for {most}"
                );
                return Err(invalid("max_tokens", what));
            }
            prompts.push((ids, input.goes_on(), max_tokens, reserved));
        }
        let schema = options.schema.as_ref().map(|s| shared.grammars.constraint(s)).transpose();
        let constraint = schema.map_err(|what| invalid("response_format", what))?;
        let prompt_tokens = prompts.iter().map(|(ids, ..)| ids.len()).sum();
        let (events, answer) = Answer::new(prompt_tokens, prompts.len() * n);
        let jobs = prompts.into_iter().enumerate().map(|(i, (prompt, goes_on, max_tokens, reserved))| Job {
            served: served.clone(),
            prompt,
            goes_on,
            options: options.clone(),
            constraint: constraint.as_ref().map(Constraint::again),
            max_tokens,
            reserved,
            first_choice: i * n,
            events: events.clone(),
        });
        shared.queue.push(jobs.collect())?;
        Ok(answer)
    }

    fn load_adapter(&self, name: &str, path: &str) -> Result<(), EngineError> {
        self.shared.queue.load(name, path)
    }

    fn unload_adapter(&self, name: &str) -> Result<(), EngineError> {
        self.shared.adapters.remove(name)
    }

    fn stop(&self) {
        self.shared.queue.stop(false);
    }

    fn abort(&self) {
        self.shared.queue.stop(true);
    }

    fn stats(&self) -> Stats {
        let counts = &self.shared.counts;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Stats {
            running: get(&counts.running),
            waiting: self.shared.queue.len() as u64,
            reserved_tokens: get(&counts.reserved),
            most_reserved_tokens: self.shared.most_reserved_tokens,
            prompt_tokens: get(&counts.prompt_tokens),
            generated_tokens: get(&counts.generated_tokens),
            steps: get(&counts.steps),
            cancelled: get(&counts.cancelled),
        }
    }
}
