//! The residual sum.

use crate::device::{Accelerator, DeviceTensor};
use crate::error::{Result, shape_error};
use crate::ops::{by_rows, on_device};
use crate::tape::{Launched, Op, Saved};
use crate::tensor::{f32_tensor, f32_view};
use candle_core::Tensor;

/// `y = a + b`, same shapes.
pub struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        let [a, b] = inputs else { return shape_error("add", "takes two inputs") };
        if a.dims() != b.dims() {
            return shape_error("add", format!("`{:?}` + `{:?}`", a.dims(), b.dims()));
        }
        let (av, bv) = (f32_view(a)?, f32_view(b)?);
        let (av, bv) = (&*av, &*bv);
        let out = by_rows(av.len(), 1, |start, out| {
            for ((y, a), b) in out.iter_mut().zip(&av[start..]).zip(&bv[start..]) {
                *y = a + b;
            }
        });
        Ok((vec![f32_tensor(out, a.shape())?], vec![]))
    }

    fn backward(&self, _: &Saved, grads: Vec<Option<Tensor>>, needs: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let grad = grads.into_iter().next().flatten();
        Ok(needs.iter().map(|n| grad.clone().filter(|_| *n)).collect())
    }

    fn on_device(&self, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
        on_device::add(on, inputs)
    }
}
