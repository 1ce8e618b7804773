//! The magnitude of weight-decomposed adapters (DoRA, Liu et al. 2024).

use crate::device::{Accelerator, DeviceTensor};
use crate::error::{Result, shape_error};
use crate::ops::{Compute, by_rows, on_device};
use crate::tape::{Launched, Op, Saved};
use crate::tensor::{dims2, f32_tensor, f32_view, keep, kept};
use candle_core::Tensor;
use rayon::prelude::*;
use std::sync::Arc;

/// Columns summed by one thread.
const COLUMNS: usize = 64;

/// `y = g (h - b) + b` with `g = m / n`. Inputs: h `[T, out]`, a projection's result with b in it, m `[out]`, and n `[out]`, the norms of
/// the adapted weight's rows.
///
/// The norms count as constants, as section 4.3 of the paper has it and PEFT does: no gradient goes through them. A row of norm 0
/// gives 0.
pub struct Magnitude {
    /// b `[out]`, which the magnitude does not touch.
    pub bias: Option<Arc<[f32]>>,
    /// In bf16 arithmetic `h - b` is kept in two bytes.
    pub compute: Compute,
}

impl Magnitude {
    fn shape(&self, h: &Tensor, m: &Tensor, norms: &Tensor) -> Result<(usize, usize)> {
        let (tokens, n) = dims2("magnitude", h)?;
        if m.dims() != [n] || norms.dims() != [n] || self.bias.as_ref().is_some_and(|b| b.len() != n) {
            let what = format!("`{:?}` and norms `{:?}` for `{:?}`", m.dims(), norms.dims(), h.dims());
            return shape_error("magnitude", what);
        }
        Ok((tokens, n))
    }

    fn gains(m: &Tensor, norms: &Tensor) -> Result<Vec<f32>> {
        let (m, norms) = (f32_view(m)?, f32_view(norms)?);
        Ok(m.iter().zip(&*norms).map(|(m, n)| if *n > 0.0 { m / n } else { 0.0 }).collect())
    }

    /// `h - b`.
    fn bare(&self, h: &Tensor) -> Result<Tensor> {
        let Some(bias) = &self.bias else { return Ok(h.clone()) };
        let values = f32_view(h)?;
        let (values, width) = (&*values, bias.len());
        let bare = by_rows(values.len(), width, |first, out: &mut [f32]| {
            let rows = values[first * width..].chunks_exact(width.max(1));
            for (out, h) in out.chunks_exact_mut(width.max(1)).zip(rows) {
                for i in 0..width {
                    out[i] = h[i] - bias[i];
                }
            }
        });
        f32_tensor(bare, h.shape())
    }

    /// `g x`, and b where there is one.
    fn scaled(gains: &[f32], bias: Option<&[f32]>, x: &[f32]) -> Vec<f32> {
        let width = gains.len();
        by_rows(x.len(), width, |first, out: &mut [f32]| {
            let rows = x[first * width..].chunks_exact(width.max(1));
            for (out, x) in out.chunks_exact_mut(width.max(1)).zip(rows) {
                for i in 0..width {
                    out[i] = gains[i] * x[i];
                }
                if let Some(bias) = bias {
                    for i in 0..width {
                        out[i] += bias[i];
                    }
                }
            }
        })
    }

    fn run(&self, inputs: &[&Tensor]) -> Result<(Tensor, Tensor)> {
        let [h, m, norms] = inputs else { return shape_error("magnitude", "takes three inputs") };
        self.shape(h, m, norms)?;
        let bare = self.bare(h)?;
        let gains = Self::gains(m, norms)?;
        let y = Self::scaled(&gains, self.bias.as_deref(), &f32_view(&bare)?);
        Ok((f32_tensor(y, h.shape())?, bare))
    }
}

impl Op for Magnitude {
    fn name(&self) -> &'static str {
        "magnitude"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        let (y, bare) = self.run(inputs)?;
        let saved = vec![inputs[1].clone(), inputs[2].clone(), keep(&bare, self.compute)?];
        Ok((vec![y], saved))
    }

    fn infer(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        Ok(vec![self.run(inputs)?.0])
    }

    fn backward(
        &self,
        saved: &Saved,
        grads: Vec<Option<Tensor>>,
        needs: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let ([Some(dy)], [m, norms, bare], [h_needed, m_needed, _]) = (&grads[..], &saved[..], needs) else {
            return Ok(vec![None, None, None]);
        };
        let (tokens, n) = self.shape(dy, m, norms)?;
        let shape = dy.shape();
        let dy = f32_view(dy)?;
        let dy = &*dy;
        let dh = if *h_needed {
            let gains = Self::gains(m, norms)?;
            Some(f32_tensor(Self::scaled(&gains, None, dy), shape)?)
        } else {
            None
        };
        let dm = if *m_needed {
            let (bare, norms) = (kept(bare)?, f32_view(norms)?);
            let (bare, norms) = (&*bare, &*norms);
            let mut dm = vec![0f32; n];
            // Each column's sum in the order of the tokens, whatever the threads.
            dm.par_chunks_mut(COLUMNS).enumerate().for_each(|(c, dm)| {
                let first = c * COLUMNS;
                for t in 0..tokens {
                    let at = t * n + first;
                    let (dy, bare) = (&dy[at..at + dm.len()], &bare[at..at + dm.len()]);
                    for i in 0..dm.len() {
                        dm[i] += dy[i] * bare[i];
                    }
                }
                for (d, norm) in dm.iter_mut().zip(&norms[first..]) {
                    *d = if *norm > 0.0 { *d / norm } else { 0.0 };
                }
            });
            Some(f32_tensor(dm, n)?)
        } else {
            None
        };
        Ok(vec![dh, dm, None])
    }

    fn on_device(&self, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
        on_device::magnitude(self, on, inputs)
    }
}
