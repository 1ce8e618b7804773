//! A model and its adapters made ready to answer many at a time.

mod encoder;
#[cfg(feature = "mistralrs")]
mod mistralrs;
mod native;

use super::adapters::{is_adapter, resolve_run};
use super::base::TemplateChoice;
use crate::config::{Device, native_compute};
use crate::error::UsageError;
use galen_engine::Engine;
use galen_model::LoadOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What `galen serve` and `galen run-batch` ask for alike.
#[derive(Debug, Clone, clap::Args)]
pub struct ServingOptions {
    /// `--device`.
    #[arg(skip)]
    pub device: Device,
    /// The model: a folder, a `.gguf`, `ORG/REPO[@REV]`, a catalogue name; default: the first adapter's recorded base
    #[arg(long, short = 'm', value_name = "M", required_unless_present = "adapter")]
    pub model: Option<String>,
    /// An adapter (a folder of PEFT's or mlx-lm's, a GGUF adapter, a run directory) and the name that requests know it by; may
    /// be repeated. Without `NAME=`: its folder's or file's name
    #[arg(long, visible_alias = "lora-modules", alias = "lora_modules", value_name = "NAME=A", num_args = 1..)]
    pub adapter: Vec<String>,
    /// The name that requests know the base by; default: as `--model` has it, a file's or folder's name without its path
    #[arg(long, alias = "served_model_name", value_name = "NAME")]
    pub served_model_name: Option<String>,
    /// A chat template by name or file for all; default: the one saved with an adapter, else the model's own
    #[arg(long, alias = "chat_template", value_name = "T")]
    pub chat_template: Option<String>,
    /// Most sequences computed together
    #[arg(long, alias = "max_num_seqs", value_name = "N", default_value_t = 32, value_parser = positive)]
    pub max_num_seqs: usize,
    /// What a step of the batch goes through: `blocks`, the stored weights as they are, for a few sequences at a time;
    /// `passes`, products as training has them, twice as fast for many and half as fast for one; default: `passes` from
    /// `--max-num-seqs 16` on
    #[arg(long, value_name = "K")]
    pub kernels: Option<Kernels>,
    /// Most tokens of a prompt and its answer; default: the model's own limit
    #[arg(long, alias = "max_model_len", value_name = "N", value_parser = positive)]
    pub max_model_len: Option<usize>,
    /// Memory for keys and values, in MiB; default: half of what is free
    #[arg(long, alias = "cache_mib", value_name = "MIB", value_parser = positive)]
    pub cache_mib: Option<usize>,
    /// What computes: `native`, galen's own model; `mistralrs`, mistralrs-core, which knows more architectures (one
    /// adapter, over a folder of safetensors)
    #[arg(long, value_name = "E", default_value = "native")]
    pub engine: EngineName,
    /// Quantise the weights of a folder when they are read: `Q8_0`, `Q4K`, `8`, `4` ... (`--engine mistralrs`)
    #[arg(long, value_name = "Q")]
    pub isq: Option<String>,
}

/// What a step of the batch goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kernels {
    /// The stored weights as they are
    Blocks,
    /// Training's products, over a copy of the weights
    Passes,
}

/// By its name in configurations.
pub(crate) fn serving_kernels(name: &str) -> Option<Kernels> {
    <Kernels as clap::ValueEnum>::from_str(name, false).ok()
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineName {
    /// galen's own model
    Native,
    /// mistralrs-core, in builds with the cargo feature `mistralrs`
    Mistralrs,
}

pub(crate) fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "takes a whole number of 1 or more".into())
}

/// An engine with what it serves.
pub struct Serving {
    /// Takes requests.
    pub engine: Arc<dyn Engine>,
    /// Answers them, until the engine is stopped.
    pub worker: Box<dyn FnOnce() + Send>,
    /// Bytes of the base's weights.
    pub model_bytes: u64,
    /// What is served: names with their files, the base first.
    pub identity: Vec<(String, PathBuf)>,
    /// How answers are computed, as far as they depend on it.
    pub settings: String,
}

/// What an engine is opened with.
struct Asked {
    options: ServingOptions,
    /// Names and adapters.
    adapters: Vec<(String, String)>,
    /// The base as the user, or the first adapter, names it.
    base: String,
    load: LoadOptions,
    max_waiting: usize,
    offline: bool,
}

impl Serving {
    /// Finds and reads everything. `max_waiting`: requests that may wait.
    pub fn open(mut options: ServingOptions, max_waiting: usize, offline: bool) -> anyhow::Result<Self> {
        if options.adapter.is_empty() && options.model.as_deref().is_some_and(is_adapter) {
            options.adapter.extend(options.model.take());
        }
        let adapters =
            options.adapter.iter().map(|a| named_adapter(a)).collect::<anyhow::Result<Vec<_>>>()?;
        let (base, load) = match (&options.model, adapters.first()) {
            (Some(model), _) => {
                (model.clone(), LoadOptions { compute: native_compute(), ..LoadOptions::default() })
            }
            (None, Some((_, adapter))) => resolve_run(adapter, offline)?,
            (None, None) => return Err(UsageError::new("no model", "`--model M`").into()),
        };
        let asked = Asked { options, adapters, base, load, max_waiting, offline };
        match asked.options.engine {
            EngineName::Native => native::open(asked),
            #[cfg(feature = "mistralrs")]
            EngineName::Mistralrs => mistralrs::open(asked),
            #[cfg(not(feature = "mistralrs"))]
            EngineName::Mistralrs => {
                let hint =
                    "`cargo install --locked --path crates/galen --features mistralrs`, or `--engine native`";
                Err(UsageError::new("this galen was built without mistralrs-core", hint).into())
            }
        }
    }

    /// The base's name and those of the adapters.
    pub fn names(&self) -> Vec<String> {
        self.engine.models().into_iter().map(|m| m.name).collect()
    }
}

impl Asked {
    /// The template that the command line names.
    fn template(&self) -> TemplateChoice<'_> {
        TemplateChoice { name: self.options.chat_template.as_deref(), ..TemplateChoice::default() }
    }

    /// What requests know the base by.
    fn base_name(&self) -> String {
        self.options.served_model_name.clone().unwrap_or_else(|| served_name(&self.base))
    }
}

/// `NAME=A`, or a folder with its own name.
fn named_adapter(text: &str) -> anyhow::Result<(String, String)> {
    let (name, path) = match text.split_once('=') {
        Some((name, path)) => (name.to_owned(), path.to_owned()),
        None => (served_name(text), text.to_owned()),
    };
    if name.is_empty() || path.is_empty() {
        return Err(UsageError::new(format!("`--adapter {text}`"), "`--adapter NAME=FOLDER`").into());
    }
    Ok((name, path))
}

/// What clients are to know of a path: its last part. Other names stay as they are.
fn served_name(name: &str) -> String {
    let path = Path::new(name);
    let last = path.file_name().filter(|_| path.exists()).map(|n| n.to_string_lossy().into_owned());
    let last = last.unwrap_or_else(|| name.to_owned());
    last.strip_suffix(".gguf").map(str::to_owned).unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_have_names() {
        assert_eq!(named_adapter("a=b/c").unwrap(), ("a".into(), "b/c".into()));
        assert_eq!(named_adapter("some/repo").unwrap(), ("some/repo".into(), "some/repo".into()));
        let here = std::env::current_dir().unwrap();
        let name = here.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(served_name(&here.display().to_string()), name);
        assert!(named_adapter("=x").is_err() && named_adapter("x=").is_err());
    }
}
