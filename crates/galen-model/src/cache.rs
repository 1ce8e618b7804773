//! Keys and values of tokens already seen, for generation.

use candle_core::Tensor;
use galen_ops::Result;
use galen_ops::device::KvSequence;
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

/// A sequence's keys and values, where its model's passes run.
#[derive(Clone)]
pub(crate) enum Cache {
    /// By block.
    Host(Vec<KvLayer>),
    /// On an accelerator.
    Device(KvSequence),
}

impl Cache {
    /// Those of a block. Errors: they lie on an accelerator.
    pub fn layer(&mut self, layer: usize) -> Result<&mut KvLayer> {
        match self {
            Self::Host(layers) if layer < layers.len() => Ok(&mut layers[layer]),
            _ => Err(galen_ops::Error::Device(format!("the cache of block {layer} is not the CPU's"))),
        }
    }
}
