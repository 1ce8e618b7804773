//! Right operands, panel by panel of 32 columns: `[pairs][NR]`.

use super::lines::Lines;
use super::tile::{Layout, NR};
use super::{pair, pairs, transpose};
use crate::kernels::isa::multiversion;
use crate::quant::QuantMatrix;
use rayon::prelude::*;

/// Gives panels `B[k0..k0 + kc, j0..j0 + cols]`; `k0` is even. Columns past `cols` may hold anything.
pub(crate) trait Panels16: Sync {
    /// Writes the panel to `[kc / 2, rounded up][NR]`.
    fn fill(&self, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [u32]);

    /// The panel where it is at hand: from column `j0`, a multiple of NR, and row `k0` on.
    fn ready(&self, _j0: usize, _k0: usize) -> Option<&[u32]> {
        None
    }
}

/// A dense row-major `[k, n]`, rows `stride` apart.
pub(crate) struct Rows16<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

impl Panels16 for Rows16<'_> {
    fn fill(&self, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [u32]) {
        rows(self.values, self.stride, j0, cols, k0, kc, panel);
    }
}

multiversion! {
    fn rows(values: &[f32], stride: usize, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [u32]) {
        for (q, out) in panel.as_chunks_mut::<NR>().0.iter_mut().enumerate().take(kc.div_ceil(2)) {
            let p = k0 + 2 * q;
            let even = &values[p * stride + j0..p * stride + j0 + cols];
            let odd = if 2 * q + 1 < kc { &values[(p + 1) * stride + j0..(p + 1) * stride + j0 + cols] } else { even };
            let keep = if 2 * q + 1 < kc { u32::MAX } else { 0xffff };
            if let ([even], [odd]) = (even.as_chunks::<NR>().0, odd.as_chunks::<NR>().0) {
                for j in 0..NR {
                    out[j] = pair(even[j], odd[j]) & keep;
                }
            } else {
                for j in 0..cols {
                    out[j] = pair(even[j], odd[j]) & keep;
                }
            }
        }
        let _ = F::fma;
    }
}

/// The transpose of a dense row-major `[n, k]`, rows `stride` apart.
pub(crate) struct Transposed16<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

impl Panels16 for Transposed16<'_> {
    fn fill(&self, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [u32]) {
        transposed(self.values, self.stride, j0, cols, k0, kc, panel);
    }
}

/// Elements of a weight row decoded at a time: a multiple of every block size.
const CHUNK: usize = 256;
/// Pairs of a chunk, and a little more, so that rows do not fall into the same cache sets.
const SIDE: usize = CHUNK / 2 + 8;

/// `panel[q][j] = side[j][q]`.
#[inline(always)]
fn interleave(side: &[[u32; SIDE]; NR], len: usize, panel: &mut [u32]) {
    let side = side.as_flattened();
    for q0 in (0..len).step_by(transpose::SIDE) {
        let panel = &mut panel[q0 * NR..];
        if len - q0 >= transpose::SIDE {
            for j0 in [0, transpose::SIDE] {
                transpose::transpose(&side[j0 * SIDE + q0..], SIDE, &mut panel[j0..], NR);
            }
            continue;
        }
        for (q, out) in panel.as_chunks_mut::<NR>().0.iter_mut().enumerate().take(len - q0) {
            for j in 0..NR {
                out[j] = side[j * SIDE + q0 + q];
            }
        }
    }
}

multiversion! {
    fn transposed(values: &[f32], stride: usize, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [u32]) {
        let mut side = [[0u32; SIDE]; NR];
        for c0 in (0..kc).step_by(CHUNK) {
            let len = (kc - c0).min(CHUNK);
            for (j, side) in side.iter_mut().enumerate().take(cols) {
                let start = (j0 + j) * stride + k0 + c0;
                pairs(&values[start..start + len], side);
            }
            interleave(&side, len.div_ceil(2), &mut panel[c0 / 2 * NR..]);
        }
        let _ = F::fma;
    }
}

multiversion! {
    // Rows `j0..` of a weight `[n, k]` as columns of a panel.
    fn weight_forward(w: &QuantMatrix, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [u32]) {
        let mut decoded = [0f32; CHUNK];
        let mut side = [[0u32; SIDE]; NR];
        for c0 in (0..kc).step_by(CHUNK) {
            let len = (kc - c0).min(CHUNK);
            for (j, side) in side.iter_mut().enumerate().take(cols) {
                w.dequantize_block_inline(j0 + j, k0 + c0, &mut decoded[..len]);
                pairs(&decoded[..len], side);
            }
            interleave(&side, len.div_ceil(2), &mut panel[c0 / 2 * NR..]);
        }
        let _ = F::fma;
    }
}

/// `cols` elements of a row, at most a panel's.
#[inline(always)]
fn part(w: &QuantMatrix, row: usize, j0: usize, cols: usize, out: &mut [f32; NR]) {
    if cols < NR || !w.dequantize_part_inline(row, j0, out) {
        w.dequantize_block_inline(row, j0, &mut out[..cols]);
    }
}

multiversion! {
    // Columns `j0..` of a weight, its rows `k0..` as rows of a panel.
    fn weight_backward(w: &QuantMatrix, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [u32]) {
        let (mut even, mut odd) = ([0f32; NR], [0f32; NR]);
        for (q, out) in panel.as_chunks_mut::<NR>().0.iter_mut().enumerate().take(kc.div_ceil(2)) {
            part(w, k0 + 2 * q, j0, cols, &mut even);
            if 2 * q + 1 < kc {
                part(w, k0 + 2 * q + 1, j0, cols, &mut odd);
            } else {
                odd = [0.0; NR];
            }
            for j in 0..NR {
                out[j] = pair(even[j], odd[j]);
            }
        }
        let _ = F::fma;
    }
}

