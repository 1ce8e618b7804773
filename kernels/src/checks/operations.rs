//! galen-ops' device operations, by launches, against its operations on the CPU.

use super::products::projection;
use super::qmatmul::weight;
use super::support::{close, narrow, values, widen};
use crate::Device;
use crate::place::Launches;
use candle_core::{Device as Candle, Tensor};
use galen_ops::device::{
    AttentionOperands, AttentionPlan, Backend, DeviceMatrix, DeviceWeight, Number, Path, attention_backward,
    attention_forward, gated_backward, gated_forward, gather_rows, log_prob_backward, log_prob_forward,
    rms_norm_backward, rms_norm_forward, scatter_rows,
};
use galen_ops::ops::{
    Activation, Attention, AttentionShape, Compute, Frozen, Gated, LogProbHead, RmsNorm, SelectRows,
};
use galen_ops::quant::{QuantMatrix, WeightDtype};
use galen_ops::{Op, Result};
use galen_types::{Segment, Target};
use std::sync::Arc;

pub fn wide(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| f64::from(*v)).collect()
}

pub fn tensor(values: &[f32], cols: usize) -> Tensor {
    Tensor::from_slice(values, (values.len() / cols, cols), &Candle::Cpu).unwrap()
}

/// Values that are bf16 already, so that both sides begin with the same.
pub fn rounded(seed: u64, n: usize) -> Vec<f32> {
    widen(&narrow(&values(seed, n)))
}

/// Within `share` of the largest magnitude.
pub fn near(what: &str, got: &[f32], want: &[f64], share: f64) -> std::result::Result<(), String> {
    let largest = want.iter().fold(0f64, |m, v| m.max(v.abs()));
    close(what, got, want, share, largest)
}

pub fn floats<B>(on: &impl Backend<Buffer = B>, b: &B) -> Result<Vec<f32>> {
    Ok(on.download(b)?.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect())
}

