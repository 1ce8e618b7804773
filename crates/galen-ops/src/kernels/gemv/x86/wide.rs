//! Registers of interleaved rows: a lane a row of W, eight of 256 bits or sixteen of 512. The same arithmetic in each
//! lane, so a row's bits are the same in both.

use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _mm_loadu_si128, _mm_setr_epi32, _mm256_add_epi16, _mm256_add_ps,
    _mm256_and_si256, _mm256_broadcast_ss, _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_fmadd_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi64x, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi16, _mm256_srli_epi32, _mm256_storeu_ps,
    _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_shuffle_epi8, _mm512_srli_epi16, _mm512_srli_epi32, _mm512_storeu_ps,
};

/// A register of f32.
///
/// # Safety
/// Of every function: the processor has the register's features ([`super::super::group_rows`] says so), and what is
/// pointed to is there.
pub(super) trait Wide: Copy {
    /// The same register as bytes.
    type Codes: Copy;
    /// Lanes.
    const ROWS: usize;
    unsafe fn zero() -> Self;
    unsafe fn splat(value: f32) -> Self;
    /// The number at `at` in every lane.
    unsafe fn broadcast(at: *const f32) -> Self;
    unsafe fn add(a: Self, b: Self) -> Self;
    unsafe fn mul(a: Self, b: Self) -> Self;
    unsafe fn fmadd(a: Self, b: Self, c: Self) -> Self;
    /// From as many half-precision numbers.
    unsafe fn halves(at: *const u8) -> Self;
    unsafe fn store(self, at: *mut f32);
    unsafe fn codes(at: *const u8) -> Self::Codes;
    /// Nibble P of each lane where it lies: `16^P` times its value; the last times one.
    unsafe fn nibble<const P: usize>(codes: Self::Codes) -> Self;
    /// Byte P of each lane, signed, times 2^24.
    unsafe fn byte<const P: usize>(codes: Self::Codes) -> Self;
    /// The low and the high nibbles of each byte.
    unsafe fn split(codes: Self::Codes) -> [Self::Codes; 2];
    /// In each lane the exact sum of its four bytes (nibbles) in each of eight registers times four of 32 signed bytes.
    unsafe fn dot(codes: &[Self::Codes; 8], x: *const i8) -> Self;
}

/// Where `shuffle` finds byte P of lane 0..4 for the top byte; zeros below.
#[inline(always)]
fn tops(p: i32) -> [i32; 4] {
    let top = |lane: i32| ((4 * lane + p) << 24) | 0x0080_8080;
    [top(0), top(1), top(2), top(3)]
}

#[inline(always)]
unsafe fn four(x: *const i8, t: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { x.add(4 * t).cast::<i32>().read_unaligned() }
}

// SAFETY, of every block below: the trait's.
impl Wide for __m256 {
    type Codes = __m256i;
    const ROWS: usize = 8;
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn broadcast(at: *const f32) -> Self {
        unsafe { _mm256_broadcast_ss(&*at) }
    }
    #[inline(always)]
    unsafe fn add(a: Self, b: Self) -> Self {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self, b: Self) -> Self {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fmadd(a: Self, b: Self, c: Self) -> Self {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> Self {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        unsafe { _mm256_storeu_ps(at, self) }
    }
    #[inline(always)]
    unsafe fn codes(at: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(at.cast()) }
    }
    #[inline(always)]
    unsafe fn nibble<const P: usize>(codes: __m256i) -> Self {
        unsafe {
            let code = match P {
                7 => _mm256_srli_epi32::<28>(codes),
                _ => _mm256_and_si256(codes, _mm256_set1_epi32(15 << (4 * P))),
            };
            _mm256_cvtepi32_ps(code)
        }
    }
    #[inline(always)]
    unsafe fn byte<const P: usize>(codes: __m256i) -> Self {
        unsafe {
            let [a, b, c, d] = tops(P as i32).map(|top| i64::from(top as u32));
            let places = _mm256_setr_epi64x(a | b << 32, c | d << 32, a | b << 32, c | d << 32);
            _mm256_cvtepi32_ps(_mm256_shuffle_epi8(codes, places))
        }
    }
    #[inline(always)]
    unsafe fn split(codes: __m256i) -> [__m256i; 2] {
        unsafe {
            let low = _mm256_set1_epi8(15);
            [_mm256_and_si256(codes, low), _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low)]
        }
    }
    #[inline(always)]
    unsafe fn dot(codes: &[__m256i; 8], x: *const i8) -> Self {
        unsafe {
            // Eight sums of two products of at most 15 x 127 stay below 2^15.
            let mut sums = [_mm256_setzero_si256(); 2];
            for t in 0..8 {
                let products = _mm256_maddubs_epi16(codes[t], _mm256_set1_epi32(four(x, t)));
                sums[t % 2] = _mm256_add_epi16(sums[t % 2], products);
            }
            let pairs = _mm256_add_epi16(sums[0], sums[1]);
            _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
}

impl Wide for __m512 {
    type Codes = __m512i;
    const ROWS: usize = 16;
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn broadcast(at: *const f32) -> Self {
        unsafe { _mm512_set1_ps(*at) }
    }
    #[inline(always)]
    unsafe fn add(a: Self, b: Self) -> Self {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self, b: Self) -> Self {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fmadd(a: Self, b: Self, c: Self) -> Self {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn halves(at: *const u8) -> Self {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        unsafe { _mm512_storeu_ps(at, self) }
    }
    #[inline(always)]
    unsafe fn codes(at: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(at.cast()) }
    }
    #[inline(always)]
    unsafe fn nibble<const P: usize>(codes: __m512i) -> Self {
        unsafe {
            let code = match P {
                7 => _mm512_srli_epi32::<28>(codes),
                _ => _mm512_and_si512(codes, _mm512_set1_epi32(15 << (4 * P))),
            };
            _mm512_cvtepi32_ps(code)
        }
    }
    #[inline(always)]
    unsafe fn byte<const P: usize>(codes: __m512i) -> Self {
        unsafe {
            let [a, b, c, d] = tops(P as i32);
            let places = _mm512_broadcast_i32x4(_mm_setr_epi32(a, b, c, d));
            _mm512_cvtepi32_ps(_mm512_shuffle_epi8(codes, places))
        }
    }
    #[inline(always)]
    unsafe fn split(codes: __m512i) -> [__m512i; 2] {
        unsafe {
            let low = _mm512_set1_epi8(15);
            [_mm512_and_si512(codes, low), _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low)]
        }
    }
    #[inline(always)]
    unsafe fn dot(codes: &[__m512i; 8], x: *const i8) -> Self {
        unsafe {
            let zero = _mm512_setzero_si512();
            let mut sums = [zero; 2];
            for t in 0..8 {
                sums[t % 2] = _mm512_dpbusd_epi32(sums[t % 2], codes[t], _mm512_set1_epi32(four(x, t)));
            }
            _mm512_cvtepi32_ps(_mm512_add_epi32(sums[0], sums[1]))
        }
    }
}
