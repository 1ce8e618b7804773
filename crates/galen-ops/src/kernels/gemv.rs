//! `Y[m, n] (+)= X[m, k] W^T` for few rows: decoding one token of one or several sequences.
//!
//! There the time goes into reading W, so every block is read once, decoded in registers and multiplied with all m
//! rows at once; the activations stay f32. Element (i, j) is sixteen sums over k, element p in sum `p % 16`, folded in
//! one fixed order: its bits depend neither on the other rows nor on the division into tasks. They are not the bits
//! of [`super::gemm`], which sums in another order. A matrix whose products are to be formed in integers
//! ([`crate::quant::Dots`]) goes through [`integer`] instead, one with an interleaved copy through [`spread`] or [`digits`].

mod digits;
#[cfg(target_arch = "x86_64")]
mod formats;
mod integer;
#[cfg(test)]
mod interleaved_tests;
mod spread;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

/// Rows of a group that exact products read in [`digits`]; of fewer, in [`spread`].
const WITH_DIGITS: usize = GROUP_ROWS;

/// Rows that this processor's path wants side by side in [`crate::quant::Interleaved`]; none without kernels for it.
pub(crate) fn group_rows() -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    {
        use super::isa::{Isa, isa};
        match isa() {
            Isa::Portable => None,
            _ if !is_x86_feature_detected!("f16c") => None,
            Isa::Avx2 => Some(8),
            _ if !is_x86_feature_detected!("avx512vnni") => Some(8),
            _ => Some(WITH_DIGITS),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        None
    }
}

use super::isa::{Fma, multiversion};
use super::math::{LANES, fold};
use crate::quant::{GROUP_ROWS, QuantMatrix};
use rayon::prelude::*;
use std::ops::Range;

/// Rows that share one decoding of a block; more are done in groups, a block's next decoding from the cache.
pub(crate) const MAX_ROWS: usize = 8;
/// Multiply-adds below which a task is not worth handing to another thread (about five microseconds).
const TASK: usize = 1 << 16;
/// Elements of a matrix that stay in the second-level cache while further rows read them again.
const CACHED: usize = 1 << 18;
/// Elements decoded at once where no format has a kernel of its own: a multiple of every block size.
const CHUNK: usize = 256;

/// The right operand: a matrix `[n, k]`.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// In its own format.
    Stored(&'a QuantMatrix),
    /// Row-major f32.
    Dense { values: &'a [f32], n: usize, k: usize },
}

impl Weights<'_> {
    fn rows(&self) -> usize {
        match self {
            Self::Stored(w) => w.rows(),
            Self::Dense { n, .. } => *n,
        }
    }

    fn cols(&self) -> usize {
        match self {
            Self::Stored(w) => w.cols(),
            Self::Dense { k, .. } => *k,
        }
    }
}

/// One product of a call: `y [m, n] (+)= x [m, k] W^T`, all row-major.
pub(crate) struct Product<'a> {
    pub x: &'a [f32],
    pub w: Weights<'a>,
    pub y: &'a mut [f32],
    /// Adds to y.
    pub accumulate: bool,
}

/// Y, row-major with `n` values a row; tasks write disjoint columns.
#[derive(Clone, Copy)]
struct Out {
    values: *mut f32,
    n: usize,
    accumulate: bool,
}
// SAFETY: tasks write disjoint columns of Y.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    /// Y without its first `i` rows. Through a method, so that a task holds the whole wrapper.
    fn below(self, i: usize) -> Self {
        Self { values: self.values.wrapping_add(i * self.n), ..self }
    }

    /// # Safety
    /// Row i and column j exist, and the column is the caller's.
    #[inline(always)]
    unsafe fn put(self, i: usize, j: usize, value: f32) {
        // SAFETY: the caller's promise.
        unsafe {
            let at = self.values.add(i * self.n + j);
            *at = if self.accumulate { *at + value } else { value };
        }
    }
}

/// What the tasks of a call share of one product.
struct Plan<'a> {
    x: &'a [f32],
    w: Weights<'a>,
    out: Out,
    /// Columns of a task.
    width: usize,
    /// Number of its first task.
    first: usize,
    /// x in codes, for a product in integers.
    codes: Option<&'a integer::Codes<'a>>,
    /// x as an exact product with interleaved rows takes it.
    spread: Option<&'a spread::Spread<'a>>,
    digits: Option<&'a digits::Digits<'a>>,
}

impl Plan<'_> {
    /// Computes columns `columns` for all rows.
    fn run(&self, m: usize, columns: Range<usize>) {
        let k = self.w.cols();
        let width =
            if m > MAX_ROWS { (CACHED / k).max(1).next_multiple_of(GROUP_ROWS) } else { columns.len() };
        for j0 in columns.clone().step_by(width.max(1)) {
            for i0 in (0..m).step_by(MAX_ROWS) {
                let rows = i0..m.min(i0 + MAX_ROWS);
                let (columns, out) = (j0..columns.end.min(j0 + width), self.out.below(i0));
                // SAFETY: `columns` are this task's alone, and `gemv` has checked the sizes.
                unsafe {
                    match (self.codes, self.spread, self.digits) {
                        (Some(codes), ..) => codes.columns(self.w, rows, columns, out),
                        (_, Some(spread), _) => spread.columns(self.w, rows, columns, out),
                        (.., Some(digits)) => digits.columns(self.w, rows, columns, out),
                        _ => {
                            columns_of(self.w, &self.x[rows.start * k..rows.end * k], columns, out);
                        }
                    }
                }
            }
        }
    }
}

