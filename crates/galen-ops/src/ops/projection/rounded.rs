//! Products of operands rounded to bfloat16. The low-rank branch is a few more columns of the inner dimension:
//! `y = [x u] [W sB]^T`, `dx = [dy_1 ... dy_n du] [W_1; ...; W_n; A]`.

use super::{Backward, FactorGradients, Factors, Forward, Found, Projections, add};
use crate::error::Result;
use crate::kernels::bf16::{self, PackedA, Piece, Rows16, Start, Transposed16, gemm16};
use crate::tensor::f32_view;

/// Columns of a member's branch in u: (first, rank).
type Place = (usize, usize);

fn places(factors: &[Option<Factors>]) -> (Vec<Option<Place>>, usize) {
    let mut first = 0;
    let place = |f: &Option<Factors>| {
        f.map(|f| {
            first += f.rank;
            (first - f.rank, f.rank)
        })
    };
    (factors.iter().map(place).collect(), first)
}

/// Whether the branches read x itself, so that their products go together.
fn shared(factors: &[Option<Factors>]) -> bool {
    factors.iter().flatten().all(|f| f.branch.dropout.is_none())
}

/// Every A, one below the other `[sum of R, in]`.
fn stacked(factors: &[Option<Factors>]) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for f in factors.iter().flatten() {
        all.extend_from_slice(&f32_view(f.a)?);
    }
    Ok(all)
}

pub(super) fn forward(
    op: &Projections,
    x: &[f32],
    tokens: usize,
    factors: &[Option<Factors>],
) -> Result<Forward> {
    let k = op.in_features();
    let packed = PackedA::rows(x, k, tokens, k, 1.0);
    let (places, ranks) = places(factors);
    let mut u = vec![0f32; tokens * ranks];
    if shared(factors) {
        let a = stacked(factors)?;
        let b = Transposed16 { values: &a, stride: k };
        gemm16(tokens, ranks, &[Piece { a: &packed, b: &b }], Start::Zero, &mut u, ranks);
    } else {
        for (f, (first, r)) in factors.iter().flatten().zip(places.iter().flatten()) {
            let a = f32_view(f.a)?;
            let own = f.branch.dropout.as_ref().map(|d| d.apply(x, k)).transpose()?;
            let own = PackedA::rows(own.as_deref().unwrap_or(x), k, tokens, k, 1.0);
            let b = Transposed16 { values: &a, stride: k };
            gemm16(tokens, *r, &[Piece { a: &own, b: &b }], Start::Zero, &mut u[*first..], ranks);
        }
    }
    let mut ys = Vec::new();
    for ((base, _), (f, place)) in op.members.iter().zip(factors.iter().zip(&places)) {
        let n = base.out_features();
        let mut y = vec![0f32; tokens * n];
        let start = base.bias.as_deref().map_or(Start::Zero, Start::Bias);
        let (weight, copy) = (base.weight.matrix(), base.weight.packed_copy());
        let weight = bf16::Forward { weight, packed: copy, first: 0 };
        let main = Piece { a: &packed, b: &weight };
        if let (Some(f), Some((first, r))) = (f, place) {
            let b = f32_view(f.b)?;
            let own = PackedA::rows(&u[*first..], ranks, tokens, *r, f.branch.scale);
            let branch = Piece { a: &own, b: &Transposed16 { values: &b, stride: *r } };
            gemm16(tokens, n, &[main, branch], start, &mut y, n);
        } else {
            gemm16(tokens, n, &[main], start, &mut y, n);
        }
        ys.push(y);
    }
    Ok((ys, u))
}

