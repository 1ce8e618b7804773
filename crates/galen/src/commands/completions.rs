//! `galen completions SHELL`.

use crate::cli::Cli;
use clap::CommandFactory as _;

/// Flags of `galen completions`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "For example: galen completions bash > ~/.local/share/bash-completion/completions/galen"
)]
pub struct Args {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Prints the completion script.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "galen", &mut script);
    crate::stdout::print(&String::from_utf8_lossy(&script))
}
