//! One head of one segment in bf16 products: as `kernels::attention`, with a head's keys and values packed once for
//! all its queries.

use super::lines::Lines;
use super::pack::{pack_columns, pack_rows};
use super::panels::{pack_rows_panels, pack_transposed_panels};
use super::tile::{Layout, NR, Segment, Target, Tiler};
use crate::kernels::attention::{
    Context, Norm, Queries, probabilities_row, row_dot, score_gradient_row, softmax_row,
};

/// Queries of a tile: whole blocks of left operands.
fn tile_queries() -> usize {
    match Layout::current() {
        Layout::Interleaved => 48,
        Layout::Tiled => 64,
    }
}

/// Packed operands and tiles of one head, reused from one to the next.
#[derive(Default)]
pub(crate) struct Work {
    keys_t: Lines,
    keys: Lines,
    values_t: Lines,
    values: Lines,
    left: Lines,
    right: Lines,
    scores: Vec<f32>,
    gradients: Vec<f32>,
}

/// Panels `[first, last)` of a right operand of `pairs` pairs a panel, from pair `skip` on, `take` of them.
#[derive(Clone, Copy)]
struct Panels<'a> {
    data: &'a [u32],
    pairs: usize,
    first: usize,
    last: usize,
    skip: usize,
    take: usize,
}

/// `C[m, ..] (+)= A B` where A holds packed blocks of `take` pairs; C has row stride `ldc` and `cols` columns.
fn product(tiler: &Tiler, m: usize, a: &[u32], b: Panels, c: &mut [f32], ldc: usize, cols: usize, add: bool) {
    if m == 0 {
        return;
    }
    let mr = Layout::current().rows();
    assert!(c.len() >= (m - 1) * ldc + cols && cols <= ldc);
    assert!(a.len() >= m.div_ceil(mr) * b.take * mr && b.skip + b.take <= b.pairs);
    assert!(b.data.len() >= b.last * b.pairs * NR && cols <= (b.last - b.first) * NR);
    for block in 0..m.div_ceil(mr) {
        for panel in b.first..b.last {
            let j0 = (panel - b.first) * NR;
            if j0 >= cols {
                break;
            }
            let segment = Segment {
                a: a[block * b.take * mr..].as_ptr(),
                b: b.data[(panel * b.pairs + b.skip) * NR..].as_ptr(),
                pairs: b.take,
            };
            let target = Target {
                c: c[block * mr * ldc + j0..].as_mut_ptr(),
                stride: ldc,
                rows: (m - block * mr).min(mr),
                cols: (cols - j0).min(NR),
                add,
            };
            // SAFETY: the extents are asserted above; C is borrowed mutably.
            unsafe { tiler.tile(&[segment], target) };
        }
    }
}

impl Work {
    /// Packs a head's keys and values for [`forward`].
    pub fn pack(&mut self, context: Context) {
        let (d, n) = (context.d, context.keys.len() / context.d);
        pack_transposed_panels(context.keys, d, n, d, &mut self.keys_t);
        pack_rows_panels(context.values, d, d, n, &mut self.values);
    }
}

