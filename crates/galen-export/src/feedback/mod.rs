//! Rounding that keeps what a projection does to its inputs, rather than its weights.
//!
//! A merged weight lies between the points of the base's grid, and rounding it to the nearest loses a small change whole.
//! Here the error of each column is fed back into the columns after it: column j is rounded to the code nearest to
//! `w_j + sum_{i<j} e_i R_ij / R_jj`, with `R R' = H` upper triangular and `H` the second moments of the projection's inputs.
//! That makes `e H e'`, the squared error of the output, small greedily (GPTQ, Frantar et al. 2023, equation 2; as the
//! nearest-plane algorithm of Babai 1986). A block keeps the base's scales unless those fitted to the new values err less.

mod inputs;

pub use inputs::Calibration;
pub(crate) use inputs::Inputs;

use galen_ops::quant::{BlockGrid, QuantError, WeightDtype, quantize, set_codes};
use nalgebra::DMatrix;
use rayon::prelude::*;

/// Added to the diagonal of H, as a share of its mean: few samples do not span all inputs.
const DAMPING: f64 = 0.01;
/// Rows rounded together: each row of R is read once for all of them.
const TOGETHER: usize = 8;

/// What rounding needs to know of a projection's inputs.
pub(crate) struct Feedback {
    cols: usize,
    /// `R_ij / R_jj`, row-major.
    ratios: Vec<f32>,
    /// `R_jj^2`: what a squared error in column j costs.
    cost: Vec<f32>,
}

