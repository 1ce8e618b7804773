//! Noise on token embeddings: "NEFTune: Noisy Embeddings Improve Instruction Finetuning" (Jain et al. 2024), section 2.

use super::dropout::{DropoutKey, mix};
use crate::error::{Result, shape_error};
use crate::ops::for_rows;
use candle_core::Tensor;
use std::sync::Arc;

/// `x + alpha / sqrt(L C) u` for embeddings x of C features in a row of L tokens, u uniform in [-1, 1) and a function of its keys
/// alone: not of what lies beside a row.
#[derive(Debug, Clone)]
pub struct EmbeddingNoise {
    /// What u depends on, besides the feature.
    pub key: DropoutKey,
    /// `alpha / sqrt(L C)` of each token's row.
    pub factors: Arc<[f32]>,
}

impl EmbeddingNoise {
    /// Errors: other lengths than `tokens`.
    pub(super) fn expect(&self, tokens: usize) -> Result<()> {
        let lengths = [self.key.rows.len(), self.key.positions.len(), self.factors.len()];
        if lengths == [tokens; 3] {
            return Ok(());
        }
        shape_error("embedding_noise", format!("{lengths:?} rows, positions and factors of {tokens} tokens"))
    }

    /// `x` `[T, C]`, with the noise.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        self.expect(tokens)?;
        let base = self.key.base();
        let mut out = x.flatten_all()?.to_vec1::<f32>()?;
        for_rows(&mut out, width, |first, out| {
            for (t, out) in out.chunks_exact_mut(width.max(1)).enumerate() {
                let t = first + t;
                let token = mix(mix(base ^ self.key.rows[t]) ^ u64::from(self.key.positions[t]));
                for (i, y) in out.iter_mut().enumerate() {
                    // 24 bits: exact in f32, and so is the difference.
                    let u = (mix(token ^ i as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0;
                    *y += self.factors[t] * u;
                }
            }
        });
        crate::tensor::f32_tensor(out, (tokens, width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, rows: &[u64], positions: &[u32], factors: &[f32]) -> Vec<f32> {
        let key = DropoutKey { seed, epoch: 1, module: 0, rows: rows.into(), positions: positions.into() };
        let x = Tensor::zeros((rows.len(), 512), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let noise = EmbeddingNoise { key, factors: factors.into() };
        noise.apply(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn it_is_uniform_of_the_papers_size_and_by_row() {
        let all = noise(3, &[5, 5, 9], &[0, 1, 0], &[0.1, 0.1, 0.5]);
        for (values, factor) in [(&all[..512], 0.1f32), (&all[512..1024], 0.1), (&all[1024..], 0.5)] {
            let largest = values.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert!(largest <= factor && largest > 0.97 * factor, "{largest} of {factor}");
            let mean = values.iter().sum::<f32>() / 512.0;
            let square = values.iter().map(|v| v * v).sum::<f32>() / 512.0;
            // Uniform over a width of 2 factor: variance factor^2 / 3. Four standard errors.
            assert!(mean.abs() < 4.0 * factor / 3f32.sqrt() / 512f32.sqrt(), "{mean}");
            assert!((square / factor.powi(2) * 3.0 - 1.0).abs() < 4.0 * (0.8f32 / 512.0).sqrt(), "{square}");
        }
        // A row has the same noise wherever it lies, and another than its neighbour and than another seed's.
        assert_eq!(noise(3, &[9], &[0], &[0.5]), all[1024..]);
        assert_ne!(all[..512], all[512..1024]);
        assert_ne!(noise(4, &[9], &[0], &[0.5]), all[1024..]);
    }

    #[test]
    fn other_lengths_are_an_error() {
        let key = DropoutKey { seed: 1, epoch: 0, module: 0, rows: [1].into(), positions: [0].into() };
        let x = Tensor::zeros((2, 8), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let e = EmbeddingNoise { key, factors: [1.0].into() }.apply(&x).unwrap_err();
        assert!(e.to_string().contains("[1, 1, 1] rows, positions and factors of 2 tokens"), "{e}");
    }
}
