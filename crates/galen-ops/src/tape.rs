//! A small reverse-mode tape.
//!
//! An [`Op`] computes outputs from inputs and says what it must keep; the tape holds only that, so every other
//! intermediate value is freed as soon as the model code lets go of it. Nothing is recorded for an operation none
//! of whose inputs leads to a trainable leaf: backward stops by itself below the lowest trainable parameter.

use crate::device::{Accelerator, DeviceTensor, Value, sum};
use crate::error::{Error, Result, shape_error};
use crate::profile;
use crate::tensor::{f32_tensor, f32_view};
use candle_core::Tensor;
use rayon::prelude::*;

/// What an operation keeps for its backward pass.
pub type Saved = Vec<Tensor>;

/// The way back of an operation that ran on an accelerator, with what it keeps: as [`Op::backward`]. Gradients of a leaf are
/// added where the leaf says, and are `None` here. A gradient has its value's number (f32 or bf16).
pub type WayBack =
    Box<dyn FnOnce(Vec<Option<DeviceTensor>>, &[bool]) -> Result<Vec<Option<DeviceTensor>>> + Send>;

/// Outputs on an accelerator, and the way back from them.
pub type Launched = Result<(Vec<DeviceTensor>, WayBack)>;

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

    /// The same by launches, for inputs that lie on an accelerator. Nothing in it waits for the device. Errors: an operation
    /// without kernels.
    fn on_device(&self, on: &Accelerator, _inputs: &[&DeviceTensor]) -> Launched {
        Err(no_kernel(self.name(), on))
    }
}

fn no_kernel(what: &str, on: &Accelerator) -> Error {
    Error::Device(format!("`{what}` on `{}` is not supported\nhint: `--device cpu`", on.name()))
}

/// A value on its way through a tape. Cloning is cheap; dropping it frees the value unless an operation kept it.
#[derive(Clone)]
pub struct Traced {
    value: Value,
    id: Option<usize>,
}

impl Traced {
    /// A value without a gradient.
    pub fn constant(value: impl Into<Value>) -> Self {
        Self { value: value.into(), id: None }
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The value, if it is the host's. Errors: one on an accelerator.
    pub fn tensor(&self) -> Result<&Tensor> {
        self.value.host()
    }

    /// Whether it leads to a trainable leaf.
    pub fn needs_grad(&self) -> bool {
        self.id.is_some()
    }
}

struct Node {
    name: &'static str,
    inputs: Vec<Option<usize>>,
    outputs: Vec<usize>,
    back: Back,
}

/// How a node goes back.
enum Back {
    Host(Box<dyn Op>, Saved),
    Device(WayBack),
}

impl Back {
    fn run(
        self,
        name: &'static str,
        grads: Vec<Option<Value>>,
        needs: &[bool],
    ) -> Result<Vec<Option<Value>>> {
        match self {
            Self::Host(op, saved) => {
                let own =
                    grads.into_iter().map(|g| g.map(Value::into_host).transpose()).collect::<Result<_>>()?;
                let found = op.backward(&saved, own, needs)?;
                Ok(found.into_iter().map(|g| g.map(Value::Host)).collect())
            }
            Self::Device(back) => {
                let own = grads.into_iter().map(|g| g.map(|g| on_device(name, &g).cloned()).transpose());
                let found = back(own.collect::<Result<_>>()?, needs)?;
                Ok(found.into_iter().map(|g| g.map(Value::Device)).collect())
            }
        }
    }
}

fn on_device<'a>(name: &'static str, value: &'a Value) -> Result<&'a DeviceTensor> {
    match value {
        Value::Device(tensor) => Ok(tensor),
        Value::Host(_) => shape_error(name, "a value of the CPU's beside one of an accelerator"),
    }
}

/// The record of one segment of the model (a block, say): run forward, then consumed by [`Tape::backward`].
#[derive(Default)]
pub struct Tape {
    nodes: Vec<Node>,
    next: usize,
    frozen: bool,
    device: Option<Accelerator>,
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

    /// A tape of values on that accelerator; none: the CPU's.
    #[must_use]
    pub fn on(self, device: Option<&Accelerator>) -> Self {
        Self { device: device.cloned(), ..self }
    }

    /// Where its values lie; none: on the CPU. Whoever enters leaves asks.
    pub fn device(&self) -> Option<&Accelerator> {
        self.device.as_ref()
    }

