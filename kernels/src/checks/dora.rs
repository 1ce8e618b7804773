//! Weight-decomposed adaptation: norms of adapted rows and the magnitude over them, against the CPU's.

use super::operations::{near, rounded, tensor, wide};
use super::qmatmul::weight;
use super::support::{narrow, values, widen};
use crate::Device;
use crate::place::Launches;
use candle_core::Tensor;
use galen_ops::Op as _;
use galen_ops::device::{
    Backend as _, DeviceMatrix, DeviceWeight, MagnitudeOperands, Number, Path, adapted_norms,
    magnitude_backward, magnitude_forward, row_squares,
};
use galen_ops::ops::{Compute, Magnitude};
use galen_ops::quant::WeightDtype;
use galen_ops::{Error, Result};

/// A weight `[n, k]`, a branch, and tokens.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub dtype: WeightDtype,
    pub n: usize,
    pub k: usize,
    pub rank: usize,
    pub tokens: usize,
    pub bias: bool,
}

pub const SMALL: Case = Case { dtype: WeightDtype::Q4_0, n: 24, k: 256, rank: 8, tokens: 3, bias: true };

/// Every format, ranks from one piece on, tokens around a part.
pub fn magnitudes_and_their_norms(device: &Device) -> std::result::Result<(), String> {
    for dtype in WeightDtype::with_kernels() {
        check(device, Case { dtype, ..SMALL })?;
    }
    for (n, k, rank, tokens) in
        [(8, 32, 1, 1), (40, 96, 16, 64), (1032, 64, 136, 65), (16, 512, 64, 130), (24, 64, 3, 7)]
    {
        for bias in [false, true] {
            check(device, Case { dtype: WeightDtype::BF16, n, k, rank, tokens, bias })?;
        }
    }
    Ok(())
}

pub fn check(device: &Device, case: Case) -> std::result::Result<(), String> {
    let on = Launches(device, Path::Kernels);
    norms(&on, case).and_then(|()| magnitude(&on, case)).map_err(|e| format!("{case:?}: {e}"))?;
    if device.has_library() {
        norms(&Launches(device, Path::Library), case).map_err(|e| format!("{case:?} by the library: {e}"))?;
    }
    Ok(())
}

fn norms(on: &Launches, case: Case) -> Result<()> {
    let Case { dtype, n, k, rank, .. } = case;
    let matrix = weight(dtype, n, k, 3);
    let w = widen(&narrow(&matrix.to_f32()));
    let (mut a, mut b) = (rounded(4, rank * k), rounded(5, n * rank));
    let scale = -0.5;
    // One row that no change reaches, and one that the change all but takes away.
    b[2 * rank..3 * rank].fill(0.0);
    a[..k].copy_from_slice(&w[k..2 * k]);
    // The last bit of its largest value is left.
    if let Some(largest) = a[..k].iter_mut().max_by(|x, y| x.abs().total_cmp(&y.abs())) {
        *largest = f32::from_bits(largest.to_bits() ^ 1 << 16);
    }
    b[rank..2 * rank].fill(0.0);
    b[rank] = 2.0;
    let at = |j: usize, c: usize| {
        let change: f64 = (0..rank).map(|r| f64::from(b[j * rank + r]) * f64::from(a[r * k + c])).sum();
        f64::from(w[j * k + c]) + f64::from(scale) * change
    };
    let want: Vec<f64> = (0..n).map(|j| (0..k).map(|c| at(j, c).powi(2)).sum::<f64>().sqrt()).collect();
    let placed = DeviceWeight::upload(on, &matrix)?;
    let squares = row_squares(on, &placed)?;
    let lengths: Vec<f64> =
        on.download(&squares)?.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
    for (j, got) in lengths.iter().enumerate() {
        let want: f64 = w[j * k..(j + 1) * k].iter().map(|w| f64::from(*w).powi(2)).sum();
        let within = (got - want).abs() <= 1e-12 * want;
        if !within {
            return Err(Error::Device(format!("square of row {j}: {got} for {want}")));
        }
    }
    let bf16 = |values: &[f32], cols| DeviceMatrix::upload(on, values, cols, Number::Bf16);
    let (a, b) = (bf16(&a, k)?, bf16(&b, rank)?);
    let got = adapted_norms(on, (&placed, &squares), (&a, &b), scale)?.download(on)?;
    for (j, (got, want)) in got.iter().zip(&want).enumerate() {
        let within = (f64::from(*got) - want).abs() <= 1e-5 * want + 1e-6;
        if !within {
            return Err(Error::Device(format!("norm of row {j}: {got} for {want}")));
        }
    }
    if got.len() == n { Ok(()) } else { Err(Error::Device(format!("{} norms of {n}", got.len()))) }
}

