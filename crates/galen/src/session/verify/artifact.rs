//! What lies at a path: a model or an adapter in one of the formats of `galen export`.

use super::super::Opened;
use anyhow::Context as _;
use galen_adapter::{Adapter, load_peft};
use galen_export::{MODELFILE, OLLAMA_MODEL, first_shape_difference, is_gguf_lora, load_gguf_lora};
use galen_model::Weights;
use galen_model::tokenizer::Tokenizer;
use galen_model::weights::Gguf;
use std::path::Path;

/// Largest Modelfile read.
const MAX_MODELFILE_BYTES: u64 = 1 << 20;

/// An artifact, opened.
pub(super) struct Artifact {
    /// `gguf`, `gguf-lora`, `hf`, `peft` or `ollama`; `run` for the run directory itself.
    pub kind: &'static str,
    /// The merged model, where it is one.
    pub weights: Option<Weights>,
    /// The adapter, where it is one.
    pub adapter: Option<Adapter>,
    /// Its own tokenizer; none in a GGUF adapter, which is served with its base's.
    pub tokenizer: Option<Tokenizer>,
    /// Ollama's Modelfile.
    pub modelfile: Option<String>,
}

/// The format of what lies at a path; none where it is no artifact.
pub(super) fn kind_of(path: &Path) -> Option<&'static str> {
    if path.is_dir() {
        let has = |name: &str| path.join(name).is_file();
        return [
            (has(MODELFILE) && has(OLLAMA_MODEL), "ollama"),
            (has("config.json"), "hf"),
            (has("run.json") && has("adapter_config.json"), "run"),
            (has("adapter_config.json"), "peft"),
        ]
        .into_iter()
        .find_map(|(is, kind)| is.then_some(kind));
    }
    let gguf = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    gguf.then_some("gguf")
}

impl Artifact {
    /// Opens what lies at `path` over the base of a run.
    ///
    /// Errors: no artifact, a broken file, another base.
    pub(super) fn open(path: &Path, run: &Opened) -> anyhow::Result<Self> {
        anyhow::ensure!(path.exists(), "there is no such file or folder");
        let Some(kind) = kind_of(path) else {
            anyhow::bail!("it is no model and no adapter\nhint: name what `galen export` wrote");
        };
        let config = run.base.weights.config();
        let nothing = Self { kind, weights: None, adapter: None, tokenizer: None, modelfile: None };
        let file = if kind == "ollama" { path.join(OLLAMA_MODEL) } else { path.to_owned() };
        if kind == "gguf" && is_gguf_lora(&Gguf::open(path)?) {
            let (adapter, _) = load_gguf_lora(path, config, &run.shapes())?;
            return Ok(Self { kind: "gguf-lora", adapter: Some(adapter), ..nothing });
        }
        let tokenizer = || Tokenizer::open(&file).context("its tokenizer").map(Some);
        if matches!(kind, "run" | "peft") {
            let (adapter, _) = load_peft(path, &run.shapes(), 0)?;
            return Ok(Self { adapter: Some(adapter), tokenizer: tokenizer()?, ..nothing });
        }
        let weights = Weights::open(&file)?;
        if let Some(difference) = first_shape_difference(config, weights.config()) {
            anyhow::bail!(
                "it is of another base than the run: {difference}\nhint: name what was exported from this run"
            );
        }
        let modelfile = if kind == "ollama" { Some(small_text(&path.join(MODELFILE))?) } else { None };
        Ok(Self { weights: Some(weights), tokenizer: tokenizer()?, modelfile, ..nothing })
    }
}

fn small_text(path: &Path) -> anyhow::Result<String> {
    let size = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
    anyhow::ensure!(size <= MAX_MODELFILE_BYTES, "{}: {size} bytes are too many", path.display());
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}
