//! The register tile of the matrix product: `C[12, 32] (+)= A[12, k] B[k, 32]` over packed operands.
//!
//! Each element is the chain `s = fma(a[0], b[0], s); s = fma(a[1], b[1], s); ...` from zero in that order on every
//! path; where it accumulates, the chain's end is added to C. Callers cut long sums into chains of [`CHAIN`].

use super::isa::{Isa, isa};

/// Rows of a register tile.
pub(crate) const MR: usize = 12;
/// Columns of a register tile.
pub(crate) const NR: usize = 32;
/// Longest chain. Rounding errors of one long chain grow with its length: over the 210 projections of a 30-layer
/// model, chains of 1,536 cost a factor of ten in the gradient's accuracy.
pub(crate) const CHAIN: usize = 128;

/// One tile. `a` is packed `[k][MR]`, `b` is packed `[k][NR]`; the valid part of C is `rows x cols` at `c` with
/// row stride `ldc`. Adds to C where `accumulate`.
///
/// # Safety
/// `a` holds `k * MR` values, `b` holds `k * NR`, and C's valid part is writable and owned by this call.
pub(crate) unsafe fn tile(
    k: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    rows: usize,
    cols: usize,
    accumulate: bool,
) {
    debug_assert!(rows <= MR && cols <= NR);
    // SAFETY: the caller's promise; `isa` names a path only after detecting its features.
    unsafe {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx | Isa::Avx512Bf16 | Isa::Avx512 => match rows {
                1 => x86::avx512::<1>(k, a, b, c, ldc, rows, cols, accumulate),
                2..=4 => x86::avx512::<4>(k, a, b, c, ldc, rows, cols, accumulate),
                5..=8 => x86::avx512::<8>(k, a, b, c, ldc, rows, cols, accumulate),
                _ => x86::avx512::<12>(k, a, b, c, ldc, rows, cols, accumulate),
            },
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::avx2(k, a, b, c, ldc, rows, cols, accumulate),
            _ => portable(k, a, b, c, ldc, rows, cols, accumulate),
        }
    }
}

/// # Safety
/// As [`tile`].
unsafe fn portable(
    k: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    ldc: usize,
    rows: usize,
    cols: usize,
    accumulate: bool,
) {
    for i in 0..rows {
        let mut acc = [0f32; NR];
        // SAFETY: the caller's promise on the extents of `a`, `b` and C.
        unsafe {
            for p in 0..k {
                let x = *a.add(p * MR + i);
                let row = std::slice::from_raw_parts(b.add(p * NR), NR);
                for (acc, w) in acc.iter_mut().zip(row) {
                    *acc += x * w;
                }
            }
            for (j, acc) in acc.iter().enumerate().take(cols) {
                let before = if accumulate { *c.add(i * ldc + j) } else { 0.0 };
                *c.add(i * ldc + j) = before + acc;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{MR, NR};
    use std::arch::x86_64::{
        __mmask16, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps,
        _mm256_storeu_ps, _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps,
        _mm512_maskz_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    };

    /// `R` rows (of `MR` packed) by 32 columns in `2 R` registers.
    ///
    /// # Safety
    /// As [`super::tile`]; the processor has AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn avx512<const R: usize>(
        k: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        rows: usize,
        cols: usize,
        accumulate: bool,
    ) {
        let low = (((1u64 << cols.min(16)) - 1) & 0xffff) as __mmask16;
        let high = ((((1u64 << cols) - 1) >> 16) & 0xffff) as __mmask16;
        let mut acc = [[_mm512_setzero_ps(); 2]; R];
        // SAFETY: the caller's promise; masked lanes are not touched.
        unsafe {
            for p in 0..k {
                let b0 = _mm512_loadu_ps(b.add(p * NR));
                let b1 = _mm512_loadu_ps(b.add(p * NR + 16));
                for (i, acc) in acc.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(p * MR + i));
                    acc[0] = _mm512_fmadd_ps(x, b0, acc[0]);
                    acc[1] = _mm512_fmadd_ps(x, b1, acc[1]);
                }
            }
            if accumulate {
                for (i, acc) in acc.iter_mut().enumerate().take(rows) {
                    acc[0] = _mm512_add_ps(_mm512_maskz_loadu_ps(low, c.add(i * ldc)), acc[0]);
                    acc[1] = _mm512_add_ps(_mm512_maskz_loadu_ps(high, c.wrapping_add(i * ldc + 16)), acc[1]);
                }
            }
            for (i, acc) in acc.iter().enumerate().take(rows) {
                _mm512_mask_storeu_ps(c.add(i * ldc), low, acc[0]);
                _mm512_mask_storeu_ps(c.wrapping_add(i * ldc + 16), high, acc[1]);
            }
        }
    }

    /// # Safety
    /// As [`super::tile`]; the processor has AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2(
        k: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        ldc: usize,
        rows: usize,
        cols: usize,
        accumulate: bool,
    ) {
        const R: usize = 6;
        for i0 in (0..rows).step_by(R) {
            for j0 in (0..cols).step_by(16) {
                let (r, n) = ((rows - i0).min(R), (cols - j0).min(16));
                let mut buffer = [0f32; R * 16];
                let mut acc = [[_mm256_setzero_ps(); 2]; R];
                // SAFETY: the caller's promise; a narrow tile of C is written through a buffer of a full one.
                unsafe {
                    for p in 0..k {
                        let b0 = _mm256_loadu_ps(b.add(p * NR + j0));
                        let b1 = _mm256_loadu_ps(b.add(p * NR + j0 + 8));
                        for (i, acc) in acc.iter_mut().enumerate() {
                            let x = _mm256_set1_ps(*a.add(p * MR + i0 + i));
                            acc[0] = _mm256_fmadd_ps(x, b0, acc[0]);
                            acc[1] = _mm256_fmadd_ps(x, b1, acc[1]);
                        }
                    }
                    if n == 16 {
                        for (i, acc) in acc.iter().enumerate().take(r) {
                            let at = c.add((i0 + i) * ldc + j0);
                            let mut sums = *acc;
                            if accumulate {
                                sums[0] = _mm256_add_ps(sums[0], _mm256_loadu_ps(at));
                                sums[1] = _mm256_add_ps(sums[1], _mm256_loadu_ps(at.add(8)));
                            }
                            _mm256_storeu_ps(at, sums[0]);
                            _mm256_storeu_ps(at.add(8), sums[1]);
                        }
                        continue;
                    }
                    for (i, acc) in acc.iter().enumerate() {
                        _mm256_storeu_ps(buffer.as_mut_ptr().add(i * 16), acc[0]);
                        _mm256_storeu_ps(buffer.as_mut_ptr().add(i * 16 + 8), acc[1]);
                    }
                    for i in 0..r {
                        for j in 0..n {
                            let at = c.add((i0 + i) * ldc + j0 + j);
                            *at = buffer[i * 16 + j] + if accumulate { *at } else { 0.0 };
                        }
                    }
                }
            }
        }
    }
}
