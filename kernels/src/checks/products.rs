//! Products with weights by galen's kernels and by the library, against galen-ops' operation on the CPU and against each other.

use super::operations::{floats, head, near, rounded, tensor, wide};
use super::qmatmul::weight;
use super::support::{narrow, values, widen};
use crate::Device;
use crate::place::Launches;
use galen_ops::device::{
    Backend, DeviceBranch, DeviceMatrix, DeviceWeight, Number, Path, projection_backward, projection_forward,
};
use galen_ops::ops::{Branch, Projection, Projections, Prologue};
use galen_ops::quant::{QuantMatrix, WeightDtype};
use galen_ops::{Error, Op, Result};
use std::sync::Arc;

/// Rows, outputs, inputs, rank of the branch.
pub type Shape = (usize, usize, usize, usize);

/// A projection with bias and branch: y, dx, dA, dB as they were found, each near the CPU's.
pub fn projection<B>(
    on: &impl Backend<Buffer = B>,
    dtype: WeightDtype,
    (m, n, k, rank): Shape,
) -> Result<[Vec<f32>; 4]> {
    let matrix = weight(dtype, n, k, 3);
    let (x, dy, bias) = (rounded(1, m * k), rounded(2, m * n), values(6, n));
    let (a, b) = (rounded(4, rank * k), rounded(5, n * rank));
    let scale = 0.75;
    // The CPU's operation, in f32 over the rounded weight.
    let plain = QuantMatrix::from_f32(n, k, &widen(&narrow(&matrix.to_f32()))).unwrap();
    let base = Projection::new(Arc::new(plain), Some(bias.clone().into()))?;
    let op = Projections {
        prologue: Prologue::Plain,
        members: vec![(base, Some(Branch { scale, dropout: None, unrounded: false }))],
    };
    let (y_want, saved) = op.forward(&[&tensor(&x, k), &tensor(&a, k), &tensor(&b, rank)])?;
    let want = op.backward(&saved, vec![Some(tensor(&dy, n))], &[true; 3])?;
    let want = |i: usize| wide(want[i].as_ref().unwrap());

    let w = DeviceWeight::upload(on, &matrix)?;
    let bf16 = |v: &[f32], cols| DeviceMatrix::upload(on, v, cols, Number::Bf16);
    let (x, dy, a, b) = (bf16(&x, k)?, bf16(&dy, n)?, bf16(&a, k)?, bf16(&b, rank)?);
    let bias = on.upload(&bias.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())?;
    let branch = DeviceBranch { a: &a, b: &b, scale, dropout: None };
    let (y, u) = projection_forward(on, &x, (&w, Some(&bias)), Some(&branch), (Number::Bf16, false))?;
    let dx = DeviceMatrix::new(on, m, k, Number::F32)?;
    let (da, db) = (on.zeros(4 * rank * k)?, on.zeros(4 * n * rank)?);
    let u = u.as_ref().unwrap();
    projection_backward(on, &dy, &w, Some((&branch, u, &x)), Some((&dx, false)), Some((&da, &db)))?;
    let compare = |part: &str, got: &[f32], want: &[f64]| {
        let what = format!("projection {dtype} ({m}, {n}, {k}, {rank}): {part}");
        near(&what, got, want, 6e-3).map_err(Error::Device)
    };
    let found = [y.download(on)?, dx.download(on)?, floats(on, &da)?, floats(on, &db)?];
    compare("y", &found[0], &wide(&y_want[0]))?;
    for (i, part) in ["dx", "dA", "dB"].into_iter().enumerate() {
        compare(part, &found[i + 1], &want(i))?;
    }
    // Added to what is there, rounded to bf16, and without a branch.
    projection_backward(on, &dy, &w, Some((&branch, u, &x)), Some((&dx, true)), None)?;
    let twice: Vec<f64> = want(0).iter().map(|v| 2.0 * v).collect();
    compare("dx added", &dx.download(on)?, &twice)?;
    let short = DeviceMatrix::new(on, m, k, Number::Bf16)?;
    projection_backward(on, &dy, &w, Some((&branch, u, &x)), Some((&short, false)), None)?;
    compare("dx in bf16", &short.download(on)?, &want(0))?;
    let (alone, _) = projection_forward(on, &x, (&w, None), None, (Number::Bf16, false))?;
    compare("y alone", &alone.download(on)?, &product_alone(&op, &x.download(on)?, (m, n, k)))?;
    Ok(found)
}

/// `x W^T` of the operation's weight, in f64.
fn product_alone(op: &Projections, x: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<f64> {
    let w = op.members[0].0.weight().matrix().to_f32();
    let term = |i: usize, o: usize, j: usize| f64::from(x[i * k + j]) * f64::from(w[o * k + j]);
    (0..m * n).map(|at| (0..k).map(|j| term(at / n, at % n, j)).sum()).collect()
}

/// One shape by both paths.
pub fn check_paths(device: &Device, dtype: WeightDtype, shape: Shape) -> std::result::Result<(), String> {
    let by = |path| projection(&Launches(device, path), dtype, shape).map_err(|e| format!("{path:?}: {e}"));
    let (library, kernels) = (by(Path::Library)?, by(Path::Kernels)?);
    for ((library, kernels), part) in library.iter().zip(&kernels).zip(["y", "dx", "dA", "dB"]) {
        let want: Vec<f64> = kernels.iter().map(|v| f64::from(*v)).collect();
        near(&format!("{dtype} {shape:?}: {part} of both paths"), library, &want, 8e-3)?;
    }
    Ok(())
}

/// Both paths of every kind of weight: one row, partial tiles, ranks that are no whole pieces of 8, chunks of the vocabulary.
pub fn paths_of_products(device: &Device) -> std::result::Result<(), String> {
    if !device.has_library() {
        // The report says that there was none.
        return Ok(());
    }
    for (dtype, shape) in [
        (WeightDtype::Nf4, (70, 96, 64, 8)),
        (WeightDtype::Q4_K, (9, 40, 256, 3)),
        (WeightDtype::Q4_K, (1, 33, 512, 5)),
        (WeightDtype::Q8_0, (1, 24, 64, 16)),
        (WeightDtype::Q6_K, (130, 7, 256, 1)),
        (WeightDtype::BF16, (33, 136, 96, 64)),
        (WeightDtype::BF16, (1, 24, 72, 2)),
    ] {
        check_paths(device, dtype, shape)?;
    }
    for dtype in [WeightDtype::BF16, WeightDtype::Nf4] {
        head(&Launches(device, Path::Library), dtype).map_err(|e| format!("the library: {e}"))?;
    }
    Ok(())
}
