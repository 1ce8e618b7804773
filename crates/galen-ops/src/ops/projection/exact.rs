//! Products in f32.

use super::{Backward, FactorGradients, Factors, Forward, Found, Projection, Projections, add, columns};
use crate::error::Result;
use crate::kernels::gemm::{Lhs, gemm};
use crate::kernels::gemv::{Product, Weights, gemv};
use crate::kernels::panels::{Rows, Transposed, Weight, WeightTransposed};
use crate::tensor::{Values, f32_view};

/// The branch's own input.
fn dropped<'a>(f: &Factors, x: &'a [f32], k: usize) -> Result<Values<'a>> {
    match &f.branch.dropout {
        Some(dropout) => dropout.apply(x, k).map(Values::Own),
        None => Ok(Values::Slice(x)),
    }
}

/// Every member's product with its frozen weight, and its bias.
fn bases(op: &Projections, x: &[f32], tokens: usize) -> Vec<Vec<f32>> {
    let k = op.in_features();
    let start = |(base, _): &(Projection, _)| {
        let mut y = vec![0f32; tokens * base.out_features()];
        if let Some(bias) = &base.bias {
            y.chunks_exact_mut(bias.len()).for_each(|y| y.copy_from_slice(bias));
        }
        y
    };
    let mut ys: Vec<Vec<f32>> = op.members.iter().map(start).collect();
    let each = op.members.iter().map(|(base, _)| base).zip(&mut ys);
    if op.in_integers() {
        let mut products = Vec::with_capacity(op.members.len());
        for (base, y) in each {
            let (w, accumulate) = (Weights::Stored(base.weight.matrix()), base.bias.is_some());
            products.push(Product { x, w, y, accumulate });
        }
        gemv(tokens, &mut products);
    } else {
        for (base, y) in each {
            let panels = WeightTransposed { weight: base.weight.matrix(), first: 0 };
            gemm(tokens, base.out_features(), k, Lhs::rows(x, k), &panels, y, base.bias.is_some());
        }
    }
    ys
}

pub(super) fn forward(
    op: &Projections,
    x: &[f32],
    tokens: usize,
    factors: &[Option<Factors>],
) -> Result<Forward> {
    let k = op.in_features();
    let ranks: usize = factors.iter().flatten().map(|f| f.rank).sum();
    let (mut ys, mut us, mut first) = (bases(op, x, tokens), vec![0f32; tokens * ranks], 0);
    for (((base, _), f), y) in op.members.iter().zip(factors).zip(&mut ys) {
        let n = base.out_features();
        if let Some(f) = f {
            let r = f.rank;
            let (a, b, x) = (f32_view(f.a)?, f32_view(f.b)?, dropped(f, x, k)?);
            let mut u = vec![0f32; tokens * r];
            gemm(tokens, r, k, Lhs::rows(&x, k), &Transposed { values: &a, stride: k }, &mut u, false);
            for (all, u) in us.chunks_exact_mut(ranks).zip(u.chunks_exact(r)) {
                all[first..first + r].copy_from_slice(u);
            }
            u.iter_mut().for_each(|u| *u *= f.branch.scale);
            gemm(tokens, n, r, Lhs::rows(&u, r), &Transposed { values: &b, stride: r }, y, true);
            first += r;
        }
    }
    Ok((ys, us))
}

pub(super) fn backward(op: &Projections, work: &Backward) -> Result<Found> {
    let (tokens, k) = (work.tokens, op.in_features());
    let ranks: usize = work.factors.iter().flatten().map(|f| f.rank).sum();
    let (mut dx, mut found, mut first) = (None::<Vec<f32>>, Vec::new(), 0);
    for (((base, _), f), dy) in op.members.iter().zip(work.factors).zip(work.dys) {
        let n = base.out_features();
        let at = first;
        first += f.map_or(0, |f| f.rank);
        let Some(dy) = dy else {
            found.push(None);
            continue;
        };
        if work.wants_x {
            let added = dx.is_some();
            let dx = dx.get_or_insert_with(|| vec![0f32; tokens * k]);
            let weight = Weight { weight: base.weight.matrix(), first: 0 };
            gemm(tokens, k, n, Lhs::rows(dy, n), &weight, dx, added);
        }
        let (Some(f), Some(x)) = (f, work.x) else {
            found.push(None);
            continue;
        };
        let (r, scale) = (f.rank, f.branch.scale);
        let (av, bv, x) = (f32_view(f.a)?, f32_view(f.b)?, dropped(f, x, k)?);
        // u carries the scale for B, du for A and x.
        let u = columns(work.u, ranks, at, r, scale);
        let mut b = vec![0f32; n * r];
        gemm(n, r, tokens, Lhs::transposed(dy, n), &Rows { values: &u, stride: r }, &mut b, false);
        let mut du = vec![0f32; tokens * r];
        gemm(tokens, r, n, Lhs::rows(dy, n), &Rows { values: &bv, stride: r }, &mut du, false);
        du.iter_mut().for_each(|d| *d *= scale);
        let mut a = vec![0f32; r * k];
        gemm(r, k, tokens, Lhs::transposed(&du, r), &Rows { values: &x, stride: k }, &mut a, false);
        if let Some(dx) = &mut dx {
            let branch = Rows { values: &av, stride: k };
            if let Some(dropout) = &f.branch.dropout {
                let mut own = vec![0f32; tokens * k];
                gemm(tokens, k, r, Lhs::rows(&du, r), &branch, &mut own, false);
                add(dx, &dropout.apply(&own, k)?);
            } else {
                gemm(tokens, k, r, Lhs::rows(&du, r), &branch, dx, true);
            }
        }
        found.push(Some(FactorGradients { a, b }));
    }
    Ok((dx, found))
}
