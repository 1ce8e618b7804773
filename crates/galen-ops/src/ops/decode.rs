//! Projections of few rows: a step of generation. No gradient.

use crate::kernels::gemv::{Product, Weights, gemv};
use crate::quant::QuantMatrix;

/// Rows up to which the stored blocks are read as they are; with more of them the matrix product is faster.
pub(crate) const FEW_ROWS: usize = crate::kernels::gemv::MAX_ROWS;

/// One of several projections of the same x: `y = x W^T + b + s (x A^T) B^T`.
pub(crate) struct FewRows<'a> {
    /// W `[out, in]`.
    pub weight: &'a QuantMatrix,
    /// b `[out]`.
    pub bias: Option<&'a [f32]>,
    /// The low-rank branch.
    pub branch: Option<LowRank<'a>>,
}

/// A low-rank branch.
pub(crate) struct LowRank<'a> {
    /// A `[R, in]`.
    pub a: &'a [f32],
    /// B `[out, R]`.
    pub b: &'a [f32],
    /// R.
    pub rank: usize,
    /// s.
    pub scale: f32,
}

/// For each member y `[rows, out]` and, where it has a branch, `s x A^T` `[rows, R]`.
pub(crate) fn project(rows: usize, x: &[f32], members: &[FewRows]) -> Vec<(Vec<f32>, Vec<f32>)> {
    let start = |member: &FewRows| {
        let y = match member.bias {
            Some(bias) => bias.repeat(rows),
            None => vec![0f32; rows * member.weight.rows()],
        };
        (y, vec![0f32; rows * member.branch.as_ref().map_or(0, |b| b.rank)])
    };
    let mut out: Vec<(Vec<f32>, Vec<f32>)> = members.iter().map(start).collect();
    let mut products = Vec::with_capacity(2 * members.len());
    for (member, (y, u)) in members.iter().zip(&mut out) {
        products.push(Product { x, w: Weights::Stored(member.weight), y, accumulate: member.bias.is_some() });
        if let Some(LowRank { a, rank, .. }) = member.branch {
            let w = Weights::Dense { values: a, n: rank, k: member.weight.cols() };
            products.push(Product { x, w, y: u, accumulate: false });
        }
    }
    gemv(rows, &mut products);
    let mut products = Vec::new();
    for (member, (y, u)) in members.iter().zip(&mut out) {
        if let Some(LowRank { b, rank, scale, .. }) = member.branch {
            u.iter_mut().for_each(|u| *u *= scale);
            let w = Weights::Dense { values: b, n: member.weight.rows(), k: rank };
            products.push(Product { x: u, w, y, accumulate: true });
        }
    }
    gemv(rows, &mut products);
    out
}
