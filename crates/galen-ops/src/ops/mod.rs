//! The differentiable operations. Each is a struct that holds what is frozen, with a slow, obvious `_ref` twin in
//! its tests. Shape letters: T tokens, C hidden size, H heads, G key-value heads, D head size, F feed-forward size,
//! V vocabulary, R rank.

mod add;
mod attention;
mod decode_attention;
mod dropout;
mod embedding;
mod embedding_noise;
mod frozen;
mod gated;
mod log_prob;
mod magnitude;
mod on_device;
mod projection;
mod rms_norm;
mod rope;
mod select_rows;
mod softmax;
mod weight_norm;

pub use add::Add;
pub use attention::{Attention, AttentionShape, CachedAttention};
pub use decode_attention::StepAttention;
pub use dropout::{Dropout, DropoutKey};
pub use embedding::embed;
pub use embedding_noise::EmbeddingNoise;
pub use frozen::{Compute, Frozen};
pub use gated::{Activation, Gated};
pub use log_prob::{LogProbHead, LogProbs, logits};
pub use magnitude::Magnitude;
pub use on_device::{embed as embed_on, embedding_noise as embedding_noise_on, logits as logits_on};
pub use projection::{Branch, DroppedPart, Projection, Projections, Prologue};
pub use rms_norm::RmsNorm;
pub use rope::{Rope, RopeTable};
pub use select_rows::SelectRows;
pub use softmax::{SoftmaxNorm, softmax_weights};
pub use weight_norm::{adapted_norms, adapted_norms_of};

use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Values of a chunk of rows that goes to one thread.
const CHUNK: usize = 1 << 14;
/// Values that are filled at a time: their zeros are still in the first-level cache.
const HOT: usize = 1 << 12;

/// A new buffer of `len` values in rows of `width`: `f(first row, rows)` fills fixed chunks of whole rows, in parallel.
/// A chunk is zeros before, written while it comes into the cache anyway.
pub(crate) fn by_rows<T: Copy + Default + Send>(
    len: usize,
    width: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) -> Vec<T> {
    let width = width.max(1);
    let (rows, hot) = ((CHUNK / width).max(1), (HOT / width).max(1));
    let mut out = Vec::with_capacity(len);
    let spare = &mut out.spare_capacity_mut()[..len];
    spare.par_chunks_mut(rows * width).enumerate().for_each(|(i, part)| {
        for (j, part) in part.chunks_mut(hot * width).enumerate() {
            f(i * rows + j * hot, zeroed(part));
        }
    });
    // SAFETY: the chunks cover all `len` values, and `zeroed` wrote each.
    unsafe { out.set_len(len) };
    out
}

/// As [`by_rows`] with two buffers of one shape.
pub(crate) fn by_rows_twice(
    len: usize,
    width: usize,
    f: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) -> [Vec<f32>; 2] {
    let width = width.max(1);
    let rows = (HOT / width).max(1);
    let (mut a, mut b) = (Vec::with_capacity(len), Vec::with_capacity(len));
    let (spare_a, spare_b) = (&mut a.spare_capacity_mut()[..len], &mut b.spare_capacity_mut()[..len]);
    let (parts_a, parts_b) = (spare_a.par_chunks_mut(rows * width), spare_b.par_chunks_mut(rows * width));
    parts_a.zip(parts_b).enumerate().for_each(|(i, (a, b))| f(i * rows, zeroed(a), zeroed(b)));
    // SAFETY: the chunks cover all `len` values of either, and `zeroed` wrote each.
    unsafe {
        a.set_len(len);
        b.set_len(len);
    }
    [a, b]
}

fn zeroed<T: Copy + Default>(part: &mut [MaybeUninit<T>]) -> &mut [T] {
    part.fill(MaybeUninit::new(T::default()));
    // SAFETY: every value has just been written; the layouts are the same.
    unsafe { &mut *(std::ptr::from_mut(part) as *mut [T]) }
}

/// Runs `f(chunk index, rows of out)` over fixed chunks of whole rows of `out`, in parallel.
pub(crate) fn for_rows(out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = (CHUNK / width.max(1)).max(1);
    out.par_chunks_mut(rows * width.max(1)).enumerate().for_each(|(i, out)| f(i * rows, out));
}
