//! Where the right operand of a matrix product comes from: dense matrices either way up, or quantised blocks.

use super::isa::multiversion;
use super::micro::NR;
use crate::quant::QuantMatrix;

/// Gives panels `B[k0..k0 + kc, j0..j0 + cols]` packed as `[kc][NR]`; columns past `cols` are zero or anything.
pub(crate) trait Panels: Sync {
    fn fill(&self, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [f32]);
}

/// A dense row-major `[k, n]`.
pub(crate) struct Rows<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

impl Panels for Rows<'_> {
    fn fill(&self, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [f32]) {
        for (p, out) in panel.chunks_exact_mut(NR).take(kc).enumerate() {
            let start = (k0 + p) * self.stride + j0;
            out[..cols].copy_from_slice(&self.values[start..start + cols]);
            out[cols..].fill(0.0);
        }
    }
}

/// The transpose of a dense row-major `[n, k]`.
pub(crate) struct Transposed<'a> {
    pub values: &'a [f32],
    pub stride: usize,
}

impl Panels for Transposed<'_> {
    fn fill(&self, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [f32]) {
        interleave(&self.values[j0 * self.stride + k0..], self.stride, cols, kc, panel);
    }
}

/// Elements of a weight row dequantised at a time: a multiple of every block size, and 32 rows of it stay in the
/// first-level cache.
const CHUNK: usize = 256;
/// Row stride of the scratch: not a multiple of 1 KiB, which would put every row into the same cache sets.
const STRIDE: usize = CHUNK + 16;

/// `W^T` of a frozen matrix `[n, k]` in its own format: the forward product `y = x W^T`.
///
/// `first` is the row of the stored matrix that counts as row 0 here.
pub(crate) struct WeightTransposed<'a> {
    pub weight: &'a QuantMatrix,
    pub first: usize,
}

impl Panels for WeightTransposed<'_> {
    fn fill(&self, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [f32]) {
        weight_transposed(self.weight, self.first + j0, cols, k0, kc, panel);
    }
}

multiversion! {
    fn weight_transposed(w: &QuantMatrix, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [f32]) {
        let mut scratch = [0f32; NR * STRIDE];
        for c0 in (0..kc).step_by(CHUNK) {
            let len = (kc - c0).min(CHUNK);
            for j in 0..cols {
                w.dequantize_block_inline(j0 + j, k0 + c0, &mut scratch[j * STRIDE..j * STRIDE + len]);
            }
            interleave_body(&scratch, STRIDE, cols, len, &mut panel[c0 * NR..]);
        }
        let _ = F::fma;
    }
}

/// A frozen matrix `[k, n]` in its own format: the backward product `dx = dy W`.
///
/// `first` is the row of the stored matrix that counts as row 0 here.
pub(crate) struct Weight<'a> {
    pub weight: &'a QuantMatrix,
    pub first: usize,
}

impl Panels for Weight<'_> {
    fn fill(&self, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [f32]) {
        weight_rows(self.weight, j0, cols, self.first + k0, kc, panel);
    }
}

multiversion! {
    fn weight_rows(w: &QuantMatrix, j0: usize, cols: usize, k0: usize, kc: usize, panel: &mut [f32]) {
        // Blocks of 256 are dequantised whole; a panel takes its 32 columns of them.
        let block = w.dtype().block_size();
        let first = j0 / block * block;
        let len = ((j0 + cols).div_ceil(block) * block).min(w.cols()) - first;
        let mut scratch = [0f32; 512];
        for (p, out) in panel.chunks_exact_mut(NR).take(kc).enumerate() {
            let out: &mut [f32; NR] = &mut out.as_chunks_mut().0[0];
            if cols == NR && w.dequantize_part_inline(k0 + p, j0, out) {
                continue;
            }
            if first == j0 && len == NR {
                w.dequantize_block_inline(k0 + p, j0, out);
            } else {
                w.dequantize_block_inline(k0 + p, first, &mut scratch[..len]);
                out[..cols].copy_from_slice(&scratch[j0 - first..j0 - first + cols]);
                out[cols..].fill(0.0);
            }
        }
        let _ = F::fma;
    }
}

multiversion! {
    fn interleave(rows: &[f32], stride: usize, cols: usize, kc: usize, panel: &mut [f32]) {
        interleave_body(rows, stride, cols, kc, panel);
        let _ = F::fma;
    }
}

/// `panel[p][j] = rows[j][p]`.
#[inline(always)]
fn interleave_body(rows: &[f32], stride: usize, cols: usize, kc: usize, panel: &mut [f32]) {
    let panel = &mut panel[..kc * NR];
    for j in 0..NR {
        if j < cols {
            let row = &rows[j * stride..j * stride + kc];
            for (out, x) in panel.iter_mut().skip(j).step_by(NR).zip(row) {
                *out = *x;
            }
        } else {
            panel.iter_mut().skip(j).step_by(NR).for_each(|out| *out = 0.0);
        }
    }
}
