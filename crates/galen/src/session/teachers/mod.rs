//! The engines of a pipeline, opened. A new kind is one file here and one line in `ENGINES`.

mod mistralrs;
mod native;
mod openai;

use super::{Serving, sha256_file, sha256_text};
use crate::config::lines::Places;
use galen_reward::{ConfigError, Kind, Network, Options, Param};
use galen_synth::{EngineKind, EngineSpec, Pipeline, Teacher};
use std::collections::BTreeMap;
use std::sync::Mutex;

/// What tokens cost, for the report.
const PRICES: &[Param] = &[
    Param::with("price_prompt", Kind::Number, "0", "price of a million tokens of prompts, for the report"),
    Param::with(
        "price_completion",
        Kind::Number,
        "0",
        "price of a million tokens of answers, for the report",
    ),
];

/// A kind of engine and who opens it.
pub struct Opener {
    kind: EngineKind,
    open: fn(&EngineSpec, &Options<'_>, bool) -> anyhow::Result<Running>,
}

/// Every kind of engine.
static ENGINES: &[Opener] = &[native::OPENER, mistralrs::OPENER, openai::OPENER];

/// What configurations may name.
pub fn kinds() -> Vec<&'static EngineKind> {
    ENGINES.iter().map(|e| &e.kind).collect()
}

/// What has to be run for an engine to answer.
type Worker = Box<dyn FnOnce() + Send>;

/// An engine, opened.
struct Running {
    teacher: Teacher,
    worker: Option<Worker>,
}

/// All engines of a pipeline.
#[derive(Default)]
pub struct Opened {
    /// By name.
    pub teachers: BTreeMap<String, Teacher>,
    workers: Mutex<Vec<Worker>>,
}

/// Opens the engines that the pipeline's steps use.
pub fn open(pipeline: &Pipeline, network: Network, offline: bool, places: &Places) -> anyhow::Result<Opened> {
    let mut opened = Opened::default();
    for spec in &pipeline.engines {
        let Some(opener) = ENGINES.iter().find(|o| o.kind.name == spec.kind) else { continue };
        let place = format!("engines.{}", spec.name);
        let complain = |e: ConfigError| places.complaints(vec![e]);
        let options =
            Options::new(&spec.name, network, &place, &spec.given, opener.kind.params).map_err(complain)?;
        let running =
            (opener.open)(spec, &options, offline).map_err(|e| match e.downcast::<ConfigError>() {
                Ok(e) => places.complaints(vec![e]).into(),
                Err(e) => e,
            })?;
        opened.teachers.insert(spec.name.clone(), running.teacher);
        if let Ok(mut workers) = opened.workers.lock() {
            workers.extend(running.worker);
        }
    }
    Ok(opened)
}

impl Opened {
    /// Ends all requests.
    pub fn stop(&self) {
        self.teachers.values().for_each(|t| t.engine.abort());
    }

    /// Does `work` while the engines run: it on a thread of its own, the first worker on this one, which is one of the
    /// pool's. The engines end with it.
    pub fn serve<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        struct Ends<'a>(&'a Opened);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.stop();
            }
        }
        let mut workers: Vec<Worker> =
            self.workers.lock().map(|mut w| w.drain(..).collect()).unwrap_or_default();
        if workers.is_empty() {
            return Ok(work());
        }
        let first = workers.remove(0);
        std::thread::scope(|scope| {
            for worker in workers {
                std::thread::Builder::new().name("worker".into()).spawn_scoped(scope, worker)?;
            }
            let job = std::thread::Builder::new().name("pipeline".into()).spawn_scoped(scope, || {
                let _ends = Ends(self);
                work()
            })?;
            first();
            job.join().map_err(|_| anyhow::anyhow!("the pipeline's thread panicked"))
        })
    }
}

/// A teacher of what is served on this machine. Its identity is that of the files and of how they are computed.
fn local(
    kind: &'static str,
    model: String,
    serving: Serving,
    concurrency: usize,
    options: &Options<'_>,
) -> anyhow::Result<Running> {
    let mut identity = serving.settings.clone();
    for (name, path) in &serving.identity {
        identity += &format!("\n{name} {}", sha256_file(path)?);
    }
    let teacher = Teacher {
        engine: serving.engine,
        kind,
        model,
        identity: sha256_text(&identity),
        concurrency,
        constrains: true,
        repeats: true,
        prices: prices(options)?,
    };
    Ok(Running { teacher, worker: Some(serving.worker) })
}

/// Both prices.
fn prices(options: &Options<'_>) -> Result<[f64; 2], ConfigError> {
    Ok([options.number("price_prompt")?, options.number("price_completion")?])
}

/// A folder that goes when it is dropped.
pub fn scratch() -> anyhow::Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix("galen-synth-").tempdir()?)
}
