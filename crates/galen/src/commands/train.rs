//! `galen train CONFIG`.

use crate::cli::Globals;
use crate::config;
use crate::session::{self, Start};
use crate::signals::Stop;
use crate::stdout;
use std::path::PathBuf;

/// Flags of `galen train`.
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
}

/// Trains an adapter into the run directory.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<()> {
    let (config, report) = config::load(&args.config, &args.set)?;
    let start = match args.resume_from_checkpoint {
        Some(path) => Start::From(path),
        None if args.resume => Start::Resume,
        None if args.overwrite => Start::Overwrite,
        None => Start::New,
    };
    let trained = session::train(&config, &report, start, globals.offline, &Stop::listen()?)?;
    let state = &trained.outcome.state;
    let loss = trained.outcome.reports.last().map(|r| r.loss);
    if globals.json {
        return stdout::print_json(&serde_json::json!({
            "output_dir": config.output_dir,
            "steps": state.step,
            "loss": loss,
            "eval_loss": state.last.map(|v| v.eval_loss),
            "best": state.best.map(|(step, v)| serde_json::json!({"step": step, "eval_loss": v.eval_loss})),
            "peak_rss_bytes": galen_train::peak_rss_bytes(),
        }));
    }
    stdout::print(&format!("{}\n", config.output_dir))
}
