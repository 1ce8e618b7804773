//! Owns: the command line - flags, configuration files, printing, progress, exit codes.
//! Takes: arguments, a YAML configuration, signals.
//! Gives: results on stdout, everything else on stderr, an exit code (0, 1, 2, 130, 143).
//! Never: computes a gradient, reads a weight, or knows a file format of data or models.

pub mod cli;
pub mod commands;
pub mod config;
pub mod error;
pub mod plan;
pub mod profile;
pub mod progress;
pub mod session;
pub mod signals;
pub mod stdout;

/// Bytes the unit tests may hold: a parser that sizes a buffer by a number it did not check aborts them.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, 512 << 20);

/// Parses the process's arguments and runs the command. Returns the exit code; prints any error itself.
pub fn run() -> u8 {
    galen_ops::alloc::keep_freed_pages();
    let cli = match cli::Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(e) => {
            let code = e.exit_code();
            let _ = e.print();
            return u8::try_from(code).unwrap_or(error::EXIT_USAGE);
        }
    };
    match start(cli) {
        Ok(()) => error::EXIT_OK,
        Err(e) => {
            progress::say(&error::render(&e));
            error::exit_code(&e)
        }
    }
}

fn start(cli: cli::Cli) -> anyhow::Result<()> {
    progress::set_verbosity(cli.globals.verbose);
    if let Some(flag) = cli.globals.misplaced(&cli.command) {
        let (message, hint) = if cli.command.answers_on_a_card() {
            ("this command answers on one card", "choose it with `--device cuda:N`")
        } else {
            (
                "this command computes on the CPU",
                "leave it out: cards serve commands that train or answer (docs/cuda.md); for `galen synth` set `device` of its native engine",
            )
        };
        return Err(error::UsageError::new(format!("`{flag}`: {message}"), hint).into());
    }
    if let Err(e) = galen_ops::check_isa() {
        let text = e.to_string();
        let (what, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
        return Err(error::UsageError::new(what, hint).into());
    }
    let threads = cli.globals.threads.map_or(0, |n| usize::from(n.get()));
    // The stack that a main thread has: commands run on a thread of the pool, so that no operation need wake one.
    rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(8 << 20).build_global()?;
    rayon::scope(|_| commands::dispatch(cli.command, &cli.globals))
}
