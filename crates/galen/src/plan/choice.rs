//! What `weight_cache: auto` and `gradient_checkpointing: auto` take.

use super::ModelShape;
use super::memory::{AdapterShape, Memory, Mode, PassShape, memory};
use crate::config::Config;
use crate::config::types::{Checkpointing, WeightCache as CacheKey};
use crate::progress::bytes;
use galen_model::weights::HeldBytes;
use galen_model::{LoadOptions, WeightCache};
use galen_ops::device::{Accelerator, Backend as _, Group};
use galen_ops::ops::Compute;

/// Share of the memory that is free, where `max_memory` says nothing.
const SHARE_OF_FREE: f64 = 0.8;

/// What a run may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Bytes.
    pub bytes: u64,
    /// Set by `max_memory`, not found on the machine.
    pub set: bool,
}

impl Limit {
    /// `max_memory` of the processor, else a share of what is free.
    pub fn of(config: &Config) -> Self {
        if let Some(bytes) = config.max_memory.0.get("cpu") {
            return Self { bytes: *bytes, set: true };
        }
        let free = galen_train::available_bytes();
        let bytes = free.map_or(u64::MAX, |free| (free as f64 * SHARE_OF_FREE) as u64);
        Self { bytes, set: false }
    }

    /// Of cards, the fullest of them, as all hold the same.
    pub fn of_cards(config: &Config, cards: &Group) -> Self {
        let all = cards.members().iter().map(|card| Self::of_card(config, card));
        all.min_by_key(|limit| limit.bytes).unwrap_or_else(|| Self::of(config))
    }

    /// `max_memory` under the card's number, else a share of what is free there. The arithmetic is the processor's, whose
    /// activations are wider: what fits by it fits.
    fn of_card(config: &Config, card: &Accelerator) -> Self {
        let number = card.name().rsplit(':').next().unwrap_or_default();
        if let Some(bytes) = config.max_memory.0.get(number) {
            return Self { bytes: *bytes, set: true };
        }
        let free = card.free_bytes();
        Self { bytes: free.map_or(u64::MAX, |free| (free as f64 * SHARE_OF_FREE) as u64), set: false }
    }

    fn name(self) -> String {
        let what = if self.set { "`max_memory`" } else { "four fifths of the free memory" };
        format!("{what} ({})", bytes(self.bytes))
    }
}

/// A mode, its memory and why it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// What runs.
    pub mode: Mode,
    /// Its memory.
    pub memory: Memory,
    /// No mode that the keys allow is faster.
    pub fastest: bool,
    /// One line on what `auto` took; none where nothing was left to it.
    pub why: Option<String>,
    /// One line where not even this fits.
    pub warning: Option<String>,
}

/// The fastest mode that the keys allow and that fits: packed before streamed, kept before recomputed (which costs a
/// third more time, streaming a tenth). Where none fits, the smallest.
pub fn choose(
    config: &Config,
    model: &ModelShape,
    held: HeldBytes,
    adapter: AdapterShape,
    pass: PassShape,
    limit: Limit,
) -> Choice {
    let compute = config.compute();
    let caches: &[WeightCache] = match config.weight_cache {
        // f32 products read the stored blocks.
        _ if compute == Compute::F32 => &[WeightCache::Stream],
        CacheKey::Bf16 => &[WeightCache::Packed],
        CacheKey::Stream => &[WeightCache::Stream],
        CacheKey::Auto => &[WeightCache::Packed, WeightCache::Stream],
    };
    let recomputes: &[bool] = match config.gradient_checkpointing {
        Checkpointing::On => &[true],
        Checkpointing::Off => &[false],
        Checkpointing::Auto => &[false, true],
    };
    let precision = config.base_precision();
    let modes: Vec<Choice> = recomputes
        .iter()
        .flat_map(|recompute| caches.iter().map(move |cache| (*recompute, *cache)))
        .map(|(recompute, weight_cache)| {
            let mode = Mode {
                load: LoadOptions { precision, compute, weight_cache, ..LoadOptions::default() },
                recompute,
            };
            let memory = memory(model, held, adapter, pass, mode);
            Choice { mode, memory, fastest: false, why: None, warning: None }
        })
        .collect();
    let fits = |c: &Choice| c.memory.total_bytes <= limit.bytes;
    let place = modes.iter().position(fits);
    let smallest = || (0..modes.len()).min_by_key(|i| modes[*i].memory.total_bytes);
    let taken = place.or_else(smallest).unwrap_or(0);
    let mut choice = Choice { fastest: taken == 0, ..modes[taken].clone() };
    if modes.len() > 1 {
        let mut set = Vec::new();
        if caches.len() > 1 {
            let packed = choice.mode.load.weight_cache == WeightCache::Packed;
            set.push(format!("`weight_cache: {}`", if packed { "bf16" } else { "stream" }));
        }
        if recomputes.len() > 1 {
            set.push(format!("`gradient_checkpointing: {}`", choice.mode.recompute));
        }
        let mut line = format!("auto: {}, about {}", set.join(", "), bytes(choice.memory.total_bytes));
        if let Some(faster) = taken.checked_sub(1).filter(|_| place.is_some()) {
            let faster = bytes(modes[faster].memory.total_bytes);
            line.push_str(&format!(": the next faster takes {faster} of {}", limit.name()));
        } else if limit.bytes < u64::MAX {
            line.push_str(&format!(" of {}", limit.name()));
        }
        choice.why = Some(line);
    }
    if place.is_none() {
        let mut helps = vec!["a smaller `micro_batch_size` (with more `gradient_accumulation_steps`)"];
        helps.push("a smaller `sequence_len`");
        if !choice.mode.recompute {
            helps.push("`gradient_checkpointing: auto`");
        }
        if choice.mode.load.weight_cache == WeightCache::Packed {
            helps.push("`weight_cache: stream`");
        }
        choice.warning = Some(format!(
            "about {} are needed, {} is less; what helps: {}",
            bytes(choice.memory.total_bytes),
            limit.name(),
            helps.join(", ")
        ));
    }
    choice
}
