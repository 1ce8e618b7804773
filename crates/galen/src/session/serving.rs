//! A model and its adapters made ready to answer many at a time.

use super::base::{Base, TemplateChoice, compile_template};
use super::train::{is_adapter, open_adapter, resolve_run, saved_template};
use crate::config::native_compute;
use crate::error::UsageError;
use anyhow::Context as _;
use galen_data::template::{ChatTemplate, RenderOptions};
use galen_engine::{Encode, Engine as _, Input, LoadedAdapter, Loader, Native, NativeOptions, Worker};
use galen_eval::{Prompt, encode_prompt};
use galen_model::tokenizer::Tokenizer;
use galen_model::{LoadOptions, Model, StepKernels};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What `galen serve` and `galen run-batch` ask for alike.
#[derive(Debug, Clone, clap::Args)]
pub struct ServingOptions {
    /// The model: a folder, a `.gguf`, `ORG/REPO[@REV]`, a catalogue name; default: the first adapter's recorded base
    #[arg(long, short = 'm', value_name = "M", required_unless_present = "adapter")]
    pub model: Option<String>,
    /// An adapter and the name that requests know it by; may be repeated. Without `NAME=`: its folder's name
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
}

/// What a step of the batch goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kernels {
    /// [`StepKernels::Blocks`].
    Blocks,
    /// [`StepKernels::PassesApart`].
    Passes,
}

/// By its name in configurations.
pub(crate) fn serving_kernels(name: &str) -> Option<Kernels> {
    <Kernels as clap::ValueEnum>::from_str(name, false).ok()
}

/// Sequences at a time from which [`Kernels::Passes`] is faster.
const MANY: usize = 16;

pub(crate) fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "takes a whole number of 1 or more".into())
}

/// An engine with what it serves.
pub struct Serving {
    /// Takes requests.
    pub engine: Native,
    /// Answers them, once it is run.
    pub worker: Worker,
    /// Bytes of the base's weights.
    pub model_bytes: usize,
    /// What is served: names with their files, the base first.
    pub identity: Vec<(String, PathBuf)>,
    /// How answers are computed, as far as they depend on it.
    pub settings: String,
}

impl Serving {
    /// Finds and reads everything. `max_waiting`: requests that may wait.
    pub fn open(mut options: ServingOptions, max_waiting: usize, offline: bool) -> anyhow::Result<Self> {
        if options.adapter.is_empty() && options.model.as_deref().is_some_and(is_adapter) {
            options.adapter.extend(options.model.take());
        }
        let adapters =
            options.adapter.iter().map(|a| named_adapter(a)).collect::<anyhow::Result<Vec<_>>>()?;
        let (name, load) = match (&options.model, adapters.first()) {
            (Some(model), _) => {
                (model.clone(), LoadOptions { compute: native_compute(), ..LoadOptions::default() })
            }
            (None, Some((_, adapter))) => resolve_run(adapter, offline)?,
            (None, None) => return Err(UsageError::new("no model", "`--model M`").into()),
        };
        let base = Base::open(&name, offline)?;
        let many = if options.max_num_seqs >= MANY { Kernels::Passes } else { Kernels::Blocks };
        let (kernels, model) = match options.kernels.unwrap_or(many) {
            Kernels::Blocks => (StepKernels::Blocks, base.model(load)?),
            Kernels::Passes => (StepKernels::PassesApart, base.model_for_passes(load)?),
        };
        let chosen = options.chat_template.as_deref();
        let template = base.template(TemplateChoice { name: chosen, ..TemplateChoice::default() })?;
        let tokenizer = Arc::new(base.tokenizer);
        let own: Arc<dyn Encode> = Arc::new(Encoder { tokenizer: tokenizer.clone(), template });
        let reader =
            Reader { tokenizer: tokenizer.clone(), base: own.clone(), keeps_base: chosen.is_some(), offline };
        let read = adapters
            .iter()
            .map(|(name, path)| Ok((name, reader.read(path, &model)?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let base_name = options.served_model_name.unwrap_or_else(|| served_name(&name));
        let mut identity = vec![(base_name.clone(), base.resolved.path.clone())];
        identity.extend(read.iter().map(|(name, (_, path))| ((*name).clone(), path.clone())));
        let settings = format!(
            "{:?} {:?} {kernels:?} {chosen:?} {:?}",
            galen_ops::isa(),
            load.compute,
            options.max_model_len
        );
        let cache_bytes = options.cache_mib.map(|mib| (mib as u64) << 20);
        let native = NativeOptions {
            name: base_name,
            encode: own,
            kernels,
            max_sequences: options.max_num_seqs,
            max_waiting,
            max_model_tokens: options.max_model_len,
            cache_bytes: cache_bytes
                .or_else(|| galen_train::available_bytes().map(|free| free / 2))
                .unwrap_or(4 << 30),
        };
        let model_bytes = model.nbytes();
        let loader: Loader = Box::new(move |path, model| {
            reader.read(path, model).map(|(loaded, _)| loaded).map_err(|e| format!("{e:#}"))
        });
        let (engine, worker) = Native::new(model, tokenizer, native, loader);
        for (name, (loaded, _)) in read {
            engine.serve_adapter(name, loaded)?;
        }
        Ok(Self { engine, worker, model_bytes, identity, settings })
    }

    /// The base's name and those of the adapters.
    pub fn names(&self) -> Vec<String> {
        self.engine.models().into_iter().map(|m| m.name).collect()
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

/// Reads adapters over the base.
struct Reader {
    tokenizer: Arc<Tokenizer>,
    base: Arc<dyn Encode>,
    /// Whether a template was chosen for all.
    keeps_base: bool,
    offline: bool,
}

impl Reader {
    /// The adapter, and where it lies.
    fn read(&self, path: &str, model: &Model) -> anyhow::Result<(LoadedAdapter, PathBuf)> {
        let (adapter, found) = open_adapter(path, model, 0, self.offline)?;
        let saved = if self.keeps_base { None } else { saved_template(path, self.offline)? };
        let encode: Arc<dyn Encode> = match saved {
            Some(source) => {
                let template = compile_template(&self.tokenizer, &source, &[])
                    .with_context(|| format!("{path}/chat_template.jinja"))?;
                Arc::new(Encoder { tokenizer: self.tokenizer.clone(), template: Some(template) })
            }
            None => self.base.clone(),
        };
        Ok((LoadedAdapter { adapter, encode }, found))
    }
}

/// The way that `galen generate` and `galen eval` go from prompts to tokens.
struct Encoder {
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
}

impl Encode for Encoder {
    fn encode(&self, input: &Input) -> Result<Vec<u32>, String> {
        let prompt = match input {
            Input::Tokens(ids) => return Ok(ids.clone()),
            Input::Text(text) => Prompt::Plain(text.clone()),
            Input::Chat(messages) => {
                let Some(template) = &self.template else {
                    return Err(
                        "the model has no chat template: ask for a completion of a text, or have the server \
                                started with `--chat-template`"
                            .into(),
                    );
                };
                let text = template.render_prompt(messages, None, true, &RenderOptions::default());
                Prompt::Chat(text.map_err(|e| e.to_string())?)
            }
        };
        encode_prompt(&*self.tokenizer, &prompt).map_err(|e| e.to_string())
    }
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
