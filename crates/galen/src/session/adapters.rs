//! Adapters by the names users write, whoever wrote their files.

use super::base::hub_bars;
use crate::config::native_compute;
use anyhow::Context as _;
use galen_adapter::{Adapter, BaseRecord, ModuleShape};
use galen_export::{Over, adapter_files, expect_adapter_files, is_gguf_lora};
use galen_hub::Options;
use galen_model::weights::Gguf;
use galen_model::{LoadOptions, Model, ModelConfig, Precision};
use galen_ops::ops::Compute;
use galen_train::module_shapes;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Largest chat template read.
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;
/// Largest record of a run read.
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// Where an adapter lies: a folder, or a GGUF file.
pub(super) fn find_adapter(name: &str, offline: bool) -> anyhow::Result<PathBuf> {
    Ok(galen_hub::resolve_adapter(name, &Options::from_env(offline, hub_bars()))?.path)
}

/// Opens an adapter for a model that writes: a folder of PEFT's or mlx-lm's, a GGUF file, a run directory or a hub name. Also
/// returns where it lies. Errors: a reward model's.
pub fn open_adapter(
    name: &str,
    model: &Model,
    seed: u64,
    offline: bool,
) -> anyhow::Result<(Adapter, PathBuf)> {
    let (adapter, path) = open_any_adapter(name, model, seed, offline)?;
    refuse_scorer(&adapter, &path, "use it in `reward_funcs` as `reward_model`")?;
    Ok((adapter, path))
}

/// Opens an adapter to write it elsewhere, by the projections of its base: no weight is read. Also returns where it lies and
/// the base its files name.
pub fn open_adapter_over(
    name: &str,
    config: &ModelConfig,
    modules: &[ModuleShape],
    offline: bool,
) -> anyhow::Result<(Adapter, PathBuf, BaseRecord)> {
    let path = find_adapter(name, offline)?;
    let (adapter, base) = galen_export::open_adapter(&path, Over { config, modules }, 0)?;
    Ok((adapter, path, base))
}

pub(super) fn refuse_scorer(adapter: &Adapter, path: &Path, hint: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        adapter.score_head().is_none(),
        "{}: the adapter is a reward model's: it scores answers and writes none\nhint: {hint}",
        path.display()
    );
    Ok(())
}

/// As [`open_adapter`], whatever the adapter is for. It lies where the model does.
pub(super) fn open_any_adapter(
    name: &str,
    model: &Model,
    seed: u64,
    offline: bool,
) -> anyhow::Result<(Adapter, PathBuf)> {
    let path = find_adapter(name, offline)?;
    let over = Over { config: &model.config, modules: &module_shapes(model) };
    let (mut adapter, _) = galen_export::open_adapter(&path, over, seed)?;
    if let Some(on) = model.device() {
        adapter.place_frozen(on)?;
    }
    Ok((adapter, path))
}

/// The base that an adapter or run directory records, and how it was held: what is measured is what was trained.
pub fn resolve_run(adapter: &str, offline: bool) -> anyhow::Result<(String, LoadOptions)> {
    let path = find_adapter(adapter, offline)?;
    let record = path.join("run.json");
    let value = if record.is_file() { run_record(&record)? } else { Value::Null };
    let name = match value["base_model"].as_str() {
        Some(name) => Some(name.to_owned()),
        None => expect_adapter_files(&path)?.base(&path)?.name,
    };
    let Some(name) = name else {
        anyhow::bail!("{adapter}: it names no base model\nhint: name it with `--model`")
    };
    let precision = match value["base_precision"].as_str() {
        None => Precision::Stored,
        Some(held) => Precision::from_name(held).with_context(|| {
            format!(
                "{}: `base_precision: {held}` is not known\nhint: a newer galen wrote it",
                record.display()
            )
        })?,
    };
    let compute = match value["compute"].as_str() {
        Some("f32") => Compute::F32,
        Some("bf16") => Compute::Bf16,
        _ => native_compute(),
    };
    Ok((name, LoadOptions { precision, compute, ..LoadOptions::default() }))
}

fn run_record(path: &Path) -> anyhow::Result<Value> {
    let shown = || path.display().to_string();
    let size = std::fs::metadata(path).with_context(shown)?.len();
    anyhow::ensure!(size <= MAX_RECORD_BYTES, "{}: {size} bytes are too many", path.display());
    let text = std::fs::read_to_string(path).with_context(shown)?;
    serde_json::from_str(&text).with_context(shown)
}

/// The chat template saved beside an adapter: the one it was trained with, which its base need not have.
pub fn saved_template(adapter: &str, offline: bool) -> anyhow::Result<Option<String>> {
    let path = find_adapter(adapter, offline)?.join("chat_template.jinja");
    let Ok(size) = std::fs::metadata(&path).map(|m| m.len()) else { return Ok(None) };
    anyhow::ensure!(size <= MAX_TEMPLATE_BYTES, "{}: {size} bytes is no chat template", path.display());
    Ok(Some(std::fs::read_to_string(&path).with_context(|| path.display().to_string())?))
}

/// Whether a model's name means an adapter, which stands for its base and itself: a run directory, say.
pub fn is_adapter(model: &str) -> bool {
    let path = Path::new(model);
    if path.is_file() {
        return adapter_files(path).is_some() && Gguf::open(path).is_ok_and(|file| is_gguf_lora(&file));
    }
    path.join("adapter_config.json").is_file() && !path.join("config.json").is_file()
}
