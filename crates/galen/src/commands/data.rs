//! `galen data inspect | check | split | dedup | contamination | align`.

mod align;
mod check;
mod contamination;
mod dedup;
mod inspect;
mod rows;
mod source;
mod split;

use crate::cli::{Globals, Limit};
use std::path::PathBuf;

/// Flags of `galen data`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with a data set.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Show what the model sees, with the trained tokens in colour
    Inspect(Inspect),
    /// Count rows, lengths, duplicates, empty turns, template problems, rows without supervision
    Check(Check),
    /// Split a file so that no group is on both sides
    Split(Split),
    /// Find rows that say the same, exactly or nearly, and write the rows without them
    Dedup(dedup::Dedup),
    /// Find training rows that repeat evaluation questions, and write the rows without them
    Contamination(contamination::Contamination),
    /// Say how far rows are from a target, and keep or weigh those that are nearest to it
    Align(align::Align),
}

/// Which rows, and what a model makes of them.
#[derive(Debug, Clone, clap::Args)]
pub struct Source {
    /// A configuration, or a data file or folder
    pub input: String,
    /// The model whose tokenizer and template are used; default: the configuration's `base_model`
    #[arg(long, short = 'm', value_name = "M")]
    pub model: Option<String>,
    /// The rows' type, where `input` is data, by name or as a map in YAML; default: detected
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// A chat template by name or file, where the model has none
    #[arg(long, alias = "chat_template", value_name = "T")]
    pub chat_template: Option<String>,
    /// Longest row in tokens, where `input` is data
    #[arg(long, alias = "sequence_len", value_name = "N")]
    pub sequence_len: Option<u64>,
    /// Override a key of the configuration
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Flags of `galen data inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// Which rows
    #[command(flatten)]
    pub source: Source,
    /// How far down the pipeline to look
    #[arg(long, value_enum, default_value_t = Stage::Tokenized)]
    pub stage: Stage,
    /// How many rows to show (packed: batches)
    #[arg(long, short = 'n', value_name = "N", default_value_t = 3)]
    pub rows: usize,
    /// How many to pass over first
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub skip: usize,
    /// Colour the output
    #[arg(long, value_enum, default_value_t = clap::ColorChoice::Auto)]
    pub color: clap::ColorChoice,
}

/// A door of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// Text with the supervised spans.
    Rendered,
    /// Tokens with the mask.
    Tokenized,
    /// A batch with its segments.
    Packed,
}

/// Flags of `galen data check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Which rows
    #[command(flatten)]
    pub source: Source,
}

/// Flags of `galen data split`.
#[derive(Debug, clap::Args)]
pub struct Split {
    /// A data file, a folder of them or a hub data set (of several splits, `train`)
    pub input: String,
    /// Rows with the same value of this field (`a.b`: a field of a field) stay together; default: equal rows do
    #[arg(long, alias = "group_by", value_name = "FIELD")]
    pub group_by: Option<String>,
    /// For the test file: a number of rows, or a share of the groups
    #[arg(long, value_name = "N|0.x", default_value = "0.1")]
    pub test: Limit,
    /// For a validation file: a number of rows, or a share of the groups
    #[arg(long, alias = "validation", value_name = "N|0.x")]
    pub val: Option<Limit>,
    /// Folder for `train.jsonl`, `test.jsonl` and `val.jsonl`
    #[arg(long, short, value_name = "DIR")]
    pub out: PathBuf,
    /// Seed of the choice
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
}

/// Looks at data, checks it, or makes other files of it.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<()> {
    match args.action {
        Action::Inspect(args) => inspect::run(&args, globals),
        Action::Check(args) => check::run(&args, globals),
        Action::Split(args) => split::run(&args, globals),
        Action::Dedup(args) => dedup::run(&args, globals),
        Action::Contamination(args) => contamination::run(&args, globals),
        Action::Align(args) => align::run(&args, globals),
    }
}
