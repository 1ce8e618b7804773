//! The engine of somebody else's model: an endpoint that speaks OpenAI's interface.

mod body;
mod reply;

use crate::answer::{Answer, Event};
use crate::engine::{Engine, EngineError, ModelCard, Stats};
use crate::request::{Input, Options, Request};
use galen_endpoint::{Client, Fault};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// How an [`Endpoint`] is set up.
pub struct EndpointOptions {
    /// The model's name there.
    pub model: String,
    /// To the address that the interface's paths are behind: `https://host/v1`.
    pub client: Client,
    /// Requests under way at a time.
    pub concurrency: usize,
    /// Most requests that wait.
    pub max_waiting: usize,
    /// Most tokens of prompt and answer, as far as it is known; only told.
    pub max_model_tokens: usize,
}

/// One input of a request.
struct Job {
    input: Input,
    options: Arc<Options>,
    /// Of its first completion.
    first_choice: usize,
    place: usize,
    events: UnboundedSender<Event>,
}

struct Shared {
    model: String,
    client: Client,
    max_model_tokens: usize,
    stopped: AtomicBool,
    /// Why no request can succeed, once that is known.
    refused: Mutex<Option<String>>,
    running: AtomicU64,
    waiting: AtomicU64,
    prompt_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    requests: AtomicU64,
    cancelled: AtomicU64,
}

/// Requests go out on threads of its own, which end when it is dropped.
pub struct Endpoint {
    shared: Arc<Shared>,
    queue: SyncSender<Job>,
}

impl Endpoint {
    /// Starts the threads; opens no socket before the first request. Errors: a thread does not start.
    pub fn new(options: EndpointOptions) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            model: options.model,
            client: options.client,
            max_model_tokens: options.max_model_tokens,
            stopped: AtomicBool::new(false),
            refused: Mutex::new(None),
            running: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            prompt_tokens: AtomicU64::new(0),
            generated_tokens: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
        });
        let (queue, jobs) = sync_channel(options.max_waiting.max(1));
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..options.concurrency.max(1) {
            let (shared, jobs) = (shared.clone(), jobs.clone());
            let thread = std::thread::Builder::new().name("galen-endpoint".into()).stack_size(1 << 20);
            thread.spawn(move || work(&shared, &jobs))?;
        }
        Ok(Self { shared, queue })
    }
}

fn work(shared: &Shared, jobs: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is held while it waits: one thread is the next in turn.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        shared.waiting.fetch_sub(1, Ordering::Relaxed);
        if job.events.is_closed() {
            shared.cancelled.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        shared.running.fetch_add(1, Ordering::Relaxed);
        shared.answer(&job);
        shared.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whoever asked may have gone: events to nobody are no fault.
    fn answer(&self, job: &Job) {
        let send = |event| _ = job.events.send(event);
        if let Some(why) = self.refused() {
            return send(Event::Refused(why));
        }
        let (path, body) = body::of(&self.model, &job.input, &job.options, job.place);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let read = |text: &str| reply::read(text, &job.input, job.options.n);
        match self.client.post(path, &body.to_string(), read) {
            Ok(reply) => {
                self.prompt_tokens.fetch_add(reply.prompt_tokens as u64, Ordering::Relaxed);
                send(Event::Prompt { tokens: reply.prompt_tokens });
                for (i, choice) in reply.choices.into_iter().enumerate() {
                    self.generated_tokens.fetch_add(choice.tokens as u64, Ordering::Relaxed);
                    let (at, finish, tokens) = (job.first_choice + i, choice.finish, choice.tokens);
                    send(Event::Piece { choice: at, piece: choice.piece });
                    send(Event::End { choice: at, finish, tokens });
                }
            }
            Err(failure) => {
                let hint = failure.hint.map(|h| format!("\nhint: {h}")).unwrap_or_default();
                let what = format!("{}: {}{hint}", self.client.address().shown, failure.what);
                match failure.fault {
                    Fault::Request => send(Event::Failed(what)),
                    Fault::Every => {
                        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.clone());
                        send(Event::Refused(what));
                    }
                    // The channel closes: as where an engine stops.
                    Fault::Stopped => {}
                }
            }
        }
    }
}

impl Engine for Endpoint {
    fn models(&self) -> Vec<ModelCard> {
        let shared = &self.shared;
        vec![ModelCard {
            name: shared.model.clone(),
            parent: None,
            created: 0,
            max_tokens: shared.max_model_tokens,
        }]
    }

    fn generate(&self, request: Request) -> Result<Answer, EngineError> {
        let shared = &self.shared;
        if shared.stopped.load(Ordering::Relaxed) {
            return Err(EngineError::Stopping);
        }
        if let Some(why) = shared.refused() {
            return Err(EngineError::Refused(why));
        }
        if request.model != shared.model {
            return Err(EngineError::UnknownModel(request.model));
        }
        let options = Arc::new(request.options);
        if options.logprobs.is_some() {
            let what = "log-probabilities are not asked of an endpoint".to_owned();
            return Err(EngineError::Invalid { field: "logprobs", what });
        }
        if options.n == 0 {
            return Err(EngineError::Invalid { field: "n", what: "0 completions".into() });
        }
        let n = options.n;
        let (events, answer) = Answer::new(0, request.inputs.len() * n);
        for (place, input) in request.inputs.into_iter().enumerate() {
            let (options, events) = (options.clone(), events.clone());
            let job = Job { input, options, first_choice: place * n, place, events };
            shared.waiting.fetch_add(1, Ordering::Relaxed);
            if let Err(e) = self.queue.try_send(job) {
                shared.waiting.fetch_sub(1, Ordering::Relaxed);
                return Err(match e {
                    TrySendError::Full(_) => EngineError::QueueFull,
                    TrySendError::Disconnected(_) => EngineError::Stopping,
                });
            }
        }
        Ok(answer)
    }

    fn load_adapter(&self, _: &str, _: &str) -> Result<(), EngineError> {
        Err(EngineError::Adapter("an endpoint's adapters are its own affair".into()))
    }

    fn unload_adapter(&self, name: &str) -> Result<(), EngineError> {
        Err(EngineError::UnknownModel(name.to_owned()))
    }

    /// Also ends pauses; requests that are out are answered or time out.
    fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.shared.client.stop();
    }

    fn abort(&self) {
        self.stop();
    }

    fn stats(&self) -> Stats {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let shared = &self.shared;
        Stats {
            running: get(&shared.running),
            waiting: get(&shared.waiting),
            prompt_tokens: get(&shared.prompt_tokens),
            generated_tokens: get(&shared.generated_tokens),
            steps: get(&shared.requests),
            cancelled: get(&shared.cancelled),
            ..Stats::default()
        }
    }
}
