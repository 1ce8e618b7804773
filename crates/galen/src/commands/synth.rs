//! `galen synth`.

use crate::cli::Globals;
use crate::config::lines;
use crate::error::UsageError;
use crate::progress::{Progress, Unit, counted, say};
use crate::session::teachers;
use crate::signals::Stop;
use crate::stdout;
use anyhow::Context as _;
use galen_reward::Network;
use galen_synth::{Figures, Pipeline, Run, Show};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Flags of `galen synth`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A pipeline: seeds, steps, outputs (`docs/synth.md`)
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,
    /// Override a key: `--set seed=2`, `--set steps[0].n=4`
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Go on where a run in `output_dir` was stopped
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Go on, and do again the rows that failed
    #[arg(long, conflicts_with = "overwrite")]
    pub retry_failed: bool,
    /// Begin anew: what an earlier run wrote into `output_dir` is removed
    #[arg(long)]
    pub overwrite: bool,
    /// Show the first N prompts of each step and end, without asking a model
    #[arg(long, value_name = "N")]
    pub render: Option<usize>,
}

/// How often it is asked whether to stop.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// What a run writes beside its outputs.
const WRITTEN: [&str; 5] = ["journal", "journal.earlier", "synth_report.json", "synth_report.html", ".lock"];

/// `docs/synth.md`: how it works, and all that a configuration can say, from the registries.
pub fn docs() -> String {
    format!("{}{}", include_str!("synth.md"), galen_synth::page(&teachers::kinds()))
}

/// Runs a pipeline.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<()> {
    let network = if globals.offline { Network::Offline } else { Network::Allowed };
    let (value, places) = lines::load(&args.config, &args.set)?;
    let kinds = teachers::kinds();
    let pipeline = Pipeline::parse(&value, &kinds, network).map_err(|errors| places.complaints(errors))?;
    if let Some(n) = args.render {
        return render(&pipeline, n, globals);
    }
    check_output(&pipeline, &args)?;
    let stop = Stop::listen()?;
    let asked = AtomicBool::new(false);
    let opened = teachers::open(&pipeline, network, globals.offline, &places)?;
    if args.overwrite {
        // What is deleted cannot be asked for again without paying for it: the seeds come first.
        pipeline.check_seeds(teachers::scratch()?.path())?;
        clear(&pipeline)?;
    }
    let shown = Shown::default();
    let over = AtomicBool::new(false);
    let figures = std::thread::scope(|scope| {
        let (opened, asked, over, stop) = (&opened, &asked, &over, &stop);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if stop.asked().is_some() && !asked.swap(true, Ordering::Relaxed) {
                    opened.stop();
                }
                std::thread::sleep(ASK_EVERY);
            }
        });
        let run = Run {
            pipeline: &pipeline,
            teachers: &opened.teachers,
            show: &shown,
            stop: asked,
            retry_failed: args.retry_failed,
        };
        let figures = opened.serve(|| run.run());
        over.store(true, Ordering::Relaxed);
        figures
    });
    let figures = match figures? {
        Ok(figures) => figures,
        Err(galen_synth::SynthError::Stopped) => {
            say("what was done is in the journal: the same command with `--resume` goes on");
            return Err(match stop.asked() {
                Some(signal) => signal.into(),
                None => anyhow::anyhow!("an engine ended before its time"),
            });
        }
        Err(e) => return Err(e.into()),
    };
    if globals.json {
        return stdout::print_json(&serde_json::to_value(&figures)?);
    }
    summary(&figures, &pipeline.output_dir);
    Ok(())
}

/// Whether the output directory is one that the flags may use. Changes nothing.
fn check_output(pipeline: &Pipeline, args: &Args) -> anyhow::Result<()> {
    let dir = &pipeline.output_dir;
    let there = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(e) => return Err(e).with_context(|| dir.display().to_string()),
    };
    let named = dir.display();
    if there && !args.resume && !args.retry_failed && !args.overwrite {
        let hint =
            "`--resume` goes on with what is there, `--overwrite` begins anew, or name another directory";
        return Err(UsageError::new(format!("`output_dir: {named}` is not empty"), hint).into());
    }
    if there && !WRITTEN[..2].iter().any(|journals| dir.join(journals).is_dir()) {
        let why = if args.overwrite { "nothing in it is removed" } else { "there is nothing to go on with" };
        let message = format!("`{named}` is no directory of `galen synth`: {why}");
        return Err(UsageError::new(message, "name another `output_dir`").into());
    }
    Ok(())
}

/// Takes away what an earlier run wrote: once all is ready for another.
fn clear(pipeline: &Pipeline) -> anyhow::Result<()> {
    for name in WRITTEN.into_iter().chain(pipeline.output_files()) {
        let path = pipeline.output_dir.join(name);
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| path.display().to_string());
            }
            _ => {}
        }
    }
    Ok(())
}