impl Feedback {
    /// None where the inputs say nothing (all zero, not finite).
    pub(crate) fn new(inputs: &Inputs) -> Option<Self> {
        let n = inputs.cols();
        let mut h = inputs.moments();
        let mean = (0..n).map(|i| h[(i, i)]).sum::<f64>() / n as f64;
        if !(mean > 0.0 && mean.is_finite()) {
            return None;
        }
        (0..n).for_each(|i| h[(i, i)] += DAMPING * mean);
        // R is the factor of H read from its end: J L J, with L the factor of J H J.
        let reversed = DMatrix::from_fn(n, n, |i, j| h[(n - 1 - i, n - 1 - j)]);
        let l = reversed.cholesky()?.unpack();
        let r = |i: usize, j: usize| l[(n - 1 - i, n - 1 - j)];
        let mut ratios = vec![0f32; n * n];
        ratios.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
            (i + 1..n).for_each(|j| row[j] = (r(i, j) / r(j, j)) as f32);
        });
        Some(Self { cols: n, ratios, cost: (0..n).map(|j| r(j, j).powi(2) as f32).collect() })
    }

    /// Encodes rows of `values`. `base` holds the base's blocks of the same rows and type, whose scales may stay.
    pub(crate) fn round(
        &self,
        dtype: WeightDtype,
        values: &[f32],
        base: Option<&[u8]>,
    ) -> Result<Vec<u8>, QuantError> {
        let row_bytes = dtype.row_bytes(self.cols)?;
        let rows = values.len() / self.cols;
        let mut out = vec![0u8; rows * row_bytes];
        let base = base.filter(|b| b.len() == out.len());
        out.par_chunks_mut(TOGETHER * row_bytes)
            .zip(values.par_chunks(TOGETHER * self.cols))
            .enumerate()
            .try_for_each(|(i, (out, values))| {
                let first = i * TOGETHER * row_bytes;
                self.round_rows(dtype, values, base.map(|b| &b[first..first + out.len()]), out)
            })?;
        Ok(out)
    }

    fn round_rows(
        &self,
        dtype: WeightDtype,
        values: &[f32],
        base: Option<&[u8]>,
        out: &mut [u8],
    ) -> Result<(), QuantError> {
        let (size, width) = (dtype.block_size(), dtype.block_bytes());
        let row_bytes = self.cols / size * width;
        let rows = values.len() / self.cols;
        // What earlier columns' errors add to a column, for all rows side by side.
        let mut fed = vec![[0f32; TOGETHER]; self.cols];
        let mut codes = vec![vec![0u8; size]; rows];
        let mut target = vec![0f32; size];
        for (block, start) in (0..self.cols).step_by(size).enumerate() {
            let mut grids = Vec::with_capacity(rows);
            for r in 0..rows {
                let at = r * row_bytes + block * width;
                for (i, t) in target.iter_mut().enumerate() {
                    *t = values[r * self.cols + start + i] + fed[start + i][r];
                }
                let fitted = quantize(dtype, size, &target)?;
                let old = base.map(|b| &b[at..at + width]);
                let (grid, from) = self.cheaper(dtype, start, &target, &fitted, old)?;
                out[at..at + width].copy_from_slice(from);
                grids.push(grid);
            }
            for j in start..start + size {
                let mut errors = [0f32; TOGETHER];
                for (r, grid) in grids.iter().enumerate() {
                    let w = values[r * self.cols + j];
                    let (code, value) = grid.nearest(j - start, w + fed[j][r]);
                    codes[r][j - start] = code;
                    errors[r] = w - value;
                }
                let ratios = &self.ratios[j * self.cols..(j + 1) * self.cols];
                for (fed, ratio) in fed[j + 1..].iter_mut().zip(&ratios[j + 1..]) {
                    fed.iter_mut().zip(&errors).for_each(|(f, e)| *f += e * ratio);
                }
            }
            for (r, codes) in codes.iter().enumerate() {
                let at = r * row_bytes + block * width;
                set_codes(dtype, &mut out[at..at + width], codes);
            }
        }
        Ok(())
    }

    /// Of the block fitted to the target and the base's own, the one whose grid is nearer, by what errors cost.
    fn cheaper<'b>(
        &self,
        dtype: WeightDtype,
        start: usize,
        target: &[f32],
        fitted: &'b [u8],
        old: Option<&'b [u8]>,
    ) -> Result<(BlockGrid, &'b [u8]), QuantError> {
        let grid = |block| BlockGrid::new(dtype, block).ok_or(QuantError::NotWritten { dtype });
        let cost = |grid: &BlockGrid| -> f32 {
            let error = |(i, t): (usize, &f32)| (t - grid.nearest(i, *t).1).powi(2) * self.cost[start + i];
            target.iter().enumerate().map(error).sum()
        };
        let new = grid(fitted)?;
        let Some(old) = old else { return Ok((new, fitted)) };
        let kept = grid(old)?;
        Ok(if cost(&kept) <= cost(&new) { (kept, old) } else { (new, fitted) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of a fixed pattern in [-0.5, 0.5).
    fn values(n: usize, key: u64) -> Vec<f32> {
        (0..n as u64).map(|i| (galen_adapter::uniform(&[key], i) - 0.5) as f32).collect()
    }

    #[test]
    fn outputs_are_nearer_than_by_rounding_each_weight() {
        let (rows, cols, n) = (11, 64, 200);
        // Inputs with few strong directions, as hidden states have.
        let (mix, latent) = (values(4 * cols, 1), values(4 * n, 2));
        let mut x = values(n * cols, 3);
        for (t, x) in x.chunks_exact_mut(cols).enumerate() {
            for (j, x) in x.iter_mut().enumerate() {
                *x = 0.05 * *x + (0..4).map(|k| latent[t * 4 + k] * mix[k * cols + j]).sum::<f32>();
            }
        }
        let mut inputs = Inputs::new(cols, n);
        inputs.add(&x);
        let feedback = Feedback::new(&inputs).expect("moments");
        let w = values(rows * cols, 4);
        let error = |bytes: &[u8]| -> f64 {
            let mut back = vec![0f32; w.len()];
            galen_ops::quant::dequantize(WeightDtype::Q4_1, bytes, &mut back).expect("blocks");
            let e: Vec<f32> = w.iter().zip(&back).map(|(w, b)| w - b).collect();
            let dot = |e: &[f32], x: &[f32]| e.iter().zip(x).map(|(e, x)| f64::from(e * x)).sum::<f64>();
            e.chunks_exact(cols).flat_map(|e| x.chunks_exact(cols).map(move |x| dot(e, x).powi(2))).sum()
        };
        let plain = quantize(WeightDtype::Q4_1, cols, &w).expect("blocks");
        let fed = feedback.round(WeightDtype::Q4_1, &w, None).expect("blocks");
        assert!(error(&fed) < 0.5 * error(&plain), "{} {}", error(&fed), error(&plain));
        // What lies on the grid stays as it is.
        let mut on = vec![0f32; w.len()];
        galen_ops::quant::dequantize(WeightDtype::Q4_1, &plain, &mut on).expect("blocks");
        assert!(feedback.round(WeightDtype::Q4_1, &on, Some(&plain)).expect("blocks") == plain);
    }

    #[test]
    fn inputs_that_say_nothing_give_no_feedback() {
        let mut inputs = Inputs::new(32, 4);
        inputs.add(&[0.0; 128]);
        assert!(Feedback::new(&inputs).is_none());
        inputs.add(&[f32::NAN; 32]);
        assert!(Feedback::new(&inputs).is_none());
    }
}
