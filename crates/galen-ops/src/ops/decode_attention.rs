//! Attention of one new token each of one or several sequences over their caches: no gradient.

use crate::error::{Result, shape_error};
use crate::kernels::decode_attention::{Cached, attend};
use crate::ops::AttentionShape;
use crate::tensor::{dims2, f32_tensor, f32_view};
use candle_core::Tensor;
use rayon::prelude::*;
use std::cell::RefCell;

/// Multiply-adds below which the heads stay on one thread.
const SERIAL: usize = 1 << 17;

/// Attention of a step of generation.
pub struct StepAttention {
    /// Heads and scores.
    pub shape: AttentionShape,
}

thread_local! {
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl StepAttention {
    /// Row i of q `[M, H D]` is the last position of sequence i, whose keys and values `[n, G D]` begin at position 0:
    /// `caches[i]`. Gives `[M, H D]`.
    pub fn run(&self, q: &Tensor, caches: &[(&[f32], &[f32])]) -> Result<Tensor> {
        let AttentionShape { n_heads, n_kv_heads, head_dim: d, scale, window } = self.shape;
        let (rows, width) = dims2("step_attention", q)?;
        let stride = n_kv_heads * d;
        let whole = |(k, v): &(&[f32], &[f32])| {
            !k.is_empty() && k.len() == v.len() && k.len().checked_rem(stride) == Some(0)
        };
        let sound = rows == caches.len()
            && width == n_heads * d
            && width > 0
            && n_heads.checked_rem(n_kv_heads) == Some(0)
            && caches.iter().all(whole);
        if !sound {
            let lengths: Vec<_> = caches.iter().map(|(k, v)| (k.len(), v.len())).collect();
            let what = format!("q `{:?}` over caches of {lengths:?} values for {:?}", q.dims(), self.shape);
            return shape_error("step_attention", what);
        }
        let qv = f32_view(q)?;
        let qv = &*qv;
        let group = n_heads / n_kv_heads * d;
        let mut out = vec![0f32; rows * width];
        let head = |task: usize, o: &mut [f32]| {
            let ((keys, values), g) = (caches[task / n_kv_heads], task % n_kv_heads);
            let end = keys.len() / stride;
            let first = window.map_or(0, |w| end.saturating_sub(w));
            let cached = Cached { keys: &keys[g * d..], values: &values[g * d..], stride, first, end };
            let q = &qv[task * group..(task + 1) * group];
            SCORES.with_borrow_mut(|scores| attend(q, cached, d, scale, scores, o));
        };
        let work: usize = caches.iter().map(|(k, _)| 2 * k.len() * (n_heads / n_kv_heads)).sum();
        if work < SERIAL {
            out.chunks_exact_mut(group).enumerate().for_each(|(task, o)| head(task, o));
        } else {
            out.par_chunks_exact_mut(group).enumerate().for_each(|(task, o)| head(task, o));
        }
        f32_tensor(out, (rows, width))
    }
}
