//! The register tile: `C[12, 32] = start + sum over segments of A[12, k] B[k, 32]`.
//!
//! Each element is one chain over k, the segments in order: with the dot-product instruction two products a link,
//! elsewhere one fused multiply-add a product.

use crate::kernels::isa::{Isa, isa};

/// Rows of a register tile.
pub(crate) const MR: usize = 12;
/// Columns of a register tile.
pub(crate) const NR: usize = 32;

/// A stretch of k: packed rows `[pairs][MR]` and a packed panel `[pairs][NR]`.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub a: *const u32,
    pub b: *const u32,
    pub pairs: usize,
}

/// Where the valid `rows x cols` of a tile go.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub c: *mut f32,
    /// Row stride of C.
    pub stride: usize,
    pub rows: usize,
    pub cols: usize,
    /// Add to what C holds.
    pub add: bool,
}

/// One tile.
///
/// # Safety
/// Each segment's operands hold `pairs * MR` and `pairs * NR` pairs; the valid part of C is writable and owned by
/// this call.
pub(super) unsafe fn tile(segments: &[Segment], target: Target) {
    debug_assert!(target.rows <= MR && target.cols <= NR);
    // SAFETY: the caller's promise; `isa` names a path only after detecting its features.
    unsafe {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => match (target.rows, target.cols) {
                (1, _) => x86::dot::<1>(segments, target),
                (2..=4, _) => x86::dot::<4>(segments, target),
                (5..=8, _) => x86::dot::<8>(segments, target),
                (_, ..=16) => x86::dot_narrow(segments, target),
                _ => x86::dot::<12>(segments, target),
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::wide(segments, target),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::narrow(segments, target),
            Isa::Portable => expanded::<Split>(segments, target),
        }
    }
}

use crate::kernels::isa::{Fma, Split};

/// Pairs expanded to f32, for whatever the compiler makes of it.
///
/// # Safety
/// As [`tile`].
#[inline(always)]
unsafe fn expanded<F: Fma>(segments: &[Segment], target: Target) {
    const R: usize = 4;
    let low = |pair: u32| f32::from_bits(pair << 16);
    let high = |pair: u32| f32::from_bits(pair & 0xffff_0000);
    for i0 in (0..target.rows).step_by(R) {
        let mut sums = [[0f32; NR]; R];
        for s in segments {
            for p in 0..s.pairs {
                // SAFETY: the caller's promise on the extents of the operands; rows past the last are packed too.
                let (a, b) = unsafe {
                    (
                        std::slice::from_raw_parts(s.a.add(p * MR + i0), R),
                        std::slice::from_raw_parts(s.b.add(p * NR), NR),
                    )
                };
                for (sums, a) in sums.iter_mut().zip(a) {
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = F::fma(low(*a), low(*b), *sum);
                        *sum = F::fma(high(*a), high(*b), *sum);
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate().take(target.rows.saturating_sub(i0)) {
            for (j, sum) in sums.iter().enumerate().take(target.cols) {
                // SAFETY: within the valid part of C.
                unsafe {
                    let c = target.c.add((i0 + i) * target.stride + j);
                    *c = if target.add { *c + sum } else { *sum };
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{MR, NR, Segment, Target, expanded};
    use crate::kernels::isa::Fused;
    use std::arch::x86_64::{
        __m512, __m512bh, __mmask16, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_loadu_si512,
        _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_set1_epi32, _mm512_setzero_ps,
    };
    use std::mem::transmute;

    /// # Safety
    /// As [`super::tile`]; the processor has AVX-512F.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi2")]
    pub(super) unsafe fn wide(segments: &[Segment], target: Target) {
        // SAFETY: the caller's promise.
        unsafe { expanded::<Fused>(segments, target) }
    }

    /// # Safety
    /// As [`super::tile`]; the processor has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) unsafe fn narrow(segments: &[Segment], target: Target) {
        // SAFETY: the caller's promise.
        unsafe { expanded::<Fused>(segments, target) }
    }

    /// Sixteen pairs at `p`.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn load(p: *const u32) -> __m512bh {
        // SAFETY: the caller's promise; both types are 512 bits.
        unsafe { transmute(_mm512_loadu_si512(p.cast())) }
    }

    /// One pair, sixteen times.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn broadcast(p: *const u32) -> __m512bh {
        // SAFETY: the caller's promise; both types are 512 bits.
        unsafe { transmute(_mm512_set1_epi32((*p).cast_signed())) }
    }

    fn mask(cols: usize) -> __mmask16 {
        (((1u32 << cols.min(16)) - 1) & 0xffff) as __mmask16
    }

    #[target_feature(enable = "avx512f")]
    unsafe fn store(sum: __m512, c: *mut f32, mask: __mmask16, add: bool) {
        // SAFETY: masked lanes are not touched.
        unsafe {
            let sum = if add { _mm512_add_ps(_mm512_maskz_loadu_ps(mask, c), sum) } else { sum };
            _mm512_mask_storeu_ps(c, mask, sum);
        }
    }

    /// `R` rows (of `MR` packed) by 32 columns in `2 R` registers.
    ///
    /// # Safety
    /// As [`super::tile`]; the processor has AVX512_BF16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn dot<const R: usize>(segments: &[Segment], target: Target) {
        let mut sums = [[_mm512_setzero_ps(); 2]; R];
        // SAFETY: the caller's promise.
        unsafe {
            for s in segments {
                let (mut a, mut b) = (s.a, s.b);
                for _ in 0..s.pairs {
                    let (b0, b1) = (load(b), load(b.add(16)));
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let x = broadcast(a.add(i));
                        sums[0] = _mm512_dpbf16_ps(sums[0], x, b0);
                        sums[1] = _mm512_dpbf16_ps(sums[1], x, b1);
                    }
                    (a, b) = (a.add(MR), b.add(NR));
                }
            }
            let (low, high) = (mask(target.cols), mask(target.cols.saturating_sub(16)));
            for (i, sums) in sums.iter().enumerate().take(target.rows) {
                let c = target.c.wrapping_add(i * target.stride);
                store(sums[0], c, low, target.add);
                store(sums[1], c.wrapping_add(16), high, target.add);
            }
        }
    }

    /// Twelve rows by at most sixteen columns: the low-rank branch.
    ///
    /// # Safety
    /// As [`super::tile`]; the processor has AVX512_BF16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn dot_narrow(segments: &[Segment], target: Target) {
        let mut sums = [_mm512_setzero_ps(); MR];
        // SAFETY: the caller's promise.
        unsafe {
            for s in segments {
                let (mut a, mut b) = (s.a, s.b);
                for _ in 0..s.pairs {
                    let b0 = load(b);
                    for (i, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm512_dpbf16_ps(*sum, broadcast(a.add(i)), b0);
                    }
                    (a, b) = (a.add(MR), b.add(NR));
                }
            }
            let mask = mask(target.cols);
            for (i, sum) in sums.iter().enumerate().take(target.rows) {
                store(*sum, target.c.wrapping_add(i * target.stride), mask, target.add);
            }
        }
    }
}
