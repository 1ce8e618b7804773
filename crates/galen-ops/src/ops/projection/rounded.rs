//! Products of operands rounded to bfloat16. The low-rank branch is a few more columns of the inner dimension:
//! `y = [x u] [W sB]^T`, `dx = [dy_1 ... dy_n du] [W_1; ...; W_n; A]`.

use super::{Backward, FactorGradients, Factors, Forward, Found, Projections};
use crate::error::Result;
use crate::kernels::bf16::{self, PackedA, Piece, Rows16, Start, Transposed16, gemm16};
use crate::tensor::{F32View, f32_view};
use candle_core::Tensor;

/// Columns of a member's branch in u: (first, rank, scale).
type Place = (usize, usize, f32);

fn places(factors: &[Option<Factors>]) -> (Vec<Option<Place>>, usize) {
    let mut first = 0;
    let place = |f: &Option<Factors>| {
        f.map(|f| {
            first += f.rank;
            (first - f.rank, f.rank, f.scale)
        })
    };
    (factors.iter().map(place).collect(), first)
}

/// Every A of branches without dropout, one below the other `[R, in]`.
fn stacked(factors: &[Option<Factors>]) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for f in factors.iter().flatten().filter(|f| f.dropped.is_none()) {
        all.extend_from_slice(&f32_view(f.a)?);
    }
    Ok(all)
}

