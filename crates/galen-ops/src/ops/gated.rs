//! The gated activation of the feed-forward layer (Shazeer 2020): SwiGLU and GeGLU.

use crate::device::{Accelerator, DeviceTensor};
use crate::error::{Result, shape_error};
use crate::kernels::isa::{Fma, multiversion};
use crate::kernels::math::{sigmoid, tanh};
use crate::ops::{by_rows, by_rows_twice, on_device};
use crate::tape::{Launched, Op, Saved};
use crate::tensor::{f32_tensor, f32_view};
use candle_core::Tensor;

/// The gate's nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x sigmoid(x)`.
    Silu,
    /// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`.
    GeluTanh,
}

/// `y = act(gate) * up`, inputs `[T, F]` each.
#[derive(Debug, Clone, Copy)]
pub struct Gated {
    /// The gate's nonlinearity.
    pub activation: Activation,
}

/// Value and derivative.
#[inline(always)]
fn activation<F: Fma>(kind: Activation, x: f32) -> (f32, f32) {
    match kind {
        Activation::Silu => {
            let s = sigmoid::<F>(x);
            (x * s, s * (1.0 + x * (1.0 - s)))
        }
        Activation::GeluTanh => {
            const A: f32 = 0.797_884_6;
            const B: f32 = 0.044_715;
            let t = tanh::<F>(A * (x + B * x * x * x));
            let slope = 0.5 * x * (1.0 - t * t) * A * (1.0 + 3.0 * B * x * x);
            (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + slope)
        }
    }
}

multiversion! {
    fn forward_values(kind: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
        match kind {
            Activation::Silu => {
                for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
                    *y = activation::<F>(Activation::Silu, *g).0 * u;
                }
            }
            Activation::GeluTanh => {
                for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
                    *y = activation::<F>(Activation::GeluTanh, *g).0 * u;
                }
            }
        }
    }
}

multiversion! {
    // Writes d up over `du` and d gate over `dg`.
    fn backward_values(kind: Activation, gate: &[f32], up: &[f32], dy: &[f32], dg: &mut [f32], du: &mut [f32]) {
        for i in 0..dy.len().min(gate.len()).min(up.len()).min(dg.len()).min(du.len()) {
            let (value, slope) = activation::<F>(kind, gate[i]);
            dg[i] = dy[i] * up[i] * slope;
            du[i] = dy[i] * value;
        }
    }
}

impl Gated {
    /// `act(gate) * up`.
    pub(crate) fn values(self, gate: &[f32], up: &[f32]) -> Vec<f32> {
        by_rows(gate.len(), 1, |start, y| {
            let range = start..start + y.len();
            forward_values(self.activation, &gate[range.clone()], &up[range], y);
        })
    }

    /// d gate and d up. One pass forms both; they are rarely wanted apart.
    pub(crate) fn gradients(self, gate: &[f32], up: &[f32], dy: &[f32]) -> [Vec<f32>; 2] {
        by_rows_twice(gate.len(), 1, |start, dg, du| {
            let range = start..start + dg.len();
            let (gate, up, dy) = (&gate[range.clone()], &up[range.clone()], &dy[range]);
            backward_values(self.activation, gate, up, dy, dg, du);
        })
    }
}

impl Op for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        let [gate, up] = inputs else { return shape_error("gated", "takes two inputs") };
        if gate.dims() != up.dims() {
            return shape_error("gated", format!("`{:?}` and `{:?}`", gate.dims(), up.dims()));
        }
        let y = self.values(&f32_view(gate)?, &f32_view(up)?);
        Ok((vec![f32_tensor(y, gate.shape())?], vec![(*gate).clone(), (*up).clone()]))
    }

    fn backward(
        &self,
        saved: &Saved,
        grads: Vec<Option<Tensor>>,
        needs: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let [Some(dy)] = &grads[..] else { return Ok(vec![None, None]) };
        let both = self.gradients(&f32_view(&saved[0])?, &f32_view(&saved[1])?, &f32_view(dy)?);
        let shape = saved[0].shape();
        both.into_iter().zip(needs).map(|(d, n)| n.then(|| f32_tensor(d, shape)).transpose()).collect()
    }

    fn on_device(&self, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
        on_device::gated(*self, on, inputs)
    }
}
