//! The operations on an accelerator: each gives its outputs and a closure that goes back, which holds what is kept. The residual
//! stream is f32, every other activation bf16, and a gradient has its value's number.

mod attention;
mod elementwise;
mod head;
mod magnitude;
mod projection;

pub(super) use attention::attention;
pub(super) use elementwise::{add, gated, rms_norm, rope, select_rows};
pub use elementwise::{embed, embedding_noise, logits};
pub(super) use head::log_probs;
pub(super) use magnitude::{adapted_norms, magnitude};
pub(super) use projection::projections;

use crate::device::{Accelerator, DeviceMatrix, DeviceTensor, Memory};
use crate::error::{Error, Result, shape_error};

type Matrix = DeviceMatrix<Memory>;

/// The inputs, if they are `N`.
fn take<'a, const N: usize>(op: &'static str, inputs: &[&'a DeviceTensor]) -> Result<[&'a Matrix; N]> {
    let matrices: Vec<&Matrix> = inputs.iter().map(|t| &t.matrix).collect();
    matrices.try_into().or_else(|all: Vec<_>| shape_error(op, format!("{} inputs of {N}", all.len())))
}

/// The gradient of the only output.
fn only(grads: Vec<Option<DeviceTensor>>) -> Option<Matrix> {
    grads.into_iter().next().flatten().map(|t| t.matrix)
}

/// Those gradients that are wanted.
fn wanted(on: &Accelerator, found: Vec<Matrix>, needs: &[bool]) -> Vec<Option<DeviceTensor>> {
    found.into_iter().zip(needs).map(|(m, needed)| needed.then(|| DeviceTensor::new(on, m))).collect()
}

/// What a card has no kernel for yet.
fn unsupported(what: &str, on: &Accelerator, instead: &str) -> Error {
    Error::Device(format!("{what} on `{}` is not supported\nhint: {instead}`--device cpu`", on.name()))
}
