//! The engine over mistralrs-core: every architecture it knows, its scheduler, in-situ quantisation. It is asked for
//! logits alone: tokens are drawn, held to a schema and made text by what the native engine draws with, so that options,
//! seeds and stop texts mean the same.

mod draw;
mod load;

use crate::admission::Limits;
use crate::answer::{Answer, Event};
use crate::continuation::Continuation;
use crate::engine::{Engine, EngineError, ModelCard, Stats};
use crate::grammar::{Constraint, Grammars};
use crate::request::{Encode, Request};
use draw::{Counts, Draw};
use galen_model::tokenizer::Tokenizer;
use galen_types::TextEncoder as _;
use mistralrs_core::{MistralRs, NormalRequest, RequestMessage, Response, SamplingParams, StopTokens};
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::{WeakUnboundedSender, channel};
use tokio::sync::{Notify, Semaphore};

/// How a [`Mistralrs`] engine is set up.
#[derive(Clone)]
pub struct MistralrsOptions {
    /// The served name: the base's, or the adapter's where there is one.
    pub name: String,
    /// The name of the base under an adapter.
    pub parent: Option<String>,
    /// How inputs become tokens.
    pub encode: Arc<dyn Encode>,
    /// A `.gguf` file or a folder with `config.json` and safetensors.
    pub model: PathBuf,
    /// A PEFT adapter's folder, over a folder.
    pub adapter: Option<PathBuf>,
    /// Weights are quantised to this when they are read (`Q8_0`, `4` ...), those of a folder.
    pub isq: Option<String>,
    /// The card it computes on, in a build with the feature `flash-attn`; none: the processor.
    pub card: Option<usize>,
    /// Most completions of a request.
    pub max_sequences: usize,
    /// Most completions that wait.
    pub max_waiting: usize,
    /// Most tokens of prompt and answer; at most the model's own context is used.
    pub max_model_tokens: Option<usize>,
}

/// What requests and the worker share.
struct Shared {
    /// Taken away at the end: without it there is no request, and mistralrs-core's thread ends.
    core: Mutex<Option<Arc<MistralRs>>>,
    card: ModelCard,
    encode: Arc<dyn Encode>,
    tokenizer: Arc<Tokenizer>,
    grammars: Grammars,
    limits: Limits,
    max_waiting: usize,
    counts: Arc<Counts>,
    /// One sequence at a time: of several at once on the CPU, mistralrs-core 0.8.1 gives some the logits of others
    /// (LOG.md), whatever its scheduler is told.
    turn: Semaphore,
    /// Something ended, or the engine is to stop.
    changed: Notify,
    runtime: tokio::runtime::Handle,
}

/// The front: takes requests from any thread.
#[derive(Clone)]
pub struct Mistralrs {
    shared: Arc<Shared>,
}

/// Waits for the answers. mistralrs-core computes on threads of its own.
pub struct MistralrsWorker {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Runtime,
}

impl Mistralrs {
    /// Reads the model. Errors, in words: what mistralrs-core cannot read.
    pub fn open(
        tokenizer: Arc<Tokenizer>,
        options: MistralrsOptions,
    ) -> Result<(Self, MistralrsWorker), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| e.to_string())?;
        let core = load::load(&options, &runtime)?;
        let context = core.max_sequence_length(None).ok().flatten().unwrap_or(usize::MAX);
        let max_model_tokens = options.max_model_tokens.map_or(context, |most| most.min(context));
        let vocab_size = tokenizer.vocab_size();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let shared = Arc::new(Shared {
            core: Mutex::new(Some(core)),
            card: ModelCard {
                name: options.name,
                parent: options.parent,
                created,
                max_tokens: max_model_tokens,
            },
            encode: options.encode,
            grammars: Grammars::new(tokenizer.clone(), vocab_size),
            tokenizer,
            limits: Limits { vocab_size, max_model_tokens, max_sequences: options.max_sequences.max(1) },
            max_waiting: options.max_waiting,
            counts: Arc::default(),
            turn: Semaphore::new(1),
            changed: Notify::new(),
            runtime: runtime.handle().clone(),
        });
        Ok((Self { shared: shared.clone() }, MistralrsWorker { shared, runtime }))
    }
}

