//! A model read by mistralrs-core.

use super::MistralrsOptions;
use mistralrs_core::{
    AutoDeviceMapParams, DefaultSchedulerMethod, DeviceMapSetting, GGUFLoaderBuilder, GGUFSpecificConfig,
    Loader, MistralRs, MistralRsBuilder, ModelDType, NormalLoaderBuilder, NormalSpecificConfig,
    SchedulerConfig, TokenSource, parse_isq_value,
};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;

pub(super) fn load(options: &MistralrsOptions, runtime: &Runtime) -> Result<Arc<MistralRs>, String> {
    // mistralrs-core unwraps much of what it reads.
    let read = catch_unwind(AssertUnwindSafe(|| read(options, runtime)));
    read.unwrap_or_else(|_| Err("mistralrs-core panicked".into()))
        .map_err(|e| format!("{}: {e}", options.model.display()))
}

fn read(options: &MistralrsOptions, runtime: &Runtime) -> Result<Arc<MistralRs>, String> {
    let device = candle_core::Device::Cpu;
    let isq = options.isq.as_deref().map(|isq| parse_isq_value(isq, Some(&device))).transpose()?;
    let loader = if options.model.is_dir() { folder(options)? } else { gguf(options)? };
    let pipeline = loader.load_model_from_hf(
        None,
        TokenSource::None,
        &ModelDType::Auto,
        &device,
        true,
        DeviceMapSetting::Auto(AutoDeviceMapParams::default_text()),
        isq,
        None,
    );
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

fn folder(options: &MistralrsOptions) -> Result<Box<dyn Loader>, String> {
    let folder = options.model.display().to_string();
    let config = NormalSpecificConfig::default();
    let mut builder = NormalLoaderBuilder::new(config, None, None, Some(folder), false, None);
    if let Some(adapter) = &options.adapter {
        builder = builder.with_lora(vec![adapter.display().to_string()]);
    }
    builder.build(None).map_err(|e| format!("{e:#}"))
}
