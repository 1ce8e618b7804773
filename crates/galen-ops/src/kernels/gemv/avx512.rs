//! The product with 512-bit registers: sixteen weights a register, straight from their block.
//!
//! Codes of up to four bits index a register of the block's sixteen values (five bits: two registers), so a weight is
//! made by one shuffle and equals the decoder's to the bit.

use super::{MAX_ROWS, Out, Weights};
use crate::quant::WeightDtype;
use std::arch::x86_64::{
    __m256i, __m512, __m512i, _MM_HINT_T0, _mm_cvtsi32_si128, _mm_cvtsi64_si128, _mm_loadu_si128,
    _mm_prefetch, _mm256_and_si256, _mm256_castsi256_si128, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32,
    _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_mul_ps, _mm256_or_si256, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_slli_epi16, _mm256_srl_epi16, _mm256_storeu_ps,
    _mm256_sub_epi8, _mm512_add_ps, _mm512_and_si512, _mm512_castps512_ps256, _mm512_castsi512_ps,
    _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_or_epi32, _mm512_movehdup_ps, _mm512_moveldup_ps,
    _mm512_mul_ps, _mm512_permutex2var_ps, _mm512_permutexvar_ps, _mm512_reduce_add_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setr_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_sub_ps,
};
use std::ops::Range;

/// Bytes prefetched beyond the next rows.
const AHEAD: usize = 2048;

/// A format, decoded `16 G` elements (a part) at a time.
trait Decode<const G: usize> {
    /// Bytes of a block.
    const BYTES: usize;
    /// Parts of a block.
    const PARTS: usize = 1;
    /// What the parts of a block share.
    type Head;

    /// # Safety
    /// `block` is readable for `BYTES`; the processor has AVX-512 F, VL, BW and DQ.
    unsafe fn head(block: *const u8) -> Self::Head;

    /// # Safety
    /// As [`Decode::head`], which gave `head`; `part` is below `PARTS`.
    unsafe fn part(block: *const u8, head: &Self::Head, part: usize) -> [__m512; G];
}

/// `Y` of `R` rows of W and `M` rows of x.
///
/// # Safety
/// `bytes` holds R rows of `blocks` blocks at `stride`, every `x` as many elements; the processor has the features.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq")]
unsafe fn tile<D: Decode<G>, const G: usize, const M: usize, const R: usize>(
    bytes: *const u8,
    stride: usize,
    blocks: usize,
    x: [*const f32; M],
) -> [[f32; M]; R] {
    let mut sums = [[_mm512_setzero_ps(); M]; R];
    // SAFETY: the caller's promise.
    unsafe {
        for b in 0..blocks {
            for r in 0..R {
                let block = bytes.add(r * stride + b * D::BYTES);
                // What comes half a page after the same block of the next rows: the processor itself does not foresee
                // R interleaved streams. Measured: 5 to 8.5 GB/s for Q4_1.
                for line in (0..D::BYTES).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(R * stride + AHEAD + line).cast());
                }
                let head = D::head(block);
                for part in 0..D::PARTS {
                    let weights = D::part(block, &head, part);
                    let first = (b * D::PARTS + part) * G * 16;
                    for g in 0..G {
                        for i in 0..M {
                            let x = _mm512_loadu_ps(x[i].add(first + g * 16));
                            sums[r][i] = _mm512_fmadd_ps(weights[g], x, sums[r][i]);
                        }
                    }
                }
            }
        }
    }
    // Plain loops: passed to `map`, the sums would live in memory all along.
    let mut y = [[0f32; M]; R];
    for r in 0..R {
        for i in 0..M {
            y[r][i] = _mm512_reduce_add_ps(sums[r][i]);
        }
    }
    y
}

/// Columns of Y for a format. Elements of a block must divide k.
///
/// # Safety
/// As [`super::columns_of`]; `bytes` are the matrix's, `stride` of them a row.
unsafe fn of_format<D: Decode<G>, const G: usize>(
    bytes: &[u8],
    stride: usize,
    x: &[f32],
    k: usize,
    columns: Range<usize>,
    out: Out,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match x.len() / k {
            1 => of_rows::<D, G, 1, 4>(bytes, stride, x, k, columns, out),
            2 => of_rows::<D, G, 2, 4>(bytes, stride, x, k, columns, out),
            3..=4 => of_rows::<D, G, 4, 2>(bytes, stride, x, k, columns, out),
            _ => of_rows::<D, G, 8, 2>(bytes, stride, x, k, columns, out),
        }
    }
}

