//! The product in integers: 32 codes of W times 32 of x at a time. Written once over [`Inner`]; compiled for each way
//! an inner product is formed.

use crate::kernels::gemv::formats::{self, Coded};
use crate::kernels::gemv::integer::{Codes, GROUP, Path, SUMS};
use crate::kernels::gemv::{Out, Weights};
use crate::quant::WeightDtype;
use std::arch::x86_64::{
    __m256, __m256i, _MM_HINT_T1, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehdup_ps, _mm_movehl_ps,
    _mm_prefetch, _mm_set1_ps, _mm256_abs_epi8, _mm256_add_epi8, _mm256_broadcast_ss, _mm256_castps256_ps128,
    _mm256_cvtepi32_ps, _mm256_dpbusd_avx_epi32, _mm256_dpbusd_epi32, _mm256_extractf128_ps, _mm256_fmadd_ps,
    _mm256_fnmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_mul_ps, _mm256_set_m128, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_sign_epi8,
};
use std::ops::Range;

/// Sums of four products each of unsigned and signed bytes.
///
/// # Safety
/// The processor has the way's features.
trait Inner {
    unsafe fn dot(unsigned: __m256i, signed: __m256i) -> __m256i;
}

struct Vnni512;
struct Vnni;
struct Maddubs;

// SAFETY, of every block below: the trait's.
impl Inner for Vnni512 {
    #[inline(always)]
    unsafe fn dot(unsigned: __m256i, signed: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_epi32(_mm256_setzero_si256(), unsigned, signed) }
    }
}

impl Inner for Vnni {
    #[inline(always)]
    unsafe fn dot(unsigned: __m256i, signed: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), unsigned, signed) }
    }
}

impl Inner for Maddubs {
    /// Pairs stay below 2^15: unsigned codes are at most 128, signed ones 127.
    #[inline(always)]
    unsafe fn dot(unsigned: __m256i, signed: __m256i) -> __m256i {
        unsafe { _mm256_madd_epi16(_mm256_maddubs_epi16(unsigned, signed), _mm256_set1_epi16(1)) }
    }
}

/// One row of x.
#[derive(Clone, Copy)]
struct Row {
    codes: *const i8,
    scales: *const f32,
    sums: *const f32,
}

/// The same number in every lane of a half.
#[inline(always)]
unsafe fn spread(even: bool, [low, high]: [f32; 2]) -> __m256 {
    // SAFETY: the caller has AVX.
    unsafe { if even { _mm256_set1_ps(low) } else { _mm256_set_m128(_mm_set1_ps(high), _mm_set1_ps(low)) } }
}

/// `Y` of `R` rows of W and `M` rows of x. Element (r, i) is eight sums over the groups, folded in one fixed order.
///
/// # Safety
/// `bytes` holds R rows of `blocks` blocks at `stride`, every `x` as many elements; the processor has the features.
#[inline(always)]
unsafe fn tile<I: Inner, C: Coded, const M: usize, const R: usize>(
    bytes: *const u8,
    stride: usize,
    blocks: usize,
    x: [Row; M],
) -> [[f32; M]; R] {
    // SAFETY: the caller's promise; a prefetch may go anywhere.
    unsafe {
        let mut y = [[_mm256_setzero_ps(); M]; R];
        for b in 0..blocks {
            for r in 0..R {
                let block = bytes.add(r * stride + b * C::BYTES);
                for line in (0..C::BYTES).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T1>(block.wrapping_add(R * stride + super::AHEAD + line).cast());
                }
                let head = C::head(block);
                for part in 0..C::PARTS {
                    let (codes, [low, high]) = C::codes(block, &head, part);
                    let factor = spread(C::EVEN, [low.0, high.0]);
                    let (unsigned, offset) = match C::ZERO {
                        // Codes above zero, and what that adds taken off again.
                        Some(zero) => {
                            let zeros = _mm256_set1_ps(f32::from(zero));
                            let offset = spread(C::EVEN, [low.1, high.1]);
                            let offset =
                                if zero == 0 { offset } else { _mm256_fmadd_ps(factor, zeros, offset) };
                            (_mm256_add_epi8(codes, _mm256_set1_epi8(zero)), Some(offset))
                        }
                        None => (_mm256_abs_epi8(codes), None),
                    };
                    let group = b * C::PARTS + part;
                    for i in 0..M {
                        let q = _mm256_loadu_si256(x[i].codes.add(group * GROUP).cast());
                        let q = if C::ZERO.is_some() { q } else { _mm256_sign_epi8(q, codes) };
                        let dot = _mm256_cvtepi32_ps(I::dot(unsigned, q));
                        let scale = _mm256_mul_ps(factor, _mm256_broadcast_ss(&*x[i].scales.add(group)));
                        y[r][i] = _mm256_fmadd_ps(dot, scale, y[r][i]);
                        if let Some(offset) = offset {
                            let sums = _mm256_loadu_ps(x[i].sums.add(group * SUMS));
                            y[r][i] = _mm256_fnmadd_ps(offset, sums, y[r][i]);
                        }
                    }
                }
            }
        }
        // Plain loops: passed to `map`, the sums would live in memory all along.
        let mut out = [[0f32; M]; R];
        for r in 0..R {
            for i in 0..M {
                out[r][i] = sum(y[r][i]);
            }
        }
        out
    }
}

