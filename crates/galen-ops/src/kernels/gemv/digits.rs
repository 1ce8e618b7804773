//! Exact products with interleaved rows ([`crate::quant::Interleaved`]) where the processor multiplies bytes: each block
//! of 32 activations becomes whole numbers of 23 bits, and those three digits of eight bits.
//!
//! With `x[p] = s_b (q0[p] 2^16 + q1[p] 2^8 + q2[p])` (`s_b` the block's largest magnitude over `63 * 2^16`, so that x is
//! rounded to `s_b / 2` at most: as f32 rounds the block's largest) element (i, j) is the sum over blocks b, in their
//! order, of `s_b d_jb C + m_jb T_b`, `C` from the three exact sums of code times digit and `T_b` the sum of x. Its bits
//! depend neither on other rows nor on tasks.

use super::{Out, Product, Weights};
use crate::kernels::isa::multiversion;
use crate::quant::GROUP_BLOCK;
use std::ops::Range;

/// Digits of a value, the highest first.
pub(super) const DIGITS: usize = 3;
/// What a digit is worth in terms of the next.
pub(super) const RADIX: f32 = 256.0;
/// The largest whole number: its highest digit stays in a signed byte, itself below 2^22 (see `split`).
const LARGEST: f32 = 63.0 * RADIX * RADIX;

/// Rows of x.
pub(super) struct Digits<'a> {
    x: &'a [f32],
    k: usize,
    /// `q`: `[m, k / 32, 3, 32]`.
    pub codes: Vec<i8>,
    /// Sums of the digits: `[m, k / 32, 3]`.
    pub totals: Vec<i32>,
    /// `s`: `[m, k / 32]`.
    pub scales: Vec<f32>,
    /// `T`: `[m, k / 32]`.
    pub sums: Vec<f32>,
}

/// Whether a product goes through this kernel.
fn wanted(w: &Weights) -> bool {
    matches!(w, Weights::Stored(w) if !w.integer_copy()
        && w.interleaved().is_some_and(|copy| copy.group_rows() == super::WITH_DIGITS))
}

/// The rows of every product that goes through this kernel; products that share x share them.
pub(super) fn digits_of<'a>(m: usize, products: &[Product<'a>]) -> Vec<Digits<'a>> {
    let mut all: Vec<Digits> = Vec::new();
    for p in products {
        if wanted(&p.w) && !all.iter().any(|d| d.are_of(p)) {
            all.push(Digits::new(m, p.x, p.w.cols()));
        }
    }
    all
}

impl<'a> Digits<'a> {
    /// Of x `[m, k]`, k whole blocks.
    fn new(m: usize, x: &'a [f32], k: usize) -> Self {
        let blocks = m * k / GROUP_BLOCK;
        let mut made = Self {
            x,
            k,
            codes: vec![0; blocks * DIGITS * GROUP_BLOCK],
            totals: vec![0; blocks * DIGITS],
            scales: vec![0.0; blocks],
            sums: vec![0.0; blocks],
        };
        split(&x[..m * k], &mut made.codes, &mut made.totals, &mut made.scales, &mut made.sums);
        made
    }

    /// Whether these are the rows of a product's x.
    pub(super) fn are_of(&self, p: &Product) -> bool {
        wanted(&p.w) && std::ptr::eq(self.x.as_ptr(), p.x.as_ptr()) && self.k == p.w.cols()
    }

    /// Columns of Y for rows `rows` of x, on this thread.
    ///
    /// # Safety
    /// `rows` are at most [`super::MAX_ROWS`] of x; `columns` of `out` (whose first row is the first of `rows`) are the
    /// caller's, the first a multiple of sixteen; the product is one these are the rows of.
    pub(super) unsafe fn columns(&self, w: Weights, rows: Range<usize>, columns: Range<usize>, out: Out) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller's promise.
        unsafe {
            super::x86::digits::columns(self, w, rows, columns, out);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (w, rows, columns, out);
    }
}

multiversion! {
    // Whole blocks. One with something that is no finite number has none either: its scale is no number.
    fn split(x: &[f32], digits: &mut [i8], totals: &mut [i32], scales: &mut [f32], sums: &mut [f32]) {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it to what is below 2^22 rounds to the nearest integer
        let _ = F::fma;
        let (blocks, _) = x.as_chunks::<GROUP_BLOCK>();
        let (digits, _) = digits.as_chunks_mut::<GROUP_BLOCK>();
        let (digits, _) = digits.as_chunks_mut::<DIGITS>();
        let (totals, _) = totals.as_chunks_mut::<DIGITS>();
        let outs = digits.iter_mut().zip(totals).zip(scales.iter_mut().zip(sums));
        for (x, ((digits, totals), (scale, sum))) in blocks.iter().zip(outs) {
            let (mut largest, mut finite) = (0f32, true);
            for v in x {
                finite &= v.abs() <= f32::MAX;
                largest = if v.abs() > largest { v.abs() } else { largest };
            }
            // What is too small to be divided by counts as nothing.
            let inverse = if largest > 1e-30 { LARGEST / largest } else { 0.0 };
            *scale = if finite { largest / LARGEST } else { f32::NAN };
            let mut rest = [0i32; GROUP_BLOCK];
            for (rest, v) in rest.iter_mut().zip(x) {
                *rest = (v * inverse + ROUND).to_bits().cast_signed() - ROUND.to_bits().cast_signed();
            }
            for (digits, total) in digits.iter_mut().zip(totals).rev() {
                for (digit, rest) in digits.iter_mut().zip(&mut rest) {
                    *digit = *rest as i8;
                    *rest = (*rest - i32::from(*digit)) >> 8;
                }
                *total = digits.iter().map(|d| i32::from(*d)).sum();
            }
            *sum = x.iter().sum();
        }
    }
}
