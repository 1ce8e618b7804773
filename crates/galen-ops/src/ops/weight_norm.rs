//! Norms of a frozen weight's rows with a low-rank change, which is not formed.

use super::{Frozen, Projection, Projections, on_device};
use crate::device::Value;
use crate::error::{Result, shape_error};
use crate::tape::Op;
use crate::tensor::{dims2, f32_tensor, f32_view};
use candle_core::Tensor;
use rayon::prelude::*;

/// A squared norm this small a share of its terms has lost too many digits: it is formed from the row itself.
const CANCELLED: f64 = 1e-3;

/// `|W + s B A|` of each row `[out]`, for W `[out, in]`, A `[R, in]`, B `[out, R]`: what DoRA (Liu et al. 2024, equation 5)
/// divides by. For row j `|W_j|^2 + 2 s B_j (W A^T)_j + s^2 B_j (A A^T) B_j^T`, so that W is read once, by the product W A^T in the
/// weight's own arithmetic.
///
/// Errors: matrices that do not fit together.
pub fn adapted_norms(weight: &Frozen, a: &[f32], b: &[f32], scale: f32) -> Result<Vec<f32>> {
    let (n, k) = (weight.matrix().rows(), weight.matrix().cols());
    let r = a.len() / k.max(1);
    if a.len() != r * k || b.len() != n * r {
        let what = format!("A of {} values and B of {} for a weight of `[{n}, {k}]`", a.len(), b.len());
        return shape_error("adapted_norms", what);
    }
    if b.iter().all(|b| *b == 0.0) {
        return Ok(weight.row_squares().iter().map(|s| s.sqrt() as f32).collect());
    }
    let a = f32_tensor(a.to_vec(), (r, k))?;
    // [R, out], row i being W A_i.
    let crossed = product(weight, &a)?;
    let crossed = f32_view(&crossed)?;
    let (a, crossed) = (f32_view(&a)?, &*crossed);
    let a = &*a;
    let mut gram = vec![0f64; r * r];
    gram.par_iter_mut().enumerate().for_each(|(at, g)| {
        let (x, y) = (&a[at / r * k..][..k], &a[at % r * k..][..k]);
        *g = x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
    });
    let (s, squares) = (f64::from(scale), weight.row_squares());
    let norm = |j: usize| {
        let b = &b[j * r..(j + 1) * r];
        let (mut cross, mut own) = (0f64, 0f64);
        for i in 0..r {
            let bi = f64::from(b[i]);
            cross += bi * f64::from(crossed[i * n + j]);
            own += bi * (0..r).map(|h| gram[i * r + h] * f64::from(b[h])).sum::<f64>();
        }
        let (cross, own) = (2.0 * s * cross, s * s * own);
        let square = squares[j] + cross + own;
        if square > CANCELLED * (squares[j] + cross.abs() + own) {
            return square.sqrt() as f32;
        }
        let mut row = vec![0f32; k];
        weight.matrix().dequantize_block(j, 0, &mut row);
        for (b, a) in b.iter().zip(a.chunks_exact(k)) {
            row.iter_mut().zip(a).for_each(|(w, a)| *w += scale * b * a);
        }
        row.iter().map(|w| f64::from(*w) * f64::from(*w)).sum::<f64>().sqrt() as f32
    };
    Ok((0..n).into_par_iter().map(norm).collect())
}

/// The same of matrices wherever they lie; there the norms lie too, `[out]` on the CPU.
pub fn adapted_norms_of(weight: &Frozen, a: &Value, b: &Value, scale: f32) -> Result<Value> {
    if let (Value::Device(a), Value::Device(b)) = (a, b) {
        return on_device::adapted_norms(a.on(), weight, a, b, scale).map(Value::from);
    }
    let norms = adapted_norms(weight, &f32_view(a.host()?)?, &f32_view(b.host()?)?, scale)?;
    let n = norms.len();
    f32_tensor(norms, n).map(Value::from)
}

/// `x W^T`.
fn product(weight: &Frozen, x: &Tensor) -> Result<Tensor> {
    let products = Projections::frozen(Projection::new(weight.clone(), None)?).infer(&[x])?;
    match products.into_iter().next() {
        Some(y) if dims2("adapted_norms", &y)?.1 == weight.matrix().rows() => Ok(y),
        _ => shape_error("adapted_norms", "no product"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Compute;
    use crate::quant::QuantMatrix;
    use std::sync::Arc;

    fn numbers(n: usize, key: u64) -> Vec<f32> {
        let mut z = key;
        let mut next = || {
            z = z.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    fn reference(w: &[f32], a: &[f32], b: &[f32], (n, k, r): (usize, usize, usize), scale: f32) -> Vec<f64> {
        let entry = |j: usize, c: usize| {
            let change: f64 = (0..r).map(|i| f64::from(b[j * r + i]) * f64::from(a[i * k + c])).sum();
            f64::from(w[j * k + c]) + f64::from(scale) * change
        };
        (0..n).map(|j| (0..k).map(|c| entry(j, c).powi(2)).sum::<f64>().sqrt()).collect()
    }

    #[test]
    fn norms_are_those_of_the_changed_rows() {
        let (n, k, r) = (37, 70, 5);
        let (w, a, mut b) = (numbers(n * k, 1), numbers(r * k, 2), numbers(n * r, 3));
        b[4 * r..5 * r].fill(0.0);
        for (compute, tolerance) in [(Compute::F32, 1e-6), (Compute::Bf16, 5e-3)] {
            let frozen = Frozen::new(Arc::new(QuantMatrix::from_f32(n, k, &w).unwrap()), compute);
            for scale in [2.5, 0.0, -0.3] {
                let got = adapted_norms(&frozen, &a, &b, scale).unwrap();
                for (g, w) in got.iter().zip(reference(&w, &a, &b, (n, k, r), scale)) {
                    assert!((f64::from(*g) - w).abs() <= tolerance * w, "{compute:?} {scale}: {g} for {w}");
                }
            }
        }
    }

    #[test]
    fn a_change_that_cancels_the_weight_keeps_its_digits() {
        let (n, k) = (4, 64);
        let a = numbers(k, 5);
        let b = [1.0, -2.0, 0.5, 0.0];
        let mut w: Vec<f32> = b.iter().flat_map(|b| a.iter().map(move |a| -b * a)).collect();
        w[7] += 1e-4;
        let frozen = Frozen::from(Arc::new(QuantMatrix::from_f32(n, k, &w).unwrap()));
        let got = adapted_norms(&frozen, &a, &b, 1.0).unwrap();
        let want = reference(&w, &a, &b, (n, k, 1), 1.0);
        for (g, w) in got.iter().zip(&want) {
            assert!((f64::from(*g) - w).abs() <= 1e-9 + 1e-5 * w, "{g} for {w}");
        }
        assert!(want[0] > 9e-5 && want[0] < 1.1e-4 && got[1] < 1e-6, "the test's own rows");
    }
}
