//! Products in integers with interleaved nibbles: a lane a row of W, sums of four products in each.
//!
//! Element (i, j) is the sum over blocks b, in their order, of `s_ib d_jb C + m_jb T_ib` with C the exact sum of code
//! times rounded x and `T_ib = s_ib` times the sum of rounded x. The same bits whatever the rows, tasks or registers.

use super::driver::{Left, Task, Tile};
use super::grouped::{Grouped, Q4_0, Q4_1, ahead};
use super::wide::Wide;
use crate::kernels::gemv::integer::Codes;
use crate::kernels::gemv::{Out, Weights};
use crate::quant::{GROUP_BLOCK, Grouping};
use std::arch::x86_64::{__m256, __m512};
use std::ops::Range;

/// One row of x: its codes, and for each block its scale and its sum.
#[derive(Clone, Copy)]
pub(in crate::kernels::gemv) struct Row {
    codes: *const i8,
    scales: *const f32,
    totals: *const f32,
}

impl Left for Codes<'_> {
    type Row = Row;
    const PAIRED: bool = false;

    fn row(&self, i: usize, blocks: usize) -> Row {
        let of_block = i * blocks..(i + 1) * blocks;
        Row {
            codes: self.q[of_block.start * GROUP_BLOCK..of_block.end * GROUP_BLOCK].as_ptr(),
            scales: self.scales[of_block.clone()].as_ptr(),
            totals: self.totals[of_block].as_ptr(),
        }
    }
}

impl<F: Grouped> Tile<F> for Codes<'_> {
    #[inline(always)]
    unsafe fn tile<const M: usize, const R: usize>(
        groups: [*const u8; R],
        blocks: usize,
        x: [Row; M],
    ) -> [[F::W; M]; R] {
        // SAFETY: the caller's promise.
        unsafe {
            // A plain loop: a closure is compiled without the caller's features, and runs at a thirtieth of the speed.
            let mut y = [[F::W::zero(); M]; R];
            for r in 0..R {
                y[r] = one::<F, M>(groups[r], blocks, x);
            }
            y
        }
    }
}

/// One group.
///
/// # Safety
/// As [`Tile::tile`].
#[inline(always)]
unsafe fn one<F: Grouped, const M: usize>(group: *const u8, blocks: usize, x: [Row; M]) -> [F::W; M] {
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
                let sum = F::W::dot(&codes, x[i].codes.add(b * GROUP_BLOCK));
                let scale = F::W::mul(factor, F::W::broadcast(x[i].scales.add(b)));
                y[i] = F::W::fmadd(sum, scale, y[i]);
                if let Some(minimum) = minimum {
                    y[i] = F::W::fmadd(minimum, F::W::broadcast(x[i].totals.add(b)), y[i]);
                }
            }
        }
        y
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