/// A tile of `len` in a buffer that only grows: filling it with zeros each time would take longer than its softmax.
fn tile(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// The keys a tile of queries may see: `[lo, hi)` with `lo` at a panel's start, and how wide its scores lie.
fn window(context: &Context, position: usize, rows: usize) -> (usize, usize, usize) {
    let lo = context.first(position) / NR * NR;
    let hi = position + rows;
    (lo, hi, (hi - lo).div_ceil(NR) * NR)
}

/// As `kernels::attention::forward` over what [`Work::pack`] packed last, for each of the heads that share it; `o` has
/// row stride `stride`.
pub(crate) fn forward(
    work: &mut Work,
    q: Queries,
    context: Context,
    o: &mut [f32],
    stride: usize,
    norms: &mut [Norm],
) {
    let (d, n) = (context.d, context.keys.len() / context.d);
    let (layout, queries, tiler) = (Layout::current(), tile_queries(), Tiler::new());
    let (depth, pairs) = (layout.pairs(d), layout.pairs(n));
    for i0 in (0..q.len).step_by(queries) {
        let rows = (q.len - i0).min(queries);
        let (lo, hi, width) = window(&context, q.position + i0, rows);
        pack_rows(&q.values[i0 * q.stride..], q.stride, rows, d, &mut work.left);
        let scores = tile(&mut work.scores, rows * width);
        let (first, last) = (lo / NR, hi.div_ceil(NR));
        let keys = Panels { data: &work.keys_t, pairs: depth, first, last, skip: 0, take: depth };
        product(&tiler, rows, &work.left, keys, scores, width, hi - lo, false);
        for (i, row) in scores.chunks_exact_mut(width).enumerate() {
            let p = q.position + i0 + i;
            let (max, sum) = softmax_row(row, context.first(p) - lo, p - lo, context.scale);
            let inverse = 1.0 / sum;
            norms[i0 + i] = Norm { max, inverse };
        }
        let take = layout.pairs(hi - lo);
        pack_rows(scores, width, rows, (2 * take).min(width), &mut work.left);
        let last = d.div_ceil(NR);
        let values = Panels { data: &work.values, pairs, first: 0, last, skip: lo / 2, take };
        let o = &mut o[i0 * stride..];
        product(&tiler, rows, &work.left, values, o, stride, d, false);
        for (o, norm) in o.chunks_mut(stride).zip(&norms[i0..i0 + rows]) {
            o[..d].iter_mut().for_each(|o| *o *= norm.inverse);
        }
    }
}

/// As `kernels::attention::backward`; `dq` has row stride `stride`.
#[expect(clippy::too_many_arguments, reason = "operands and results of one head")]
pub(crate) fn backward(
    work: &mut Work,
    q: Queries,
    context: Context,
    norms: &[Norm],
    d_o: Queries,
    dq: &mut [f32],
    stride: usize,
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let (d, n) = (context.d, context.keys.len() / context.d);
    let (layout, queries, tiler) = (Layout::current(), tile_queries(), Tiler::new());
    let (depth, pairs, across) = (layout.pairs(d), layout.pairs(n), d.div_ceil(NR));
    pack_transposed_panels(context.keys, d, n, d, &mut work.keys_t);
    pack_transposed_panels(context.values, d, n, d, &mut work.values_t);
    pack_rows_panels(context.keys, d, d, n, &mut work.keys);
    for i0 in (0..q.len).step_by(queries) {
        let rows = (q.len - i0).min(queries);
        let (lo, hi, width) = window(&context, q.position + i0, rows);
        let (first, last, seen) = (lo / NR, hi.div_ceil(NR), hi - lo);
        let scores = tile(&mut work.scores, rows * width);
        let gradients = tile(&mut work.gradients, rows * width);
        let (queries, grads) = (&q.values[i0 * q.stride..], &d_o.values[i0 * d_o.stride..]);
        for (values, stride, packed, c) in [
            (queries, q.stride, &work.keys_t, &mut *scores),
            (grads, d_o.stride, &work.values_t, &mut *gradients),
        ] {
            pack_rows(values, stride, rows, d, &mut work.left);
            let b = Panels { data: packed, pairs: depth, first, last, skip: 0, take: depth };
            product(&tiler, rows, &work.left, b, c, width, seen, false);
        }
        let both = scores.chunks_exact_mut(width).zip(gradients.chunks_exact_mut(width));
        for (i, (p, dp)) in both.enumerate() {
            let position = q.position + i0 + i;
            probabilities_row(p, context.first(position) - lo, position - lo, context.scale, norms[i0 + i]);
            dp[seen..].fill(0.0);
            let delta = row_dot(p, dp);
            score_gradient_row(p, dp, delta, context.scale);
        }
        // dV += P^T dO, dK += dS^T Q: keys are rows, queries the inner dimension.
        let take = layout.pairs(rows);
        for (tile, values, stride, c) in
            [(&*scores, grads, d_o.stride, &mut *dv), (&*gradients, queries, q.stride, &mut *dk)]
        {
            pack_columns(tile, width, 0, seen, rows, &mut work.left);
            pack_rows_panels(values, stride, d, rows, &mut work.right);
            let b = Panels { data: &work.right, pairs: take, first: 0, last: across, skip: 0, take };
            product(&tiler, seen, &work.left, b, &mut c[lo * d..], d, d, true);
        }
        let take = layout.pairs(seen);
        pack_rows(gradients, width, rows, (2 * take).min(width), &mut work.left);
        let b = Panels { data: &work.keys, pairs, first: 0, last: across, skip: lo / 2, take };
        product(&tiler, rows, &work.left, b, &mut dq[i0 * stride..], stride, d, false);
    }
}
