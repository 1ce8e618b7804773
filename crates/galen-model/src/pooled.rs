//! A pass that ends in hidden states of chosen tokens: what a scalar head reads.

use crate::model::Model;
use crate::pass::{Chain, PassOptions, Sink};
use galen_ops::device::{Accelerator, DeviceMatrix, DeviceTensor, Number, Value};
use galen_ops::hook::ProjectionHook;
use galen_ops::ops::{RmsNorm, SelectRows};
use galen_ops::tensor::{f32_tensor, f32_view};
use galen_ops::{Error, Result};
use galen_types::PackedBatch;

/// A forward pass to hidden states, ready for backward.
pub struct PooledPass<'a> {
    chain: Chain<'a>,
    /// `[N, C]`, row-major: the hidden state, after the last norm, of each token asked for.
    pub states: Vec<f32>,
    width: usize,
    on: Option<Accelerator>,
}

impl<'a> PooledPass<'a> {
    /// Runs the model over a batch up to the hidden states of `tokens`, which are indexes into the batch's ids. The batch's
    /// targets are not looked at. Errors: an index beyond the batch.
    pub fn forward(
        model: &'a Model,
        hook: Option<&'a dyn ProjectionHook>,
        batch: &PackedBatch,
        tokens: &[u32],
        options: PassOptions,
    ) -> Result<Self> {
        // The norm goes by rows, so that it need see no other than those asked for.
        let (chain, states) = Chain::forward(model, hook, batch, options, |tape, hidden, _| {
            let chosen = tape.apply(SelectRows { rows: tokens.into() }, &[hidden])?;
            tape.apply(RmsNorm { weight: model.final_norm.clone(), eps: model.eps }, &[&chosen])
        })?;
        let states = match &states {
            Value::Host(states) => f32_view(states)?.to_vec(),
            Value::Device(states) => states.download()?,
        };
        Ok(Self { chain, states, width: model.config.hidden_size, on: model.device().cloned() })
    }

    /// Walks back from the gradient of [`PooledPass::states`]; gives each block's leaf gradients, in the order of its leaves,
    /// to `sink(layer, gradients)`.
    pub fn backward(self, gradient: Vec<f32>, sink: &mut Sink) -> Result<()> {
        if gradient.len() != self.states.len() {
            let what = format!("`{}` gradients of `{}` values", gradient.len(), self.states.len());
            return Err(Error::Shape { op: "backward", what });
        }
        let rows = gradient.len() / self.width.max(1);
        let gradient = match &self.on {
            None => f32_tensor(gradient, (rows, self.width))?.into(),
            Some(on) => {
                DeviceTensor::new(on, DeviceMatrix::upload(on, &gradient, self.width, Number::Bf16)?).into()
            }
        };
        self.chain.backward(gradient, sink)
    }
}
