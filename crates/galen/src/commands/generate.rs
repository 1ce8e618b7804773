//! `galen generate`.

use crate::cli::Globals;

/// Flags of `galen generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a folder, a `.gguf`, `ORG/REPO[@REV]`, a catalogue name; default: the adapter's recorded base
    #[arg(long, short = 'm', value_name = "M", required_unless_present = "adapter")]
    pub model: Option<String>,
    /// An adapter: a PEFT folder or a run directory
    #[arg(long, alias = "lora", value_name = "A")]
    pub adapter: Option<String>,
    /// The prompt; default: read from stdin
    #[arg(long, short, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// A system message; implies `--chat`
    #[arg(long, alias = "system_prompt", alias = "system-prompt", value_name = "TEXT")]
    pub system: Option<String>,
    /// Put the prompt through the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// At most so many new tokens
    #[arg(
        long,
        short = 'n',
        alias = "max_tokens",
        alias = "n-predict",
        value_name = "N",
        default_value_t = 256
    )]
    pub max_tokens: usize,
    /// Randomness: 0 takes the likeliest token always
    #[arg(long, alias = "temp", value_name = "X", default_value_t = 0.0)]
    pub temperature: f32,
    /// Choose among the N likeliest tokens; 0: all
    #[arg(long, alias = "top_k", value_name = "N", default_value_t = 0)]
    pub top_k: usize,
    /// Choose among the likeliest tokens that together have this probability
    #[arg(long, alias = "top_p", value_name = "X", default_value_t = 1.0)]
    pub top_p: f32,
    /// Leave out tokens less likely than this share of the likeliest
    #[arg(long, alias = "min_p", value_name = "X", default_value_t = 0.0)]
    pub min_p: f32,
    /// Divide the scores of tokens that were there already; 1: off
    #[arg(
        long,
        alias = "repeat_penalty",
        alias = "repetition-penalty",
        value_name = "X",
        default_value_t = 1.0
    )]
    pub repeat_penalty: f32,
    /// End where this text appears; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Seed of the choice; the same seed gives the same text
    #[arg(long, short, value_name = "N", default_value_t = 42)]
    pub seed: u64,
}

/// Completes the prompt, streaming to stdout.
pub fn run(_args: Args, _globals: &Globals) -> anyhow::Result<()> {
    anyhow::bail!("`galen generate` is not built yet")
}