/// # Safety
/// As [`of_format`].
unsafe fn of_rows<D: Decode<G>, const G: usize, const M: usize, const R: usize>(
    bytes: &[u8],
    stride: usize,
    x: &[f32],
    k: usize,
    columns: Range<usize>,
    out: Out,
) {
    let rows = x.len() / k;
    // Rows that are not there repeat the last.
    let xs: [*const f32; M] = std::array::from_fn(|i| x[i.min(rows - 1) * k..].as_ptr());
    let blocks = k / (D::PARTS * G * 16);
    let mut j = columns.start;
    // SAFETY: the caller's promise.
    unsafe {
        while j + R <= columns.end {
            let y = tile::<D, G, M, R>(bytes[j * stride..(j + R) * stride].as_ptr(), stride, blocks, xs);
            for (r, y) in y.iter().enumerate() {
                (0..rows).for_each(|i| out.put(i, j + r, y[i]));
            }
            j += R;
        }
        for j in j..columns.end {
            let [y] = tile::<D, G, M, 1>(bytes[j * stride..(j + 1) * stride].as_ptr(), stride, blocks, xs);
            (0..rows).for_each(|i| out.put(i, j, y[i]));
        }
    }
}

/// Columns of Y; false (and nothing done) for a format or size without a kernel here.
///
/// # Safety
/// As [`super::columns_of`]; the processor has AVX-512 F, VL, BW and DQ.
pub(super) unsafe fn columns(w: Weights, x: &[f32], columns: Range<usize>, out: Out) -> bool {
    let k = w.cols();
    let (dtype, bytes) = match w {
        Weights::Stored(w) => (w.dtype(), w.data().as_slice()),
        Weights::Dense { values, .. } => {
            // SAFETY: floats are bytes too.
            let bytes =
                unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
            (WeightDtype::F32, bytes)
        }
    };
    if !k.is_multiple_of(16) || x.len() > MAX_ROWS * k {
        return false;
    }
    let stride = k / dtype.block_size() * dtype.block_bytes();
    // SAFETY: the caller's promise; rows of these formats are whole blocks.
    unsafe {
        match dtype {
            WeightDtype::F32 => of_format::<F32, 1>(bytes, stride, x, k, columns, out),
            WeightDtype::F16 => of_format::<F16, 1>(bytes, stride, x, k, columns, out),
            WeightDtype::BF16 => of_format::<BF16, 1>(bytes, stride, x, k, columns, out),
            WeightDtype::Q4_0 => of_format::<Q4_0, 2>(bytes, stride, x, k, columns, out),
            WeightDtype::Q4_1 => of_format::<Q4_1, 2>(bytes, stride, x, k, columns, out),
            WeightDtype::Q5_0 => of_format::<Q5_0, 2>(bytes, stride, x, k, columns, out),
            WeightDtype::Q8_0 => of_format::<Q8_0, 2>(bytes, stride, x, k, columns, out),
            WeightDtype::Q4_K => of_format::<Q4K, 4>(bytes, stride, x, k, columns, out),
            WeightDtype::Q6_K => of_format::<Q6K, 2>(bytes, stride, x, k, columns, out),
            _ => return false,
        }
    }
    true
}

/// The half-precision number at `at`, in every lane.
#[inline(always)]
unsafe fn half(at: *const u8) -> __m512 {
    // SAFETY: the caller's promise that two bytes are readable there.
    unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(at.cast::<i16>().read_unaligned())) }
}

/// The half-precision numbers at `at` and behind it, each in every lane.
#[inline(always)]
unsafe fn halves(at: *const u8) -> [__m512; 2] {
    // SAFETY: the caller's promise that four bytes are readable there.
    unsafe {
        let pairs = _mm512_cvtph_ps(_mm256_set1_epi32(at.cast::<i32>().read_unaligned()));
        [_mm512_moveldup_ps(pairs), _mm512_movehdup_ps(pairs)]
    }
}

/// Sixteen bytes, zero-extended.
#[inline(always)]
unsafe fn bytes16(at: *const u8) -> __m512i {
    // SAFETY: the caller's promise that sixteen bytes are readable there.
    unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast())) }
}

/// `first, first + 1, ...`.
#[inline(always)]
unsafe fn codes(first: f32) -> __m512 {
    // SAFETY: arithmetic.
    unsafe {
        let zero_up = _mm512_setr_ps(
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0,
        );
        _mm512_add_ps(zero_up, _mm512_set1_ps(first))
    }
}

