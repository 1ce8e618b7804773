//! `galen run-batch`.

use crate::cli::Globals;
use crate::error::UsageError;
use crate::progress::{Progress, Unit, counted, say};
use crate::session::{BatchFiles, Requests, Serving, ServingOptions, sha256_file};
use crate::signals::Stop;
use crate::stdout;
use galen_engine::Engine;
use galen_engine::openai::MAX_PROMPTS;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Flags of `galen run-batch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Requests, a JSON object a line: `custom_id`, `method`, `url`, `body`
    #[arg(long, short, alias = "input-file", value_name = "IN.jsonl")]
    pub input: PathBuf,
    /// Answers, in the order of the requests; must not be there. What a stopped run had is in `OUT.jsonl.partial`, and
    /// the same line again goes on from there
    #[arg(long, short, alias = "output-file", value_name = "OUT.jsonl")]
    pub output: PathBuf,
    /// What answers.
    #[command(flatten)]
    pub serving: ServingOptions,
}

/// How often it is asked whether to stop.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Answers every request.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<()> {
    // Before the work of loading.
    if !args.input.is_file() {
        let hint =
            "`-i` takes a file of requests, a JSON object a line: `custom_id`, `method`, `url`, `body`";
        return Err(UsageError::new(format!("{}: there is no such file", args.input.display()), hint).into());
    }
    let requests = Requests::read(&args.input, &args.output)?;
    let at_once = 2 * args.serving.max_num_seqs;
    // Each line may hold many prompts; the threads that ask bound how many wait.
    let asked = ServingOptions { device: globals.device.unwrap_or_default(), ..args.serving };
    let serving = Serving::open(asked, at_once.saturating_mul(MAX_PROMPTS), globals.offline)?;
    let mut identity = serving.settings.clone();
    for (name, path) in &serving.identity {
        identity += &format!("\n{name} {}", sha256_file(path)?);
    }
    let files = BatchFiles::open(requests, &identity)?;
    let Serving { engine, worker, .. } = serving;
    let (all, before) = (files.lines.len(), files.n_done());
    if before > 0 {
        say(&format!("{} of {all} were answered before", counted(before as u64, "request")));
    }
    let stop = Stop::listen()?;
    let outcome = std::thread::scope(|scope| {
        let (files, stop, engine) = (&files, &stop, &*engine);
        let asked = std::thread::Builder::new()
            .name("batch".into())
            .spawn_scoped(scope, move || ask(files, engine, at_once.min(all), stop))?;
        // On this thread, which is one of the pool's.
        worker();
        asked.join().map_err(|_| anyhow::anyhow!("the thread that asks panicked"))?
    });
    outcome?;
    if let Some(stopped) = stop.asked().filter(|_| files.n_done() < all) {
        return Err(stopped.into());
    }
    let failed = files.finish()?;
    if failed > 0 {
        say(&format!("{} of {all} were refused: see their `status_code`", counted(failed as u64, "request")));
    }
    if globals.json {
        return stdout::print_json(&json!({"requests": all, "failed": failed, "output": args.output}));
    }
    Ok(())
}

/// Has the requests answered that have none yet, `at_once` at a time; then stops the engine.
fn ask(files: &BatchFiles, engine: &dyn Engine, at_once: usize, stop: &Stop) -> anyhow::Result<()> {
    struct Ends<'a>(&'a dyn Engine);
    impl Drop for Ends<'_> {
        fn drop(&mut self) {
            self.0.abort();
        }
    }
    let _ends = Ends(engine);
    let bar = Progress::new("requests", files.lines.len() as u64, Unit::Items);
    bar.set(files.n_done() as u64);
    let (next, running) = (AtomicUsize::new(0), AtomicUsize::new(at_once));
    let failure: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let give_up = |e: anyhow::Error| {
        if let Ok(mut failure) = failure.lock() {
            failure.get_or_insert(e);
        }
        engine.abort();
    };
    // Also of a thread that panics: who waits for it would wait forever.
    struct Leaves<'a>(&'a AtomicUsize);
    impl Drop for Leaves<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let one = || {
        let _leaves = Leaves(&running);
        while let Some(line) = files.lines.get(next.fetch_add(1, Ordering::Relaxed)) {
            if files.is_done(line) {
                continue;
            }
            // Without an answer the engine is stopping.
            let Some(answer) = line.answer(engine) else { break };
            if let Err(e) = files.add(line, &answer) {
                give_up(e);
                break;
            }
            bar.set(files.n_done() as u64);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            if let Err(e) = std::thread::Builder::new().spawn_scoped(scope, one) {
                give_up(e.into());
                running.fetch_sub(1, Ordering::Relaxed);
            }
        }
        while running.load(Ordering::Relaxed) > 0 {
            if stop.asked().is_some() {
                engine.abort();
            }
            std::thread::sleep(ASK_EVERY);
        }
    });
    bar.finish(&format!("{} of {} answered", files.n_done(), files.lines.len()));
    failure.into_inner().ok().flatten().map_or(Ok(()), Err)
}
