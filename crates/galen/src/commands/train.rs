//! `galen train CONFIG` and `galen align CONFIG`: one session, told apart by the key `rl:`.

use crate::cli::Globals;
use crate::config;
use crate::error::UsageError;
use crate::session::{self, Start};
use crate::signals::Stop;
use crate::stdout;
use std::path::{Path, PathBuf};

/// Flags of `galen train` and `galen align`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration (Axolotl's keys; `galen init` writes one)
    pub config: PathBuf,
    /// Override a key, also inside one: `lora_r=8`, `datasets[0].path=x.jsonl`
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Go on from the last checkpoint in `output_dir`, or begin where there is none
    #[arg(long)]
    pub resume: bool,
    /// Go on from this checkpoint
    #[arg(long, alias = "resume_from_checkpoint", value_name = "DIR", conflicts_with = "resume")]
    pub resume_from_checkpoint: Option<PathBuf>,
    /// Delete what is in `output_dir` first
    #[arg(long, conflicts_with_all = ["resume", "resume_from_checkpoint"])]
    pub overwrite: bool,
    /// Write where the time went, for a browser's trace viewer, and print each operation's share
    #[arg(long, value_name = "FILE.json")]
    pub profile: Option<PathBuf>,
}

/// Trains an adapter into the run directory. `command`: `train` or `align`.
pub fn run(args: Args, command: &'static str, globals: &Globals) -> anyhow::Result<()> {
    let (mut config, report) = config::load(&args.config, &args.set)?;
    globals.place(&mut config);
    let meant = session::command_of(&config);
    if meant != command {
        let (path, rl) = (args.config.display(), config.rl().unwrap_or_default());
        let message = match config.rl() {
            Some(_) => format!("{path}: `rl: {rl}` is preference alignment"),
            None => format!("{path}: `rl:` is not set"),
        };
        return Err(UsageError::new(message, format!("`galen {meant} {path}`")).into());
    }
    if let Some(from) = config.resume_from_checkpoint.as_ref().filter(|_| args.overwrite) {
        let message = format!("`--overwrite` with `resume_from_checkpoint: {from}`");
        return Err(UsageError::new(message, "keep one of them").into());
    }
    let start = match args.resume_from_checkpoint {
        Some(path) => Start::From(path),
        None if args.resume => Start::Resume,
        None if args.overwrite => Start::Overwrite,
        None => Start::of(&config),
    };
    if let Some(path) = &args.profile {
        check_writable(path, Path::new(&config.output_dir))?;
        galen_ops::profile::start();
    }
    let trained = session::train(&config, &report, start, globals.offline, &Stop::listen()?);
    // Also of a run that was stopped or failed: what it spent its time on is worth knowing.
    let written = args.profile.as_deref().map_or(Ok(()), crate::profile::write);
    let trained = trained?;
    written?;
    let state = &trained.outcome.state;
    let loss = trained.outcome.reports.last().map(|r| r.loss);
    if globals.json {
        return stdout::print_json(&serde_json::json!({
            "output_dir": config.output_dir,
            "steps": state.step,
            "loss": loss,
            "eval_loss": state.last.as_ref().map(|v| v.eval_loss),
            "best": state.best.as_ref().map(|(step, v)| serde_json::json!({"step": step, "eval_loss": v.eval_loss})),
            "peak_rss_bytes": galen_train::peak_rss_bytes(),
        }));
    }
    stdout::print(&format!("{}\n", config.output_dir))
}

/// A name that cannot be written to must not cost a whole run. `output_dir` itself may be yet to come.
fn check_writable(path: &Path, output_dir: &Path) -> anyhow::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() || !(parent.is_dir() || parent == output_dir) {
        let message = format!("`--profile {}` is not the name of a file in a folder", path.display());
        return Err(UsageError::new(message, "name a file in a folder that is there").into());
    }
    Ok(())
}
