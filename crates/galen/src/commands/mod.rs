//! One file a command: its flags and its `run`.

mod check_folder;
pub mod completions;
pub mod data;
pub mod doctor;
pub mod estimate;
pub mod eval;
pub mod export;
pub mod generate;
pub mod init;
pub mod man;
pub mod merge;
pub mod models;
pub mod plan;
pub mod quickstart;
pub mod run_batch;
pub mod serve;
pub mod synth;
pub mod train;
pub mod verify;

use crate::cli::{Command, Globals};

/// Runs a command.
pub fn dispatch(command: Command, globals: &Globals) -> anyhow::Result<()> {
    match command {
        Command::Quickstart(args) => quickstart::run(args, globals),
        Command::Init(args) => init::run(args, globals),
        Command::Plan(args) => plan::run(args, globals),
        Command::Train(args) => train::run(args, "train", globals),
        Command::Align(args) => train::run(args, "align", globals),
        Command::Synth(args) => synth::run(args, globals),
        Command::Eval(args) => eval::run(args, globals),
        Command::Export(args) => export::run(args, globals),
        Command::Generate(args) => generate::run(args, globals),
        Command::Serve(args) => serve::run(args, globals),
        Command::RunBatch(args) => run_batch::run(args, globals),
        Command::Verify(args) => verify::run(&args, globals),
        Command::Merge(args) => merge::run(args, globals),
        Command::Models(args) => models::run(&args, globals),
        Command::Data(args) => data::run(args, globals),
        Command::Doctor(args) => doctor::run(&args, globals),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}
