//! Products in integers with interleaved nibbles: a lane a row of W, sums of four products in each.
//!
//! Element (i, j) is the sum over blocks b, in their order, of `s_ib d_jb C + m_jb T_ib` with C the exact sum of code
//! times rounded x and `T_ib = s_ib` times the sum of rounded x. The same bits whatever the rows, tasks or registers.

use super::grouped::{Grouped, Q4_0, Q4_1, ahead, put};
use super::wide::Wide;
use crate::kernels::gemv::integer::Codes;
use crate::kernels::gemv::{Out, Weights};
use crate::quant::{GROUP_BLOCK, Grouping, Interleaved};
use std::arch::x86_64::{__m256, __m512};
use std::ops::Range;

/// `Y` of one group of W and `M` rows of x.
///
/// # Safety
/// The group has `blocks` blocks, x as many elements of each row; the processor has the features.
#[inline(always)]
unsafe fn tile<F: Grouped, const M: usize>(
    group: *const u8,
    blocks: usize,
    x: [*const i8; M],
    scales: [*const f32; M],
    totals: [*const f32; M],
) -> [F::W; M] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut y = [F::W::zero(); M];
        for b in 0..blocks {
            let block = group.add(b * F::BYTES);
            if M <= 2 {
                ahead::<F>(block, 2 * blocks);
            }
            let codes = F::codes(block);
            let (factor, minimum) = F::scales(block);
            let offset = F::W::mul(factor, F::W::splat(-F::OFFSET as f32));
            let minimum = minimum.or((F::OFFSET != 0).then_some(offset));
            for i in 0..M {
                let sum = F::W::dot(&codes, x[i].add(b * GROUP_BLOCK));
                let scale = F::W::mul(factor, F::W::broadcast(scales[i].add(b)));
                y[i] = F::W::fmadd(sum, scale, y[i]);
                if let Some(minimum) = minimum {
                    y[i] = F::W::fmadd(minimum, F::W::broadcast(totals[i].add(b)), y[i]);
                }
            }
        }
        y
    }
}

struct Task<'a> {
    w: &'a Interleaved,
    x: &'a Codes<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
    out: Out,
}

impl Task<'_> {
    /// # Safety
    /// As [`columns`]; the format is F's.
    #[inline(always)]
    unsafe fn run<F: Grouped, const M: usize>(&self) {
        let blocks = self.w.blocks();
        let k = blocks * GROUP_BLOCK;
        for i0 in self.rows.clone().step_by(M) {
            // Rows that are not there repeat the last.
            let rows = (self.rows.end - i0).min(M);
            let row = |i: usize| i0 + i.min(rows - 1);
            let x: [*const i8; M] = std::array::from_fn(|i| self.x.q[row(i) * k..(row(i) + 1) * k].as_ptr());
            let of_blocks =
                |values: &[f32], i: usize| values[row(i) * blocks..(row(i) + 1) * blocks].as_ptr();
            let scales: [*const f32; M] = std::array::from_fn(|i| of_blocks(&self.x.scales, i));
            let totals: [*const f32; M] = std::array::from_fn(|i| of_blocks(&self.x.totals, i));
            let out = self.out.below(i0 - self.rows.start);
            for j in self.columns.clone().step_by(F::W::ROWS) {
                // SAFETY: the caller's promise; `group` checks that the blocks are there.
                unsafe {
                    let group = self.w.group(j / F::W::ROWS).as_ptr();
                    let y = tile::<F, M>(group, blocks, x, scales, totals);
                    for i in 0..rows {
                        put(out, i, j, self.columns.end, y[i]);
                    }
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
                1 => self.run::<F, 1>(),
                2 => self.run::<F, 2>(),
                _ => self.run::<F, 4>(),
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
                1 => self.run::<F, 1>(),
                2 => self.run::<F, 2>(),
                3 | 4 => self.run::<F, 4>(),
                _ => self.run::<F, 8>(),
            }
        }
    }
}

/// Columns of Y.
///
/// # Safety
/// As [`Codes::columns`] of a matrix with `integer_copy`, `columns` beginning at a multiple of its group's rows, with
/// the features that [`crate::kernels::gemv::group_rows`] asks for.
pub(in crate::kernels::gemv) unsafe fn columns(
    x: &Codes,
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
        match (w.grouping(), w.group_rows()) {
            (Grouping::Q4_0, 8) => task.eight::<Q4_0<__m256>>(),
            (Grouping::Q4_1, 8) => task.eight::<Q4_1<__m256>>(),
            (Grouping::Q4_0, _) => task.sixteen::<Q4_0<__m512>>(),
            (Grouping::Q4_1, _) => task.sixteen::<Q4_1<__m512>>(),
            // Bytes would not fit the sums, and `integer_copy` keeps them away.
            (Grouping::Q8_0, _) => debug_assert!(false, "bytes in the kernel of nibbles"),
        }
    }
}
