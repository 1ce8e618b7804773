//! Inverted dropout (Srivastava et al. 2014) whose mask depends on what is dropped, not on when or beside what.

use crate::error::{Result, shape_error};
use crate::ops::for_rows;
use std::sync::Arc;

/// Keys of a mask, or of noise: every bit is a function of (seed, epoch, module, row, position, feature).
#[derive(Debug, Clone)]
pub struct DropoutKey {
    /// Run seed.
    pub seed: u64,
    /// Pass over the data.
    pub epoch: u64,
    /// Which projection of which layer; 0 where there is but one.
    pub module: u64,
    /// Data-set row of each token.
    pub rows: Arc<[u64]>,
    /// Position of each token in its row.
    pub positions: Arc<[u32]>,
}

/// `y = x m / (1 - p)`, `m` Bernoulli(1 - p); input `[T, C]`.
#[derive(Debug, Clone)]
pub struct Dropout {
    /// Probability of a zero, in [0, 1).
    pub p: f32,
    /// The mask's keys.
    pub key: DropoutKey,
}

/// splitmix64 (Steele, Lea and Flood 2014): a bijection that passes for random when keyed by a counter.
pub(super) fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl DropoutKey {
    /// Hash of seed, epoch and module.
    pub(super) fn base(&self) -> u64 {
        mix(mix(mix(self.seed) ^ self.epoch) ^ self.module)
    }
}

impl Dropout {
    /// Hash of seed, epoch and module; below what a feature's hash makes it zero; factor of what is kept.
    pub(super) fn numbers(&self) -> (u64, u64, f32) {
        (self.key.base(), (f64::from(self.p) * 4_294_967_296.0) as u64, 1.0 / (1.0 - self.p))
    }

    /// `x`, or a gradient, under the mask: rows of `width` features, one for each token of the keys.
    pub fn apply(&self, x: &[f32], width: usize) -> Result<Vec<f32>> {
        let tokens = self.key.rows.len();
        if self.key.positions.len() != tokens || tokens * width != x.len() {
            return shape_error(
                "dropout",
                format!("{tokens} keys for {} values in rows of {width}", x.len()),
            );
        }
        let (base, threshold, keep) = self.numbers();
        let mut out = vec![0f32; x.len()];
        for_rows(&mut out, width, |first, out| {
            let rows = out.chunks_exact_mut(width.max(1)).zip(x[first * width..].chunks_exact(width.max(1)));
            for (t, (out, x)) in rows.enumerate() {
                let t = first + t;
                let token = mix(mix(base ^ self.key.rows[t]) ^ u64::from(self.key.positions[t]));
                for (i, (y, x)) in out.iter_mut().zip(x).enumerate() {
                    *y = if mix(token ^ i as u64) >> 32 < threshold { 0.0 } else { x * keep };
                }
            }
        });
        Ok(out)
    }
}
