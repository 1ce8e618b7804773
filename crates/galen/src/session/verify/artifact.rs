//! What lies at a path: a model or an adapter in one of the formats of `galen export`.

use super::super::Opened;
use anyhow::Context as _;
use galen_adapter::Adapter;
use galen_export::{
    AdapterFiles, MODELFILE, OLLAMA_MODEL, Over, adapter_files, expect_adapter_files, first_shape_difference,
    is_gguf_lora,
};
use galen_model::Weights;
use galen_model::tokenizer::Tokenizer;
use galen_model::weights::Gguf;
use std::path::Path;

/// Largest Modelfile read.
const MAX_MODELFILE_BYTES: u64 = 1 << 20;

/// An artifact, opened.
pub(super) struct Artifact {
    /// `gguf`, `gguf-lora`, `hf`, `mlx`, `peft` or `ollama`; `run` for the run directory itself.
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
        ]
        .into_iter()
        .find_map(|(is, kind)| is.then_some(kind))
        .or_else(|| adapter_files(path).map(AdapterFiles::name));
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
        let tokenizer = || Tokenizer::open(&file).context("its tokenizer").map(Some);
        let alone =
            if kind == "gguf" { is_gguf_lora(&Gguf::open(path)?) } else { !matches!(kind, "hf" | "ollama") };
        if alone {
            let files = expect_adapter_files(path)?;
            let over = Over { config, modules: &run.shapes() };
            let (adapter, _) = files.load(path, over, 0)?;
            let kind = if kind == "run" { kind } else { files.name() };
            // PEFT's folder comes with one; llama.cpp and mlx-lm serve adapters with the base's.
            let own = matches!(kind, "run" | "peft");
            let tokenizer = if own { tokenizer()? } else { None };
            return Ok(Self { kind, adapter: Some(adapter), tokenizer, ..nothing });
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
