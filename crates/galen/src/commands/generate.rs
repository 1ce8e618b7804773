//! `galen generate`.

use crate::cli::Globals;
use crate::config::native_compute;
use crate::error::UsageError;
use crate::session::{
    Base, GenerateOptions, TemplateChoice, fast_decode, generate, is_adapter, open_adapter, positive,
    resolve_run, saved_template,
};
use crate::stdout;
use galen_data::template::RenderOptions;
use galen_eval::{Prompt, encode_prompt};
use galen_model::{LoadOptions, Sampling};
use galen_ops::hook::ProjectionHook;
use serde_json::json;
use std::io::Read as _;

/// Flags of `galen generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a folder, a `.gguf`, `ORG/REPO[@REV]`, a catalogue name; default: the adapter's recorded base
    #[arg(long, short = 'm', value_name = "M", required_unless_present = "adapter")]
    pub model: Option<String>,
    /// An adapter: a folder of PEFT's or mlx-lm's, a GGUF adapter, a run directory
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
    /// A chat template by name or file; default: the one saved with the adapter, else the model's own
    #[arg(long, alias = "chat_template", value_name = "T")]
    pub chat_template: Option<String>,
    /// At most so many new tokens
    #[arg(
        long,
        short = 'n',
        alias = "max_tokens",
        alias = "n-predict",
        value_name = "N",
        default_value_t = 256,
        value_parser = positive
    )]
    pub max_tokens: usize,
    /// Randomness: 0 takes the likeliest token always
    #[arg(long, alias = "temp", value_name = "X", default_value_t = 0.0, value_parser = temperature)]
    pub temperature: f32,
    /// Choose among the N likeliest tokens; 0: all
    #[arg(long, alias = "top_k", value_name = "N", default_value_t = 0)]
    pub top_k: usize,
    /// Choose among the likeliest tokens that together have this probability
    #[arg(long, alias = "top_p", value_name = "X", default_value_t = 1.0, value_parser = share)]
    pub top_p: f32,
    /// Leave out tokens less likely than this share of the likeliest
    #[arg(long, alias = "min_p", value_name = "X", default_value_t = 0.0, value_parser = share)]
    pub min_p: f32,
    /// Divide the scores of tokens that were there already; 1: off
    #[arg(
        long,
        alias = "repeat_penalty",
        alias = "repetition-penalty",
        value_name = "X",
        default_value_t = 1.0,
        value_parser = penalty,
        allow_negative_numbers = true
    )]
    pub repeat_penalty: f32,
    /// End where this text appears; may be repeated
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
    /// Seed of the choice; the same seed gives the same text
    #[arg(long, short, value_name = "N", default_value_t = 42)]
    pub seed: u64,
    /// Decode with integer dot products: faster, not to the bit what was trained; says how far off it is
    #[arg(long, alias = "fast_decode")]
    pub fast_decode: bool,
}

/// A number within a range, as the server takes it.
fn within(text: &str, range: std::ops::RangeInclusive<f32>) -> Result<f32, String> {
    let (low, high) = (range.start(), range.end());
    text.parse().ok().filter(|x| range.contains(x)).ok_or_else(|| format!("takes {low} to {high}"))
}

fn temperature(text: &str) -> Result<f32, String> {
    within(text, 0.0..=2.0)
}

fn share(text: &str) -> Result<f32, String> {
    within(text, 0.0..=1.0)
}

fn penalty(text: &str) -> Result<f32, String> {
    within(text, 0.01..=100.0)
}

/// Completes the prompt, streaming to stdout.
pub fn run(mut args: Args, globals: &Globals) -> anyhow::Result<()> {
    if args.adapter.is_none() && args.model.as_deref().is_some_and(is_adapter) {
        args.adapter = args.model.take();
    }
    let (name, options_of_model) = match (&args.model, &args.adapter) {
        (Some(model), _) => {
            (model.clone(), LoadOptions { compute: native_compute(), ..LoadOptions::default() })
        }
        (None, Some(adapter)) => resolve_run(adapter, globals.offline)?,
        (None, None) => return Err(UsageError::new("no model", "`--model M`").into()),
    };
    let base = Base::open(&name, globals.offline)?;
    let device = fast_decode::device(args.fast_decode, globals.device)?;
    // A copy for whichever of the two decodes.
    let here = |base: &Base, load| base.model(LoadOptions { interleave: !args.fast_decode, ..load });
    let model = base.answering(device, options_of_model, here)?;
    let adapter = args.adapter.as_deref().map(|a| open_adapter(a, &model, 0, globals.offline)).transpose()?;
    let prompt = match args.prompt {
        Some(prompt) => prompt,
        None => read_prompt()?,
    };
    let saved = match (&args.chat_template, &args.adapter) {
        (None, Some(adapter)) => saved_template(adapter, globals.offline)?,
        _ => None,
    };
    let name = args.chat_template.as_deref();
    let choice = TemplateChoice { name, jinja: saved.as_deref(), eot: &[] };
    let chat = args.chat || args.system.is_some();
    if args.chat_template.is_some() && !chat {
        let message = "`--chat-template` without `--chat`: the prompt goes to the model as it is";
        return Err(UsageError::new(message, "add `--chat`, or leave it out").into());
    }
    let ids = if chat {
        let template = base.required_template(choice)?;
        let mut messages = Vec::new();
        messages.extend(args.system.map(|s| json!({"role": "system", "content": s})));
        messages.push(json!({"role": "user", "content": prompt}));
        let text = template.render_prompt(&messages, None, true, &RenderOptions::default())?;
        encode_prompt(&base.tokenizer, &Prompt::Chat(text))
    } else {
        encode_prompt(&base.tokenizer, &Prompt::Plain(prompt))
    };
    let ids = ids.map_err(|e| anyhow::anyhow!(e))?;
    let options = GenerateOptions {
        max_tokens: args.max_tokens,
        stop: &args.stop,
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            repeat_penalty: args.repeat_penalty,
            seed: args.seed,
        },
        goes_on: !chat,
    };
    let hook = adapter.as_ref().map(|(a, _)| a as &dyn ProjectionHook);
    let fast = args.fast_decode.then(|| base.model(fast_decode::options(options_of_model))).transpose()?;
    if let Some(fast) = &fast {
        fast_decode::say(fast_decode::measure(&model, fast, hook, &[&ids])?);
    }
    let model = fast.as_ref().unwrap_or(&model);
    let mut text = String::new();
    let mut show = |piece: &str| {
        text.push_str(piece);
        if globals.json { Ok(()) } else { stdout::print(piece).map_err(std::io::Error::other) }
    };
    let tokens = generate(model, hook, &base.tokenizer, &ids, &options, &mut show)?;
    if globals.json {
        return stdout::print_json(&json!({"text": text, "prompt_tokens": ids.len(), "tokens": tokens}));
    }
    stdout::print("\n")
}

/// The whole of stdin, at most 16 MiB, without its last line end.
fn read_prompt() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().take(16 << 20).read_to_string(&mut text)?;
    Ok(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text))
}
