//! Exact products with interleaved rows in 256-bit registers, a lane a row of W. The arithmetic: [`super::super::spread`].

use super::driver::{Left, Task, Tile};
use super::grouped::{Grouped, Q4_0, Q4_1, Q8_0, ahead};
use crate::kernels::gemv::spread::Spread;
use crate::kernels::gemv::{Out, Weights};
use crate::quant::{GROUP_BLOCK, Grouping};
use std::arch::x86_64::{
    __m256, __m256i, _mm256_add_ps, _mm256_and_si256, _mm256_broadcast_ss, _mm256_cvtepi32_ps,
    _mm256_fmadd_ps, _mm256_loadu_si256, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setr_epi64x, _mm256_setzero_ps, _mm256_shuffle_epi8, _mm256_srli_epi32,
};
use std::ops::Range;

/// A format of interleaved blocks, code by code.
///
/// # Safety
/// As [`Grouped`].
trait Placed: Grouped<W = __m256> {
    /// The factor of a block's sums with codes, and that of its sum of x.
    unsafe fn factors(block: *const u8) -> (__m256, Option<__m256>);
    /// Code p of each lane of a register, times a power of two that x or the factor makes up for.
    unsafe fn code<const P: usize>(register: __m256i) -> __m256;
}

#[inline(always)]
unsafe fn nibble<const P: usize>(register: __m256i) -> __m256 {
    // SAFETY: the caller has AVX2.
    unsafe {
        let code = match P {
            7 => _mm256_srli_epi32::<28>(register),
            _ => _mm256_and_si256(register, _mm256_set1_epi32(15 << (4 * P))),
        };
        _mm256_cvtepi32_ps(code)
    }
}

// SAFETY, of every block below: the trait's.
impl Placed for Q4_0<__m256> {
    #[inline(always)]
    unsafe fn factors(block: *const u8) -> (__m256, Option<__m256>) {
        unsafe {
            let (d, _) = Self::scales(block);
            (d, Some(_mm256_mul_ps(d, _mm256_set1_ps(-8.0))))
        }
    }
    #[inline(always)]
    unsafe fn code<const P: usize>(register: __m256i) -> __m256 {
        unsafe { nibble::<P>(register) }
    }
}

impl Placed for Q4_1<__m256> {
    #[inline(always)]
    unsafe fn factors(block: *const u8) -> (__m256, Option<__m256>) {
        unsafe { Self::scales(block) }
    }
    #[inline(always)]
    unsafe fn code<const P: usize>(register: __m256i) -> __m256 {
        unsafe { nibble::<P>(register) }
    }
}

impl Placed for Q8_0<__m256> {
    /// Codes lie in the top byte of their lane: 2^24 times their value, and exact.
    #[inline(always)]
    unsafe fn factors(block: *const u8) -> (__m256, Option<__m256>) {
        unsafe { (_mm256_mul_ps(Self::scales(block).0, _mm256_set1_ps(1.0 / 16_777_216.0)), None) }
    }
    #[inline(always)]
    unsafe fn code<const P: usize>(register: __m256i) -> __m256 {
        unsafe {
            // Byte P of each lane into its top byte, zeros below.
            let top = |lane: i64| ((4 * lane + P as i64) << 24) | 0x0080_8080;
            let pair = |first: i64| top(first) | top(first + 1) << 32;
            let places = _mm256_setr_epi64x(pair(0), pair(2), pair(0), pair(2));
            _mm256_cvtepi32_ps(_mm256_shuffle_epi8(register, places))
        }
    }
}

/// One row of x: its values as the codes lie, and for each block its sum.
#[derive(Clone, Copy)]
pub(in crate::kernels::gemv) struct Row {
    values: *const f32,
    sums: *const f32,
}

impl Left for Spread<'_> {
    type Row = Row;
    const PAIRED: bool = true;

    fn row(&self, i: usize, blocks: usize) -> Row {
        let of_block = i * blocks..(i + 1) * blocks;
        Row {
            values: self.values[of_block.start * GROUP_BLOCK..of_block.end * GROUP_BLOCK].as_ptr(),
            sums: self.sums[of_block].as_ptr(),
        }
    }
}

impl<F: Placed> Tile<F> for Spread<'_> {
    #[inline(always)]
    unsafe fn tile<const M: usize, const R: usize>(
        groups: [*const u8; R],
        blocks: usize,
        x: [Row; M],
    ) -> [[__m256; M]; R] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut y = [[_mm256_setzero_ps(); M]; R];
            for b in 0..blocks {
                for group in groups {
                    ahead::<F>(group.add(b * F::BYTES), R * blocks);
                }
                let mut chains = [[[_mm256_setzero_ps(); 2]; M]; R];
                // The two chains side by side, so that one's latency hides the other's.
                for t in 0..F::REGISTERS / 2 {
                    let register = |c: usize| t + c * F::REGISTERS / 2;
                    let codes: [[__m256i; 2]; R] = std::array::from_fn(|r| {
                        let block = groups[r].add(b * F::BYTES + F::HEAD);
                        [0, 1].map(|c| _mm256_loadu_si256(block.add(register(c) * 32).cast()))
                    });
                    let firsts = [0, 1].map(|c| b * GROUP_BLOCK + register(c) * (GROUP_BLOCK / F::REGISTERS));
                    // Each code by its place: places are constants of the instructions.
                    macro_rules! place {
                        ($($p:literal)*) => {$(
                            for c in 0..2 {
                                let each: [__m256; M] =
                                    std::array::from_fn(|i| _mm256_broadcast_ss(&*x[i].values.add(firsts[c] + $p)));
                                for r in 0..R {
                                    let code = F::code::<$p>(codes[r][c]);
                                    for i in 0..M {
                                        chains[r][i][c] = _mm256_fmadd_ps(code, each[i], chains[r][i][c]);
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
                    let (factor, minimum) = F::factors(groups[r].add(b * F::BYTES));
                    for i in 0..M {
                        let sum = _mm256_add_ps(chains[r][i][0], chains[r][i][1]);
                        y[r][i] = _mm256_fmadd_ps(factor, sum, y[r][i]);
                        if let Some(minimum) = minimum {
                            y[r][i] =
                                _mm256_fmadd_ps(minimum, _mm256_broadcast_ss(&*x[i].sums.add(b)), y[r][i]);
                        }
                    }
                }
            }
            y
        }
    }
}

/// Columns of Y.
///
/// # Safety
/// As [`Spread::columns`], of a matrix whose groups have eight rows, with the features that
/// [`crate::kernels::gemv::group_rows`] asks for.
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
    // SAFETY: the caller's promise; the formats are the matrix's.
    unsafe {
        match w.grouping() {
            Grouping::Q4_0 => task.eight::<Q4_0<__m256>>(),
            Grouping::Q4_1 => task.eight::<Q4_1<__m256>>(),
            Grouping::Q8_0 => task.eight::<Q8_0<__m256>>(),
        }
    }
}
