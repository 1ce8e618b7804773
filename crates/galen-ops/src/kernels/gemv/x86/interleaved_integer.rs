//! Products in integers with interleaved nibbles: a lane a row of W, sums of four products in each.
//!
//! Element (i, j) is the sum over blocks b, in their order, of `s_ib d_jb C + m_jb T_ib` with C the exact sum of code
//! times rounded x and `T_ib = s_ib` times the sum of rounded x. The same bits whatever the rows or tasks.

use super::interleaved::{Grouped, Q4_0, Q4_1, ahead, put};
use crate::kernels::gemv::integer::Codes;
use crate::kernels::gemv::{Out, Weights};
use crate::quant::{GROUP_BLOCK, GROUP_ROWS, Interleaved, WeightDtype};
use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_epi16, _mm256_and_si256, _mm256_broadcast_ss, _mm256_cvtepi32_ps,
    _mm256_fmadd_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_ps, _mm256_srli_epi16,
};
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
) -> [__m256; M] {
    // SAFETY: the caller's promise.
    unsafe {
        let (low, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
        let mut y = [_mm256_setzero_ps(); M];
        for b in 0..blocks {
            let block = group.add(b * F::BYTES);
            if M <= 2 {
                ahead::<F>(block, 2 * blocks);
            }
            let mut codes = [low; 8];
            for t in 0..4 {
                let both = _mm256_loadu_si256(block.add(F::HEAD + t * 32).cast());
                codes[2 * t] = _mm256_and_si256(both, low);
                codes[2 * t + 1] = _mm256_and_si256(_mm256_srli_epi16::<4>(both), low);
            }
            let (factor, minimum) = F::scales(block);
            for i in 0..M {
                let at = x[i].add(b * GROUP_BLOCK);
                let product = |t: usize| -> __m256i {
                    _mm256_maddubs_epi16(
                        codes[t],
                        _mm256_set1_epi32(at.add(4 * t).cast::<i32>().read_unaligned()),
                    )
                };
                // Eight sums of two products of at most 15 x 127 stay below 2^15.
                let mut sums = [product(0), product(1)];
                for t in [2, 4, 6] {
                    sums[0] = _mm256_add_epi16(sums[0], product(t));
                    sums[1] = _mm256_add_epi16(sums[1], product(t + 1));
                }
                let sum = _mm256_madd_epi16(_mm256_add_epi16(sums[0], sums[1]), ones);
                let scale = _mm256_mul_ps(factor, _mm256_broadcast_ss(&*scales[i].add(b)));
                y[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, y[i]);
                if let Some(minimum) = minimum {
                    y[i] = _mm256_fmadd_ps(minimum, _mm256_broadcast_ss(&*totals[i].add(b)), y[i]);
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
    #[target_feature(enable = "avx2,fma,f16c")]
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
            for j in self.columns.clone().step_by(GROUP_ROWS) {
                // SAFETY: the caller's promise; `group` checks that the blocks are there.
                unsafe {
                    let group = self.w.group(j / GROUP_ROWS).as_ptr();
                    let y = tile::<F, M>(group, blocks, x, scales, totals);
                    for i in 0..rows {
                        put(out, i, j, self.columns.end, y[i]);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::run`].
    unsafe fn of_format<F: Grouped>(&self) {
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
/// As [`Codes::columns`] of a matrix with `integer_prompts`, `columns` beginning at a multiple of eight, and
/// [`crate::kernels::gemv::reads_interleaved`].
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
    // SAFETY: the caller's promise; the formats are the matrix's.
    unsafe {
        match matrix.dtype() {
            WeightDtype::Q4_0 => task.of_format::<Q4_0>(),
            WeightDtype::Q4_1 => task.of_format::<Q4_1>(),
            _ => {}
        }
    }
}
