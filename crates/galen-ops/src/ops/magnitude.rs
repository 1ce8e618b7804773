//! The magnitude of weight-decomposed adapters (DoRA, Liu et al. 2024).

use crate::error::{Result, shape_error};
use crate::ops::{Compute, by_rows};
use crate::tape::{Op, Saved};
use crate::tensor::{dims2, f32_tensor, f32_view, keep, kept};
use candle_core::Tensor;
use rayon::prelude::*;
use std::sync::Arc;

/// Columns summed by one thread.
const COLUMNS: usize = 64;

/// `y = g (h - b) + b` with `g = m / n`. Inputs: h `[T, out]`, a projection's result with b in it, and m `[out]`.
///
/// n are the norms of the adapted weight's rows. They count as constants, as section 4.3 of the paper has it and PEFT does: no
/// gradient goes through them. A row of norm 0 gives 0.
pub struct Magnitude {
    /// n `[out]`.
    pub norms: Arc<[f32]>,
    /// b `[out]`, which the magnitude does not touch.
    pub bias: Option<Arc<[f32]>>,
    /// In bf16 arithmetic `h - b` is kept in two bytes.
    pub compute: Compute,
}

impl Magnitude {
    fn shape(&self, h: &Tensor, m: &Tensor) -> Result<(usize, usize)> {
        let (tokens, n) = dims2("magnitude", h)?;
        let fits = |b: &Arc<[f32]>| b.len() == n;
        if m.dims() != [n] || !fits(&self.norms) || !self.bias.as_ref().is_none_or(fits) {
            let what = format!("`{:?}` and {} norms for `{:?}`", m.dims(), self.norms.len(), h.dims());
            return shape_error("magnitude", what);
        }
        Ok((tokens, n))
    }

    fn gains(&self, m: &[f32]) -> Vec<f32> {
        m.iter().zip(&self.norms[..]).map(|(m, n)| if *n > 0.0 { m / n } else { 0.0 }).collect()
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
        let [h, m] = inputs else { return shape_error("magnitude", "takes two inputs") };
        self.shape(h, m)?;
        let bare = self.bare(h)?;
        let gains = self.gains(&f32_view(m)?);
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
        let saved = vec![inputs[1].clone(), keep(&bare, self.compute)?];
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
        let ([Some(dy)], [m, bare], [h_needed, m_needed]) = (&grads[..], &saved[..], needs) else {
            return Ok(vec![None, None]);
        };
        let (tokens, n) = self.shape(dy, m)?;
        let shape = dy.shape();
        let dy = f32_view(dy)?;
        let dy = &*dy;
        let dh = if *h_needed {
            let gains = self.gains(&f32_view(m)?);
            Some(f32_tensor(Self::scaled(&gains, None, dy), shape)?)
        } else {
            None
        };
        let dm = if *m_needed {
            let bare = kept(bare)?;
            let bare = &*bare;
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
                for (d, norm) in dm.iter_mut().zip(&self.norms[first..]) {
                    *d = if *norm > 0.0 { *d / norm } else { 0.0 };
                }
            });
            Some(f32_tensor(dm, n)?)
        } else {
            None
        };
        Ok(vec![dh, dm])
    }
}