/// Projections with a branch: forward, dx, dA, dB.
pub fn projections(device: &Device) -> std::result::Result<(), String> {
    let on = Launches(device, Path::Kernels);
    for (dtype, shape) in [
        (WeightDtype::Nf4, (70, 96, 64, 8)),
        (WeightDtype::Q4_K, (9, 40, 256, 3)),
        (WeightDtype::Q8_0, (1, 24, 64, 16)),
        (WeightDtype::BF16, (33, 136, 96, 64)),
    ] {
        projection(&on, dtype, shape).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Attention over a tree of segments, with a window.
pub fn attention(device: &Device) -> std::result::Result<(), String> {
    attention_of(device).map_err(|e| e.to_string())
}

fn attention_of(device: &Device) -> Result<()> {
    let on = Launches(device, Path::Kernels);
    let lengths = [(40u32, None), (30, Some(0u32)), (1, Some(1)), (66, Some(0)), (3, None)];
    let mut segments: Vec<Segment> = Vec::new();
    for (len, parent) in lengths {
        let start = segments.last().map_or(0, |s| s.start + s.len);
        let position = parent.map_or(0, |p| segments[p as usize].position + segments[p as usize].len);
        segments.push(Segment { start, len, parent, position });
    }
    let tokens: usize = segments.iter().map(|s| s.len as usize).sum();
    let shape = AttentionShape { n_heads: 4, n_kv_heads: 2, head_dim: 64, scale: 0.125, window: Some(50) };
    let (qw, kw) = (4 * 64, 2 * 64);
    let [q, k, v, g] =
        [(1, qw), (2, kw), (3, kw), (4, qw)].map(|(seed, width)| rounded(seed, tokens * width));
    let op = Attention { shape, segments: segments.clone().into(), compute: Compute::F32 };
    let (o_want, saved) = op.forward(&[&tensor(&q, qw), &tensor(&k, kw), &tensor(&v, kw)])?;
    let want = op.backward(&saved, vec![Some(tensor(&g, qw))], &[true; 3])?;

    let bf16 = |v: &[f32], cols| DeviceMatrix::upload(&on, v, cols, Number::Bf16);
    let (q, k, v, g) = (bf16(&q, qw)?, bf16(&k, kw)?, bf16(&v, kw)?, bf16(&g, qw)?);
    let plan = AttentionPlan::new(&on, shape, 0.0, &segments)?;
    let x = AttentionOperands { q: &q, k: &k, v: &v };
    let (o, lse) = attention_forward(&on, &plan, &x)?;
    let found = attention_backward(&on, &plan, &x, (&o, &lse), &g)?;
    let all = [(&o, &o_want[0]), (&found.q, want[0].as_ref().unwrap())];
    let rest = [(&found.k, want[1].as_ref().unwrap()), (&found.v, want[2].as_ref().unwrap())];
    for ((got, want), name) in all.into_iter().chain(rest).zip(["o", "dq", "dk", "dv"]) {
        near(name, &got.download(&on)?, &wide(want), 8e-3).map_err(galen_ops::Error::Device)?;
    }
    Ok(())
}

/// Norms, gates and the head.
pub fn norms_gates_and_head(device: &Device) -> std::result::Result<(), String> {
    rest_of(device).map_err(|e| e.to_string())
}

fn rest_of(device: &Device) -> Result<()> {
    let on = Launches(device, Path::Kernels);
    let (rows, c) = (7, 64);
    let failed = galen_ops::Error::Device;
    let (x, b, w, dy) = (values(1, rows * c), rounded(2, rows * c), values(3, c), rounded(4, rows * c));
    let sum: Vec<f32> = x.iter().zip(&b).map(|(x, b)| x + b).collect();
    let norm = RmsNorm { weight: w.clone().into(), eps: 1e-5 };
    let (y_want, saved) = norm.forward(&[&tensor(&sum, c)])?;
    let dx_want = norm.backward(&saved, vec![Some(tensor(&dy, c))], &[true])?;
    let factor = on.upload(&w.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())?;
    let x = DeviceMatrix::upload(&on, &x, c, Number::F32)?;
    let [b, dy] = [b, dy].map(|v| DeviceMatrix::upload(&on, &v, c, Number::Bf16));
    let (b, dy) = (b?, dy?);
    let (r, y) = rms_norm_forward(&on, &x, Some(&b), (&factor, 1e-5))?;
    let dx = rms_norm_backward(&on, r.as_ref().unwrap(), (&factor, 1e-5), &dy, None)?;
    near("norm", &y.download(&on)?, &wide(&y_want[0]), 4e-3).map_err(failed)?;
    near("norm's gradient", &dx.download(&on)?, &wide(dx_want[0].as_ref().unwrap()), 1e-5).map_err(failed)?;

    for activation in [Activation::Silu, Activation::GeluTanh] {
        let [g, u, d] = [5, 6, 7].map(|seed| rounded(seed, rows * c));
        let op = Gated { activation };
        let (y_want, saved) = op.forward(&[&tensor(&g, c), &tensor(&u, c)])?;
        let want = op.backward(&saved, vec![Some(tensor(&d, c))], &[true; 2])?;
        let bf16 = |v: &[f32]| DeviceMatrix::upload(&on, v, c, Number::Bf16);
        let (g, u, d) = (bf16(&g)?, bf16(&u)?, bf16(&d)?);
        let y = gated_forward(&on, activation, &g, &u)?;
        near("gate", &y.download(&on)?, &wide(&y_want[0]), 4e-3).map_err(failed)?;
        for (got, want) in gated_backward(&on, activation, (&g, &u), &d)?.iter().zip(&want) {
            near("gate's gradient", &got.download(&on)?, &wide(want.as_ref().unwrap()), 4e-3)
                .map_err(failed)?;
        }
    }
    for dtype in [WeightDtype::Q8_0, WeightDtype::Nf4] {
        head(&on, dtype)?;
    }
    Ok(())
}

/// More than one chunk of the vocabulary, targets out of order, two of one row.
pub fn head(on: &Launches, dtype: WeightDtype) -> Result<()> {
    let (v, c, tokens) = (4096 + 70, 64, 6);
    let matrix = weight(dtype, v, c, 8);
    let hidden = rounded(9, tokens * c);
    let at = [(4u32, 4100u32), (0, 7), (4, 4095), (2, 0)];
    let targets: Arc<[Target]> =
        at.iter().map(|(index, token)| Target { index: *index, token: *token, row: 0 }).collect();
    let plain = QuantMatrix::from_f32(v, c, &widen(&narrow(&matrix.to_f32()))).unwrap();
    let op = LogProbHead {
        weight: Frozen::from(Arc::new(plain)),
        targets: targets.clone(),
        temperature: Some(0.8),
        with_gradient: true,
        correct: Arc::default(),
        scores: Arc::default(),
    };
    let (want, saved) = op.forward(&[&tensor(&hidden, c)])?;
    let g = values(10, at.len());
    let grad = Tensor::from_slice(&g, at.len(), &Candle::Cpu).unwrap();
    let dh_want = op.backward(&saved, vec![Some(grad)], &[true])?;

    let w = DeviceWeight::upload(on, &matrix)?;
    let failed = galen_ops::Error::Device;
    // Hidden states that are bf16 already: of either number the same.
    for number in [Number::F32, Number::Bf16] {
        let h = DeviceMatrix::upload(on, &hidden, c, number)?;
        let (scores, state) = log_prob_forward(on, &h, &w, &targets, 0.8, true)?;
        let (logps, correct) = scores.download(on)?;
        close("logps", &logps, &wide(&want[0]), 1e-5, 1.0).map_err(failed)?;
        if correct != *op.correct.lock().unwrap() {
            return Err(failed(format!("head {dtype}: correct is {correct:?}")));
        }
        let dh = log_prob_backward(on, &state, &w, &scores.gradient(on, &g)?, (tokens, 0.8))?;
        near("dh", &dh.download(on)?, &wide(dh_want[0].as_ref().unwrap()), 6e-3).map_err(failed)?;
    }
    Ok(())
}

/// Rows picked, some of them twice, and their gradients put back, against the CPU's operation.
pub fn rows_are_picked_and_put_back(device: &Device) -> std::result::Result<(), String> {
    for (tokens, c) in [(1, 8), (9, 2056)] {
        check_rows(device, tokens, c)?;
    }
    Ok(())
}

pub fn check_rows(device: &Device, tokens: usize, c: usize) -> std::result::Result<(), String> {
    rows_of(&Launches(device, Path::Kernels), tokens, c).map_err(|e| e.to_string())
}

fn rows_of(on: &Launches, tokens: usize, c: usize) -> Result<()> {
    let rows = [tokens - 1, 0, tokens / 2, tokens - 1].map(|r| r as u32);
    let (x, dy) = (values(1, tokens * c), values(2, rows.len() * c));
    let op = SelectRows { rows: rows.into() };
    let (want, saved) = op.forward(&[&tensor(&x, c)])?;
    let back = op.backward(&saved, vec![Some(tensor(&dy, c))], &[true])?;
    let f32s = |values: &[f32]| DeviceMatrix::upload(on, values, c, Number::F32);
    let y = gather_rows(on, &f32s(&x)?, &rows)?;
    let dx = scatter_rows(on, &f32s(&dy)?, &rows, tokens)?;
    let exact = |got: Vec<f32>, want: &Tensor| got.iter().map(|v| f64::from(*v)).eq(wide(want));
    if !exact(y.download(on)?, &want[0])
        || !back[0].as_ref().is_some_and(|w| dx.download(on).is_ok_and(|g| exact(g, w)))
    {
        return Err(galen_ops::Error::Device(format!("rows of {tokens} x {c}")));
    }
    if gather_rows(on, &f32s(&x)?, &[tokens as u32]).is_ok() {
        return Err(galen_ops::Error::Device("a row that is not there".into()));
    }
    Ok(())
}
