//! Exact products with interleaved rows ([`crate::quant::Interleaved`]): the activations stay f32, a block's scale and
//! minimum are multiplied with its sums instead of with each weight.
//!
//! Element (i, j) is the sum over blocks b, in their order, of `d_jb S_ib + m_jb T_ib` with `S_ib` the sum of code times
//! x over the block (two chains of sixteen, added) and `T_ib` the sum of x. Its bits depend neither on other rows nor on
//! tasks. Of Q4_0 `m = -8 d`.

use super::{Out, Product, Weights};
use crate::quant::GROUP_BLOCK;
use std::ops::Range;

/// Rows of x.
pub(super) struct Spread<'a> {
    x: &'a [f32],
    pub k: usize,
    nibbles: bool,
    /// `[m, k]` in the order of a register's codes. With nibbles, element p of a register's eight is multiplied with
    /// its nibble where it lies, `16^p` times its value, so x is divided by that: exact, down to 2^-98.
    pub values: Vec<f32>,
    /// `T`: `[m, k / 32]`.
    pub sums: Vec<f32>,
}

/// Whether a product goes through this kernel, and its codes are nibbles. Those of bytes do even where integers are
/// asked for: they are faster so.
fn wanted(w: &Weights) -> Option<bool> {
    let Weights::Stored(w) = w else { return None };
    let copy = w.interleaved().filter(|copy| copy.group_rows() != super::WITH_DIGITS)?;
    (!w.integer_copy()).then(|| copy.grouping().is_nibbles())
}

/// The rows of every product that goes through the exact kernel; products that share x share them.
pub(super) fn spreads_of<'a>(m: usize, products: &[Product<'a>]) -> Vec<Spread<'a>> {
    let mut all: Vec<Spread> = Vec::new();
    for p in products {
        if let Some(nibbles) = wanted(&p.w)
            && !all.iter().any(|s| s.are_of(p))
        {
            all.push(Spread::new(m, p.x, p.w.cols(), nibbles));
        }
    }
    all
}

impl<'a> Spread<'a> {
    /// Of x `[m, k]`, k whole blocks.
    fn new(m: usize, x: &'a [f32], k: usize, nibbles: bool) -> Self {
        let rows = &x[..m * k];
        let sums = rows.chunks_exact(GROUP_BLOCK).map(|x| x.iter().sum()).collect();
        let values = if nibbles {
            rows.as_chunks::<8>()
                .0
                .iter()
                .flat_map(|x| std::array::from_fn::<f32, 8, _>(|p| x[PLACE[p]] * INVERSE[p]))
                .collect()
        } else {
            rows.to_vec()
        };
        Self { x, k, nibbles, values, sums }
    }

    /// Whether these are the rows of a product's x.
    pub(super) fn are_of(&self, p: &Product) -> bool {
        wanted(&p.w) == Some(self.nibbles)
            && std::ptr::eq(self.x.as_ptr(), p.x.as_ptr())
            && self.k == p.w.cols()
    }

    /// Columns of Y for rows `rows` of x, on this thread.
    ///
    /// # Safety
    /// `rows` are at most [`super::MAX_ROWS`] of x; `columns` of `out` (whose first row is the first of `rows`) are the
    /// caller's, the first a multiple of the group's rows; the product is one these are the rows of.
    pub(super) unsafe fn columns(&self, w: Weights, rows: Range<usize>, columns: Range<usize>, out: Out) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller's promise.
        unsafe {
            super::x86::interleaved::columns(self, w, rows, columns, out);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (w, rows, columns, out);
    }
}

/// Where in x the element of nibble p of a register lies.
const PLACE: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];
/// One over what its place multiplies nibble p with; the last is shifted down instead, its sign bit being in use.
const INVERSE: [f32; 8] =
    [1.0, 1.0 / 16.0, 1.0 / 256.0, 1.0 / 4096.0, 1.0 / 65536.0, 1.0 / 1_048_576.0, 1.0 / 16_777_216.0, 1.0];
