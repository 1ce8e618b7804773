//! Keys and values of tokens already seen, for generation.

use candle_core::Tensor;
use galen_ops::Result;
use galen_ops::tensor::f32_view;

/// One block's rotated keys and values, `[n, G D]` each, from position 0.
#[derive(Debug, Clone, Default)]
pub struct KvLayer {
    /// Rotated keys.
    pub keys: Vec<f32>,
    /// Values.
    pub values: Vec<f32>,
}

impl KvLayer {
    /// Appends new tokens.
    pub fn push(&mut self, k: &Tensor, v: &Tensor) -> Result<()> {
        self.keys.extend_from_slice(&f32_view(k)?);
        self.values.extend_from_slice(&f32_view(v)?);
        Ok(())
    }
}