    /// Enters a value whose gradient is wanted.
    pub fn leaf(&mut self, value: impl Into<Value>) -> Traced {
        let id = (!self.frozen).then(|| self.fresh());
        Traced { value: value.into(), id }
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
        let name = op.name();
        let span = profile::span(name);
        let lost = self.frozen || inputs.iter().all(|i| i.id.is_none());
        if let Some(on) = &self.device {
            let placed = inputs.iter().map(|i| on_device(name, &i.value)).collect::<Result<Vec<_>>>()?;
            let (outputs, back) = op.on_device(on, &placed)?;
            drop(span);
            return Ok(self.record(name, inputs, outputs, (!lost).then_some(Back::Device(back))));
        }
        let tensors = inputs.iter().map(|i| i.tensor()).collect::<Result<Vec<_>>>()?;
        if lost {
            return Ok(op.infer(&tensors)?.into_iter().map(Traced::constant).collect());
        }
        let (outputs, saved) = op.forward(&tensors)?;
        drop(span);
        Ok(self.record(name, inputs, outputs, Some(Back::Host(Box::new(op), saved))))
    }

    /// Gives outputs their numbers, where there is a way back from them.
    fn record(
        &mut self,
        name: &'static str,
        inputs: &[&Traced],
        outputs: Vec<impl Into<Value>>,
        back: Option<Back>,
    ) -> Vec<Traced> {
        let Some(back) = back else { return outputs.into_iter().map(Traced::constant).collect() };
        let out: Vec<Traced> =
            outputs.into_iter().map(|value| Traced { value: value.into(), id: Some(self.fresh()) }).collect();
        self.nodes.push(Node {
            name,
            inputs: inputs.iter().map(|i| i.id).collect(),
            outputs: out.iter().filter_map(|o| o.id).collect(),
            back,
        });
        out
    }

    /// Walks back from `seeds` (value, gradient) to every leaf. What each operation kept is freed as soon as it
    /// has run.
    pub fn backward<G: Clone + Into<Value>>(mut self, seeds: &[(&Traced, G)]) -> Result<Gradients> {
        let mut grads: Vec<Option<Value>> = vec![None; self.next];
        for (value, grad) in seeds {
            if let Some(id) = value.id {
                accumulate(&mut grads[id], grad.clone().into())?;
            }
        }
        while let Some(Node { name, inputs, outputs, back }) = self.nodes.pop() {
            let out: Vec<Option<Value>> = outputs.iter().map(|id| grads[*id].take()).collect();
            if out.iter().all(Option::is_none) {
                continue;
            }
            let needs: Vec<bool> = inputs.iter().map(Option::is_some).collect();
            let found = {
                let _span = profile::span(name);
                back.run(name, out, &needs)?
            };
            if found.len() != inputs.len() {
                let what = format!("{} gradients for {} inputs", found.len(), inputs.len());
                return shape_error(name, what);
            }
            for (id, grad) in inputs.iter().zip(found) {
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
pub struct Gradients(Vec<Option<Value>>);

impl Gradients {
    /// Takes a leaf's gradient; `None` where nothing led to it, or where the leaf has a place of its own for it.
    pub fn take(&mut self, leaf: &Traced) -> Option<Value> {
        self.0.get_mut(leaf.id?)?.take()
    }
}

fn accumulate(slot: &mut Option<Value>, grad: Value) -> Result<()> {
    *slot = Some(match (slot.take(), grad) {
        (None, grad) => grad,
        (Some(Value::Device(old)), Value::Device(grad)) => {
            let _span = profile::span("accumulate");
            DeviceTensor::new(&old.on, sum(&old.on, &old.matrix, &grad.matrix)?).into()
        }
        (Some(old), grad) => {
            let _span = profile::span("accumulate");
            let (old, grad) = (old.into_host()?, grad.into_host()?);
            if old.dims() != grad.dims() {
                return shape_error("accumulate", format!("`{:?}` + `{:?}`", old.dims(), grad.dims()));
            }
            let total: Vec<f32> = {
                let (a, b) = (f32_view(&old)?, f32_view(&grad)?);
                a.par_iter().zip(&b[..]).map(|(a, b)| a + b).collect()
            };
            f32_tensor(total, old.shape())?.into()
        }
    });
    Ok(())
}