pub(super) fn backward(op: &Projections, work: &Backward) -> Result<Found> {
    let (tokens, k) = (work.tokens, op.in_features());
    let (places, ranks) = places(work.factors);
    let packed: Vec<Option<PackedA>> = work
        .dys
        .iter()
        .zip(&op.members)
        .map(|(dy, (base, _))| {
            let n = base.out_features();
            dy.map(|dy| PackedA::rows(dy, n, tokens, n, 1.0))
        })
        .collect();
    // du = s dy B, side by side; zero where an output was not used.
    let mut du = vec![0f32; tokens * ranks];
    let mut found: Vec<Option<FactorGradients>> = Vec::new();
    for i in 0..op.members.len() {
        let (Some(f), Some((first, r)), Some(dy), Some(own)) =
            (&work.factors[i], places[i], work.dys[i], &packed[i])
        else {
            found.push(None);
            continue;
        };
        let (n, scale) = (op.members[i].0.out_features(), f.branch.scale);
        let b = f32_view(f.b)?;
        let rows = Rows16 { values: &b, stride: r };
        gemm16(tokens, r, &[Piece { a: own, b: &rows }], Start::Zero, &mut du[first..], ranks);
        for row in du.chunks_exact_mut(ranks) {
            row[first..first + r].iter_mut().for_each(|d| *d *= scale);
        }
        // The transpose of dB = s dy^T u, as the rank is the small dimension.
        let ut = PackedA::columns(work.u, ranks, first, r, tokens);
        let mut turned = vec![0f32; r * n];
        let rows = Rows16 { values: dy, stride: n };
        gemm16(r, n, &[Piece { a: &ut, b: &rows }], Start::Zero, &mut turned, n);
        let b = (0..n * r).map(|i| scale * turned[i % r * n + i / r]).collect();
        found.push(Some(FactorGradients { a: vec![], b }));
    }
    let together = shared(work.factors);
    if let Some(x) = work.x {
        input_gradients(work, x, &places, &du, (ranks, k, together), &mut found)?;
    }
    if !work.wants_x || packed.iter().all(Option::is_none) {
        return Ok((None, found));
    }
    let branches = PackedA::rows(&du, ranks, tokens, if together { ranks } else { 0 }, 1.0);
    let a = stacked(work.factors)?;
    let rows = Rows16 { values: &a, stride: k };
    let weights: Vec<bf16::Backward> = op
        .members
        .iter()
        .map(|(base, _)| {
            let (weight, copy) = (base.weight.matrix(), base.weight.packed_copy());
            bf16::Backward { weight, packed: copy, first: 0 }
        })
        .collect();
    let mut pieces: Vec<Piece> =
        packed.iter().zip(&weights).filter_map(|(a, b)| a.as_ref().map(|a| Piece { a, b })).collect();
    pieces.push(Piece { a: &branches, b: &rows });
    let mut dx = vec![0f32; tokens * k];
    gemm16(tokens, k, &pieces, Start::Zero, &mut dx, k);
    if !together {
        for (f, (first, r)) in work.factors.iter().flatten().zip(places.iter().flatten()) {
            let a = f32_view(f.a)?;
            let own = PackedA::rows(&du[*first..], ranks, tokens, *r, 1.0);
            let mut d = vec![0f32; tokens * k];
            let rows = Rows16 { values: &a, stride: k };
            gemm16(tokens, k, &[Piece { a: &own, b: &rows }], Start::Zero, &mut d, k);
            let d = f.branch.dropout.as_ref().map_or(Ok(None), |m| m.apply(&d, k).map(Some))?.unwrap_or(d);
            add(&mut dx, &d);
        }
    }
    Ok((Some(dx), found))
}

/// dA = du^T x' of every branch.
fn input_gradients(
    work: &Backward,
    x: &[f32],
    places: &[Option<Place>],
    du: &[f32],
    (ranks, k, together): (usize, usize, bool),
    found: &mut [Option<FactorGradients>],
) -> Result<()> {
    let mut all = Vec::new();
    if together {
        all = vec![0f32; ranks * k];
        let turned = PackedA::columns(du, ranks, 0, ranks, work.tokens);
        let rows = Rows16 { values: x, stride: k };
        gemm16(ranks, k, &[Piece { a: &turned, b: &rows }], Start::Zero, &mut all, k);
    }
    for ((f, place), found) in work.factors.iter().zip(places).zip(found) {
        let (Some(f), Some((first, r)), Some(found)) = (f, place, found) else { continue };
        found.a = if together {
            all[first * k..(first + r) * k].to_vec()
        } else {
            let own = f.branch.dropout.as_ref().map(|d| d.apply(x, k)).transpose()?;
            let turned = PackedA::columns(du, ranks, *first, *r, work.tokens);
            let rows = Rows16 { values: own.as_deref().unwrap_or(x), stride: k };
            let mut a = vec![0f32; r * k];
            gemm16(*r, k, &[Piece { a: &turned, b: &rows }], Start::Zero, &mut a, k);
            a
        };
    }
    Ok(())
}
