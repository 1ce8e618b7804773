//! Exact products with interleaved rows in 512-bit registers, x in digits. The arithmetic: [`super::super::digits`].

use super::grouped::{Grouped, Q4_0, Q4_1, Q8_0, ahead, put};
use super::wide::Wide;
use crate::kernels::gemv::digits::{DIGITS, Digits, RADIX};
use crate::kernels::gemv::{Out, Weights};
use crate::quant::{GROUP_BLOCK, Grouping, Interleaved};
use std::arch::x86_64::{
    __m512, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_mul_ps, _mm512_set1_epi32,
    _mm512_set1_ps,
};
use std::ops::Range;

/// One row of x: for each block its digits, what the codes' offset takes off each sum, its scale and its sum.
#[derive(Clone, Copy)]
struct Row {
    digits: *const i8,
    totals: *const i32,
    scales: *const f32,
    sums: *const f32,
}

/// `Y` of one group of W and `M` rows of x, a lane a row of W.
///
/// # Safety
/// The group has `blocks` blocks, x as many of each row; the processor has the features.
#[inline(always)]
unsafe fn tile<F: Grouped<W = __m512>, const M: usize>(
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

struct Task<'a> {
    w: &'a Interleaved,
    x: &'a Digits<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
    out: Out,
}

impl Task<'_> {
    /// # Safety
    /// As [`columns`]; the format is F's.
    #[inline(always)]
    unsafe fn run<F: Grouped<W = __m512>, const M: usize>(&self) {
        let blocks = self.w.blocks();
        for i0 in self.rows.clone().step_by(M) {
            // Rows that are not there repeat the last.
            let rows = (self.rows.end - i0).min(M);
            let x: [Row; M] = std::array::from_fn(|i| {
                let row = (i0 + i.min(rows - 1)) * blocks;
                let of_block = row..row + blocks;
                Row {
                    digits: self.x.codes[row * DIGITS * GROUP_BLOCK..][..blocks * DIGITS * GROUP_BLOCK]
                        .as_ptr(),
                    totals: self.x.totals[row * DIGITS..][..blocks * DIGITS].as_ptr(),
                    scales: self.x.scales[of_block.clone()].as_ptr(),
                    sums: self.x.sums[of_block].as_ptr(),
                }
            });
            let (out, lanes) = (self.out.below(i0 - self.rows.start), __m512::ROWS);
            for j in self.columns.clone().step_by(lanes) {
                // SAFETY: the caller's promise; `group` checks that the blocks are there.
                unsafe {
                    let y = tile::<F, M>(self.w.group(j / lanes).as_ptr(), blocks, x);
                    for (i, y) in y.into_iter().enumerate().take(rows) {
                        put(out, i, j, self.columns.end, y);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::run`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
    unsafe fn of_format<F: Grouped<W = __m512>>(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.rows.len() {
                1 => self.run::<F, 1>(),
                2 => self.run::<F, 2>(),
                _ => self.run::<F, 4>(),
            }
        }
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
            Grouping::Q4_0 => task.of_format::<Q4_0<__m512>>(),
            Grouping::Q4_1 => task.of_format::<Q4_1<__m512>>(),
            Grouping::Q8_0 => task.of_format::<Q8_0<__m512>>(),
        }
    }
}
