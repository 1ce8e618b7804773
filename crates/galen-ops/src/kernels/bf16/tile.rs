//! The register tile: `C[rows, 32] = start + sum over segments of A[rows, k] B[k, 32]`.
//!
//! Each element is one chain over k, the segments in order: with the dot-product instruction two products a link,
//! elsewhere one fused multiply-add a product; the tile instructions have chains of their own (`amx`).

#[cfg(target_arch = "x86_64")]
use super::amx;
use crate::kernels::isa::{Isa, isa};

/// Rows of the vector paths' tile.
pub(super) const MR: usize = 12;
/// Columns of a tile.
pub(crate) const NR: usize = 32;

/// How left operands are packed, and how far operands are padded along k.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Blocks of [`MR`] rows, `[pairs][MR]`.
    Interleaved,
    /// Blocks of 32 rows, `[pairs / 16][32][16]`, k padded to sixteen pairs.
    Tiled,
}

impl Layout {
    /// That of the kernel path.
    pub fn current() -> Self {
        if isa() == Isa::Amx { Self::Tiled } else { Self::Interleaved }
    }

    /// Rows of a block of left operands.
    pub fn rows(self) -> usize {
        match self {
            Self::Interleaved => MR,
            Self::Tiled => 32,
        }
    }

    /// Pairs that `k` elements take in either operand; those behind the last are zeros.
    pub fn pairs(self, k: usize) -> usize {
        match self {
            Self::Interleaved => k.div_ceil(2),
            Self::Tiled => k.div_ceil(32) * 16,
        }
    }
}

/// A stretch of k: a block of packed rows and a packed panel `[pairs][NR]`.
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

/// The right to compute tiles on this thread: the tile registers are set up once for many tiles.
pub(super) struct Tiler {
    #[cfg(target_arch = "x86_64")]
    tiles: Option<amx::Tiles>,
}

impl Tiler {
    pub fn new() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `isa` names the path only after asking for the tiles.
            tiles: (isa() == Isa::Amx).then(|| unsafe { amx::Tiles::take() }),
        }
    }

    /// One tile.
    ///
    /// # Safety
    /// Each segment's operands hold `pairs` times the layout's rows and [`NR`] pairs; the valid part of C is writable and
    /// owned by this call.
    pub unsafe fn tile(&self, segments: &[Segment], target: Target) {
        #[cfg(target_arch = "x86_64")]
        if let Some(tiles) = &self.tiles {
            // SAFETY: the caller's promise; operands are padded as the layout of this path says.
            return unsafe { amx::tile(tiles, segments, target) };
        }
        // SAFETY: the caller's promise.
        unsafe { vector_tile(segments, target) }
    }
}

/// # Safety
/// As [`Tiler::tile`].
unsafe fn vector_tile(segments: &[Segment], target: Target) {
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
            _ => expanded::<Split>(segments, target),
        }
    }
}

use crate::kernels::isa::{Fma, Split};

/// Pairs expanded to f32, for whatever the compiler makes of it.
///
/// # Safety
/// As [`Tiler::tile`].
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
    /// As [`super::Tiler::tile`]; the processor has AVX-512F.
    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,bmi2")]
    pub(super) unsafe fn wide(segments: &[Segment], target: Target) {
        // SAFETY: the caller's promise.
        unsafe { expanded::<Fused>(segments, target) }
    }

    /// # Safety
    /// As [`super::Tiler::tile`]; the processor has AVX2 and FMA.
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
    /// As [`super::Tiler::tile`]; the processor has AVX512_BF16.
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
    /// As [`super::Tiler::tile`]; the processor has AVX512_BF16.
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
