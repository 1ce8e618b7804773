//! What the products with interleaved rows share: which rows and groups are computed together, and by which registers.

use super::grouped::{Grouped, put};
use super::wide::Wide;
use crate::kernels::gemv::Out;
use crate::quant::Interleaved;
use std::ops::Range;

/// Rows of x as a kernel takes them.
pub(super) trait Left {
    /// Where one row lies.
    type Row: Copy;
    /// Whether one and two rows take two groups at once: where one group's sums do not keep the multipliers busy.
    const PAIRED: bool;
    /// Row i, `blocks` blocks of it.
    ///
    /// # Panics
    /// Where there is no such row.
    fn row(&self, i: usize, blocks: usize) -> Self::Row;
}

/// The kernel itself.
pub(super) trait Tile<F: Grouped>: Left {
    /// `Y` of `R` groups of W and `M` rows of x, a lane a row of W.
    ///
    /// # Safety
    /// Groups and rows have `blocks` blocks; the processor has the features of F's registers.
    unsafe fn tile<const M: usize, const R: usize>(
        groups: [*const u8; R],
        blocks: usize,
        x: [Self::Row; M],
    ) -> [[F::W; M]; R];
}

/// Columns `columns` of Y for rows `rows` of x.
pub(super) struct Task<'a, X> {
    pub w: &'a Interleaved,
    pub x: &'a X,
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    pub out: Out,
}

impl<X: Left> Task<'_, X> {
    /// # Safety
    /// `columns` of `out`, whose first row is the first of `rows`, are the caller's, the first a multiple of a group's rows;
    /// the format is F's, and the processor has its features.
    #[inline(always)]
    unsafe fn run<F: Grouped, const M: usize, const R: usize>(&self)
    where
        X: Tile<F>,
    {
        let (blocks, lanes, end) = (self.w.blocks(), F::W::ROWS, self.columns.end);
        for i0 in self.rows.clone().step_by(M) {
            // Rows that are not there repeat the last.
            let rows = (self.rows.end - i0).min(M);
            let x: [X::Row; M] = std::array::from_fn(|i| self.x.row(i0 + i.min(rows - 1), blocks));
            let out = self.out.below(i0 - self.rows.start);
            let mut j = self.columns.start;
            // SAFETY: the caller's promise; `group` checks that the blocks are there.
            unsafe {
                while j + (R - 1) * lanes < end {
                    let group = |r: usize| self.w.group(j / lanes + r).as_ptr();
                    let y = X::tile::<M, R>(std::array::from_fn(group), blocks, x);
                    for r in 0..R {
                        for i in 0..rows {
                            put(out, i, j + r * lanes, end, y[r][i]);
                        }
                    }
                    j += R * lanes;
                }
                while j < end {
                    let [y] = X::tile::<M, 1>([self.w.group(j / lanes).as_ptr()], blocks, x);
                    for i in 0..rows {
                        put(out, i, j, end, y[i]);
                    }
                    j += lanes;
                }
            }
        }
    }

    /// Eight rows to a register.
    ///
    /// # Safety
    /// As `run`.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub unsafe fn eight<F: Grouped>(&self)
    where
        X: Tile<F>,
    {
        // SAFETY: the caller's promise.
        unsafe {
            match self.rows.len() {
                1 if X::PAIRED => self.run::<F, 1, 2>(),
                2 if X::PAIRED => self.run::<F, 2, 2>(),
                1 => self.run::<F, 1, 1>(),
                2 => self.run::<F, 2, 1>(),
                _ => self.run::<F, 4, 1>(),
            }
        }
    }

    /// Sixteen rows to a register, and twice the registers.
    ///
    /// # Safety
    /// As `run`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    pub unsafe fn sixteen<F: Grouped>(&self)
    where
        X: Tile<F>,
    {
        // SAFETY: the caller's promise.
        unsafe {
            match self.rows.len() {
                1 => self.run::<F, 1, 1>(),
                2 => self.run::<F, 2, 1>(),
                3 | 4 => self.run::<F, 4, 1>(),
                _ => self.run::<F, 8, 1>(),
            }
        }
    }
}
