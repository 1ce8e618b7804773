//! Attention of one query over cached keys and values, read where they lie: `o = softmax(scale q K^T) V`.
//!
//! The query heads of one key-value head go together, so that each key and value is read once. A head's result
//! depends on neither the others nor on other sequences.

use super::isa::multiversion;
use super::math::{dot, exp, lane_sum};
use super::micro::CHAIN;

/// One key-value head of a sequence: row j of its keys and values is at `j * stride` (position j).
#[derive(Clone, Copy)]
pub(crate) struct Cached<'a> {
    pub keys: &'a [f32],
    pub values: &'a [f32],
    pub stride: usize,
    /// Positions seen: `first..end`.
    pub first: usize,
    pub end: usize,
}

/// Values of a row summed in registers at once.
const WIDTH: usize = 64;

multiversion! {
    /// `q` and `o` hold the query heads `[heads, d]` of the key-value head; `scores` is scratch.
    pub(crate) fn attend(q: &[f32], cached: Cached, d: usize, scale: f32, scores: &mut Vec<f32>, o: &mut [f32]) {
        let Cached { keys, values, stride, first, end } = cached;
        let n = end - first;
        scores.clear();
        scores.resize(q.len() / d * n, 0.0);
        for j in 0..n {
            let start = (first + j) * stride;
            let key = &keys[start..start + d];
            for (q, scores) in q.chunks_exact(d).zip(scores.chunks_exact_mut(n)) {
                scores[j] = dot::<F>(q, key) * scale;
            }
        }
        for weights in scores.chunks_exact_mut(n) {
            let mut max = f32::NEG_INFINITY;
            for s in weights.iter() {
                max = if *s > max || s.is_nan() { *s } else { max };
            }
            for s in weights.iter_mut() {
                *s = exp::<F>(*s - max);
            }
            let inverse = 1.0 / lane_sum(n, |j| weights[j]);
            weights.iter_mut().for_each(|w| *w *= inverse);
        }
        o.fill(0.0);
        for j0 in (0..n).step_by(CHAIN) {
            let chain = j0..(j0 + CHAIN).min(n);
            for (weights, o) in scores.chunks_exact(n).zip(o.chunks_exact_mut(d)) {
                for (part, o) in o.chunks_mut(WIDTH).enumerate() {
                    let mut sums = [0f32; WIDTH];
                    for j in chain.clone() {
                        let start = (first + j) * stride + part * WIDTH;
                        if let Some(row) = values[start..].first_chunk::<WIDTH>().filter(|_| o.len() == WIDTH) {
                            for (sum, v) in sums.iter_mut().zip(row) {
                                *sum = F::fma(weights[j], *v, *sum);
                            }
                        } else {
                            for (sum, v) in sums.iter_mut().zip(&values[start..start + o.len()]) {
                                *sum = F::fma(weights[j], *v, *sum);
                            }
                        }
                    }
                    o.iter_mut().zip(sums).for_each(|(o, sum)| *o += sum);
                }
            }
        }
    }
}
