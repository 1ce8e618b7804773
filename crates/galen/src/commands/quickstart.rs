//! `galen quickstart`.

use crate::cli::Globals;
use std::path::PathBuf;

/// Flags of `galen quickstart`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where everything goes; a second run reuses what is there
    #[arg(long, value_name = "DIR", default_value = "galen-quickstart")]
    pub out: PathBuf,
    /// A two-minute version: fewer rows, fewer questions
    #[arg(long)]
    pub fast: bool,
}

/// Fetches the base model and the clinical data, fine-tunes, evaluates base and adapter, and reports.
pub fn run(_args: Args, _globals: &Globals) -> anyhow::Result<()> {
    anyhow::bail!("`galen quickstart` is not built yet")
}
