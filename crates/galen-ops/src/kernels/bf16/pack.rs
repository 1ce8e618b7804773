//! Left operands in blocks of rows, as the layout of the kernel path has them ([`Layout`]). Rows below the last hold
//! anything; k is padded with zeros.

use super::lines::Lines;
use super::tile::{Layout, MR};
use super::{pair, pairs, transpose};
use crate::kernels::isa::multiversion;
use rayon::prelude::*;

/// Rows and pairs of a step of the tiled layout.
const ROWS: usize = 32;
const STEP: usize = 16;

/// Packs a row-major `[m, k]` with rows `stride` apart, on this thread.
pub(super) fn pack_rows(values: &[f32], stride: usize, m: usize, k: usize, out: &mut Lines) {
    let layout = Layout::current();
    let block = layout.pairs(k) * layout.rows();
    out.resize(m.div_ceil(layout.rows()) * block);
    for (b, out) in out.chunks_exact_mut(block.max(1)).enumerate() {
        let first = b * layout.rows();
        block_of_rows(layout, &values[first * stride..], stride, (m - first).min(layout.rows()), k, 1.0, out);
    }
}

/// Packs the transpose of columns `[first, first + m)` of a row-major `[k, stride]`, on this thread.
pub(super) fn pack_columns(values: &[f32], stride: usize, first: usize, m: usize, k: usize, out: &mut Lines) {
    let layout = Layout::current();
    let block = layout.pairs(k) * layout.rows();
    out.resize(m.div_ceil(layout.rows()) * block);
    for (b, out) in out.chunks_exact_mut(block.max(1)).enumerate() {
        let row = b * layout.rows();
        block_of_columns(layout, values, stride, first + row, (m - row).min(layout.rows()), k, out);
    }
}

/// A packed `[m, k]`.
pub(crate) struct PackedA {
    data: Lines,
    layout: Layout,
    m: usize,
    k: usize,
}

impl PackedA {
    /// `factor` times a row-major `[m, k]` with rows `stride` apart.
    pub fn rows(values: &[f32], stride: usize, m: usize, k: usize, factor: f32) -> Self {
        Self::filled(m, k, |layout, first, rows, out| {
            block_of_rows(layout, &values[first * stride..], stride, rows, k, factor, out);
        })
    }

    /// The transpose of columns `[first, first + m)` of a row-major `[k, stride]`.
    pub fn columns(values: &[f32], stride: usize, first: usize, m: usize, k: usize) -> Self {
        Self::filled(m, k, |layout, row, rows, out| {
            block_of_columns(layout, values, stride, first + row, rows, k, out);
        })
    }

    /// Fills each block by (layout, first row, rows, block), over all threads of the current pool.
    fn filled(m: usize, k: usize, fill: impl Fn(Layout, usize, usize, &mut [u32]) + Sync) -> Self {
        let layout = Layout::current();
        let (rows, block) = (layout.rows(), (layout.pairs(k) * layout.rows()).max(1));
        // SAFETY: whole blocks are filled to their end, and what is left of the last is zero.
        let mut data = unsafe { Lines::unwritten(m.div_ceil(rows) * layout.pairs(k) * rows) };
        data.par_chunks_mut(block).enumerate().for_each(|(b, out)| {
            let valid = (m - b * rows).min(rows);
            if valid < rows {
                out.fill(0);
            }
            fill(layout, b * rows, valid, out);
        });
        Self { data, layout, m, k }
    }

    /// Rows.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Columns.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Pairs of row block `block` from column `k0` on, a multiple of 32.
    pub(super) fn block(&self, block: usize, k0: usize) -> &[u32] {
        let (rows, len) = (self.layout.rows(), self.layout.pairs(self.k) * self.layout.rows());
        &self.data[block * len + k0 / 2 * rows..(block + 1) * len]
    }
}

fn block_of_rows(
    layout: Layout,
    values: &[f32],
    stride: usize,
    rows: usize,
    k: usize,
    factor: f32,
    out: &mut [u32],
) {
    match layout {
        Layout::Interleaved => interleaved_rows(values, stride, rows, k, factor, out),
        Layout::Tiled => tiled_rows(values, stride, rows, k, factor, out),
    }
}

fn block_of_columns(
    layout: Layout,
    values: &[f32],
    stride: usize,
    first: usize,
    rows: usize,
    k: usize,
    out: &mut [u32],
) {
    match layout {
        Layout::Interleaved => interleaved_columns(values, stride, first, rows, k, out),
        Layout::Tiled => tiled_columns(values, stride, first, rows, k, out),
    }
}

