//! `galen man`.

use crate::cli::Cli;
use clap::CommandFactory as _;

/// Flags of `galen man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "For example: galen man > galen.1; galen man train | man -l -")]
pub struct Args {
    /// A command; default: galen itself
    pub command: Option<String>,
}

/// Prints the page in roff.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut cli = Cli::command();
    cli.build();
    let page = match &args.command {
        None => cli,
        Some(name) => {
            let found = cli.find_subcommand(name).cloned();
            found.ok_or_else(|| {
                crate::error::UsageError::new(format!("no command `{name}`"), "`galen --help` lists them")
            })?
        }
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff)?;
    crate::stdout::print(&String::from_utf8_lossy(&roff))
}
