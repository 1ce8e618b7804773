//! Exact products with interleaved rows, a lane a row of W. The arithmetic: [`super::super::spread`].

use super::grouped::{Grouped, Q4_0, Q4_1, Q8_0, ahead, put};
use super::wide::Wide;
use crate::kernels::gemv::spread::Spread;
use crate::kernels::gemv::{Out, Weights};
use crate::quant::{GROUP_BLOCK, Interleaved, WeightDtype};
use std::arch::x86_64::{__m256, __m512};
use std::ops::Range;

/// `Y` of `R` groups of W and `M` rows of x, a lane a row of W.
///
/// # Safety
/// Each of `groups` has `blocks` blocks, `x` and `sums` as many elements of each row; the processor has the features.
#[inline(always)]
unsafe fn tile<F: Grouped, const M: usize, const R: usize>(
    groups: [*const u8; R],
    blocks: usize,
    x: [*const f32; M],
    sums: [*const f32; M],
) -> [[F::W; M]; R] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut y = [[F::W::zero(); M]; R];
        for b in 0..blocks {
            for group in groups {
                ahead::<F>(group.add(b * F::BYTES), R * blocks);
            }
            let mut chains = [[[F::W::zero(); 2]; M]; R];
            // The two chains side by side, so that one's latency hides the other's.
            for t in 0..F::REGISTERS / 2 {
                let register = |c: usize| t + c * F::REGISTERS / 2;
                let codes: [[_; 2]; R] = std::array::from_fn(|r| {
                    let block = groups[r].add(b * F::BYTES + F::HEAD);
                    [0, 1].map(|c| F::W::codes(block.add(register(c) * 4 * F::W::ROWS)))
                });
                let firsts = [0, 1].map(|c| b * GROUP_BLOCK + register(c) * (GROUP_BLOCK / F::REGISTERS));
                // Each code by its place: places are constants of the instructions.
                macro_rules! place {
                    ($($p:literal)*) => {$(
                        for c in 0..2 {
                            let each: [F::W; M] =
                                std::array::from_fn(|i| F::W::broadcast(x[i].add(firsts[c] + $p)));
                            for r in 0..R {
                                let code = F::code::<$p>(codes[r][c]);
                                for i in 0..M {
                                    chains[r][i][c] = F::W::fmadd(code, each[i], chains[r][i][c]);
                                }
                            }
                        }
                    )*};
                }
                place!(0 1 2 3);
                if F::REGISTERS == 4 {
                    place!(4 5 6 7);
                }
            }
            for r in 0..R {
                let (factor, minimum) = F::scales(groups[r].add(b * F::BYTES));
                for i in 0..M {
                    let sum = F::W::add(chains[r][i][0], chains[r][i][1]);
                    y[r][i] = F::W::fmadd(factor, sum, y[r][i]);
                    if let Some(minimum) = minimum {
                        y[r][i] = F::W::fmadd(minimum, F::W::broadcast(sums[i].add(b)), y[r][i]);
                    }
                }
            }
        }
        y
    }
}

struct Task<'a> {
    w: &'a Interleaved,
    x: &'a Spread<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
    out: Out,
}

impl Task<'_> {
    /// # Safety
    /// As [`columns`]; the format is F's.
    #[inline(always)]
    unsafe fn run<F: Grouped, const M: usize, const R: usize>(&self) {
        let (k, blocks, lanes) = (self.x.k, self.w.blocks(), F::W::ROWS);
        for i0 in self.rows.clone().step_by(M) {
            // Rows that are not there repeat the last.
            let rows = (self.rows.end - i0).min(M);
            let row = |i: usize| i0 + i.min(rows - 1);
            let x: [*const f32; M] =
                std::array::from_fn(|i| self.x.values[row(i) * k..(row(i) + 1) * k].as_ptr());
            let sums: [*const f32; M] =
                std::array::from_fn(|i| self.x.sums[row(i) * blocks..(row(i) + 1) * blocks].as_ptr());
            let (out, end) = (self.out.below(i0 - self.rows.start), self.columns.end);
            let mut j = self.columns.start;
            // SAFETY: the caller's promise; `group` checks that the blocks are there.
            unsafe {
                while j + (R - 1) * lanes < end {
                    let group = |r: usize| self.w.group(j / lanes + r).as_ptr();
                    let y = tile::<F, M, R>(std::array::from_fn(group), blocks, x, sums);
                    for r in 0..R {
                        for i in 0..rows {
                            put(out, i, j + r * lanes, end, y[r][i]);
                        }
                    }
                    j += R * lanes;
                }
                while j < end {
                    let [y] = tile::<F, M, 1>([self.w.group(j / lanes).as_ptr()], blocks, x, sums);
                    (0..rows).for_each(|i| put(out, i, j, end, y[i]));
                    j += lanes;
                }
            }
        }
    }

    /// Eight rows to a register.
    ///
    /// # Safety
    /// As [`Self::run`].
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn eight<F: Grouped>(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.rows.len() {
                1 => self.run::<F, 1, 2>(),
                2 => self.run::<F, 2, 2>(),
                _ => self.run::<F, 4, 1>(),
            }
        }
    }

    /// Sixteen rows to a register, and twice the registers.
    ///
    /// # Safety
    /// As [`Self::run`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    unsafe fn sixteen<F: Grouped>(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.rows.len() {
                1 => self.run::<F, 1, 4>(),
                2 => self.run::<F, 2, 2>(),
                _ => self.run::<F, 4, 2>(),
            }
        }
    }
}

/// Columns of Y.
///
/// # Safety
/// As [`Spread::columns`], with the features that [`crate::kernels::gemv::group_rows`] asks for.
pub(in crate::kernels::gemv) unsafe fn columns(
    x: &Spread,
    w: Weights,
    rows: Range<usize>,
    columns: Range<usize>,
    out: Out,
) {
    let Weights::Stored(matrix) = w else { return };
    let Some(w) = matrix.interleaved() else { return };
    let task = Task { w, x, rows, columns, out };
    // SAFETY: the caller's promise; the formats and rows are the matrix's.
    unsafe {
        match (matrix.dtype(), w.group_rows()) {
            (WeightDtype::Q4_0, 8) => task.eight::<Q4_0<__m256>>(),
            (WeightDtype::Q4_1, 8) => task.eight::<Q4_1<__m256>>(),
            (WeightDtype::Q8_0, 8) => task.eight::<Q8_0<__m256>>(),
            (WeightDtype::Q4_0, _) => task.sixteen::<Q4_0<__m512>>(),
            (WeightDtype::Q4_1, _) => task.sixteen::<Q4_1<__m512>>(),
            (WeightDtype::Q8_0, _) => task.sixteen::<Q8_0<__m512>>(),
            _ => {}
        }
    }
}
