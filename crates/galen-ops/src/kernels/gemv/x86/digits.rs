//! Exact products with interleaved rows in 512-bit registers, x in digits. The arithmetic: [`super::super::digits`].

use super::driver::{Left, Task, Tile};
use super::grouped::{Grouped, Q4_0, Q4_1, Q8_0, ahead};
use super::wide::Wide;
use crate::kernels::gemv::digits::{DIGITS, Digits, RADIX};
use crate::kernels::gemv::{Out, Weights};
use crate::quant::{GROUP_BLOCK, Grouping};
use std::arch::x86_64::{
    __m512, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_mul_ps, _mm512_set1_epi32,
    _mm512_set1_ps,
};
use std::ops::Range;

/// One row of x: for each block its digits, what the codes' offset takes off each sum, its scale and its sum.
#[derive(Clone, Copy)]
pub(in crate::kernels::gemv) struct Row {
    digits: *const i8,
    totals: *const i32,
    scales: *const f32,
    sums: *const f32,
}

impl Left for Digits<'_> {
    type Row = Row;
    const PAIRED: bool = false;

    fn row(&self, i: usize, blocks: usize) -> Row {
        let of_block = i * blocks..(i + 1) * blocks;
        let codes = DIGITS * GROUP_BLOCK;
        Row {
            digits: self.codes[of_block.start * codes..of_block.end * codes].as_ptr(),
            totals: self.totals[of_block.start * DIGITS..of_block.end * DIGITS].as_ptr(),
            scales: self.scales[of_block.clone()].as_ptr(),
            sums: self.sums[of_block].as_ptr(),
        }
    }
}

impl<F: Grouped<W = __m512>> Tile<F> for Digits<'_> {
    #[inline(always)]
    unsafe fn tile<const M: usize, const R: usize>(
        groups: [*const u8; R],
        blocks: usize,
        x: [Row; M],
    ) -> [[__m512; M]; R] {
        // SAFETY: the caller's promise.
        unsafe {
            // A plain loop: a closure is compiled without the caller's features, and runs at a thirtieth of the speed.
            let mut y = [[__m512::zero(); M]; R];
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
unsafe fn one<F: Grouped<W = __m512>, const M: usize>(
    group: *const u8,
    blocks: usize,
    x: [Row; M],
) -> [__m512; M] {
    // SAFETY: the caller's promise.
    unsafe {
        let radix = _mm512_set1_ps(RADIX);
        let mut y = [__m512::zero(); M];
        for b in 0..blocks {
            let block = group.add(b * F::BYTES);
            ahead::<F>(block, 2 * blocks);
            let codes = F::codes(block);
            let (scale, minimum) = F::scales(block);
            for i in 0..M {
                let digits = x[i].digits.add(b * DIGITS * GROUP_BLOCK);
                // Exact: 32 products of a code below 256 and a digit, the offset's part taken off beforehand.
                let mut sums = [_mm512_set1_epi32(0); DIGITS];
                for (d, sum) in sums.iter_mut().enumerate() {
                    if F::OFFSET != 0 {
                        *sum = _mm512_set1_epi32(-F::OFFSET * *x[i].totals.add(b * DIGITS + d));
                    }
                    for (t, codes) in codes.iter().enumerate() {
                        let four = digits.add(d * GROUP_BLOCK + 4 * t).cast::<i32>().read_unaligned();
                        *sum = _mm512_dpbusd_epi32(*sum, *codes, _mm512_set1_epi32(four));
                    }
                }
                let mut sum = _mm512_cvtepi32_ps(sums[0]);
                for lower in &sums[1..] {
                    sum = _mm512_fmadd_ps(sum, radix, _mm512_cvtepi32_ps(*lower));
                }
                let factor = _mm512_mul_ps(scale, _mm512_set1_ps(*x[i].scales.add(b)));
                y[i] = _mm512_fmadd_ps(factor, sum, y[i]);
                if let Some(minimum) = minimum {
                    y[i] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(*x[i].sums.add(b)), y[i]);
                }
            }
        }
        y
    }
}

/// Columns of Y.
///
/// # Safety
/// As [`Digits::columns`], of a matrix whose groups have sixteen rows, with the features that
/// [`crate::kernels::gemv::group_rows`] asks for.
pub(in crate::kernels::gemv) unsafe fn columns(
    x: &Digits,
    w: Weights,
    rows: Range<usize>,
    columns: Range<usize>,
    out: Out,
) {
    let Weights::Stored(matrix) = w else { return };
    let Some(w) = matrix.interleaved() else { return };
    let task = Task { w, x, rows, columns, out };
    // SAFETY: the caller's promise; the formats are the matrix's.
    unsafe {
        match w.grouping() {
            Grouping::Q4_0 => task.sixteen::<Q4_0<__m512>>(),
            Grouping::Q4_1 => task.sixteen::<Q4_1<__m512>>(),
            Grouping::Q8_0 => task.sixteen::<Q8_0<__m512>>(),
        }
    }
}