/// Products of m rows each, over all threads of the current pool; none may read what another writes.
pub(crate) fn gemv(m: usize, products: &mut [Product]) {
    let threads = rayon::current_num_threads();
    let work = |w: &Weights| m * w.rows() * w.cols();
    let total: usize = products.iter().map(|p| work(&p.w)).sum();
    // A task's share: small enough that threads end together, large enough to be worth handing over.
    let share = (total / (4 * threads)).max(TASK);
    let coded = integer::codes_of(m, products);
    let spreads = spread::spreads_of(m, products);
    let digits = digits::digits_of(m, products);
    let mut plans: Vec<Plan> = Vec::with_capacity(products.len());
    let mut tasks = 0;
    for p in products {
        let (n, k) = (p.w.rows(), p.w.cols());
        assert!(
            p.x.len() >= m * k && p.y.len() >= m * n,
            "{} and {} for {m} x {n} x {k}",
            p.x.len(),
            p.y.len()
        );
        if let Weights::Dense { values, .. } = p.w {
            assert!(values.len() >= n * k, "{} weights for {n} x {k}", values.len());
        }
        if m == 0 || n == 0 || k == 0 {
            if !p.accumulate {
                p.y[..m * n].fill(0.0);
            }
            continue;
        }
        let width = n.div_ceil(work(&p.w).div_ceil(share)).next_multiple_of(GROUP_ROWS);
        let out = Out { values: p.y.as_mut_ptr(), n, accumulate: p.accumulate };
        let codes = coded.iter().find(|c| c.are_of(p));
        let spread = spreads.iter().find(|s| s.are_of(p));
        let digits = digits.iter().find(|d| d.are_of(p));
        plans.push(Plan { x: p.x, w: p.w, out, width, first: tasks, codes, spread, digits });
        tasks += n.div_ceil(width);
    }
    if threads == 1 || total < 2 * TASK {
        plans.iter().for_each(|p| p.run(m, 0..p.out.n));
        return;
    }
    let plans = &plans[..];
    (0..tasks).into_par_iter().for_each(|task| {
        let Some(p) = plans.iter().rfind(|p| p.first <= task) else { return };
        let start = (task - p.first) * p.width;
        p.run(m, start..(start + p.width).min(p.out.n));
    });
}

/// Columns of Y on this thread.
///
/// # Safety
/// `x` is `[m, k]` with at most [`MAX_ROWS`] rows; `columns` of `out` are the caller's.
unsafe fn columns_of(w: Weights, x: &[f32], columns: Range<usize>, out: Out) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise.
    if unsafe { x86::columns(w, x, columns.clone(), out) } {
        return;
    }
    let rows = x.len() / w.cols();
    for j in columns {
        let y = match w {
            Weights::Stored(w) => stored(w, j, x),
            Weights::Dense { values, k, .. } => dense(&values[j * k..(j + 1) * k], x),
        };
        for (i, y) in y.into_iter().enumerate().take(rows) {
            // SAFETY: the caller's promise.
            unsafe { out.put(i, j, y) };
        }
    }
}

multiversion! {
    // Column j of Y; what is not there is zero.
    fn stored(w: &QuantMatrix, j: usize, x: &[f32]) -> [f32; MAX_ROWS] {
        let k = w.cols();
        let mut weights = [0f32; CHUNK];
        let mut sums = [[0f32; LANES]; MAX_ROWS];
        for c0 in (0..k).step_by(CHUNK) {
            let weights = &mut weights[..(k - c0).min(CHUNK)];
            w.dequantize_block_inline(j, c0, weights);
            for (x, sums) in x.chunks_exact(k).zip(&mut sums) {
                add_products::<F>(weights, &x[c0..], sums);
            }
        }
        sums.map(fold)
    }
}

multiversion! {
    // The same for a row of a dense matrix.
    fn dense(row: &[f32], x: &[f32]) -> [f32; MAX_ROWS] {
        let mut sums = [[0f32; LANES]; MAX_ROWS];
        for (x, sums) in x.chunks_exact(row.len()).zip(&mut sums) {
            add_products::<F>(row, x, sums);
        }
        sums.map(fold)
    }
}

/// Adds `weights[p] x[p]` to sum `p % 16`.
#[inline(always)]
fn add_products<F: Fma>(weights: &[f32], x: &[f32], sums: &mut [f32; LANES]) {
    let x = &x[..weights.len()];
    let mut local = *sums;
    let ((w, w_rest), (x, x_rest)) = (weights.as_chunks::<LANES>(), x.as_chunks::<LANES>());
    for (w, x) in w.iter().zip(x) {
        for lane in 0..LANES {
            local[lane] = F::fma(w[lane], x[lane], local[lane]);
        }
    }
    for (lane, (w, x)) in w_rest.iter().zip(x_rest).enumerate() {
        local[lane] = F::fma(*w, *x, local[lane]);
    }
    *sums = local;
}
