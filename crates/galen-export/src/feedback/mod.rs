//! Rounding that keeps what a projection does to its inputs, rather than its weights.
//!
//! A merged weight lies between the points of the base's grid, and rounding it to the nearest loses a small change whole.
//! Here the error of each column is fed back into those after it: column j is rounded to the code nearest to
//! `w_j + sum_{i<j} e_i R_ij / R_jj`, with `R R' = H` upper triangular and `H` the second moments of the projection's inputs.
//! That makes `e H e'`, the squared error of the output, small greedily (GPTQ, Frantar et al. 2023, equation 2; as the
//! nearest-plane algorithm of Babai 1986). Columns go by what their errors cost, the dearest first. A block keeps the base's
//! scales unless those fitted to the new values err less.

mod factor;
mod inputs;

use factor::factor;
pub use inputs::Calibration;
pub(crate) use inputs::Inputs;

use galen_ops::quant::{BlockGrid, QuantError, WeightDtype, quantize, set_codes};
use rayon::prelude::*;

/// Added to the diagonal of H, as a share of its mean: few samples do not span all inputs.
const DAMPING: f64 = 0.01;
/// Rows rounded together: each row of R is read once for all of them.
const TOGETHER: usize = 8;

/// What rounding needs to know of a projection's inputs.
pub(crate) struct Feedback {
    /// Columns in the order they are rounded: those whose errors cost most come first, when most others can still make
    /// up for them.
    order: Vec<usize>,
    /// `R_ij / R_jj` in that order, row-major.
    ratios: Vec<f32>,
    /// `H_jj` by column: what a squared error costs before anything makes up for it.
    cost: Vec<f32>,
}

/// A row's blocks, their scales chosen.
struct Row {
    bytes: Vec<u8>,
    grids: Vec<BlockGrid>,
    codes: Vec<u8>,
}

impl Feedback {
    /// None where the inputs say nothing (all zero, not finite).
    pub(crate) fn new(inputs: &Inputs) -> Option<Self> {
        let n = inputs.cols();
        let h = inputs.moments();
        let mean = (0..n).map(|i| f64::from(h[(i, i)])).sum::<f64>() / n as f64;
        if !(mean > 0.0 && mean.is_finite()) {
            return None;
        }
        let entry = |i: usize, j: usize| {
            f64::from(h[(i.max(j), i.min(j))]) + if i == j { DAMPING * mean } else { 0.0 }
        };
        let cost: Vec<f32> = (0..n).map(|i| entry(i, i) as f32).collect();
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|a, b| cost[*b].total_cmp(&cost[*a]));
        // R is the factor of H read from its end: J L J, with L the factor of J H J.
        let from_end = |i: usize| order[n - 1 - i];
        let l = factor(n, |i, j| entry(from_end(i), from_end(j)))?;
        let r = |i: usize, j: usize| l[(n - 1 - i) * n + n - 1 - j];
        let mut ratios = vec![0f32; n * n];
        ratios.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
            (i + 1..n).for_each(|j| row[j] = (r(i, j) / r(j, j)) as f32);
        });
        Some(Self { order, ratios, cost })
    }

    /// Encodes rows of `values`. `base` holds the base's blocks of the same rows and type, whose scales may stay.
    pub(crate) fn round(
        &self,
        dtype: WeightDtype,
        values: &[f32],
        base: Option<&[u8]>,
    ) -> Result<Vec<u8>, QuantError> {
        let cols = self.order.len();
        let row_bytes = dtype.row_bytes(cols)?;
        let fitted = quantize(dtype, cols, values)?;
        let base = base.filter(|b| b.len() == fitted.len());
        let mut out = vec![0u8; fitted.len()];
        out.par_chunks_mut(TOGETHER * row_bytes).enumerate().try_for_each(|(i, out)| {
            let first = i * TOGETHER;
            let mut rows = Vec::with_capacity(TOGETHER);
            for r in first..(first + TOGETHER).min(values.len() / cols) {
                let (new, w) = (&fitted[r * row_bytes..][..row_bytes], &values[r * cols..][..cols]);
                rows.push(self.row(dtype, w, new, base.map(|b| &b[r * row_bytes..][..row_bytes]))?);
            }
            self.round_rows(&values[first * cols..], &mut rows, dtype.block_size());
            for (out, row) in out.chunks_exact_mut(row_bytes).zip(rows) {
                out.copy_from_slice(&row.bytes);
                let blocks = out.chunks_exact_mut(dtype.block_bytes());
                blocks
                    .zip(row.codes.chunks_exact(dtype.block_size()))
                    .for_each(|(b, q)| set_codes(dtype, b, q));
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// The scales of a row: of each block's fit to the values and the base's own, those whose grid is nearer, by what errors
    /// cost.
    fn row(
        &self,
        dtype: WeightDtype,
        w: &[f32],
        fitted: &[u8],
        base: Option<&[u8]>,
    ) -> Result<Row, QuantError> {
        let (size, width) = (dtype.block_size(), dtype.block_bytes());
        let grid = |block| BlockGrid::new(dtype, block).ok_or(QuantError::NotWritten { dtype });
        let mut row = Row { bytes: fitted.to_vec(), grids: Vec::new(), codes: vec![0; w.len()] };
        for (b, w) in w.chunks_exact(size).enumerate() {
            let cost = |grid: &BlockGrid| -> f32 {
                let error =
                    |(i, t): (usize, &f32)| (t - grid.nearest(i, *t).1).powi(2) * self.cost[b * size + i];
                w.iter().enumerate().map(error).sum()
            };
            let at = b * width..(b + 1) * width;
            let mut chosen = grid(&fitted[at.clone()])?;
            if let Some(base) = base {
                let old = grid(&base[at.clone()])?;
                if cost(&old) <= cost(&chosen) {
                    chosen = old;
                    row.bytes[at.clone()].copy_from_slice(&base[at]);
                }
            }
            row.grids.push(chosen);
        }
        Ok(row)
    }

    /// Rounds up to [`TOGETHER`] rows, column by column.
    fn round_rows(&self, values: &[f32], rows: &mut [Row], size: usize) {
        let cols = self.order.len();
        // What earlier columns' errors add to a column, for all rows side by side.
        let mut fed = vec![[0f32; TOGETHER]; cols];
        for (at, j) in self.order.iter().copied().enumerate() {
            let mut errors = [0f32; TOGETHER];
            for (r, row) in rows.iter_mut().enumerate() {
                let w = values[r * cols + j];
                let (code, value) = row.grids[j / size].nearest(j % size, w + fed[at][r]);
                row.codes[j] = code;
                errors[r] = w - value;
            }
            let ratios = &self.ratios[at * cols..(at + 1) * cols];
            for (fed, ratio) in fed[at + 1..].iter_mut().zip(&ratios[at + 1..]) {
                fed.iter_mut().zip(&errors).for_each(|(f, e)| *f += e * ratio);
            }
        }
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
