//! The devices a run computes on, opened.

use crate::config::{Config, Device};
use crate::error::UsageError;
use crate::progress::{bytes, say};
use galen_model::Weights;
use galen_ops::device::{Accelerator, Backend as _, Group};

/// Opens what `device` and `gpus` name; nothing for the processor. Errors: a card that is not there or does not fit, a build
/// without kernels, a configuration they have nothing for.
pub fn open(config: &Config) -> anyhow::Result<Option<Group>> {
    refuse(config)?;
    match (wanted(config), config.device) {
        (Some(first), _) => group(first, config.gpus).map(Some),
        (None, Device::Auto) => Ok(automatic(config)),
        (None, _) => Ok(None),
    }
}

/// The first card, where cards are asked for, not merely welcome.
fn wanted(config: &Config) -> Option<u32> {
    match config.device {
        Device::Cuda(n) => Some(n),
        Device::Auto if config.gpus > 1 => Some(0),
        _ => None,
    }
}

/// The key that asks for cards.
fn asked(config: &Config, first: u32) -> String {
    if config.gpus > 1 { format!("gpus: {}", config.gpus) } else { format!("device: cuda:{first}") }
}

/// Errors: cards are asked for, and have no kernels for this configuration; or on the processor.
pub fn refuse(config: &Config) -> anyhow::Result<()> {
    if config.device == Device::Cpu && config.gpus > 1 {
        let message = format!("`gpus: {}` with `device: cpu`", config.gpus);
        return Err(UsageError::new(message, "keep one of them").into());
    }
    match (wanted(config), config.without_kernels()) {
        (Some(n), Some((what, instead))) => {
            let message = format!("`{}`: {what} is not supported there yet", asked(config, n));
            Err(UsageError::new(message, format!("{instead}`device: cpu`")).into())
        }
        _ => Ok(()),
    }
}

/// The devices that were opened, if they have kernels for the base. Errors: they were asked for, and have none.
pub fn for_base(device: Option<Group>, config: &Config, base: &Weights) -> anyhow::Result<Option<Group>> {
    match (base.without_kernels(), wanted(config)) {
        (Some(what), Some(n)) => {
            let message =
                format!("`{}`: {}: {what} is not supported there", asked(config, n), base.path().display());
            Err(UsageError::new(message, "`device: cpu`").into())
        }
        (Some(what), _) if device.is_some() => {
            say(&format!("note: computing on the CPU, as {what} is not supported on a card"));
            Ok(None)
        }
        _ => Ok(device),
    }
}

/// The card that a command answers on, as `--device` says: as for training. None: the processor.
pub fn for_answers(device: Option<Device>, base: &Weights) -> anyhow::Result<Option<Accelerator>> {
    let config = Config { device: device.unwrap_or_default(), ..Config::default() };
    let opened = for_base(open(&config)?, &config, base)?;
    let Some(on) = opened.and_then(|group| group.members().first().cloned()) else { return Ok(None) };
    match on.free_bytes() {
        // Keys and values come on top; what is asked for by name is tried all the same.
        Some(free) if config.device == Device::Auto && base.nbytes() as u64 > free => {
            let (needed, free) = (bytes(base.nbytes() as u64), bytes(free));
            say(&format!(
                "note: computing on the CPU, as the weights take {needed} and `{}` has {free} free",
                on.name()
            ));
            Ok(None)
        }
        _ => Ok(Some(on)),
    }
}

/// The first card, where it can be had.
#[cfg(feature = "cuda")]
fn automatic(config: &Config) -> Option<Group> {
    use galen_ops::cuda::{CudaError, cards};
    match cards() {
        Ok(cards) if !cards.is_empty() => {}
        Ok(_) | Err(CudaError::NoDriver) => return None,
        // There is a card, and something is the matter with it.
        Err(e) => {
            say(&format!("note: computing on the CPU: {e}"));
            return None;
        }
    }
    if let Some((what, _)) = config.without_kernels() {
        say(&format!("note: computing on the CPU, as {what} is not supported on a card yet"));
        return None;
    }
    group(0, 1).inspect_err(|e| say(&format!("note: computing on the CPU: {e}"))).ok()
}

#[cfg(not(feature = "cuda"))]
fn automatic(_: &Config) -> Option<Group> {
    None
}

#[cfg(feature = "cuda")]
fn group(first: u32, n: u64) -> anyhow::Result<Group> {
    use galen_ops::cuda::Gpu;
    let mut gpus = Vec::new();
    for ordinal in u64::from(first)..u64::from(first).saturating_add(n) {
        let gpu = Gpu::open(usize::try_from(ordinal)?)?;
        say(&format!("card {}", gpu.card()));
        gpu.note().into_iter().for_each(|note| say(&format!("note: {note}")));
        gpus.push(gpu);
    }
    alike(&gpus)?;
    let (sums, note) = if gpus.len() > 1 { galen_ops::cuda::sums(&gpus)? } else { (None, None) };
    note.into_iter().for_each(|note| say(&format!("note: {note}")));
    let named = |gpu: Gpu| Accelerator::new(&format!("cuda:{}", gpu.card().ordinal), gpu);
    let members = gpus.into_iter().map(named).collect();
    let opened = match sums {
        Some(nccl) => Group::new(members, std::sync::Arc::new(nccl))?,
        None => Group::by_host(members)?,
    };
    if opened.members().len() > 1 {
        say(&format!("{}: {}", opened.name(), opened.arithmetic()));
    }
    Ok(opened)
}

/// Each card steps for itself and all must come to the same bits: code of one kind rounds alike. Errors: cards of two kinds.
#[cfg(feature = "cuda")]
fn alike(gpus: &[galen_ops::cuda::Gpu]) -> anyhow::Result<()> {
    let Some((first, others)) = gpus.split_first() else { return Ok(()) };
    match others.iter().find(|gpu| gpu.card().capability != first.card().capability) {
        Some(other) => {
            let message =
                format!("cards of two kinds cannot train together: {}; {}", first.card(), other.card());
            let hint = "choose cards of one kind: CUDA_VISIBLE_DEVICES names them";
            Err(UsageError::new(message, hint).into())
        }
        None => Ok(()),
    }
}

#[cfg(not(feature = "cuda"))]
fn group(first: u32, n: u64) -> anyhow::Result<Group> {
    let what = if n > 1 { format!("gpus: {n}") } else { format!("device: cuda:{first}") };
    let message = format!("`{what}`: this build has no CUDA kernels");
    let hint = "`cargo build --release --features cuda` (docs/cuda.md), or `device: cpu`";
    Err(UsageError::new(message, hint).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_cards_are_no_matter_of_the_processor() {
        let on = |device, gpus, float32| Config { device, gpus, float32, ..Config::default() };
        let said = |config: Config| refuse(&config).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(said(on(Device::Cpu, 2, false)).starts_with("`gpus: 2` with `device: cpu`"));
        assert_eq!(said(on(Device::Cpu, 1, true)), "");
        // Asked for in number, they may not be done without.
        assert_eq!(said(on(Device::Auto, 1, true)), "");
        assert!(said(on(Device::Auto, 2, true)).starts_with("`gpus: 2`: computing in f32"));
        #[cfg(not(feature = "cuda"))]
        assert!(open(&on(Device::Auto, 2, false)).unwrap_err().to_string().contains("no CUDA kernels"));
    }
}
