//! Products in integers: activations rounded to signed bytes, 32 of them sharing a scale.
//!
//! With `x[p] = s_g q[p]` (g = p / 32, |q| <= 127) and `w[p] = f c[p] - o` in a sixteenth-block, an element of Y is the
//! sum over groups of `s_g f (c . q) - o s_g (sum of q)`. The inner sums are exact; what differs from [`super::gemv`]
//! is the rounding of x alone: at most `s_g / 2` an element, `s_g` being the group's largest magnitude over 127.

use super::Product;
#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{Out, Weights, columns_of};
use crate::kernels::isa::multiversion;
#[cfg(target_arch = "x86_64")]
use crate::kernels::isa::{Isa, isa};
use crate::quant::Dots;
use rayon::prelude::*;
use std::ops::Range;

/// Activations that share a scale.
pub(super) const GROUP: usize = 32;
/// Rows whose codes one task forms.
const ROWS_OF_A_TASK: usize = 32;
/// Sums of four codes in a group, as the instructions form them.
pub(super) const SUMS: usize = 8;

/// How the inner products are formed. The same bits, save for the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// Four products and their sum at once, with thirty-two registers.
    #[cfg(target_arch = "x86_64")]
    Vnni512,
    /// The same with sixteen.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// Pairs of products, then pairs of pairs.
    #[cfg(target_arch = "x86_64")]
    Maddubs,
    /// In f32 over the rounded activations.
    Portable,
}

/// The paths that this processor has among those `GALEN_ISA` leaves, best first.
pub(super) fn paths() -> Vec<Path> {
    let mut paths = Vec::new();
    #[cfg(target_arch = "x86_64")]
    if isa() != Isa::Portable && is_x86_feature_detected!("f16c") {
        if isa() != Isa::Avx2 && is_x86_feature_detected!("avx512vnni") {
            paths.push(Path::Vnni512);
        }
        if is_x86_feature_detected!("avxvnni") {
            paths.push(Path::Vnni);
        }
        paths.push(Path::Maddubs);
    }
    paths.push(Path::Portable);
    paths
}

/// Rows of x in codes.
pub(super) struct Codes<'a> {
    x: &'a [f32],
    k: usize,
    pub path: Path,
    /// `q`: `[m, k]`.
    pub q: Vec<i8>,
    /// `s_g`: `[m, k / 32]`.
    pub scales: Vec<f32>,
    /// `s_g` times the sums of four codes each: `[m, k / 4]`.
    pub sums: Vec<f32>,
    /// `s_g` times the sum of the group's codes: `[m, k / 32]`.
    pub totals: Vec<f32>,
    /// `s_g q`: `[m, k]`, on the portable path alone.
    pub rounded: Vec<f32>,
}

/// Whether a product is to be computed so.
pub(super) fn wanted(w: &Weights) -> bool {
    matches!(w, Weights::Stored(w) if w.dots() == Dots::Integer && w.dtype().has_integer_codes())
        && w.cols().is_multiple_of(GROUP)
        && !matches!(w, Weights::Stored(w) if w.interleaved().is_some() && !w.integer_copy())
}

/// The rows of every product that wants them; products that share x share its codes.
pub(super) fn codes_of<'a>(m: usize, products: &[Product<'a>]) -> Vec<Codes<'a>> {
    let mut all: Vec<Codes> = Vec::new();
    for p in products {
        if wanted(&p.w) && !all.iter().any(|c| c.are_of(p)) {
            all.push(Codes::new(m, p.x, p.w.cols(), paths()[0]));
        }
    }
    all
}

impl<'a> Codes<'a> {
    /// Of x `[m, k]`, k whole groups.
    pub(super) fn new(m: usize, x: &'a [f32], k: usize, path: Path) -> Self {
        let mut q = vec![0i8; m * k];
        let mut scales = vec![0f32; m * k / GROUP];
        let mut sums = vec![0f32; m * k / GROUP * SUMS];
        // Some rows at a time, over the threads; a group's codes are its own.
        let part = ROWS_OF_A_TASK * k;
        let parts = q.par_chunks_mut(part).zip(scales.par_chunks_mut(part / GROUP));
        let parts = parts.zip(sums.par_chunks_mut(part / GROUP * SUMS));
        x[..m * k]
            .par_chunks(part)
            .zip(parts)
            .for_each(|(x, ((q, scales), sums))| quantise(x, q, scales, sums));
        let totals = sums.chunks_exact(SUMS).map(|s| s.iter().sum()).collect();
        let rounded = if path == Path::Portable {
            let groups = q.chunks_exact(GROUP).zip(&scales);
            groups.flat_map(|(q, s)| q.iter().map(move |q| s * f32::from(*q))).collect()
        } else {
            Vec::new()
        };
        Self { x, k, path, q, scales, sums, totals, rounded }
    }

    /// Whether these are the codes of a product's x.
    pub(super) fn are_of(&self, p: &Product) -> bool {
        wanted(&p.w) && std::ptr::eq(self.x.as_ptr(), p.x.as_ptr()) && self.k == p.w.cols()
    }

    /// Columns of Y for rows `rows` of x, on this thread.
    ///
    /// # Safety
    /// `rows` are at most [`super::MAX_ROWS`] of x; `columns` of `out` (whose first row is the first of `rows`) are the
    /// caller's; the product is one these are the codes of.
    pub(super) unsafe fn columns(&self, w: Weights, rows: Range<usize>, columns: Range<usize>, out: Out) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.path {
                Path::Portable => {
                    columns_of(w, &self.rounded[rows.start * self.k..rows.end * self.k], columns, out);
                }
                #[cfg(target_arch = "x86_64")]
                _ if matches!(w, Weights::Stored(w) if w.integer_copy()) => {
                    x86::interleaved_integer::columns(self, w, rows, columns, out);
                }
                #[cfg(target_arch = "x86_64")]
                _ => x86::integer::columns(self, w, rows, columns, out),
            }
        }
    }
}

multiversion! {
    // Codes, scales and scaled sums of whole groups. A group with something that is no finite number has none either.
    fn quantise(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [f32]) {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to the nearest integer
        let _ = F::fma;
        let (groups, _) = x.as_chunks::<GROUP>();
        let (codes, _) = codes.as_chunks_mut::<GROUP>();
        let (sums, _) = sums.as_chunks_mut::<SUMS>();
        for (((x, codes), scale), sums) in groups.iter().zip(codes).zip(scales).zip(sums) {
            let (mut largest, mut finite) = (0f32, true);
            for v in x {
                finite &= v.abs() <= f32::MAX;
                largest = if v.abs() > largest { v.abs() } else { largest };
            }
            // What is too small to be divided by counts as nothing.
            let inverse = if largest > 1e-36 { 127.0 / largest } else { 0.0 };
            let s = if finite { largest / 127.0 } else { f32::NAN };
            for (code, v) in codes.iter_mut().zip(x) {
                // The integer lies in the low bits.
                *code = (v * inverse + ROUND).to_bits() as i8;
            }
            for (sum, four) in sums.iter_mut().zip(codes.as_chunks::<4>().0) {
                *sum = s * four.iter().map(|c| i32::from(*c)).sum::<i32>() as f32;
            }
            *scale = s;
        }
    }
}
