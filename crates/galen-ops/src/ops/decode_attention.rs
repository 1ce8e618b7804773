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
        let group = n_heads / n_kv_heads;
        let mut out = vec![0f32; rows * width];
        // A task takes the query heads of a key-value head; with few of those one query head, for threads to end
        // together.
        let heads = if rows * n_kv_heads < 4 * rayon::current_num_threads() { 1 } else { group };
        let task = |task: usize, o: &mut [f32]| {
            let head = task * heads;
            let ((keys, values), g) = (caches[head / n_heads], head % n_heads / group);
            let end = keys.len() / stride;
            let first = window.map_or(0, |w| end.saturating_sub(w));
            let cached = Cached { keys: &keys[g * d..], values: &values[g * d..], stride, first, end };
            let q = &qv[head * d..(head + heads) * d];
            SCORES.with_borrow_mut(|scores| attend(q, cached, d, scale, scores, o));
        };
        let work: usize = caches.iter().map(|(k, _)| 2 * k.len() * group).sum();
        if work < SERIAL {
            out.chunks_exact_mut(heads * d).enumerate().for_each(|(i, o)| task(i, o));
        } else {
            out.par_chunks_exact_mut(heads * d).enumerate().for_each(|(i, o)| task(i, o));
        }
        f32_tensor(out, (rows, width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) % 1000) as f32 / 500.0 - 1.0).collect()
    }

    /// One head, in f64.
    fn reference(q: &[f32], k: &[f32], v: &[f32], stride: usize, shape: &AttentionShape) -> Vec<f64> {
        let n = k.len().div_ceil(stride);
        let first = shape.window.map_or(0, |w| n.saturating_sub(w));
        let dot = |j: usize| {
            let products = q.iter().zip(&k[j * stride..]).map(|(a, b)| f64::from(*a) * f64::from(*b));
            products.sum::<f64>() * f64::from(shape.scale)
        };
        let weights: Vec<f64> = (first..n).map(|j| dot(j).exp()).collect();
        let total: f64 = weights.iter().sum();
        let at = |i: usize| {
            let terms = weights.iter().enumerate().map(|(j, w)| w * f64::from(v[(first + j) * stride + i]));
            terms.sum::<f64>() / total
        };
        (0..q.len()).map(at).collect()
    }

    #[test]
    fn every_head_and_sequence_equals_the_reference_together_and_alone() {
        for (n_heads, n_kv_heads, head_dim, window) in
            [(9, 3, 64, None), (4, 1, 256, Some(70)), (2, 2, 5, None), (6, 2, 80, Some(1))]
        {
            let shape = AttentionShape { n_heads, n_kv_heads, head_dim, scale: 0.3, window };
            let (stride, width) = (n_kv_heads * head_dim, n_heads * head_dim);
            let lengths = [1, 3, 130, 600, 64];
            let caches: Vec<[Vec<f32>; 2]> =
                lengths.iter().map(|n| [values(n * stride, 1), values(n * stride, 2)]).collect();
            let seen: Vec<(&[f32], &[f32])> = caches.iter().map(|[k, v]| (&k[..], &v[..])).collect();
            let q = values(lengths.len() * width, 3);
            let run = |q: &[f32], seen: &[(&[f32], &[f32])]| {
                let q = f32_tensor(q.to_vec(), (seen.len(), width)).unwrap();
                f32_view(&StepAttention { shape }.run(&q, seen).unwrap()).unwrap().to_vec()
            };
            let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let all = pool(3).install(|| run(&q, &seen));
            for (i, (k, v)) in seen.iter().enumerate() {
                let row = &all[i * width..(i + 1) * width];
                let alone = pool(1).install(|| run(&q[i * width..(i + 1) * width], &seen[i..=i]));
                assert!(row == alone, "{shape:?}, sequence {i}");
                for h in 0..n_heads {
                    let at = h / (n_heads / n_kv_heads) * head_dim;
                    let head = i * width + h * head_dim..i * width + (h + 1) * head_dim;
                    let want = reference(&q[head.clone()], &k[at..], &v[at..], stride, &shape);
                    for (got, want) in all[head].iter().zip(want) {
                        assert!((f64::from(*got) - want).abs() <= 2e-6, "{shape:?}: {got} for {want}");
                    }
                }
            }
            let q = f32_tensor(q[..width].to_vec(), (1, width)).unwrap();
            assert!(StepAttention { shape }.run(&q, &[]).is_err());
            assert!(StepAttention { shape }.run(&q, &[(&[], &[])]).is_err());
        }
    }
}
