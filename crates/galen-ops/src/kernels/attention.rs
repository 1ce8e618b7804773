//! One head of one segment: causal softmax attention over the keys of the segment and its ancestors, in tiles of
//! queries. Keys are in order of position, so a row's result does not depend on how its context is divided into
//! segments.

use super::gemm::{Lhs, gemm_serial};
use super::isa::multiversion;
use super::math::{dot, exp_of_negative, largest, sum};
use super::micro::CHAIN;
use super::panels::{Rows, Transposed};

/// What turns a row's scores into probabilities: their maximum, and one over the sum of the weights.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Norm {
    pub max: f32,
    pub inverse: f32,
}

/// Queries of a tile: its scores stay small while the packed keys are reused.
const TILE: usize = 60;

/// A head's queries: row i is `values[i * stride..][..d]`, at position `position + i`.
#[derive(Clone, Copy)]
pub(crate) struct Queries<'a> {
    pub values: &'a [f32],
    pub stride: usize,
    pub len: usize,
    pub position: usize,
}

/// A head's keys and values `[n, d]`, row j at position j, and how scores are formed.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub keys: &'a [f32],
    pub values: &'a [f32],
    pub d: usize,
    pub scale: f32,
    /// A query at position p sees keys at positions above `p - window`.
    pub window: Option<usize>,
}

impl Context<'_> {
    /// Keys `[lo, hi)` that queries at positions `[p, p + rows)` may see; `lo` is a multiple of the products'
    /// chains (and of the lanes of sums), so that both fall as they do without a window.
    fn range(&self, p: usize, rows: usize) -> (usize, usize) {
        (self.first(p) / CHAIN * CHAIN, p + rows)
    }

    /// First key that a query at position p sees.
    pub(crate) fn first(&self, p: usize) -> usize {
        self.window.map_or(0, |w| (p + 1).saturating_sub(w))
    }
}

multiversion! {
    // Scores of one row (keys from `lo`) to weights `e^(scale s - max)` in place, zero outside [first, last]; a positive
    // scale.
    pub(crate) fn softmax_row(row: &mut [f32], first: usize, last: usize, scale: f32) -> (f32, f32) {
        row[..first].fill(0.0);
        row[last + 1..].fill(0.0);
        let seen = &mut row[first..=last];
        let max = largest(seen) * scale;
        for s in seen {
            *s = exp_of_negative::<F>(*s * scale - max);
        }
        let sum = sum(&row[..=last]);
        (max, sum)
    }
}

multiversion! {
    // Scores of one row to probabilities `e^(scale s - max) inverse` in place: the forward's own bits. Through the
    // log-sum-exp they would be off by its rounding, which `dP - delta` then magnifies.
    pub(crate) fn probabilities_row(row: &mut [f32], first: usize, last: usize, scale: f32, norm: Norm) {
        row[..first].fill(0.0);
        row[last + 1..].fill(0.0);
        for s in &mut row[first..=last] {
            *s = exp_of_negative::<F>(*s * scale - norm.max) * norm.inverse;
        }
    }
}

multiversion! {
    // dS = P (dP - delta) scale, over dP.
    pub(crate) fn score_gradient_row(p: &[f32], dp: &mut [f32], delta: f32, scale: f32) {
        for (dp, p) in dp.iter_mut().zip(p) {
            *dp = p * (*dp - delta) * scale;
        }
        let _ = F::fma;
    }
}

multiversion! {
    pub(crate) fn row_dot(a: &[f32], b: &[f32]) -> f32 {
        dot::<F>(a, b)
    }
}

/// `o[i] = softmax(scale q_i K^T) V` into `[len, d]`, and what normalised each row into `norms`.
pub(crate) fn forward(q: Queries, context: Context, o: &mut [f32], norms: &mut [Norm]) {
    let d = context.d;
    let mut scores = Vec::new();
    for i0 in (0..q.len).step_by(TILE) {
        let rows = (q.len - i0).min(TILE);
        let (lo, hi) = context.range(q.position + i0, rows);
        let n = hi - lo;
        scores.resize(rows * n, 0.0);
        let lhs = Lhs { values: &q.values[i0 * q.stride..], row: q.stride, col: 1 };
        let keys = Transposed { values: &context.keys[lo * d..hi * d], stride: d };
        gemm_serial(rows, n, d, lhs, &keys, &mut scores, n, false);
        for (i, row) in scores.chunks_exact_mut(n).enumerate().take(rows) {
            let p = q.position + i0 + i;
            let (max, sum) = softmax_row(row, context.first(p) - lo, p - lo, context.scale);
            let inverse = 1.0 / sum;
            norms[i0 + i] = Norm { max, inverse };
        }
        let values = Rows { values: &context.values[lo * d..hi * d], stride: d };
        let o = &mut o[i0 * d..];
        gemm_serial(rows, d, n, Lhs::rows(&scores, n), &values, o, d, false);
        // Of the sums, which are fewer than the weights.
        for (o, norm) in o.chunks_exact_mut(d).zip(&norms[i0..i0 + rows]) {
            o.iter_mut().for_each(|o| *o *= norm.inverse);
        }
    }
}

/// Gradients of one head of one segment (FlashAttention-2, Dao 2023, algorithm 2, with the scores of a tile of
/// queries recomputed). `dq` `[len, d]` is written, `dk` and `dv` `[n, d]` are added to.
pub(crate) fn backward(
    q: Queries,
    context: Context,
    norms: &[Norm],
    d_o: Queries,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let d = context.d;
    let (mut p, mut dp) = (Vec::new(), Vec::new());
    for i0 in (0..q.len).step_by(TILE) {
        let rows = (q.len - i0).min(TILE);
        let (lo, hi) = context.range(q.position + i0, rows);
        let n = hi - lo;
        p.resize(rows * n, 0.0);
        dp.resize(rows * n, 0.0);
        let lhs = Lhs { values: &q.values[i0 * q.stride..], row: q.stride, col: 1 };
        let grad = Lhs { values: &d_o.values[i0 * d_o.stride..], row: d_o.stride, col: 1 };
        let (keys, values) = (&context.keys[lo * d..hi * d], &context.values[lo * d..hi * d]);
        gemm_serial(rows, n, d, lhs, &Transposed { values: keys, stride: d }, &mut p, n, false);
        gemm_serial(rows, n, d, grad, &Transposed { values, stride: d }, &mut dp, n, false);
        for i in 0..rows {
            let position = q.position + i0 + i;
            let p = &mut p[i * n..(i + 1) * n];
            let (first, last) = (context.first(position) - lo, position - lo);
            probabilities_row(p, first, last, context.scale, norms[i0 + i]);
            let dp = &mut dp[i * n..(i + 1) * n];
            // Equal to dO O, but with the same probabilities that it is subtracted from.
            let delta = row_dot(p, dp);
            score_gradient_row(p, dp, delta, context.scale);
        }
        let transposed_p = Lhs { values: &p, row: 1, col: n };
        let transposed_ds = Lhs { values: &dp, row: 1, col: n };
        let queries = Rows { values: &q.values[i0 * q.stride..], stride: q.stride };
        let grads = Rows { values: &d_o.values[i0 * d_o.stride..], stride: d_o.stride };
        gemm_serial(n, d, rows, transposed_p, &grads, &mut dv[lo * d..], d, true);
        gemm_serial(n, d, rows, transposed_ds, &queries, &mut dk[lo * d..], d, true);
        let keys = Rows { values: keys, stride: d };
        gemm_serial(rows, d, n, Lhs::rows(&dp, n), &keys, &mut dq[i0 * d..], d, false);
    }
}
