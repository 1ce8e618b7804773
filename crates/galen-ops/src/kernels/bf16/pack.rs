//! Left operands: blocks of twelve rows, `[block][pairs][MR]`, zeros below the last row.

use super::pairs;
use super::tile::MR;
use crate::kernels::isa::multiversion;
use rayon::prelude::*;

/// Packs `factor` times a row-major `[m, k]` with rows `stride` apart, on this thread.
pub(super) fn pack_rows(values: &[f32], stride: usize, m: usize, k: usize, factor: f32, out: &mut Vec<u32>) {
    let block = k.div_ceil(2) * MR;
    sized(out, m.div_ceil(MR) * block);
    for (b, out) in out.chunks_exact_mut(block.max(1)).enumerate() {
        let rows = (m - b * MR).min(MR);
        block_of_rows(&values[b * MR * stride..], stride, rows, k, factor, out);
    }
}

/// Packs the transpose of columns `[first, first + m)` of a row-major `[k, stride]`, on this thread.
pub(super) fn pack_columns(
    values: &[f32],
    stride: usize,
    first: usize,
    m: usize,
    k: usize,
    out: &mut Vec<u32>,
) {
    let block = k.div_ceil(2) * MR;
    sized(out, m.div_ceil(MR) * block);
    for (b, out) in out.chunks_exact_mut(block.max(1)).enumerate() {
        let rows = (m - b * MR).min(MR);
        block_of_columns(values, stride, first + b * MR, rows, k, out);
    }
}

/// Makes `buffer` that long; what it holds does not matter, as unused rows of a block are never stored.
fn sized(buffer: &mut Vec<u32>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    buffer.truncate(len);
}

/// A packed `[m, k]`.
pub(crate) struct PackedA {
    data: Vec<u32>,
    m: usize,
    k: usize,
}

multiversion! {
    // Rows of `values` (`stride` apart) to `[pairs][MR]`.
    fn block_of_rows(values: &[f32], stride: usize, rows: usize, k: usize, factor: f32, out: &mut [u32]) {
        const STEP: usize = 32;
        let mut scaled = [0f32; STEP];
        let mut side = [[0u32; STEP / 2]; MR];
        for p0 in (0..k).step_by(STEP) {
            let len = (k - p0).min(STEP);
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
    // Columns `[first, first + rows)` of `values` `[k, stride]`, each a row of the operand.
    fn block_of_columns(values: &[f32], stride: usize, first: usize, rows: usize, k: usize, out: &mut [u32]) {
        for (q, out) in out.as_chunks_mut::<MR>().0.iter_mut().enumerate() {
            let even = &values[2 * q * stride + first..2 * q * stride + first + rows];
            if 2 * q + 1 < k {
                let odd = &values[(2 * q + 1) * stride + first..(2 * q + 1) * stride + first + rows];
                for ((out, even), odd) in out.iter_mut().zip(even).zip(odd) {
                    *out = super::pair(*even, *odd);
                }
            } else {
                for (out, even) in out.iter_mut().zip(even) {
                    *out = super::pair(*even, 0.0);
                }
            }
        }
        let _ = F::fma;
    }
}

impl PackedA {
    /// `factor` times a row-major `[m, k]` with rows `stride` apart.
    pub fn rows(values: &[f32], stride: usize, m: usize, k: usize, factor: f32) -> Self {
        let mut packed = Self::zeros(m, k);
        let block = packed.block_len();
        packed.data.par_chunks_mut(block).enumerate().for_each(|(b, out)| {
            let rows = (m - b * MR).min(MR);
            block_of_rows(&values[b * MR * stride..], stride, rows, k, factor, out);
        });
        packed
    }

    /// The transpose of columns `[first, first + m)` of a row-major `[k, stride]`.
    pub fn columns(values: &[f32], stride: usize, first: usize, m: usize, k: usize) -> Self {
        let mut packed = Self::zeros(m, k);
        let block = packed.block_len();
        packed.data.par_chunks_mut(block).enumerate().for_each(|(b, out)| {
            let rows = (m - b * MR).min(MR);
            block_of_columns(values, stride, first + b * MR, rows, k, out);
        });
        packed
    }

    /// Rows.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Columns.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Pairs of row block `block` from column `k0` (even) on.
    pub(super) fn block(&self, block: usize, k0: usize) -> &[u32] {
        let len = self.block_len();
        &self.data[block * len + k0 / 2 * MR..(block + 1) * len]
    }

    fn zeros(m: usize, k: usize) -> Self {
        Self { data: vec![0; m.div_ceil(MR) * k.div_ceil(2) * MR], m, k }
    }

    fn block_len(&self) -> usize {
        (self.k.div_ceil(2) * MR).max(1)
    }
}
