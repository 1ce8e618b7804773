//! The device a run computes on, opened.

use crate::config::{Config, Device};
use crate::error::UsageError;
use crate::progress::say;
use galen_model::Weights;
use galen_ops::device::Accelerator;
use std::path::Path;

/// Opens what `device` names; nothing for the processor. Errors: a card that is not there or does not fit, a build without
/// kernels, a configuration they have nothing for.
pub fn open(config: &Config) -> anyhow::Result<Option<Accelerator>> {
    match config.device {
        Device::Cpu => Ok(None),
        Device::Auto => Ok(automatic(config)),
        Device::Cuda(n) => {
            refuse(config)?;
            card(n).map(Some)
        }
    }
}

/// Errors: a card is named, and it has no kernels for this configuration.
pub fn refuse(config: &Config) -> anyhow::Result<()> {
    match (config.device, without_kernels(config)) {
        (device @ Device::Cuda(_), Some((what, instead))) => {
            let message = format!("`device: {device}`: {what} is not supported there yet");
            Err(UsageError::new(message, format!("{instead}`device: cpu`")).into())
        }
        _ => Ok(()),
    }
}

/// What has no kernels yet, by the configuration and the adapter it goes on with; and what to set instead.
fn without_kernels(config: &Config) -> Option<(String, &'static str)> {
    config.without_kernels().or_else(|| {
        let folder = Path::new(config.lora_model_dir.as_ref()?);
        let text = std::fs::read(folder.join("adapter_config.json")).ok()?;
        let value: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let what = || format!("the DoRA adapter of `lora_model_dir: {}`", folder.display());
        (value["use_dora"] == true).then(|| (what(), ""))
    })
}

/// The device that was opened, if it has kernels for the base. Errors: it was named, and has none.
pub fn for_base(
    device: Option<Accelerator>,
    config: &Config,
    base: &Weights,
) -> anyhow::Result<Option<Accelerator>> {
    match (base.without_kernels(), config.device) {
        (Some(what), Device::Cuda(n)) => {
            let message =
                format!("`device: cuda:{n}`: {}: {what} is not supported there", base.path().display());
            Err(UsageError::new(message, "`device: cpu`").into())
        }
        (Some(what), _) if device.is_some() => {
            say(&format!("note: computing on the CPU, as {what} is not supported on a card"));
            Ok(None)
        }
        _ => Ok(device),
    }
}

/// The first card, where it can be had.
#[cfg(feature = "cuda")]
fn automatic(config: &Config) -> Option<Accelerator> {
    use galen_ops::cuda::{CudaError, cards};
    match cards() {
        Ok(cards) if !cards.is_empty() => {}
        Ok(_) | Err(CudaError::NoDriver { .. }) => return None,
        // There is a card, and something is the matter with it.
        Err(e) => {
            say(&format!("note: computing on the CPU: {e}"));
            return None;
        }
    }
    if let Some((what, _)) = without_kernels(config) {
        say(&format!("note: computing on the CPU, as {what} is not supported on a card yet"));
        return None;
    }
    card(0).inspect_err(|e| say(&format!("note: computing on the CPU: {e}"))).ok()
}

#[cfg(not(feature = "cuda"))]
fn automatic(_: &Config) -> Option<Accelerator> {
    None
}

#[cfg(feature = "cuda")]
fn card(ordinal: u32) -> anyhow::Result<Accelerator> {
    let gpu = galen_ops::cuda::Gpu::open(ordinal as usize)?;
    say(&format!("card {}", gpu.card()));
    Ok(Accelerator::new(&format!("cuda:{ordinal}"), gpu))
}

#[cfg(not(feature = "cuda"))]
fn card(ordinal: u32) -> anyhow::Result<Accelerator> {
    let message = format!("`device: cuda:{ordinal}`: this build has no CUDA kernels");
    let hint = "`cargo build --release --features cuda` (docs/cuda.md), or `device: cpu`";
    Err(UsageError::new(message, hint).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_on_with_dora_is_refused_where_a_card_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |dora: bool| {
            let text = format!("{{\"peft_type\": \"LORA\", \"use_dora\": {dora}}}");
            std::fs::write(dir.path().join("adapter_config.json"), text).unwrap();
        };
        let config = Config {
            device: Device::Cuda(0),
            lora_model_dir: Some(dir.path().display().to_string()),
            ..Config::default()
        };
        write(false);
        assert!(refuse(&config).is_ok());
        write(true);
        assert!(refuse(&config).unwrap_err().to_string().contains("DoRA adapter of"));
    }
}
