//! What an adapter is, before it meets a model.

use crate::targets::Targets;

/// How trainable matrices start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// PEFT's `true`: A uniform in `±1/sqrt(in)` (Kaiming with a = sqrt 5), B zero.
    Kaiming,
    /// PEFT's `gaussian`: A normal with standard deviation 1/r, B zero.
    Gaussian,
    /// PEFT's `false`: A as `Kaiming`, and B too (uniform in `±1/sqrt(r)`): the adapter changes the model at once.
    Random,
}

/// Configuration of a new adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Name of the method in [`crate::METHODS`].
    pub method: String,
    /// Rank R.
    pub r: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Probability of dropping a feature before A.
    pub dropout: f32,
    /// Scale `alpha / sqrt(r)` (Kalajdzievski 2023) instead of `alpha / r`.
    pub rslora: bool,
    /// Which projections.
    pub targets: Targets,
    /// Which blocks; all when absent.
    pub layers: Option<Vec<usize>>,
    /// How the matrices start.
    pub init: Init,
    /// Keys the random start and the dropout masks.
    pub seed: u64,
}

impl AdapterConfig {
    /// The factor of the low-rank branch.
    pub fn scale(&self) -> f64 {
        scale(self.alpha, self.r, self.rslora)
    }
}

pub(crate) fn scale(alpha: f64, r: usize, rslora: bool) -> f64 {
    alpha / if rslora { (r as f64).sqrt() } else { r as f64 }
}