pub(super) fn forward(
    op: &Projections,
    x: &Tensor,
    tokens: usize,
    factors: &[Option<Factors>],
) -> Result<Forward> {
    let k = op.members.first().map_or(0, |(base, _)| base.in_features());
    let xv = f32_view(x)?;
    let packed = PackedA::rows(&xv, k, tokens, k, 1.0);
    let (places, ranks) = places(factors);
    let mut u = vec![0f32; tokens * ranks];
    let shared = factors.iter().flatten().all(|f| f.dropped.is_none());
    if ranks > 0 && shared {
        let a = stacked(factors)?;
        let b = Transposed16 { values: &a, stride: k };
        gemm16(tokens, ranks, &[Piece { a: &packed, b: &b }], Start::Zero, &mut u, ranks);
    } else {
        for (f, (first, r, _)) in factors.iter().flatten().zip(places.iter().flatten()) {
            let (a, dropped) = (f32_view(f.a)?, f32_view(f.dropped.unwrap_or(x))?);
            let dropped = PackedA::rows(&dropped, k, tokens, k, 1.0);
            let b = Transposed16 { values: &a, stride: k };
            gemm16(tokens, *r, &[Piece { a: &dropped, b: &b }], Start::Zero, &mut u[*first..], ranks);
        }
    }
    let mut ys = Vec::new();
    for ((base, _), (f, place)) in op.members.iter().zip(factors.iter().zip(&places)) {
        let n = base.out_features();
        let mut y = vec![0f32; tokens * n];
        let start = base.bias.as_deref().map_or(Start::Zero, Start::Bias);
        let weight =
            bf16::Forward { weight: base.weight.matrix(), packed: base.weight.packed_copy(), first: 0 };
        let main = Piece { a: &packed, b: &weight };
        if let (Some(f), Some((first, r, scale))) = (f, place) {
            let b = f32_view(f.b)?;
            let own = PackedA::rows(&u[*first..], ranks, tokens, *r, *scale);
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
    let (tokens, k) = (work.tokens, op.members.first().map_or(0, |(base, _)| base.in_features()));
    let (places, ranks) = places(work.factors);
    let packed: Vec<Option<PackedA>> = work
        .dys
        .iter()
        .zip(&op.members)
        .map(|(dy, (base, _))| {
            dy.map(|dy| PackedA::rows(dy, base.out_features(), tokens, base.out_features(), 1.0))
        })
        .collect();
    // du = s dy B, side by side; zero where an output was not used.
    let mut du = vec![0f32; tokens * ranks];
    let mut bs: Vec<Option<Vec<f32>>> = Vec::new();
    for i in 0..op.members.len() {
        let (Some(f), Some((first, r, scale)), Some(dy), Some(own)) =
            (&work.factors[i], places[i], work.dys[i], &packed[i])
        else {
            bs.push(None);
            continue;
        };
        let n = op.members[i].0.out_features();
        let b = f32_view(f.b)?;
        let rows = Rows16 { values: &b, stride: r };
        gemm16(tokens, r, &[Piece { a: own, b: &rows }], Start::Zero, &mut du[first..], ranks);
        for row in du.chunks_exact_mut(ranks) {
            row[first..first + r].iter_mut().for_each(|d| *d *= scale);
        }
        // The transpose of dB = s dy^T u, as the rank is the small dimension.
        let ut = PackedA::columns(work.u, ranks, first, r, tokens);
        let mut turned = vec![0f32; r * n];
        gemm16(r, n, &[Piece { a: &ut, b: &Rows16 { values: dy, stride: n } }], Start::Zero, &mut turned, n);
        bs.push(Some((0..n * r).map(|i| scale * turned[i % r * n + i / r]).collect()));
    }
    let shared = work.factors.iter().flatten().all(|f| f.dropped.is_none());
    let stacked = if shared { stacked(work.factors)? } else { Vec::new() };
    let mut da = vec![0f32; ranks * k];
    let mut inputs: Vec<Option<F32View>> = Vec::new();
    if let (Some(x), true) = (work.x, shared && ranks > 0) {
        let x = f32_view(x)?;
        let dut = PackedA::columns(&du, ranks, 0, ranks, tokens);
        gemm16(ranks, k, &[Piece { a: &dut, b: &Rows16 { values: &x, stride: k } }], Start::Zero, &mut da, k);
    } else {
        for f in work.factors {
            inputs.push(f.and_then(|f| f.dropped).map(f32_view).transpose()?);
        }
    }
    let mut found = Vec::new();
    for (i, b) in bs.into_iter().enumerate() {
        let (Some(b), Some((first, r, _)), Some(f)) = (b, places[i], &work.factors[i]) else {
            found.push(None);
            continue;
        };
        let a = &mut da[first * k..(first + r) * k];
        let mut dropped = None;
        if let Some(Some(x)) = inputs.get(i) {
            let dut = PackedA::columns(&du, ranks, first, r, tokens);
            gemm16(r, k, &[Piece { a: &dut, b: &Rows16 { values: x, stride: k } }], Start::Zero, a, k);
            if work.wants_dropped {
                let own = PackedA::rows(&du[first..], ranks, tokens, r, 1.0);
                let matrix = f32_view(f.a)?;
                let rows = Rows16 { values: &matrix, stride: k };
                let d = dropped.insert(vec![0f32; tokens * k]);
                gemm16(tokens, k, &[Piece { a: &own, b: &rows }], Start::Zero, d, k);
            }
        }
        found.push(Some(FactorGradients { a: a.to_vec(), b, dropped }));
    }
    let mut dx = None;
    if work.wants_x && packed.iter().any(Option::is_some) {
        let branches = PackedA::rows(&du, ranks, tokens, if shared { ranks } else { 0 }, 1.0);
        let rows = Rows16 { values: &stacked, stride: k };
        let weights: Vec<bf16::Backward> = op
            .members
            .iter()
            .map(|(base, _)| bf16::Backward {
                weight: base.weight.matrix(),
                packed: base.weight.packed_copy(),
                first: 0,
            })
            .collect();
        let mut pieces: Vec<Piece> =
            packed.iter().zip(&weights).filter_map(|(a, b)| a.as_ref().map(|a| Piece { a, b })).collect();
        pieces.push(Piece { a: &branches, b: &rows });
        let dx = dx.insert(vec![0f32; tokens * k]);
        gemm16(tokens, k, &pieces, Start::Zero, dx, k);
    }
    Ok((dx, found))
}