/// Values of the low and of the high nibbles of sixteen bytes: a shuffle sees the low four bits of its index.
#[inline(always)]
unsafe fn nibbles(bytes: __m512i, low: __m512, high: __m512) -> [__m512; 2] {
    // SAFETY: arithmetic.
    unsafe { [_mm512_permutexvar_ps(bytes, low), _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(bytes), high)] }
}

struct F32;
struct F16;
struct BF16;
struct Q4_0;
struct Q4_1;
struct Q5_0;
struct Q8_0;
struct Q4K;
struct Q6K;

impl Decode<1> for F32 {
    const BYTES: usize = 64;
    type Head = ();

    #[inline(always)]
    unsafe fn head(_: *const u8) {}

    #[inline(always)]
    unsafe fn part(block: *const u8, (): &(), _: usize) -> [__m512; 1] {
        // SAFETY: the caller's promise, here and below.
        unsafe { [_mm512_loadu_ps(block.cast())] }
    }
}

impl Decode<1> for F16 {
    const BYTES: usize = 32;
    type Head = ();

    #[inline(always)]
    unsafe fn head(_: *const u8) {}

    #[inline(always)]
    unsafe fn part(block: *const u8, (): &(), _: usize) -> [__m512; 1] {
        // SAFETY: as above.
        unsafe { [_mm512_cvtph_ps(_mm256_loadu_si256(block.cast()))] }
    }
}

impl Decode<1> for BF16 {
    const BYTES: usize = 32;
    type Head = ();

    #[inline(always)]
    unsafe fn head(_: *const u8) {}

    #[inline(always)]
    unsafe fn part(block: *const u8, (): &(), _: usize) -> [__m512; 1] {
        // SAFETY: as above.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(block.cast()));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))]
        }
    }
}

impl Decode<2> for Q4_0 {
    const BYTES: usize = 18;
    type Head = __m512;

    #[inline(always)]
    unsafe fn head(block: *const u8) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(half(block), codes(-8.0)) }
    }

    #[inline(always)]
    unsafe fn part(block: *const u8, table: &__m512, _: usize) -> [__m512; 2] {
        // SAFETY: as above.
        unsafe { nibbles(bytes16(block.add(2)), *table, *table) }
    }
}

impl Decode<2> for Q4_1 {
    const BYTES: usize = 20;
    type Head = __m512;

    #[inline(always)]
    unsafe fn head(block: *const u8) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let [d, m] = halves(block);
            _mm512_add_ps(_mm512_mul_ps(d, codes(0.0)), m)
        }
    }

    #[inline(always)]
    unsafe fn part(block: *const u8, table: &__m512, _: usize) -> [__m512; 2] {
        // SAFETY: as above.
        unsafe { nibbles(bytes16(block.add(4)), *table, *table) }
    }
}

impl Decode<2> for Q5_0 {
    const BYTES: usize = 22;
    type Head = [__m512; 2];

    #[inline(always)]
    unsafe fn head(block: *const u8) -> [__m512; 2] {
        // SAFETY: as above.
        unsafe {
            let d = half(block);
            [_mm512_mul_ps(d, codes(-16.0)), _mm512_mul_ps(d, codes(0.0))]
        }
    }

    #[inline(always)]
    unsafe fn part(block: *const u8, [low, high]: &[__m512; 2], _: usize) -> [__m512; 2] {
        // SAFETY: as above.
        unsafe {
            let fifth = block.add(2).cast::<u32>().read_unaligned();
            let bytes = bytes16(block.add(6));
            let (nibble, sixteen) = (_mm512_set1_epi32(15), _mm512_set1_epi32(16));
            let index = |codes: __m512i, fifth: u16| {
                let codes = _mm512_and_si512(codes, nibble);
                _mm512_mask_or_epi32(codes, fifth, codes, sixteen)
            };
            let first = index(bytes, fifth as u16);
            let last = index(_mm512_srli_epi32::<4>(bytes), (fifth >> 16) as u16);
            [_mm512_permutex2var_ps(*low, first, *high), _mm512_permutex2var_ps(*low, last, *high)]
        }
    }
}

impl Decode<2> for Q8_0 {
    const BYTES: usize = 34;
    type Head = __m512;

    #[inline(always)]
    unsafe fn head(block: *const u8) -> __m512 {
        // SAFETY: as above.
        unsafe { half(block) }
    }

