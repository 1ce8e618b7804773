//! The differentiable operations. Each is a struct that holds what is frozen, with a slow, obvious `_ref` twin in
//! its tests. Shape letters: T tokens, C hidden size, H heads, G key-value heads, D head size, F feed-forward size,
//! V vocabulary, R rank.

mod add;
mod attention;
mod decode_attention;
mod dropout;
mod embedding;
mod frozen;
mod gated;
mod log_prob;
mod projection;
mod rms_norm;
mod rope;
mod softmax;

pub use add::Add;
pub use attention::{Attention, AttentionShape, CachedAttention};
pub use decode_attention::StepAttention;
pub use dropout::{Dropout, DropoutKey};
pub use embedding::embed;
pub use frozen::{Compute, Frozen};
pub use gated::{Activation, Gated};
pub use log_prob::{LogProbHead, LogProbs, logits};
pub use projection::{Branch, Projection, Projections, Prologue};
pub use rms_norm::RmsNorm;
pub use rope::{Rope, RopeTable};
pub use softmax::{SoftmaxNorm, softmax_weights};

use rayon::prelude::*;

/// Rows up to which products of a decoding projection share a reading of the stored blocks; more go through the
/// products of training.
pub const STEP_ROWS: usize = crate::kernels::gemv::MAX_ROWS;

/// Runs `f(chunk index, rows of out)` over fixed chunks of whole rows of `out`, in parallel.
pub(crate) fn for_rows(out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    const CHUNK: usize = 1 << 14;
    let rows = (CHUNK / width.max(1)).max(1);
    out.par_chunks_mut(rows * width.max(1)).enumerate().for_each(|(i, out)| f(i * rows, out));
}
