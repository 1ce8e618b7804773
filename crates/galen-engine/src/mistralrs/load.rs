//! A model read by mistralrs-core.

use super::MistralrsOptions;
use mistralrs_core::{
    AdapterPaths, AutoDeviceMapParams, DefaultSchedulerMethod, DeviceMapSetting, GGUFLoaderBuilder,
    GGUFSpecificConfig, Loader, LocalModelPaths, LoraAdapterPaths, MistralRs, MistralRsBuilder, ModelDType,
    ModelPaths, NormalLoaderBuilder, NormalSpecificConfig, SchedulerConfig, TokenSource, parse_isq_value,
};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Runtime;

pub(super) fn load(options: &MistralrsOptions, runtime: &Runtime) -> Result<Arc<MistralRs>, String> {
    // mistralrs-core unwraps much of what it reads.
    let read = catch_unwind(AssertUnwindSafe(|| read(options, runtime)));
    read.unwrap_or_else(|_| Err("mistralrs-core panicked".into()))
        .map_err(|e| format!("{}: {e}", options.model.display()))
}

fn read(options: &MistralrsOptions, runtime: &Runtime) -> Result<Arc<MistralRs>, String> {
    let device = match options.card {
        None => candle_core::Device::Cpu,
        Some(n) => candle_core::Device::new_cuda(n).map_err(|e| {
            format!(
                "card {n}: {e}\nhint: `--features flash-attn` builds mistralrs-core for cards (docs/cuda.md)"
            )
        })?,
    };
    let isq = options.isq.as_deref().map(|isq| parse_isq_value(isq, Some(&device))).transpose()?;
    // Left to itself it takes all cards, from the first on.
    let map = match options.card {
        None => DeviceMapSetting::Auto(AutoDeviceMapParams::default_text()),
        Some(_) => DeviceMapSetting::dummy(),
    };
    let pipeline = if options.model.is_dir() {
        // By paths: by its name mistralrs-core would ask the hub for an adapter, wherever it lies.
        let (loader, paths) = folder(options)?;
        // On the CPU half precision is neither faster nor as exact.
        let dtype = if device.is_cuda() { ModelDType::Auto } else { ModelDType::F32 };
        loader.load_model_from_path(&paths, &dtype, &device, true, map, isq, None)
    } else {
        let loader = gguf(options)?;
        loader.load_model_from_hf(None, TokenSource::None, &ModelDType::Auto, &device, true, map, isq, None)
    };
    let pipeline = pipeline.map_err(|e| format!("{e:#}"))?;
    let method = DefaultSchedulerMethod::Fixed(NonZeroUsize::MIN);
    let scheduler = SchedulerConfig::DefaultScheduler { method };
    Ok(runtime.block_on(MistralRsBuilder::new(pipeline, scheduler, false, None).build()))
}

fn gguf(options: &MistralrsOptions) -> Result<Box<dyn Loader>, String> {
    if options.adapter.is_some() {
        return Err("mistralrs-core takes an adapter over a folder of safetensors, not over GGUF\nhint: `galen export --format hf` makes such a folder".into());
    }
    if options.isq.is_some() {
        return Err("the weights of a GGUF file are quantised as they are\nhint: leave `--isq` out".into());
    }
    let (folder, name) = (options.model.parent().unwrap_or(Path::new(".")), options.model.file_name());
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let name = name.ok_or("no file")?.to_string_lossy().into_owned();
    let folder = folder.display().to_string();
    let config = GGUFSpecificConfig::default();
    Ok(GGUFLoaderBuilder::new(None, None, folder, vec![name], config, false, None).build())
}

fn folder(options: &MistralrsOptions) -> Result<(Box<dyn Loader>, Box<dyn ModelPaths>), String> {
    let file = |name: &str| Some(options.model.join(name)).filter(|path| path.is_file());
    let required = |name: &str| file(name).ok_or_else(|| format!("there is no `{name}`"));
    let weights = std::fs::read_dir(&options.model).map_err(|e| e.to_string())?;
    let weights = weights.flatten().map(|entry| entry.path());
    let mut filenames: Vec<PathBuf> =
        weights.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect();
    filenames.sort();
    let config = NormalSpecificConfig::default();
    let name = options.model.display().to_string();
    let mut builder = NormalLoaderBuilder::new(config, None, None, Some(name), false, None);
    let mut adapter_paths = AdapterPaths::None;
    if let Some(adapter) = &options.adapter {
        let config = adapter.join("adapter_config.json");
        let at = |e: &dyn std::fmt::Display| format!("{}: {e}", config.display());
        let text = std::fs::read_to_string(&config).map_err(|e| at(&e))?;
        let lora_config = serde_json::from_str(&text).map_err(|e| at(&e))?;
        let adapter_path = adapter.join("adapter_model.safetensors");
        adapter_paths = AdapterPaths::Lora(vec![LoraAdapterPaths { lora_config, adapter_path }]);
        builder = builder.with_lora(vec![adapter.display().to_string()]);
    }
    let paths = LocalModelPaths {
        tokenizer_filename: required("tokenizer.json")?,
        config_filename: required("config.json")?,
        template_filename: file("tokenizer_config.json"),
        filenames,
        adapter_paths,
        gen_conf: file("generation_config.json"),
        preprocessor_config: None,
        processor_config: None,
        chat_template_json_filename: None,
    };
    Ok((builder.build(None).map_err(|e| format!("{e:#}"))?, Box::new(paths)))
}