    #[inline(always)]
    unsafe fn part(block: *const u8, d: &__m512, _: usize) -> [__m512; 2] {
        // SAFETY: as above.
        unsafe {
            let first = _mm512_cvtepi8_epi32(_mm_loadu_si128(block.add(2).cast()));
            let last = _mm512_cvtepi8_epi32(_mm_loadu_si128(block.add(18).cast()));
            [_mm512_mul_ps(*d, _mm512_cvtepi32_ps(first)), _mm512_mul_ps(*d, _mm512_cvtepi32_ps(last))]
        }
    }
}

/// Scale and minimum of the eight sub-blocks of Q4_K and Q5_K, times `d` and `dmin`: six bits each, the last four's
/// upper two bits in the spare bits of the first four.
#[inline(always)]
unsafe fn scales_and_mins(block: *const u8) -> [[f32; 8]; 2] {
    // SAFETY: the caller's promise that the block's first sixteen bytes are readable.
    unsafe {
        let word = |i: usize| block.add(4 + 4 * i).cast::<u32>().read_unaligned();
        let (a, b, c) = (word(0), word(1), word(2));
        let scales = [a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | a >> 2 & 0x3030_3030];
        let mins = [b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | b >> 2 & 0x3030_3030];
        let mut out = [[0f32; 8]; 2];
        for (i, words) in [scales, mins].into_iter().enumerate() {
            let factor = _mm512_castps512_ps256(half(block.add(2 * i)));
            let bytes = _mm_cvtsi64_si128((u64::from(words[0]) | u64::from(words[1]) << 32) as i64);
            let values = _mm256_mul_ps(factor, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)));
            _mm256_storeu_ps(out[i].as_mut_ptr(), values);
        }
        out
    }
}

impl Decode<4> for Q4K {
    const BYTES: usize = 144;
    const PARTS: usize = 4;
    type Head = [[f32; 8]; 2];

    #[inline(always)]
    unsafe fn head(block: *const u8) -> [[f32; 8]; 2] {
        // SAFETY: as above.
        unsafe { scales_and_mins(block) }
    }

    #[inline(always)]
    unsafe fn part(block: *const u8, [scales, mins]: &[[f32; 8]; 2], part: usize) -> [__m512; 4] {
        // SAFETY: as above.
        unsafe {
            let table = |j: usize| {
                let scaled = _mm512_mul_ps(_mm512_set1_ps(scales[j]), codes(0.0));
                _mm512_sub_ps(scaled, _mm512_set1_ps(mins[j]))
            };
            let (low, high) = (table(2 * part), table(2 * part + 1));
            let at = block.add(16 + 32 * part);
            let [a, c] = nibbles(bytes16(at), low, high);
            let [b, d] = nibbles(bytes16(at.add(16)), low, high);
            [a, b, c, d]
        }
    }
}

impl Decode<2> for Q6K {
    const BYTES: usize = 210;
    const PARTS: usize = 8;
    type Head = __m512;

    #[inline(always)]
    unsafe fn head(block: *const u8) -> __m512 {
        // SAFETY: as above.
        unsafe { half(block.add(208)) }
    }

    #[inline(always)]
    unsafe fn part(block: *const u8, d: &__m512, part: usize) -> [__m512; 2] {
        // SAFETY: as above.
        unsafe {
            // Per half of the super-block: low nibbles of 64 bytes, then their high nibbles.
            let low = _mm256_loadu_si256(block.add(32 * (2 * (part / 4) + part % 2)).cast());
            let high = _mm256_loadu_si256(block.add(128 + 32 * (part / 4)).cast());
            let shift = |x: __m256i, bits: usize| _mm256_srl_epi16(x, _mm_cvtsi32_si128(bits as i32));
            let low = _mm256_and_si256(shift(low, 4 * (part / 2 % 2)), _mm256_set1_epi8(15));
            let high = _mm256_and_si256(shift(high, 2 * (part % 4)), _mm256_set1_epi8(3));
            let codes = _mm256_or_si256(low, _mm256_slli_epi16::<4>(high));
            let codes = _mm256_sub_epi8(codes, _mm256_set1_epi8(32));
            let halves = [_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes)];
            let mut weights = [*d; 2];
            for half in 0..2 {
                let scale = f32::from(block.add(192 + 2 * part + half).cast::<i8>().read());
                let scale = _mm512_mul_ps(*d, _mm512_set1_ps(scale));
                let codes = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(halves[half]));
                weights[half] = _mm512_mul_ps(scale, codes);
            }
            weights
        }
    }
}
