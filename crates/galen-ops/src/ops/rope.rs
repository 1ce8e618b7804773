//! Rotary position embedding (Su et al. 2021), in the layout of Hugging Face weights: dimension i turns with
//! dimension i + D/2.

use crate::device::{Accelerator, DeviceTensor};
use crate::error::{Result, shape_error};
use crate::ops::{by_rows, on_device};
use crate::tape::{Launched, Op, Saved};
use crate::tensor::{f32_tensor, f32_view};
use candle_core::Tensor;
use std::sync::Arc;

/// Cosines and sines `[T, D/2]` of a batch's positions, computed once and shared by all layers.
#[derive(Debug, Clone)]
pub struct RopeTable {
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
    half: usize,
}

impl RopeTable {
    /// Angle of token t, pair i: `positions[t] * inverse_frequencies[i]` (D/2 of them, radians a position).
    pub fn new(positions: &[u32], inverse_frequencies: &[f32]) -> Self {
        let angles = || positions.iter().flat_map(|p| inverse_frequencies.iter().map(move |f| *p as f32 * f));
        // Through f64, because f32 sine and cosine differ between mathematical libraries.
        let cos = angles().map(|a| f64::from(a).cos() as f32).collect();
        let sin = angles().map(|a| f64::from(a).sin() as f32).collect();
        Self { cos, sin, half: inverse_frequencies.len() }
    }

    /// Cosines, sines, and values of a head.
    pub(super) fn parts(&self) -> (&Arc<[f32]>, &Arc<[f32]>, usize) {
        (&self.cos, &self.sin, 2 * self.half)
    }
}

/// Rotates every head of `[T, H D]`.
pub struct Rope {
    /// The batch's angles.
    pub table: RopeTable,
}

impl Rope {
    /// `sign` 1 rotates, -1 rotates back.
    fn rotate(&self, x: &Tensor, sign: f32) -> Result<Tensor> {
        let view = f32_view(x)?;
        let values = &*view;
        let half = self.table.half;
        let tokens = self.table.cos.len().checked_div(half).unwrap_or(0);
        if tokens == 0 || values.len() % (tokens * half * 2) != 0 {
            return shape_error(
                "rope",
                format!("`{:?}` for {tokens} tokens in heads of {}", x.dims(), half * 2),
            );
        }
        let width = values.len() / tokens;
        let out = by_rows(values.len(), width, |first, out: &mut [f32]| {
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                let t = first + i;
                let (cos, sin) =
                    (&self.table.cos[t * half..(t + 1) * half], &self.table.sin[t * half..(t + 1) * half]);
                let x = &values[t * width..(t + 1) * width];
                for (out, x) in out.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)) {
                    let ((y1, y2), (x1, x2)) = (out.split_at_mut(half), x.split_at(half));
                    for j in 0..half {
                        y1[j] = x1[j] * cos[j] - sign * (x2[j] * sin[j]);
                        y2[j] = x2[j] * cos[j] + sign * (x1[j] * sin[j]);
                    }
                }
            }
        });
        f32_tensor(out, x.shape())
    }
}

impl Op for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        let [x] = inputs else { return shape_error("rope", "takes one input") };
        Ok((vec![self.rotate(x, 1.0)?], vec![]))
    }

    fn backward(&self, _: &Saved, grads: Vec<Option<Tensor>>, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let [Some(dy)] = &grads[..] else { return Ok(vec![None]) };
        Ok(vec![Some(self.rotate(dy, -1.0)?)])
    }

    fn on_device(&self, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
        on_device::rope(self, on, inputs)
    }
}