#[inline(always)]
unsafe fn sum(eight: __m256) -> f32 {
    // SAFETY: the caller has AVX.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// The columns of one task.
struct Task<'a> {
    bytes: &'a [u8],
    stride: usize,
    k: usize,
    x: &'a Codes<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
    out: Out,
}

impl Task<'_> {
    /// # Safety
    /// As [`columns`]; rows are whole blocks of the format; the processor has the features of `I`.
    #[inline(always)]
    unsafe fn run<I: Inner, C: Coded, const M: usize, const R: usize>(&self) {
        let (stride, k) = (self.stride, self.k);
        let blocks = k / (C::PARTS * GROUP);
        for i0 in self.rows.clone().step_by(M) {
            // Rows that are not there repeat the last.
            let rows = (self.rows.end - i0).min(M);
            let x: [Row; M] = std::array::from_fn(|i| {
                let first = (i0 + i.min(rows - 1)) * k;
                Row {
                    codes: self.x.q[first..first + k].as_ptr(),
                    scales: self.x.scales[first / GROUP..(first + k) / GROUP].as_ptr(),
                    sums: self.x.sums[first / GROUP * SUMS..(first + k) / GROUP * SUMS].as_ptr(),
                }
            });
            let out = self.out.below(i0 - self.rows.start);
            let mut j = self.columns.start;
            // SAFETY: the caller's promise; the slices check the rows' bytes.
            unsafe {
                while j + R <= self.columns.end {
                    let w = self.bytes[j * stride..(j + R) * stride].as_ptr();
                    let y = tile::<I, C, M, R>(w, stride, blocks, x);
                    for (r, y) in y.iter().enumerate() {
                        (0..rows).for_each(|i| out.put(i, j + r, y[i]));
                    }
                    j += R;
                }
                for j in j..self.columns.end {
                    let w = self.bytes[j * stride..(j + 1) * stride].as_ptr();
                    let [y] = tile::<I, C, M, 1>(w, stride, blocks, x);
                    (0..rows).for_each(|i| out.put(i, j, y[i]));
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::run`], with the features of the path.
    unsafe fn of_format<C: Coded>(&self) {
        // SAFETY: the caller's promise.
        unsafe {
            match (self.x.path, self.rows.len()) {
                (Path::Vnni512, 1) => self.vnni512::<C, 1, 4>(),
                (Path::Vnni512, 2) => self.vnni512::<C, 2, 4>(),
                (Path::Vnni512, 3..=4) => self.vnni512::<C, 4, 2>(),
                (Path::Vnni512, _) => self.vnni512::<C, 8, 2>(),
                (Path::Vnni, 1) => self.vnni::<C, 1, 4>(),
                (Path::Vnni, 2) => self.vnni::<C, 2, 2>(),
                (Path::Vnni, _) => self.vnni::<C, 4, 2>(),
                (_, 1) => self.maddubs::<C, 1, 4>(),
                (_, 2) => self.maddubs::<C, 2, 2>(),
                _ => self.maddubs::<C, 4, 2>(),
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma,f16c")]
    unsafe fn vnni512<C: Coded, const M: usize, const R: usize>(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.run::<Vnni512, C, M, R>() }
    }

    #[target_feature(enable = "avxvnni,avx2,fma,f16c")]
    unsafe fn vnni<C: Coded, const M: usize, const R: usize>(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.run::<Vnni, C, M, R>() }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn maddubs<C: Coded, const M: usize, const R: usize>(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.run::<Maddubs, C, M, R>() }
    }
}

/// Columns of Y.
///
/// # Safety
/// As [`Codes::columns`].
pub(in crate::kernels::gemv) unsafe fn columns(
    x: &Codes,
    w: Weights,
    rows: Range<usize>,
    columns: Range<usize>,
    out: Out,
) {
    let Weights::Stored(w) = w else { return };
    let (dtype, bytes, k) = (w.dtype(), w.data().as_slice(), w.cols());
    let stride = k / dtype.block_size() * dtype.block_bytes();
    let task = Task { bytes, stride, k, x, rows, columns, out };
    // SAFETY: the caller's promise; rows of these formats are whole blocks; `paths` has detected the features.
    unsafe {
        match dtype {
            WeightDtype::Q4_0 => task.of_format::<formats::Q4_0>(),
            WeightDtype::Q4_1 => task.of_format::<formats::Q4_1>(),
            WeightDtype::Q5_0 => task.of_format::<formats::Q5_0>(),
            WeightDtype::Q5_1 => task.of_format::<formats::Q5_1>(),
            WeightDtype::Q8_0 => task.of_format::<formats::Q8_0>(),
            WeightDtype::Q2_K => task.of_format::<formats::Q2K>(),
            WeightDtype::Q3_K => task.of_format::<formats::Q3K>(),
            WeightDtype::Q4_K => task.of_format::<formats::Q4K>(),
            WeightDtype::Q5_K => task.of_format::<formats::Q5K>(),
            WeightDtype::Q6_K => task.of_format::<formats::Q6K>(),
            WeightDtype::Q8_K => task.of_format::<formats::Q8K>(),
            WeightDtype::Iq4Nl => task.of_format::<formats::Iq4Nl>(),
            WeightDtype::Iq4Xs => task.of_format::<formats::Iq4Xs>(),
            WeightDtype::F32 | WeightDtype::F16 | WeightDtype::BF16 | WeightDtype::Nf4 => {}
        }
    }
}