impl Shared {
    fn core(&self) -> Result<Arc<MistralRs>, EngineError> {
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner).clone();
        core.filter(|_| !self.counts.stopping.load(Relaxed)).ok_or(EngineError::Stopping)
    }

    /// Hands one completion to mistralrs-core when those before it have ended, and watches over it.
    fn begin(self: &Arc<Self>, core: Arc<MistralRs>, draw: Draw, prompt: Vec<u32>, max_tokens: usize) {
        let shared = self.clone();
        self.runtime.spawn(async move {
            let events = draw.events();
            let closed =
                || events.as_ref().and_then(WeakUnboundedSender::upgrade).is_none_or(|e| e.is_closed());
            // Never closed, so there is always a permit in the end.
            let _permit = shared.turn.acquire().await.ok();
            if closed() {
                shared.counts.cancelled.fetch_add(1, Relaxed);
            } else if let Err(why) = shared.complete(&core, draw, prompt, max_tokens).await
                && let Some(events) = events.and_then(|e| e.upgrade())
            {
                // Nothing is said of an answer that has ended.
                let _ = events.send(Event::Failed(why));
            }
            shared.counts.open.fetch_sub(1, Relaxed);
            shared.changed.notify_one();
        });
    }

    async fn complete(
        &self,
        core: &MistralRs,
        draw: Draw,
        prompt: Vec<u32>,
        max_tokens: usize,
    ) -> Result<(), String> {
        let (response, mut answered) = channel(1);
        // Draw ends an answer with the first of these; one more token than that can be is never drawn.
        let stops = StopTokens::Ids(self.tokenizer.eos_ids().to_vec());
        let sampling = SamplingParams {
            max_len: Some(max_tokens + 1),
            stop_toks: Some(stops),
            ..SamplingParams::deterministic()
        };
        let id = core.next_request_id();
        let message = RequestMessage::CompletionTokens(prompt);
        let mut request = NormalRequest::new_simple(message, sampling, response, id, None, None);
        request.logits_processors = Some(vec![Arc::new(draw)]);
        let sender = core.get_sender(None).map_err(|e| e.to_string())?;
        let gone = "mistralrs-core gave no answer";
        let request = mistralrs_core::Request::Normal(Box::new(request));
        sender.send(request).await.map_err(|_| gone)?;
        match answered.recv().await {
            Some(Response::InternalError(e) | Response::ValidationError(e)) => Err(e.to_string()),
            Some(Response::ModelError(e, _) | Response::CompletionModelError(e, _)) => Err(e),
            Some(_) => Ok(()),
            None => Err(gone.into()),
        }
    }
}

impl Engine for Mistralrs {
    fn models(&self) -> Vec<ModelCard> {
        vec![self.shared.card.clone()]
    }

    fn generate(&self, request: Request) -> Result<Answer, EngineError> {
        let shared = &self.shared;
        if request.model != shared.card.name {
            return Err(EngineError::UnknownModel(request.model));
        }
        let core = shared.core()?;
        let Some(end) = shared.tokenizer.eos_ids().first().copied() else {
            let what = "the model has no token that ends an answer".into();
            return Err(EngineError::Invalid { field: "model", what });
        };
        let options = Arc::new(request.options);
        shared.limits.check(&options)?;
        let n = options.n;
        let mut prompts = Vec::with_capacity(request.inputs.len());
        for input in &request.inputs {
            let (ids, most) = shared.limits.admit(&*shared.encode, input, &options, usize::MAX)?;
            prompts.push((ids, input.goes_on(), most));
        }
        let schema = options.schema.as_ref().map(|s| shared.grammars.constraint(s)).transpose();
        let invalid = |what| EngineError::Invalid { field: "response_format", what };
        let constraint = schema.map_err(invalid)?;
        let choices = prompts.len() * n;
        let most = (shared.limits.max_sequences + shared.max_waiting) as u64;
        let taken = shared
            .counts
            .open
            .fetch_update(Relaxed, Relaxed, |open| Some(open + choices as u64).filter(|sum| *sum <= most));
        taken.map_err(|_| EngineError::QueueFull)?;
        let (events, answer) = Answer::new(prompts.iter().map(|(ids, ..)| ids.len()).sum(), choices);
        for (i, (prompt, goes_on, max_tokens)) in prompts.into_iter().enumerate() {
            for which in 0..n {
                let tokenizer = shared.tokenizer.clone();
                let continuation = Continuation::new(tokenizer, &prompt, options.clone(), which, max_tokens)
                    .going_on(goes_on)
                    .constrained(constraint.as_ref().map(Constraint::again));
                let counts = shared.counts.clone();
                let choice = i * n + which;
                let draw = Draw::new(continuation, choice, prompt.len(), events.clone(), end, counts);
                shared.begin(core.clone(), draw, prompt.clone(), max_tokens);
            }
        }
        Ok(answer)
    }

    fn load_adapter(&self, _name: &str, _path: &str) -> Result<(), EngineError> {
        Err(EngineError::Adapter(
            "the mistralrs engine takes its adapter at the start\nhint: `--engine native`".into(),
        ))
    }

    fn unload_adapter(&self, _name: &str) -> Result<(), EngineError> {
        self.load_adapter("", "")
    }

    fn stop(&self) {
        self.shared.counts.stopping.store(true, Relaxed);
        self.shared.changed.notify_one();
    }

    fn abort(&self) {
        self.shared.counts.aborted.store(true, Relaxed);
        self.stop();
    }

    fn stats(&self) -> Stats {
        let counts = &self.shared.counts;
        let open = counts.open.load(Relaxed);
        let running = open.min(1);
        Stats {
            running,
            waiting: open - running,
            prompt_tokens: counts.prompt_tokens.load(Relaxed),
            generated_tokens: counts.generated_tokens.load(Relaxed),
            cancelled: counts.cancelled.load(Relaxed),
            ..Stats::default()
        }
    }
}

impl MistralrsWorker {
    /// Watches over requests until the engine is stopped.
    pub fn run(self) {
        let counts = &self.shared.counts;
        self.runtime.block_on(async {
            loop {
                let over = counts.stopping.load(Relaxed) && counts.open.load(Relaxed) == 0;
                if over || counts.aborted.load(Relaxed) {
                    break;
                }
                self.shared.changed.notified().await;
            }
        });
        // Ends mistralrs-core's thread, and with it what still waits there.
        self.shared.core.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
