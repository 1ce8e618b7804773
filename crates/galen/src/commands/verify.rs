//! `galen verify`: what is served is what was trained.

use crate::cli::Globals;
use crate::error::UsageError;
use crate::progress::say;
use crate::session::{
    LimitArgs, Opened, Record, SAMPLES, Verdict, Verifier, adapter_sha256, format_of, is_adapter, positive,
    unverified, write_beside,
};
use crate::stdout;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Flags of `galen verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The run directory
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
    /// Exported files and folders; default: the run directory itself, what lies in it, and every export of it that
    /// `galen export` noted
    #[arg(value_name = "ARTIFACT")]
    pub artifacts: Vec<PathBuf>,
    /// Samples to predict: rows of validation, then of training
    #[arg(long, alias = "samples", value_name = "N", default_value_t = SAMPLES, value_parser = positive)]
    pub limit: usize,
    /// What may differ
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Verifies; fails where an artifact does.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    let name = args.run.display().to_string();
    if !is_adapter(&name) || !args.run.join("run.json").is_file() {
        let hint = "name the `output_dir` of a training run; what was exported follows it";
        return Err(UsageError::new(format!("{name} is no run directory"), hint).into());
    }
    let opened = Opened::new(Some(name), Vec::new(), globals.offline)?;
    let verifier = Verifier::open(&opened, args.limit, globals.offline)?;
    let mut record = Record::open(verifier.dir(), verifier.adapter_sha256());
    let artifacts = match &args.artifacts[..] {
        [] => found(verifier.dir(), &record),
        named => named.to_vec(),
    };
    if let Some(missing) = args.artifacts.iter().find(|path| !path.exists()) {
        let message = format!("{}: there is no such file or folder", missing.display());
        return Err(UsageError::new(message, "name what `galen export` wrote").into());
    }
    let mut verdicts = Vec::with_capacity(artifacts.len());
    for path in &artifacts {
        let verdict = verifier.verify(path, &args.limits);
        if !globals.json {
            stdout::print(&(verdict.lines().join("\n") + "\n"))?;
        }
        if path == verifier.dir() {
            record.put(serde_json::to_value(&verdict)?);
        } else {
            keep(path, &verdict, &mut record)?;
        }
        verdicts.push(verdict);
    }
    record.save(verifier.dir())?;
    if globals.json {
        stdout::print_json(&json!({ "run": args.run.display().to_string(), "artifacts": verdicts }))?;
    }
    failure_of(&verdicts)
}

/// The run itself, what lies in it, and what was exported elsewhere.
fn found(run: &Path, record: &Record) -> Vec<PathBuf> {
    let inside = std::fs::read_dir(run).into_iter().flatten().flatten().map(|e| e.path());
    // Checkpoints are states of the run, not what is served of it.
    let checkpoint = |p: &Path| p.join("state.json").exists() || name_of(p).starts_with("checkpoint-");
    let mut inside: Vec<PathBuf> =
        inside.filter(|p| !name_of(p).starts_with('.') && !checkpoint(p) && format_of(p).is_some()).collect();
    inside.sort();
    let mut all = vec![run.to_owned()];
    for path in inside.into_iter().chain(record.paths()) {
        let same = |a: &PathBuf| a.canonicalize().ok() == path.canonicalize().ok();
        if !all.iter().any(same) {
            all.push(path);
        }
    }
    all
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Notes a result in the run's record and beside the artifact. What failed is noted where it was an export of the run: a
/// stranger named by mistake is left alone.
fn keep(path: &Path, verdict: &Verdict, record: &mut Record) -> anyhow::Result<()> {
    if !path.exists() || !(verdict.passed || record.knows(path)) {
        return Ok(());
    }
    record.put(serde_json::to_value(verdict)?);
    if verdict.format == "run" { Ok(()) } else { write_beside(path, verdict) }
}

/// The first failure of the first artifact that failed.
fn failure_of(verdicts: &[Verdict]) -> anyhow::Result<()> {
    let Some(bad) = verdicts.iter().find(|v| !v.passed) else { return Ok(()) };
    let first = bad.failures.first().map_or("", String::as_str);
    let hint = if let Some(held) = bad.limits.and_then(|l| l.trained_over) {
        format!(
            "the adapter was trained over the base rounded to {held} and stands over the base as stored: serve it over {held} too, or \
             train it without `load_in_4bit` and `load_in_8bit`, or over a GGUF base, whose own blocks are kept"
        )
    } else {
        "export it anew, with more bits (`--quantize`) where it is the rounding; `--help` lists the thresholds".to_owned()
    };
    anyhow::bail!("{} is not what was trained: {first}\nhint: {hint}", bad.path)
}

/// What `galen export` does at its end with what it wrote of a run: nothing where it was of no run.
pub(super) struct AfterExport<'a> {
    run: &'a Path,
    pub(super) verdict: Option<Verdict>,
}

impl<'a> AfterExport<'a> {
    /// Verifies `out`, or only notes it.
    pub(super) fn new(
        opened: &'a Opened,
        out: &Path,
        format: &str,
        verify: bool,
        globals: &Globals,
    ) -> anyhow::Result<Option<Self>> {
        let dir = match opened.adapters.first() {
            Some((adapter, Some(dir)))
                if dir.join("run.json").is_file() && adapter.score_head().is_none() =>
            {
                dir
            }
            _ => return Ok(None),
        };
        let sha256 = adapter_sha256(dir)?;
        let mut record = Record::open(dir, &sha256);
        record.put(unverified(out, format, &sha256));
        if !verify {
            record.save(dir)?;
            return Ok(Some(Self { run: dir, verdict: None }));
        }
        say("verifying what was written (`--no-verify` leaves it out)");
        let verifier = Verifier::open(opened, SAMPLES, globals.offline)?;
        let verdict = verifier.verify(out, &LimitArgs::default());
        verdict.lines().iter().for_each(|line| say(line));
        keep(out, &verdict, &mut record)?;
        record.save(dir)?;
        Ok(Some(Self { run: dir, verdict: Some(verdict) }))
    }

    /// An error where the artifact failed.
    pub(super) fn result(self) -> anyhow::Result<()> {
        say(&format!("noted in {}", self.run.join("verify.json").display()));
        failure_of(self.verdict.as_slice())
    }
}
