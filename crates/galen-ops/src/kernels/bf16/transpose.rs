//! Exchanging rows and columns of packed pairs, tile by tile.
//!
//! Each stage of the network lays rows i and i + n/2 element by element into rows 2i and 2i + 1: the bits of an element's
//! index, row before column, turn by one place. After log2(n) stages row and column have changed places.

use crate::kernels::isa::{Isa, isa};

/// Rows and columns of a tile.
pub(super) const SIDE: usize = 16;

/// `out[j * out_stride + i] = from[i * stride + j]` for i, j below sixteen.
#[inline]
pub(super) fn transpose(from: &[u32], stride: usize, out: &mut [u32], out_stride: usize) {
    assert!(from.len() >= 15 * stride + SIDE && out.len() >= 15 * out_stride + SIDE);
    #[cfg(target_arch = "x86_64")]
    if matches!(isa(), Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512) {
        // SAFETY: the path has AVX-512F; the extents are asserted above.
        return unsafe { x86::transpose(from.as_ptr(), stride, out.as_mut_ptr(), out_stride) };
    }
    let _ = isa;
    for j in 0..SIDE {
        for i in 0..SIDE {
            out[j * out_stride + i] = from[i * stride + j];
        }
    }
}

/// Sixteen rows of 32 pairs along one axis, `(W[p][2q], W[p][2q + 1])` at `[q][p]`, to sixteen rows of 32 along the other,
/// `(W[2p][j], W[2p + 1][j])` at `[p][j]`; rows are `stride` and `out_stride` apart.
#[inline]
pub(super) fn turn(from: &[u32], stride: usize, out: &mut [u32], out_stride: usize) {
    assert!(from.len() >= 15 * stride + 2 * SIDE && out.len() >= 15 * out_stride + 2 * SIDE);
    #[cfg(target_arch = "x86_64")]
    if matches!(isa(), Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512) {
        // SAFETY: the path has AVX-512F and BW; the extents are asserted above.
        return unsafe { x86::turn(from.as_ptr(), stride, out.as_mut_ptr(), out_stride) };
    }
    for q in 0..SIDE {
        for p in 0..SIDE {
            let (a, b) = (from[q * stride + 2 * p], from[q * stride + 2 * p + 1]);
            out[p * out_stride + 2 * q] = a & 0xffff | b << 16;
            out[p * out_stride + 2 * q + 1] = a >> 16 | b & 0xffff_0000;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::SIDE;
    use std::arch::x86_64::{
        __m512i, _mm512_loadu_si512, _mm512_permutex2var_epi32, _mm512_permutex2var_epi64, _mm512_set_epi32,
        _mm512_set_epi64, _mm512_set4_epi32, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_storeu_si512,
    };

    /// # Safety
    /// Sixteen values lie at each of sixteen rows of either side; the processor has AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn transpose(from: *const u32, stride: usize, out: *mut u32, out_stride: usize) {
        let low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        let high = _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8);
        let mut rows = [_mm512_setzero_si512(); SIDE];
        for (i, row) in rows.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *row = unsafe { _mm512_loadu_si512(from.add(i * stride).cast()) };
        }
        for _ in 0..4 {
            let mut next = rows;
            for i in 0..SIDE / 2 {
                next[2 * i] = _mm512_permutex2var_epi32(rows[i], low, rows[i + 8]);
                next[2 * i + 1] = _mm512_permutex2var_epi32(rows[i], high, rows[i + 8]);
            }
            rows = next;
        }
        for (i, row) in rows.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { _mm512_storeu_si512(out.add(i * out_stride).cast(), *row) };
        }
    }

    /// # Safety
    /// 32 values lie at each of sixteen rows of either side; the processor has AVX-512F and BW.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn turn(from: *const u32, stride: usize, out: *mut u32, out_stride: usize) {
        // Of (a, b): low halves, then high halves.
        let halves = _mm512_set4_epi32(0x0f0e_0b0a, 0x0d0c_0908, 0x0706_0302, 0x0504_0100);
        let low = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
        let high = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
        // Four tiles of eight by eight pairs of pairs.
        for (q0, p0) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            let mut rows: [__m512i; 8] = [_mm512_setzero_si512(); 8];
            for (i, row) in rows.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                let pairs = unsafe { _mm512_loadu_si512(from.add((q0 + i) * stride + 2 * p0).cast()) };
                *row = _mm512_shuffle_epi8(pairs, halves);
            }
            for _ in 0..3 {
                let mut next = rows;
                for i in 0..4 {
                    next[2 * i] = _mm512_permutex2var_epi64(rows[i], low, rows[i + 4]);
                    next[2 * i + 1] = _mm512_permutex2var_epi64(rows[i], high, rows[i + 4]);
                }
                rows = next;
            }
            for (i, row) in rows.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { _mm512_storeu_si512(out.add((p0 + i) * out_stride + 2 * q0).cast(), *row) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let (stride, out_stride) = (37, 41);
        let from: Vec<u32> = (0..16 * stride as u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
        let mut out = vec![7; 16 * out_stride];
        transpose(&from, stride, &mut out, out_stride);
        for i in 0..16 {
            for j in 0..out_stride {
                let expected = if j < 16 { from[j * stride + i] } else { 7 };
                assert_eq!(out[i * out_stride + j], expected, "{i}, {j}");
            }
        }
        let mut out = vec![7; 16 * out_stride];
        turn(&from, stride, &mut out, out_stride);
        let half = |p: usize, k: usize| from[k / 2 * stride + p] >> (16 * (k % 2)) & 0xffff;
        for p in 0..16 {
            for j in 0..out_stride {
                let expected = if j < 32 { half(2 * p, j) | half(2 * p + 1, j) << 16 } else { 7 };
                assert_eq!(out[p * out_stride + j], expected, "{p}, {j}");
            }
        }
    }
}
