//! `galen eval`, `galen eval ls`, `galen eval validate`.

use crate::cli::{Globals, Limit};
use std::path::PathBuf;

/// Flags of `galen eval`. Names are lm-evaluation-harness's, with dashes or underscores.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    /// Other things to do with tasks
    #[command(subcommand)]
    pub action: Option<Action>,
    /// The model: a folder, a `.gguf`, `ORG/REPO[@REV]`, a catalogue name; default: the adapter's recorded base
    #[arg(long, short = 'm', value_name = "M", required_unless_present = "adapter")]
    pub model: Option<String>,
    /// An adapter (PEFT folder or run directory), compared with the base; may be repeated
    #[arg(long, alias = "peft", value_name = "A")]
    pub adapter: Vec<String>,
    /// Tasks, by name or YAML file, separated by commas
    #[arg(long, short = 't', alias = "task", value_name = "T[,T]", value_delimiter = ',', required = true)]
    pub tasks: Vec<String>,
    /// Examples before each question; default: the task's own number
    #[arg(long, short = 'f', alias = "num_fewshot", value_name = "N")]
    pub num_fewshot: Option<usize>,
    /// Put questions through the model's chat template
    #[arg(long, alias = "apply_chat_template")]
    pub apply_chat_template: bool,
    /// Only so many questions of each task, or such a share of them
    #[arg(long, short = 'L', value_name = "N|0.x")]
    pub limit: Option<Limit>,
    /// A folder with further task YAMLs; may be repeated
    #[arg(long, alias = "include_path", value_name = "DIR")]
    pub include_path: Vec<PathBuf>,
    /// A system message before each question
    #[arg(long, alias = "system_instruction", value_name = "TEXT")]
    pub system_instruction: Option<String>,
    /// Write every question with its scores beside the result, one JSONL a task
    #[arg(long, short = 's', alias = "log_samples")]
    pub log_samples: bool,
    /// Where the result goes as JSON
    #[arg(long, short = 'o', alias = "output_path", alias = "output-path", value_name = "FILE.json")]
    pub out: Option<PathBuf>,
    /// Seed of few-shot sampling and bootstrap
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
}

/// Other things to do with tasks.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// List the tasks there are
    Ls {
        /// A folder with further task YAMLs; may be repeated
        #[arg(long, alias = "include_path", value_name = "DIR")]
        include_path: Vec<PathBuf>,
    },
    /// Check a task without a model: its fields, prompts and choices on its own rows
    Validate {
        /// A task by name or YAML file
        task: String,
        /// A folder with further task YAMLs; may be repeated
        #[arg(long, alias = "include_path", value_name = "DIR")]
        include_path: Vec<PathBuf>,
    },
}

/// Evaluates a model and adapters on tasks.
pub fn run(_args: Args, _globals: &Globals) -> anyhow::Result<()> {
    anyhow::bail!("`galen eval` is not built yet")
}
