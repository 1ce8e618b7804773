//! The product with vector registers: sixteen weights at a time, straight from their block, equal to the decoder's to
//! the bit. Written once over [`Lanes`]; compiled for 512-bit registers and for pairs of 256-bit ones.

pub(super) mod digits;
mod driver;
mod grouped;
pub(super) mod integer;
pub(super) mod interleaved;
pub(super) mod interleaved_integer;
mod wide;

use super::formats::{self, Decode};
use super::{MAX_ROWS, Out, Weights};
use crate::kernels::isa::{Isa, isa};
use crate::kernels::lanes::{Lanes, Pair};
use crate::quant::WeightDtype;
use std::arch::x86_64::{
    __m128i, __m512, _MM_HINT_T1, _mm_loadu_si128, _mm_prefetch, _mm_srli_si128, _mm256_castsi256_ps,
    _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_loadu_si256,
    _mm256_slli_epi32, _mm512_castsi512_ps, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32,
    _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_permutexvar_ps, _mm512_slli_epi32, _mm512_srli_epi32,
};
use std::ops::Range;

/// Bytes prefetched beyond the next rows, into the second-level cache: its queue of misses is the longer one.
const AHEAD: usize = 8192;

/// Sixteen weights from what is stored.
///
/// # Safety
/// As [`Lanes`].
pub(super) trait Stored: Lanes {
    unsafe fn load_f16(at: *const u8) -> Self;
    unsafe fn load_bf16(at: *const u8) -> Self;
    /// Sixteen signed bytes.
    unsafe fn from_codes(codes: __m128i) -> Self;
    /// Whether there is an instruction for [`Self::look_up`].
    const LOOKS_UP: bool;
    /// Of sixteen values those that the low nibbles of sixteen bytes name; their high ones where `shift` is 4.
    unsafe fn look_up(values: Self, at: *const u8, shift: u32) -> Self;
}

// SAFETY, of every block below: the trait's.
impl Stored for __m512 {
    #[inline(always)]
    unsafe fn load_f16(at: *const u8) -> Self {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(at: *const u8) -> Self {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn from_codes(codes: __m128i) -> Self {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)) }
    }
    const LOOKS_UP: bool = true;
    #[inline(always)]
    unsafe fn look_up(values: Self, at: *const u8, shift: u32) -> Self {
        unsafe {
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast()));
            // The instruction heeds the lowest four bits alone.
            let indices = if shift == 0 { bytes } else { _mm512_srli_epi32::<4>(bytes) };
            _mm512_permutexvar_ps(indices, values)
        }
    }
}

impl Stored for Pair {
    #[inline(always)]
    unsafe fn load_f16(at: *const u8) -> Self {
        unsafe {
            let half = |at: *const u8| _mm256_cvtph_ps(_mm_loadu_si128(at.cast()));
            Self(half(at), half(at.add(16)))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(at: *const u8) -> Self {
        unsafe {
            let half = |at: *const u8| {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            };
            Self(half(at), half(at.add(16)))
        }
    }
    #[inline(always)]
    unsafe fn from_codes(codes: __m128i) -> Self {
        unsafe {
            let float = |codes| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
            Self(float(codes), float(_mm_srli_si128::<8>(codes)))
        }
    }
    const LOOKS_UP: bool = false;
    #[inline(always)]
    unsafe fn look_up(values: Self, _: *const u8, _: u32) -> Self {
        values
    }
}

/// `Y` of `R` rows of W and `M` rows of x.
///
/// # Safety
/// `bytes` holds R rows of `blocks` blocks at `stride`, every `x` as many elements; the processor has the features.
#[inline(always)]
unsafe fn tile<V: Stored, D: Decode<G>, const G: usize, const M: usize, const R: usize>(
    bytes: *const u8,
    stride: usize,
    blocks: usize,
    x: [*const f32; M],
) -> [[f32; M]; R] {
    // SAFETY: the caller's promise; a prefetch may go anywhere.
    unsafe {
        let mut sums = [[V::splat(0.0); M]; R];
        for b in 0..blocks {
            for r in 0..R {
                let block = bytes.add(r * stride + b * D::BYTES);
                // What comes two pages after the same block of the next rows: the processor itself does not
                // foresee R interleaved streams.
                for line in (0..D::BYTES).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T1>(block.wrapping_add(R * stride + AHEAD + line).cast());
                }
                let head = D::head(block);
                for part in 0..D::PARTS {
                    let weights: [V; G] = D::part(block, &head, part);
                    let first = (b * D::PARTS + part) * G * 16;
                    for g in 0..G {
                        for i in 0..M {
                            sums[r][i] = weights[g].fma(V::load(x[i].add(first + g * 16)), sums[r][i]);
                        }
                    }
                }
            }
        }
        // Plain loops: passed to `map`, the sums would live in memory all along.
        let mut y = [[0f32; M]; R];
        for r in 0..R {
            for i in 0..M {
                y[r][i] = sums[r][i].sum();
            }
        }
        y
    }
}

/// The columns of one task.
struct Task<'a> {
    bytes: &'a [u8],
    /// Bytes of a row.
    stride: usize,
    x: &'a [f32],
    k: usize,
    columns: Range<usize>,
    out: Out,
}