fn magnitude(on: &Launches, case: Case) -> Result<()> {
    let Case { n, tokens, bias, .. } = case;
    let (h, dy) = (values(6, tokens * n), rounded(7, tokens * n));
    let (mut m, mut norms, before) = (values(8, n), values(9, n), values(11, n));
    norms.iter_mut().for_each(|v| *v = v.abs() + 0.1);
    norms[n / 2] = 0.0;
    // Gains as near to 1 as a training's.
    m.iter_mut().zip(&norms).step_by(2).for_each(|(m, norm)| *m = 1.001 * norm);
    let b = bias.then(|| values(10, n));
    let op = Magnitude { bias: b.clone().map(Into::into), compute: Compute::F32 };
    let vector = |v: &[f32]| tensor(v, n).flatten_all();
    let forward = |h: &[f32]| op.forward(&[&tensor(h, n), &vector(&m)?, &vector(&norms)?]);
    let (y_want, _) = forward(&h)?;
    let (_, saved) = forward(&widen(&narrow(&h)))?;
    let want = op.backward(&saved, vec![Some(tensor(&dy, n))], &[true, true, false])?;
    let of = |values: &[f32], number| DeviceMatrix::upload(on, values, n, number);
    let floats = |values: &[f32]| on.upload(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    let (h, dy, m, norms) =
        (of(&h, Number::F32)?, of(&dy, Number::Bf16)?, of(&m, Number::F32)?, of(&norms, Number::F32)?);
    let b = b.as_deref().map(floats).transpose()?;
    let x = MagnitudeOperands { bias: b.as_ref(), m: &m, norms: &norms };
    // Gradients are added to what is there.
    let dm = floats(&before)?;
    let (y, kept) = magnitude_forward(on, &x, &h)?;
    let dh = magnitude_backward(on, &x, (&kept, &dy), Some(&dm))?;
    let gradient = |i: usize| want[i].as_ref().map_or_else(Vec::new, |t: &Tensor| wide(t));
    let dm_want: Vec<f64> = gradient(1).iter().zip(&before).map(|(d, b)| d + f64::from(*b)).collect();
    let dm = DeviceMatrix { buffer: dm, rows: 1, cols: n, stride: n, number: Number::F32 }.download(on)?;
    rounded_once(&y.download(on)?, &wide(&y_want[0])).map_err(Error::Device)?;
    near("dh", &dh.download(on)?, &gradient(0), 4e-3).map_err(Error::Device)?;
    near("dm", &dm, &dm_want, 1e-5).map_err(Error::Device)
}

/// Every element within half a step between two bf16, and what f32 takes.
fn rounded_once(got: &[f32], want: &[f64]) -> std::result::Result<(), String> {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let half = 2f64.powi(want.abs().max(1e-30).log2().floor() as i32 - 8);
        let within = (f64::from(*got) - want).abs() <= half + 1e-6;
        if !within {
            return Err(format!("magnitude: element {i} is {got}, not {want} rounded once"));
        }
    }
    if got.len() == want.len() { Ok(()) } else { Err(format!("{} values of {}", got.len(), want.len())) }
}
