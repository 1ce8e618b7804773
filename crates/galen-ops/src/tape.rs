//! A small reverse-mode tape.
//!
//! An [`Op`] computes outputs from inputs and says what it must keep; the tape holds only that, so every other
//! intermediate value is freed as soon as the model code lets go of it. Nothing is recorded for an operation none
//! of whose inputs leads to a trainable leaf: backward stops by itself below the lowest trainable parameter.

use crate::error::{Result, shape_error};
use crate::profile;
use crate::tensor::{f32_tensor, f32_view};
use candle_core::Tensor;
use rayon::prelude::*;

/// What an operation keeps for its backward pass.
pub type Saved = Vec<Tensor>;

/// A differentiable operation of any arity. Frozen weights live inside the struct, so no gradient of theirs
/// can exist.
pub trait Op: Send + Sync {
    /// Name for errors and profiles.
    fn name(&self) -> &'static str;

    /// Outputs and what `backward` needs.
    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)>;

    /// The same outputs where nothing will go back through them.
    fn infer(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        Ok(self.forward(inputs)?.0)
    }

    /// Input gradients from output gradients (`None` where an output was not used). `needs[i]` is false where
    /// input `i` leads to nothing trainable: return `None` there and save the work.
    fn backward(
        &self,
        saved: &Saved,
        grads: Vec<Option<Tensor>>,
        needs: &[bool],
    ) -> Result<Vec<Option<Tensor>>>;
}

/// A value on its way through a tape. Cloning is cheap; dropping it frees the value unless an operation kept it.
#[derive(Clone)]
pub struct Traced {
    tensor: Tensor,
    id: Option<usize>,
}

impl Traced {
    /// A value without a gradient.
    pub fn constant(tensor: Tensor) -> Self {
        Self { tensor, id: None }
    }

    /// The value.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Whether it leads to a trainable leaf.
    pub fn needs_grad(&self) -> bool {
        self.id.is_some()
    }
}

struct Node {
    op: Box<dyn Op>,
    inputs: Vec<Option<usize>>,
    outputs: Vec<usize>,
    saved: Saved,
}

/// The record of one segment of the model (a block, say): run forward, then consumed by [`Tape::backward`].
#[derive(Default)]
pub struct Tape {
    nodes: Vec<Node>,
    next: usize,
    frozen: bool,
}

impl Tape {
    /// An empty tape that records.
    pub fn new() -> Self {
        Self::default()
    }

    /// A tape that records nothing (evaluation, or the first pass of a checkpointed segment).
    pub fn frozen() -> Self {
        Self { frozen: true, ..Self::default() }
    }

    /// Enters a value whose gradient is wanted.
    pub fn leaf(&mut self, tensor: Tensor) -> Traced {
        let id = (!self.frozen).then(|| self.fresh());
        Traced { tensor, id }
    }

    /// Runs an operation with one output.
    pub fn apply(&mut self, op: impl Op + 'static, inputs: &[&Traced]) -> Result<Traced> {
        let name = op.name();
        match self.apply_many(op, inputs)?.pop() {
            Some(out) => Ok(out),
            None => shape_error(name, "gave no output"),
        }
    }

    /// Runs an operation.
    pub fn apply_many(&mut self, op: impl Op + 'static, inputs: &[&Traced]) -> Result<Vec<Traced>> {
        let tensors: Vec<&Tensor> = inputs.iter().map(|i| &i.tensor).collect();
        let span = profile::span(op.name());
        if self.frozen || inputs.iter().all(|i| i.id.is_none()) {
            return Ok(op.infer(&tensors)?.into_iter().map(Traced::constant).collect());
        }
        let (outputs, saved) = op.forward(&tensors)?;
        drop(span);
        let out: Vec<Traced> =
            outputs.into_iter().map(|tensor| Traced { tensor, id: Some(self.fresh()) }).collect();
        self.nodes.push(Node {
            op: Box::new(op),
            inputs: inputs.iter().map(|i| i.id).collect(),
            outputs: out.iter().filter_map(|o| o.id).collect(),
            saved,
        });
        Ok(out)
    }

    /// Walks back from `seeds` (value, gradient) to every leaf. What each operation kept is freed as soon as it
    /// has run.
    pub fn backward(mut self, seeds: &[(&Traced, Tensor)]) -> Result<Gradients> {
        let mut grads: Vec<Option<Tensor>> = vec![None; self.next];
        for (value, grad) in seeds {
            if let Some(id) = value.id {
                accumulate(&mut grads[id], grad.clone())?;
            }
        }
        while let Some(node) = self.nodes.pop() {
            let out: Vec<Option<Tensor>> = node.outputs.iter().map(|id| grads[*id].take()).collect();
            if out.iter().all(Option::is_none) {
                continue;
            }
            let needs: Vec<bool> = node.inputs.iter().map(Option::is_some).collect();
            let found = {
                let _span = profile::span(node.op.name());
                node.op.backward(&node.saved, out, &needs)?
            };
            if found.len() != node.inputs.len() {
                let what = format!("{} gradients for {} inputs", found.len(), node.inputs.len());
                return shape_error(node.op.name(), what);
            }
            for (id, grad) in node.inputs.iter().zip(found) {
                if let (Some(id), Some(grad)) = (id, grad) {
                    accumulate(&mut grads[*id], grad)?;
                }
            }
        }
        Ok(Gradients(grads))
    }

    fn fresh(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }
}

/// Gradients by leaf.
pub struct Gradients(Vec<Option<Tensor>>);

impl Gradients {
    /// Takes a leaf's gradient; `None` where nothing led to it.
    pub fn take(&mut self, leaf: &Traced) -> Option<Tensor> {
        self.0.get_mut(leaf.id?)?.take()
    }
}

fn accumulate(slot: &mut Option<Tensor>, grad: Tensor) -> Result<()> {
    *slot = Some(match slot.take() {
        None => grad,
        Some(old) => {
            let _span = profile::span("accumulate");
            if old.dims() != grad.dims() {
                return shape_error("accumulate", format!("`{:?}` + `{:?}`", old.dims(), grad.dims()));
            }
            let sum: Vec<f32> = {
                let (a, b) = (f32_view(&old)?, f32_view(&grad)?);
                a.par_iter().zip(&b[..]).map(|(a, b)| a + b).collect()
            };
            f32_tensor(sum, old.shape())?
        }
    });
    Ok(())
}
