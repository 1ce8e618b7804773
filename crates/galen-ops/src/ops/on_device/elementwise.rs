//! The residual sum, norms, rotary embedding, gates, and the rows of the embedding.

use super::{Matrix, only, take, wanted};
use crate::device::{self, Accelerator, Backend as _, DeviceTensor, Number, to_bf16};
use crate::error::Result;
use crate::ops::{EmbeddingNoise, Gated, RmsNorm, Rope, SelectRows};
use crate::quant::QuantMatrix;
use crate::tape::Launched;
use std::sync::Arc;

/// A gradient in the number of its value.
fn as_number(on: &Accelerator, grad: &Matrix, number: Number) -> Result<Matrix> {
    if grad.number == Number::F32 && number == Number::Bf16 {
        to_bf16(on, grad, 1.0)
    } else {
        Ok(grad.clone())
    }
}

/// The residual stream f32 and a branch.
pub fn add(on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
    let [a, b] = take("add", inputs)?;
    let y = device::sum(on, a, b)?;
    let (place, number) = (on.clone(), b.number);
    let back = move |grads, needs: &[bool]| {
        let Some(grad) = only(grads) else { return Ok(vec![None, None]) };
        // Rounded only where somebody asks.
        let branch = if needs[1] { as_number(&place, &grad, number)? } else { grad.clone() };
        Ok(wanted(&place, vec![grad, branch], needs))
    };
    Ok((vec![DeviceTensor::new(on, y)], Box::new(back)))
}

/// Of whole rows of the residual stream, or of heads or rows of an activation.
pub fn rms_norm(op: &RmsNorm, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
    let [x] = take("rms_norm", inputs)?;
    let y = norm_forward(op, on, x)?;
    let (op, place, x) = (op.clone(), on.clone(), x.clone());
    let back = move |grads, needs: &[bool]| {
        let Some(dy) = only(grads) else { return Ok(vec![None]) };
        Ok(wanted(&place, vec![norm_backward(&op, &place, &x, &dy)?], needs))
    };
    Ok((vec![DeviceTensor::new(on, y)], Box::new(back)))
}

/// The norm bf16 of x.
pub fn norm_forward(op: &RmsNorm, on: &Accelerator, x: &Matrix) -> Result<Matrix> {
    let weight = on.vector(&op.weight)?;
    match x.number {
        Number::F32 if op.weight.len() == x.cols => {
            Ok(device::rms_norm_forward(on, x, None, (&weight, op.eps))?.1)
        }
        _ => device::head_norm_forward(on, x, (&weight, op.eps), op.weight.len()),
    }
}

/// dx in the number of x.
pub fn norm_backward(op: &RmsNorm, on: &Accelerator, x: &Matrix, dy: &Matrix) -> Result<Matrix> {
    let weight = on.vector(&op.weight)?;
    match x.number {
        Number::F32 => device::rms_norm_backward(on, x, (&weight, op.eps), dy, None),
        Number::Bf16 => device::head_norm_backward(on, x, (&weight, op.eps), dy, op.weight.len()),
    }
}

/// Every head.
pub fn rope(op: &Rope, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
    let [x] = take("rope", inputs)?;
    let (cos, sin, width) = op.table.parts();
    let (cos, sin) = (on.vector(cos)?, on.vector(sin)?);
    let y = device::rope(on, x, (&cos, &sin), width, 1.0)?;
    let place = on.clone();
    let back = move |grads, needs: &[bool]| {
        let Some(dy) = only(grads) else { return Ok(vec![None]) };
        Ok(wanted(&place, vec![device::rope(&place, &dy, (&cos, &sin), width, -1.0)?], needs))
    };
    Ok((vec![DeviceTensor::new(on, y)], Box::new(back)))
}

/// `act(gate) up`.
pub fn gated(op: Gated, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
    let [gate, up] = take("gated", inputs)?;
    let y = device::gated_forward(on, op.activation, gate, up)?;
    let (place, gate, up) = (on.clone(), gate.clone(), up.clone());
    let back = move |grads, needs: &[bool]| {
        let Some(dy) = only(grads) else { return Ok(vec![None, None]) };
        let both = device::gated_backward(&place, op.activation, (&gate, &up), &dy)?;
        Ok(wanted(&place, both.into(), needs))
    };
    Ok((vec![DeviceTensor::new(on, y)], Box::new(back)))
}

/// Of the residual stream.
pub fn select_rows(op: &SelectRows, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
    let [x] = take("select_rows", inputs)?;
    let y = device::gather_rows(on, x, &op.rows)?;
    let (place, rows, tokens) = (on.clone(), Arc::clone(&op.rows), x.rows);
    let back = move |grads, needs: &[bool]| {
        let Some(dy) = only(grads) else { return Ok(vec![None]) };
        Ok(wanted(&place, vec![device::scatter_rows(&place, &dy, &rows, tokens)?], needs))
    };
    Ok((vec![DeviceTensor::new(on, y)], Box::new(back)))
}

/// Rows `ids` of the table `[V, C]`, times `scale`: `[T, C]` f32.
pub fn embed(on: &Accelerator, table: &Arc<QuantMatrix>, ids: &[u32], scale: f32) -> Result<DeviceTensor> {
    let table = on.weight(table)?;
    Ok(DeviceTensor::new(on, device::embed(on, &table, ids, scale)?))
}

/// Embeddings, which nothing else has read yet, with the noise.
pub fn embedding_noise(on: &Accelerator, x: DeviceTensor, noise: &EmbeddingNoise) -> Result<DeviceTensor> {
    noise.expect(x.matrix.rows)?;
    let EmbeddingNoise { key, factors } = noise;
    let of = |bytes: Vec<u8>| on.upload(&bytes);
    let rows = on.resident(&key.rows, || of(key.rows.iter().flat_map(|r| r.to_le_bytes()).collect()))?;
    let positions =
        on.resident(&key.positions, || of(key.positions.iter().flat_map(|p| p.to_le_bytes()).collect()))?;
    let factors = on.upload_floats(factors)?;
    device::embedding_noise(on, &x.matrix, [&*rows, &*positions, &factors], key.base())?;
    Ok(x)
}

/// Logits `[M, V]` of normalised hidden states, each a sequence's last; waits for them.
pub fn logits(on: &Accelerator, table: &Arc<QuantMatrix>, hidden: &DeviceTensor) -> Result<Vec<f32>> {
    let table = on.weight(table)?;
    device::logits(on, &hidden.matrix, &table)?.download(on)
}
