//! Root-mean-square normalisation (Zhang and Sennrich 2019, equation 4), also per head for QK norm.

use crate::device::{Accelerator, DeviceTensor};
use crate::error::{Result, shape_error};
use crate::kernels::isa::multiversion;
use crate::kernels::math::dot;
use crate::ops::{by_rows, on_device};
use crate::tape::{Launched, Op, Saved};
use crate::tensor::{f32_tensor, f32_view};
use candle_core::Tensor;
use std::sync::Arc;

/// `y_i = w_i x_i / sqrt(mean(x^2) + eps)` over rows of `w.len()` values; an input of `[T, H D]` with a weight of
/// D values is normalised head by head. The weight is frozen and holds the effective factor (Gemma's `1 + w`).
#[derive(Clone)]
pub struct RmsNorm {
    /// The effective weight.
    pub weight: Arc<[f32]>,
    /// Added to the mean square.
    pub eps: f32,
}

multiversion! {
    fn forward_rows(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
        let n = w.len();
        for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
            let inverse = 1.0 / (dot::<F>(x, x) / n as f32 + eps).sqrt();
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = x * inverse * w;
            }
        }
    }
}

multiversion! {
    // With s = 1/rms: dx = s (w dy) - x s^3 mean(x w dy).
    fn backward_rows(x: &[f32], w: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
        let n = w.len();
        for ((x, dy), dx) in x.chunks_exact(n).zip(dy.chunks_exact(n)).zip(dx.chunks_exact_mut(n)) {
            let inverse = 1.0 / (dot::<F>(x, x) / n as f32 + eps).sqrt();
            for ((dx, dy), w) in dx.iter_mut().zip(dy).zip(w) {
                *dx = dy * w;
            }
            let shared = dot::<F>(dx, x) / n as f32 * inverse * inverse * inverse;
            for (dx, x) in dx.iter_mut().zip(x) {
                *dx = *dx * inverse - x * shared;
            }
        }
    }
}

impl RmsNorm {
    /// `y` of rows of `x`.
    pub(crate) fn values(&self, x: &[f32]) -> Result<Vec<f32>> {
        let n = self.weight.len();
        if n == 0 || !x.len().is_multiple_of(n) {
            return shape_error("rms_norm", format!("{} values in rows of {n}", x.len()));
        }
        Ok(by_rows(x.len(), n, |row, y| {
            forward_rows(&x[row * n..row * n + y.len()], &self.weight, self.eps, y);
        }))
    }

    /// `dx` of `dy` over rows of `x`.
    pub(crate) fn gradient(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let n = self.weight.len();
        by_rows(x.len(), n, |row, dx| {
            let range = row * n..row * n + dx.len();
            backward_rows(&x[range.clone()], &self.weight, self.eps, &dy[range], dx);
        })
    }
}

impl Op for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        let [x] = inputs else { return shape_error("rms_norm", "takes one input") };
        let y = self.values(&f32_view(x)?)?;
        Ok((vec![f32_tensor(y, x.shape())?], vec![(*x).clone()]))
    }

    fn backward(&self, saved: &Saved, grads: Vec<Option<Tensor>>, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let [Some(dy)] = &grads[..] else { return Ok(vec![None]) };
        let dx = self.gradient(&f32_view(&saved[0])?, &f32_view(dy)?);
        Ok(vec![Some(f32_tensor(dx, saved[0].shape())?)])
    }

    fn on_device(&self, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
        on_device::rms_norm(self, on, inputs)
    }
}
