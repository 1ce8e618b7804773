//! The softmax of a row of logits, for drawing tokens: no gradient.

use crate::kernels::isa::multiversion;
use crate::kernels::math::{LANES, exp};

/// What turns weights into probabilities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SoftmaxNorm {
    /// The largest logit.
    pub max: f32,
    /// Sum of the weights, at least about 1.
    pub sum: f64,
}

impl SoftmaxNorm {
    /// `ln p` of a logit, where the weights were formed with `scale` 1.
    pub fn log_prob(&self, logit: f32) -> f32 {
        (f64::from(logit) - f64::from(self.max) - self.sum.ln()) as f32
    }
}

/// `weights[i] = e^(scale (logits[i] - max))`. A logit that is no number makes the sum none.
pub fn softmax_weights(logits: &[f32], scale: f32, weights: &mut Vec<f32>) -> SoftmaxNorm {
    weights.resize(logits.len(), 0.0);
    let max = largest(logits);
    SoftmaxNorm { max, sum: fill(logits, max, scale, weights) }
}

multiversion! {
    fn largest(logits: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (rows, rest) = logits.as_chunks::<LANES>();
        for row in rows {
            for (max, l) in lanes.iter_mut().zip(row) {
                *max = if *l > *max { *l } else { *max };
            }
        }
        let _ = F::fma;
        lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, |max, l| if l > max { l } else { max })
    }
}

multiversion! {
    fn fill(logits: &[f32], max: f32, scale: f32, weights: &mut [f32]) -> f64 {
        let mut lanes = [0f64; LANES];
        let (rows, rest) = logits.as_chunks::<LANES>();
        let (outs, out_rest) = weights.as_chunks_mut::<LANES>();
        for (row, out) in rows.iter().zip(outs) {
            for lane in 0..LANES {
                out[lane] = exp::<F>((row[lane] - max) * scale);
                lanes[lane] += f64::from(out[lane]);
            }
        }
        for (lane, (l, out)) in rest.iter().zip(out_rest).enumerate() {
            *out = exp::<F>((l - max) * scale);
            lanes[lane] += f64::from(*out);
        }
        lanes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_equal_those_in_f64_whatever_the_length() {
        for n in [1, 2, 15, 16, 17, 1000] {
            let logits: Vec<f32> = (0..n).map(|i| ((i * 7919) % 97) as f32 / 5.0 - 3.0).collect();
            let mut weights = vec![9.0; 3];
            let norm = softmax_weights(&logits, 1.0, &mut weights);
            let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
            assert_eq!(weights.len(), n);
            for (l, w) in logits.iter().zip(&weights) {
                let want = f64::from(*l) - total.ln();
                assert!((f64::from(norm.log_prob(*l)) - want).abs() <= 1e-6 * want.abs().max(1.0), "{n}");
                assert!((f64::from(*w) / norm.sum - want.exp()).abs() <= 1e-6, "{n}");
            }
        }
        let mut weights = Vec::new();
        let norm = softmax_weights(&[0.0, 2.0], 0.5, &mut weights);
        assert!((weights[0] - (-1f32).exp()).abs() <= 1e-6 && weights[1] == 1.0 && norm.max == 2.0);
        assert!(softmax_weights(&[0.0, f32::NAN], 1.0, &mut weights).sum.is_nan());
    }
}