/// All panels of a dense row-major `[k, n]` with rows `stride` apart, on this thread.
pub(super) fn pack_rows_panels(values: &[f32], stride: usize, n: usize, k: usize, out: &mut Lines) {
    pack_panels(n, k, out, |j0, cols, panel| rows(values, stride, j0, cols, 0, k, panel));
}

/// All panels of the transpose of a dense row-major `[n, k]` with rows `stride` apart, on this thread.
pub(super) fn pack_transposed_panels(values: &[f32], stride: usize, n: usize, k: usize, out: &mut Lines) {
    pack_panels(n, k, out, |j0, cols, panel| transposed(values, stride, j0, cols, 0, k, panel));
}

fn pack_panels(n: usize, k: usize, out: &mut Lines, fill: impl Fn(usize, usize, &mut [u32])) {
    let panel = Layout::current().pairs(k) * NR;
    out.resize(n.div_ceil(NR) * panel);
    for (p, out) in out.chunks_exact_mut(panel.max(1)).enumerate() {
        fill(p * NR, (n - p * NR).min(NR), out);
        out[k.div_ceil(2) * NR..].fill(0);
    }
}

/// A frozen weight `[n, k]` rounded and packed once: the panels of its forward product, from which those of the
/// backward product are made by exchanging halves of pairs.
pub struct PackedWeight {
    rows: usize,
    cols: usize,
    data: Lines,
}

impl PackedWeight {
    /// Decodes and packs `weight`, over all threads of the current pool.
    pub fn new(weight: &QuantMatrix) -> Self {
        let (rows, cols) = (weight.rows(), weight.cols());
        let panel = (Layout::current().pairs(cols) * NR).max(1);
        // SAFETY: every panel is filled below, its padding with zeros.
        let mut data = unsafe { Lines::unwritten(rows.div_ceil(NR) * panel) };
        data.par_chunks_mut(panel).enumerate().for_each(|(i, out)| {
            weight_forward(weight, i * NR, (rows - i * NR).min(NR), 0, cols, out);
            out[cols.div_ceil(2) * NR..].fill(0);
        });
        Self { rows, cols, data }
    }

    /// Bytes that packing a `[rows, cols]` would take.
    pub fn bytes_for(rows: usize, cols: usize) -> usize {
        rows.div_ceil(NR) * NR * Layout::current().pairs(cols) * 4
    }

    fn panel(&self, row: usize) -> &[u32] {
        let len = Layout::current().pairs(self.cols) * NR;
        &self.data[row / NR * len..(row / NR + 1) * len]
    }
}

multiversion! {
    // Transposes: `packed` holds (W[p][2q], W[p][2q + 1]) at [q][p], `panel` wants (W[p][j], W[p + 1][j]) at [p / 2][j].
    fn turn(packed: &[u32], q0: usize, columns: usize, lanes: usize, panel: &mut [u32]) {
        if columns == NR && lanes == NR {
            return transpose::turn(&packed[q0 * NR..], NR, panel, NR);
        }
        for (q, row) in packed.as_chunks::<NR>().0[q0..].iter().enumerate().take(columns.div_ceil(2)) {
            for p in 0..lanes.div_ceil(2) {
                let (a, b) = (row[2 * p], if 2 * p + 1 < lanes { row[2 * p + 1] } else { 0 });
                let out = &mut panel[p * NR + 2 * q..p * NR + 2 * q + 2];
                out[0] = a & 0xffff | b << 16;
                out[1] = a >> 16 | b & 0xffff_0000;
            }
        }
        let _ = F::fma;
    }
}

/// `W^T` of a weight `[n, k]`: the forward product. `first` is the row that counts as row 0 here, a multiple of NR.
pub(crate) struct Forward<'a> {
    pub weight: &'a QuantMatrix,
    pub packed: Option<&'a PackedWeight>,
    pub first: usize,
}

impl Panels16 for Forward<'_> {
    fn fill(&self, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [u32]) {
        weight_forward(self.weight, self.first + j0, cols, k0, kc, panel);
    }

    fn ready(&self, j0: usize, k0: usize) -> Option<&[u32]> {
        Some(&self.packed?.panel(self.first + j0)[k0 / 2 * NR..])
    }
}

/// A weight `[k, n]` as it is: the backward product. `first` is the row that counts as row 0 here, a multiple of NR.
pub(crate) struct Backward<'a> {
    pub weight: &'a QuantMatrix,
    pub packed: Option<&'a PackedWeight>,
    pub first: usize,
}

impl Panels16 for Backward<'_> {
    fn fill(&self, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [u32]) {
        let Some(packed) = self.packed.filter(|_| k0.is_multiple_of(NR)) else {
            return weight_backward(self.weight, j0, cols, self.first + k0, kc, panel);
        };
        for p0 in (0..kc).step_by(NR) {
            let lanes = (kc - p0).min(NR).min(packed.rows - (self.first + k0 + p0));
            turn(packed.panel(self.first + k0 + p0), j0 / 2, cols, lanes, &mut panel[p0 / 2 * NR..]);
        }
    }
}
