//! Inverted dropout (Srivastava et al. 2014) whose mask depends on what is dropped, not on when or beside what.

use crate::error::{Result, shape_error};
use crate::tape::{Op, Saved};
use crate::tensor::{dims2, f32_tensor, f32_view};
use candle_core::Tensor;
use std::sync::Arc;

/// Keys of a mask: every bit is a function of (seed, epoch, module, row, position, feature).
#[derive(Debug, Clone)]
pub struct DropoutKey {
    /// Run seed.
    pub seed: u64,
    /// Pass over the data.
    pub epoch: u64,
    /// Which projection of which layer.
    pub module: u64,
    /// Data-set row of each token.
    pub rows: Arc<[u64]>,
    /// Position of each token in its row.
    pub positions: Arc<[u32]>,
}

/// `y = x m / (1 - p)`, `m` Bernoulli(1 - p); input `[T, C]`.
pub struct Dropout {
    /// Probability of a zero, in [0, 1).
    pub p: f32,
    /// The mask's keys.
    pub key: DropoutKey,
}

/// splitmix64 (Steele, Lea and Flood 2014): a bijection that passes for random when keyed by a counter.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dropout {
    fn mask(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, width) = dims2("dropout", x)?;
        if self.key.rows.len() != tokens || self.key.positions.len() != tokens {
            return shape_error("dropout", format!("{} keys for {tokens} tokens", self.key.rows.len()));
        }
        let keep = 1.0 / (1.0 - self.p);
        let threshold = (f64::from(self.p) * 4_294_967_296.0) as u64;
        let base = mix(mix(mix(self.key.seed) ^ self.key.epoch) ^ self.key.module);
        let view = f32_view(x)?;
        let mut out = vec![0f32; view.len()];
        for (t, (out, x)) in out.chunks_exact_mut(width).zip(view.chunks_exact(width)).enumerate() {
            let token = mix(mix(base ^ self.key.rows[t]) ^ u64::from(self.key.positions[t]));
            for (i, (y, x)) in out.iter_mut().zip(x).enumerate() {
                *y = if mix(token ^ i as u64) >> 32 < threshold { 0.0 } else { x * keep };
            }
        }
        f32_tensor(out, x.shape())
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        let [x] = inputs else { return shape_error("dropout", "takes one input") };
        Ok((vec![self.mask(x)?], vec![]))
    }

    fn backward(&self, _: &Saved, grads: Vec<Option<Tensor>>, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let [Some(dy)] = &grads[..] else { return Ok(vec![None]) };
        Ok(vec![Some(self.mask(dy)?)])
    }
}
