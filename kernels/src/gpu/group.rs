//! Sums over all cards of the machine, as training on several makes them.

use galen_ops::cuda::{Gpu, cards, sums};
use galen_ops::device::{Accelerator, Group, Memory};
use std::sync::Arc;

/// No power of two, and more than one piece of any ring.
const VALUES: usize = 3 * 1_000_003;

/// Who summed over how many cards; nothing where there is one alone.
pub fn check() -> Result<Option<String>, String> {
    let cards = cards().map_err(|e| e.to_string())?;
    // Those that train together: of one kind.
    let kind = cards.iter().map(|c| c.capability).max();
    let alike: Vec<usize> = cards.iter().filter(|c| Some(c.capability) == kind).map(|c| c.ordinal).collect();
    if alike.len() < 2 {
        return Ok(None);
    }
    let gpus = alike.into_iter().map(Gpu::open).collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    let (nccl, note) = sums(&gpus).map_err(|e| e.to_string())?;
    // A library that is there and fails is a failure here.
    if let Some(note) = note {
        return Err(note);
    }
    let named = |gpu: Gpu| Accelerator::new(&format!("cuda:{}", gpu.card().ordinal), gpu);
    let members = gpus.into_iter().map(named).collect();
    let group = match nccl {
        Some(nccl) => Group::new(members, Arc::new(nccl)),
        None => Group::by_host(members),
    };
    over(&group.map_err(|e| e.to_string())?).map(Some)
}

fn over(group: &Group) -> Result<String, String> {
    // Whole numbers, so that every order of adding gives the same.
    let of = |card: usize, i: usize| ((i * 31 + card * 17) % 1024) as f32;
    let text = |e: galen_ops::Error| e.to_string();
    let mut buffers: Vec<Memory> = Vec::new();
    for (card, on) in group.members().iter().enumerate() {
        buffers.push(on.upload_floats(&(0..VALUES).map(|i| of(card, i)).collect::<Vec<_>>()).map_err(text)?);
    }
    group.sum(&buffers.iter().collect::<Vec<_>>(), VALUES).map_err(text)?;
    for (on, buffer) in group.members().iter().zip(&buffers) {
        let found = on.download_floats(buffer).map_err(text)?;
        let want = |i: usize| (0..buffers.len()).map(|card| of(card, i)).sum::<f32>();
        if let Some(i) = (0..VALUES).find(|i| found.get(*i) != Some(&want(*i))) {
            return Err(format!("value {i} on {}: {:?} for {}", on.name(), found.get(i), want(i)));
        }
    }
    Ok(group.arithmetic())
}