impl Task<'_> {
    /// # Safety
    /// As [`super::columns_of`]; rows are whole blocks of the format; the processor has the features of `V`.
    #[inline(always)]
    unsafe fn run<V: Stored, D: Decode<G>, const G: usize, const M: usize, const R: usize>(&self) {
        let (rows, stride) = (self.x.len() / self.k, self.stride);
        let blocks = self.k / (D::PARTS * G * 16);
        for i0 in (0..rows).step_by(M) {
            // Rows that are not there repeat the last.
            let rows = (rows - i0).min(M);
            let x: [*const f32; M] =
                std::array::from_fn(|i| self.x[(i0 + i.min(rows - 1)) * self.k..].as_ptr());
            let out = self.out.below(i0);
            let mut j = self.columns.start;
            // SAFETY: the caller's promise; the slices check the rows' bytes.
            unsafe {
                while j + R <= self.columns.end {
                    let w = self.bytes[j * stride..(j + R) * stride].as_ptr();
                    let y = tile::<V, D, G, M, R>(w, stride, blocks, x);
                    for (r, y) in y.iter().enumerate() {
                        (0..rows).for_each(|i| out.put(i, j + r, y[i]));
                    }
                    j += R;
                }
                for j in j..self.columns.end {
                    let w = self.bytes[j * stride..(j + 1) * stride].as_ptr();
                    let [y] = tile::<V, D, G, M, 1>(w, stride, blocks, x);
                    (0..rows).for_each(|i| out.put(i, j, y[i]));
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::run`].
    unsafe fn of_format<D: Decode<G>, const G: usize>(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            match (isa(), self.x.len() / self.k) {
                (Isa::Avx2, 1) => self.avx2::<D, G, 1, 2>(),
                (Isa::Avx2, 2) => self.avx2::<D, G, 2, 1>(),
                (Isa::Avx2, _) => self.avx2::<D, G, 4, 1>(),
                (_, 1) => self.avx512::<D, G, 1, 4>(),
                (_, 2) => self.avx512::<D, G, 2, 4>(),
                (_, 3..=4) => self.avx512::<D, G, 4, 2>(),
                _ => self.avx512::<D, G, 8, 2>(),
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
    unsafe fn avx512<D: Decode<G>, const G: usize, const M: usize, const R: usize>(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.run::<__m512, D, G, M, R>() }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<D: Decode<G>, const G: usize, const M: usize, const R: usize>(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.run::<Pair, D, G, M, R>() }
    }
}

/// Columns of Y; false (and nothing done) for a format, size or processor without a kernel here.
///
/// # Safety
/// As [`super::columns_of`].
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
    let able = isa() != Isa::Portable && is_x86_feature_detected!("f16c");
    if !able || !k.is_multiple_of(16) || x.len() > MAX_ROWS * k {
        return false;
    }
    let stride = k / dtype.block_size() * dtype.block_bytes();
    let task = Task { bytes, stride, x, k, columns, out };
    // SAFETY: the caller's promise; rows of these formats are whole blocks; `isa` has detected the other features.
    unsafe {
        match dtype {
            WeightDtype::F32 => task.of_format::<formats::F32, 1>(),
            WeightDtype::F16 => task.of_format::<formats::F16, 1>(),
            WeightDtype::BF16 => task.of_format::<formats::BF16, 1>(),
            WeightDtype::Q4_0 => task.of_format::<formats::Q4_0, 2>(),
            WeightDtype::Q4_1 => task.of_format::<formats::Q4_1, 2>(),
            WeightDtype::Q5_0 => task.of_format::<formats::Q5_0, 2>(),
            WeightDtype::Q5_1 => task.of_format::<formats::Q5_1, 2>(),
            WeightDtype::Q8_0 => task.of_format::<formats::Q8_0, 2>(),
            WeightDtype::Q2_K => task.of_format::<formats::Q2K, 2>(),
            WeightDtype::Q3_K => task.of_format::<formats::Q3K, 2>(),
            WeightDtype::Q4_K => task.of_format::<formats::Q4K, 2>(),
            WeightDtype::Q5_K => task.of_format::<formats::Q5K, 2>(),
            WeightDtype::Q6_K => task.of_format::<formats::Q6K, 2>(),
            WeightDtype::Q8_K => task.of_format::<formats::Q8K, 2>(),
            WeightDtype::Iq4Nl => task.of_format::<formats::Iq4Nl, 2>(),
            WeightDtype::Iq4Xs => task.of_format::<formats::Iq4Xs, 2>(),
            WeightDtype::Nf4 => return false,
        }
    }
    true
}
