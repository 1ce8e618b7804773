//! Products of few rows straight with the stored blocks: a step of generation. The activations stay as they are,
//! whatever the weights' [`super::Compute`]. Nothing drops out in generation.

use super::{Factors, Forward, Projections};
use crate::error::{Result, shape_error};
use crate::kernels::gemv::{MAX_ROWS, Product, Weights, gemv};
use crate::tensor::{F32View, dims2, f32_view};
use candle_core::Tensor;

/// Rows up to which reading the blocks as they are is faster than the matrix product.
pub(super) const FEW_ROWS: usize = MAX_ROWS;

pub(super) fn forward(
    op: &Projections,
    x: &[f32],
    tokens: usize,
    factors: &[Option<Factors>],
) -> Result<Forward> {
    let mut ys = Vec::with_capacity(op.members.len());
    let (mut us, mut matrices) = (Vec::new(), Vec::new());
    for ((base, _), f) in op.members.iter().zip(factors) {
        ys.push(match (&base.product, &base.bias) {
            (Some(product), _) => known(product, tokens, base.out_features())?,
            (None, Some(bias)) => bias.repeat(tokens),
            (None, None) => vec![0f32; tokens * base.out_features()],
        });
        us.push(vec![0f32; f.map_or(0, |f| tokens * f.rank)]);
        matrices
            .push(f.map(|f| Ok::<[F32View; 2], crate::Error>([f32_view(f.a)?, f32_view(f.b)?])).transpose()?);
    }
    // All that reads x in one call, then what reads u.
    let mut products = Vec::with_capacity(2 * ys.len());
    for (i, (y, u)) in ys.iter_mut().zip(&mut us).enumerate() {
        let base = &op.members[i].0;
        if base.product.is_none() {
            let w = Weights::Stored(base.weight.matrix());
            products.push(Product { x, w, y, accumulate: base.bias.is_some() });
        }
        if let (Some(f), Some([a, _])) = (&factors[i], &matrices[i]) {
            let w = Weights::Dense { values: a, n: f.rank, k: op.in_features() };
            products.push(Product { x, w, y: u, accumulate: false });
        }
    }
    gemv(tokens, &mut products);
    let u = side_by_side(tokens, &us, factors);
    let mut products = Vec::new();
    for (i, (y, u)) in ys.iter_mut().zip(&mut us).enumerate() {
        if let (Some(f), Some([_, b])) = (&factors[i], &matrices[i]) {
            u.iter_mut().for_each(|u| *u *= f.branch.scale);
            let w = Weights::Dense { values: b, n: op.members[i].0.out_features(), k: f.rank };
            products.push(Product { x: u, w, y, accumulate: true });
        }
    }
    gemv(tokens, &mut products);
    Ok((ys, u))
}

/// A product given with its projection, `[tokens, width]`.
fn known(product: &Tensor, tokens: usize, width: usize) -> Result<Vec<f32>> {
    match dims2("projections", product)? {
        dims if dims == (tokens, width) => Ok(f32_view(product)?.to_vec()),
        dims => shape_error("projections", format!("a product of {dims:?} for {tokens} rows of {width}")),
    }
}

/// `[T, sum of R]` of every branch's `[T, R]`.
fn side_by_side(tokens: usize, us: &[Vec<f32>], factors: &[Option<Factors>]) -> Vec<f32> {
    let mut all = Vec::with_capacity(us.iter().map(Vec::len).sum());
    for t in 0..tokens {
        for (u, f) in us.iter().zip(factors) {
            let rank = f.map_or(0, |f| f.rank);
            all.extend_from_slice(&u[t * rank..(t + 1) * rank]);
        }
    }
    all
}