multiversion! {
    // Rows of `values` (`stride` apart) to `[pairs / 16][32][16]`.
    fn tiled_rows(values: &[f32], stride: usize, rows: usize, k: usize, factor: f32, out: &mut [u32]) {
        const LEN: usize = 2 * STEP;
        for i in 0..rows {
            let row = &values[i * stride..i * stride + k];
            for (row, out) in row.chunks(LEN).zip(out[i * STEP..].chunks_mut(ROWS * STEP)) {
                let out = &mut out[..STEP];
                if let Ok(row) = <&[f32; LEN]>::try_from(row) {
                    for (q, out) in out.iter_mut().enumerate() {
                        *out = pair(row[2 * q] * factor, row[2 * q + 1] * factor);
                    }
                } else {
                    let mut padded = [0f32; LEN];
                    padded.iter_mut().zip(row).for_each(|(p, x)| *p = x * factor);
                    pairs(&padded, out);
                }
            }
        }
        let _ = F::fma;
    }
}

multiversion! {
    // Columns `[first, first + rows)` of `values` `[k, stride]`, each a row of the operand, to `[pairs / 16][32][16]`.
    fn tiled_columns(values: &[f32], stride: usize, first: usize, rows: usize, k: usize, out: &mut [u32]) {
        let mut side = [[0u32; ROWS]; STEP];
        for (s, out) in out.chunks_exact_mut(ROWS * STEP).enumerate() {
            for (q, side) in side.iter_mut().enumerate() {
                let p = (s * STEP + q) * 2;
                if p >= k {
                    *side = [0; ROWS];
                    continue;
                }
                let even = &values[p * stride + first..p * stride + first + rows];
                let odd = if p + 1 < k { &values[(p + 1) * stride + first..(p + 1) * stride + first + rows] } else { even };
                let keep = if p + 1 < k { u32::MAX } else { 0xffff };
                if let (Ok(even), Ok(odd)) = (<&[f32; ROWS]>::try_from(even), <&[f32; ROWS]>::try_from(odd)) {
                    for i in 0..ROWS {
                        side[i] = pair(even[i], odd[i]) & keep;
                    }
                } else {
                    for i in 0..rows {
                        side[i] = pair(even[i], odd[i]) & keep;
                    }
                }
            }
            for i0 in [0, STEP] {
                transpose::transpose(&side.as_flattened()[i0..], ROWS, &mut out[i0 * STEP..], STEP);
            }
        }
        let _ = F::fma;
    }
}

multiversion! {
    // Rows of `values` (`stride` apart) to `[pairs][MR]`.
    fn interleaved_rows(values: &[f32], stride: usize, rows: usize, k: usize, factor: f32, out: &mut [u32]) {
        const LEN: usize = 32;
        let mut scaled = [0f32; LEN];
        let mut side = [[0u32; LEN / 2]; MR];
        for p0 in (0..k).step_by(LEN) {
            let len = (k - p0).min(LEN);
            for (i, side) in side.iter_mut().enumerate().take(rows) {
                let row = &values[i * stride + p0..i * stride + p0 + len];
                if factor == 1.0 {
                    pairs(row, side);
                } else {
                    for (s, x) in scaled.iter_mut().zip(row) {
                        *s = x * factor;
                    }
                    pairs(&scaled[..len], side);
                }
            }
            let out = &mut out[p0 / 2 * MR..(p0 / 2 + len.div_ceil(2)) * MR];
            for (q, out) in out.as_chunks_mut::<MR>().0.iter_mut().enumerate() {
                *out = std::array::from_fn(|i| side[i][q]);
            }
        }
        let _ = F::fma;
    }
}

multiversion! {
    // Columns `[first, first + rows)` of `values` `[k, stride]`, each a row of the operand, to `[pairs][MR]`.
    fn interleaved_columns(values: &[f32], stride: usize, first: usize, rows: usize, k: usize, out: &mut [u32]) {
        for (q, out) in out.as_chunks_mut::<MR>().0.iter_mut().enumerate() {
            let even = &values[2 * q * stride + first..2 * q * stride + first + rows];
            if 2 * q + 1 < k {
                let odd = &values[(2 * q + 1) * stride + first..(2 * q + 1) * stride + first + rows];
                for ((out, even), odd) in out.iter_mut().zip(even).zip(odd) {
                    *out = pair(*even, *odd);
                }
            } else {
                for (out, even) in out.iter_mut().zip(even) {
                    *out = pair(*even, 0.0);
                }
            }
        }
        let _ = F::fma;
    }
}
