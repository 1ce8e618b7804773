//! `galen train CONFIG`.

use crate::cli::Globals;
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
pub fn run(_args: Args, _globals: &Globals) -> anyhow::Result<()> {
    anyhow::bail!("`galen train` is not built yet")
}
