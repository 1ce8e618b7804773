//! Registers of interleaved rows: a lane a row of W, eight of 256 bits or sixteen of 512. The same arithmetic in each
//! lane, so a row's bits are the same in both.

use std::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _mm_loadu_si128, _mm256_add_epi16, _mm256_and_si256,
    _mm256_broadcast_ss, _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_fmadd_ps, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_srli_epi16,
    _mm256_storeu_ps, _mm256_xor_si256, _mm512_add_epi32, _mm512_and_si512, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_srli_epi16, _mm512_storeu_ps, _mm512_xor_si512,
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
    unsafe fn mul(a: Self, b: Self) -> Self;
    unsafe fn fmadd(a: Self, b: Self, c: Self) -> Self;
    /// From as many half-precision numbers.
    unsafe fn halves(at: *const u8) -> Self;
    unsafe fn store(self, at: *mut f32);
    unsafe fn codes(at: *const u8) -> Self::Codes;
    /// The low and the high nibbles of each byte.
    unsafe fn split(codes: Self::Codes) -> [Self::Codes; 2];
    /// Signed bytes, 128 added.
    unsafe fn lift(codes: Self::Codes) -> Self::Codes;
    /// In each lane the exact sum of its four bytes (nibbles) in each of eight registers times four of 32 signed bytes.
    unsafe fn dot(codes: &[Self::Codes; 8], x: *const i8) -> Self;
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
    unsafe fn split(codes: __m256i) -> [__m256i; 2] {
        unsafe {
            let low = _mm256_set1_epi8(15);
            [_mm256_and_si256(codes, low), _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low)]
        }
    }
    #[inline(always)]
    unsafe fn lift(codes: __m256i) -> __m256i {
        unsafe { _mm256_xor_si256(codes, _mm256_set1_epi8(-128)) }
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
    unsafe fn split(codes: __m512i) -> [__m512i; 2] {
        unsafe {
            let low = _mm512_set1_epi8(15);
            [_mm512_and_si512(codes, low), _mm512_and_si512(_mm512_srli_epi16::<4>(codes), low)]
        }
    }
    #[inline(always)]
    unsafe fn lift(codes: __m512i) -> __m512i {
        unsafe { _mm512_xor_si512(codes, _mm512_set1_epi8(-128)) }
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
