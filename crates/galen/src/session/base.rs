//! A base model found, opened and ready.

use crate::config::Device;
use crate::plan::{ModelShape, packed_bytes};
use crate::progress::{Progress, Unit, say};
use anyhow::Context as _;
use galen_data::template::{ChatTemplate, SpecialTokens, builtin};
use galen_hub::{Options, Resolved};
use galen_model::tokenizer::Tokenizer;
use galen_model::{LoadOptions, Model, WeightCache, Weights};
use galen_ops::ops::Compute;
use std::path::Path;
use std::sync::Mutex;

/// A base model's files.
pub struct Base {
    /// As the user named it.
    pub name: String,
    /// Where it was found.
    pub resolved: Resolved,
    /// Its weights, mapped.
    pub weights: Weights,
    /// Its tokenizer, with its own chat template.
    pub tokenizer: Tokenizer,
}

/// What the configuration or the command line says of the template.
#[derive(Debug, Clone, Copy, Default)]
pub struct TemplateChoice<'a> {
    /// `chat_template`: a built-in name, `tokenizer_default`, `tokenizer_default_fallback_NAME`, `jinja`, or (on the
    /// command line) a file.
    pub name: Option<&'a str>,
    /// `chat_template_jinja`: the text, or a file.
    pub jinja: Option<&'a str>,
    /// `eot_tokens`.
    pub eot: &'a [String],
}

/// Shows downloads as bars.
pub fn hub_bars() -> &'static dyn galen_hub::Progress {
    static BARS: Bars = Bars { bar: Mutex::new(None) };
    &BARS
}

struct Bars {
    bar: Mutex<Option<Progress>>,
}

impl galen_hub::Progress for Bars {
    fn trying(&self, name: &str, source: &str) {
        say(&format!("{name}: trying {source}"));
    }
    fn failed(&self, source: &str, why: &str) {
        say(&format!("  {source}: {why}"));
    }
    fn note(&self, text: &str) {
        say(&format!("  {text}"));
    }
    fn start(&self, file: &str, done: u64, total: Option<u64>) {
        let bar = Progress::new(file, total.unwrap_or(0), Unit::Bytes);
        bar.set(done);
        if let Ok(mut slot) = self.bar.lock() {
            *slot = Some(bar);
        }
    }
    fn advance(&self, bytes: u64) {
        if let Ok(slot) = self.bar.lock()
            && let Some(bar) = &*slot
        {
            bar.inc(bytes);
        }
    }
    fn finish(&self) {
        if let Ok(mut slot) = self.bar.lock() {
            *slot = None;
        }
    }
}

impl Base {
    /// Finds and opens a model by any of the names `galen --help` lists.
    pub fn open(name: &str, offline: bool) -> anyhow::Result<Self> {
        let resolved = galen_hub::resolve_model(name, &Options::from_env(offline, hub_bars()))?;
        let weights = Weights::open(&resolved.path)?;
        let tokenizer =
            Tokenizer::open(&resolved.path).with_context(|| resolved.path.display().to_string())?;
        Ok(Self { name: name.to_owned(), resolved, weights, tokenizer })
    }

    /// Takes the weights.
    pub fn model(&self, options: LoadOptions) -> anyhow::Result<Model> {
        Ok(Model::load(&self.weights, options)?)
    }

    /// Takes the weights for many long passes: packed where that takes at most half of the memory that is free.
    pub fn model_for_passes(&self, options: LoadOptions) -> anyhow::Result<Model> {
        let packed = packed_bytes(&ModelShape::from(self.weights.config()));
        let room = galen_train::available_bytes().map_or(f64::INFINITY, |free| free as f64 / 2.0);
        let weight_cache = if packed <= room { WeightCache::Packed } else { WeightCache::Stream };
        self.model(LoadOptions { weight_cache, ..options })
    }

    /// Takes the weights to answer with: onto the card that `--device` names, or as `here` has it for the processor. A card
    /// computes in bf16, from the stored blocks.
    pub fn answering(
        &self,
        device: Option<Device>,
        load: LoadOptions,
        here: impl FnOnce(&Self, LoadOptions) -> anyhow::Result<Model>,
    ) -> anyhow::Result<Model> {
        let Some(on) = super::device::for_answers(device, &self.weights)? else { return here(self, load) };
        if load.compute == Compute::F32 {
            say(&format!("note: `{}` computes in bf16, where the processor would in f32", on.name()));
        }
        let load =
            LoadOptions { precision: load.precision, compute: Compute::Bf16, ..LoadOptions::default() };
        Ok(self.model(load)?.onto(&on)?)
    }

    /// The chat template of that choice; none where the model has none and nothing else was said.
    pub fn template(&self, choice: TemplateChoice<'_>) -> anyhow::Result<Option<ChatTemplate>> {
        template_of(&self.tokenizer, choice)
    }

    /// The chat template of that choice, or an error that says how to name one.
    pub fn required_template(&self, choice: TemplateChoice<'_>) -> anyhow::Result<ChatTemplate> {
        self.template(choice)?.with_context(|| {
            let names: Vec<&str> = galen_data::template::BUILTIN.iter().map(|b| b.name).collect();
            let names = names.join(", ");
            format!("{}: the model has no chat template\nhint: set `chat_template:` (for a command without a configuration `--chat-template`) to one of {names}, or to a file", self.name)
        })
    }
}

/// The chat template of that choice, for a tokenizer; none where it has none and nothing else was said.
pub(super) fn template_of(
    tokenizer: &Tokenizer,
    choice: TemplateChoice<'_>,
) -> anyhow::Result<Option<ChatTemplate>> {
    let own = tokenizer.chat_template();
    let source = match (choice.name, choice.jinja) {
        (_, Some(jinja)) => Some(text_or_file(jinja)?),
        (None | Some("tokenizer_default"), None) => own.map(str::to_owned),
        (Some(name), None) => match name.strip_prefix("tokenizer_default_fallback_") {
            Some(fallback) => own.map(str::to_owned).or(Some(named(fallback)?)),
            None => Some(named(name)?),
        },
    };
    source.map(|s| compile_template(tokenizer, &s, choice.eot)).transpose()
}

/// A template with the special tokens of a tokenizer.
pub(super) fn compile_template(
    tokenizer: &Tokenizer,
    source: &str,
    eot: &[String],
) -> anyhow::Result<ChatTemplate> {
    let special = SpecialTokens {
        named: tokenizer.special_tokens().clone(),
        control: tokenizer.control_tokens(),
        eot: eot.to_vec(),
    };
    Ok(ChatTemplate::new(source, special)?)
}

fn named(name: &str) -> anyhow::Result<String> {
    match builtin(name) {
        Some(builtin) => Ok(builtin.source.to_owned()),
        None => text_or_file(name),
    }
}

/// A template is a file where there is one of that name, else its own text.
fn text_or_file(text: &str) -> anyhow::Result<String> {
    let looks_like_text = text.contains("{{") || text.contains("{%") || text.contains('\n');
    if looks_like_text {
        return Ok(text.to_owned());
    }
    let path = Path::new(text);
    let size = std::fs::metadata(path).with_context(|| format!("chat template `{text}`"))?.len();
    anyhow::ensure!(size <= 1 << 20, "chat template `{text}`: {size} bytes is more than 1 MiB");
    std::fs::read_to_string(path).with_context(|| format!("chat template `{text}`"))
}