fn render(pipeline: &Pipeline, n: usize, globals: &Globals) -> anyhow::Result<()> {
    let folder = teachers::scratch()?;
    let steps = galen_synth::rendered(pipeline, n, folder.path())?;
    if globals.json {
        let prompt = |(id, text): &(String, Result<String, String>)| match text {
            Ok(prompt) => serde_json::json!({"id": id, "prompt": prompt}),
            Err(why) => serde_json::json!({"id": id, "error": why}),
        };
        let step = |(label, prompts): &(String, Vec<_>)| serde_json::json!({"step": label, "prompts": prompts.iter().map(prompt).collect::<Vec<_>>()});
        return stdout::print_json(&steps.iter().map(step).collect::<Vec<_>>());
    }
    let mut out = String::new();
    for (label, prompts) in &steps {
        for (id, text) in prompts {
            out += &format!("=== {label}: {id}\n");
            match text {
                Ok(prompt) => out += &format!("{}\n\n", prompt.trim_end()),
                Err(why) => out += &format!("(not known before the steps before it have run: {why})\n\n"),
            }
        }
    }
    if out.is_empty() {
        say("no step of this pipeline has a prompt");
    }
    stdout::print(&out)
}

fn summary(figures: &Figures, dir: &Path) {
    for step in &figures.steps {
        let reasons = |map: &std::collections::BTreeMap<String, galen_synth::Reason>, word: &str| -> String {
            map.iter().map(|(reason, r)| format!(", {word} {} ({reason})", r.rows)).collect()
        };
        let means: String = step.figures.iter().map(|(name, m)| format!("; {name} {:.3}", m.mean)).collect();
        say(&format!(
            "{}: {} in, {} out{}{}{means}",
            step.label,
            step.input,
            step.output,
            reasons(&step.filtered, "filtered"),
            reasons(&step.failed, "failed")
        ));
    }
    let Figures { seeds, seeds_kept, seeds_filtered, seeds_failed, .. } = figures;
    say(&format!("{seeds} seeds: {seeds_kept} kept, {seeds_filtered} filtered, {seeds_failed} failed"));
    for engine in &figures.engines {
        let cost = if engine.cost > 0.0 { format!(", cost {:.4}", engine.cost) } else { String::new() };
        say(&format!(
            "{} ({}): {}, {} prompt and {} answer tokens{cost}",
            engine.name,
            engine.model,
            counted(engine.requests, "request"),
            engine.prompt_tokens,
            engine.completion_tokens
        ));
    }
    for output in &figures.outputs {
        say(&format!("{}: {}", dir.join(&output.path).display(), counted(output.rows as u64, "row")));
    }
    say(&format!("{}", dir.join("synth_report.html").display()));
}

/// A bar for each step.
#[derive(Default)]
struct Shown {
    bar: Mutex<Option<(Progress, Instant)>>,
    kept: AtomicU64,
    tokens: AtomicU64,
}

impl Show for Shown {
    fn begin(&self, label: &str, rows: usize, done: usize) {
        self.kept.store(0, Ordering::Relaxed);
        self.tokens.store(0, Ordering::Relaxed);
        let bar = Progress::new(label, rows as u64, Unit::Items);
        bar.set(done as u64);
        if done > 0 && done < rows {
            bar.line(&format!("{label}: {} of {rows} were done before", counted(done as u64, "row")));
        }
        if let Ok(mut slot) = self.bar.lock() {
            *slot = Some((bar, Instant::now()));
        }
    }

    fn row(&self, kept: bool, tokens: [u64; 2]) {
        let kept = self.kept.fetch_add(u64::from(kept), Ordering::Relaxed) + u64::from(kept);
        let tokens = self.tokens.fetch_add(tokens[1], Ordering::Relaxed) + tokens[1];
        if let Ok(slot) = self.bar.lock()
            && let Some((bar, began)) = &*slot
        {
            let rate = tokens as f64 / began.elapsed().as_secs_f64().max(1e-3);
            let spent = if tokens > 0 { format!(", {rate:.0} tokens/s") } else { String::new() };
            bar.message(format!("{kept} kept{spent}"));
            bar.inc(1);
        }
    }

    fn end(&self, counts: [usize; 3]) {
        let Some((bar, began)) = self.bar.lock().ok().and_then(|mut slot| slot.take()) else { return };
        let [kept, filtered, failed] = counts;
        let tokens = self.tokens.load(Ordering::Relaxed);
        let rate = tokens as f64 / began.elapsed().as_secs_f64().max(1e-3);
        let spent = if tokens > 0 { format!(", {tokens} tokens at {rate:.0}/s") } else { String::new() };
        bar.finish(&format!("{kept} kept, {filtered} filtered, {failed} failed{spent}"));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/synth.md");
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(there == super::docs(), "write it with `cargo run -p galen --example synth > docs/synth.md`");
    }
}
