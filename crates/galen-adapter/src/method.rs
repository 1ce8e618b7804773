//! What an adapter method is.

use crate::config::Init;
use galen_ops::hook::HookContext;
use galen_ops::ops::{Dropout, DropoutKey, Projection, Prologue};
use galen_ops::{Result, Tape, Traced};

/// One trainable matrix of an adapted projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// PEFT's suffix: `lora_A.weight`.
    pub suffix: &'static str,
    /// Rows and columns.
    pub dims: [usize; 2],
}

/// A projection among those that read one input.
pub struct Member<'a> {
    /// The frozen part.
    pub base: &'a Projection,
    /// Its adapter, where it has one.
    pub adapted: Option<Adapted<'a>>,
}

/// An adapter at a projection.
pub struct Adapted<'a> {
    /// Its matrices, in the order of [`Method::parameters`].
    pub leaves: &'a [Traced],
    /// Of its input, where there is any.
    pub dropout: Option<Dropout>,
    /// Factor of the change.
    pub scale: f32,
}

/// A parameter-efficient change of a projection. A method knows neither the format of the frozen weight nor the
/// model around it.
pub trait Method: Sync + Send {
    /// Name in the configuration.
    fn name(&self) -> &'static str;

    /// Its matrices for a projection of `inputs` to `outputs` at rank `r`, in the order of the buffers.
    fn parameters(&self, r: usize, inputs: usize, outputs: usize) -> Vec<Parameter>;

    /// Their starting values, in the same order.
    fn init(&self, init: Init, r: usize, inputs: usize, outputs: usize, key: [u64; 3]) -> Vec<Vec<f32>>;

    /// Projections of one x, which comes from `inputs` by the prologue, in order, each adapted or not.
    fn project(
        &self,
        tape: &mut Tape,
        prologue: Prologue,
        inputs: &[&Traced],
        members: Vec<Member>,
    ) -> Result<Vec<Traced>>;

    /// The change of the weight `[outputs, inputs]`, row-major, that has the same effect without dropout.
    fn delta(&self, values: &[&[f32]], r: usize, inputs: usize, outputs: usize, scale: f32) -> Vec<f32>;
}

/// Every method. Adding one is its file and its line here.
pub static METHODS: &[&dyn Method] = &[&crate::lora::Lora];

pub(crate) fn find(name: &str) -> Option<&'static dyn Method> {
    METHODS.iter().copied().find(|m| m.name() == name)
}

/// The dropout of a module's input, where one applies.
pub(crate) fn dropout(p: f32, seed: u64, module: u64, context: &HookContext) -> Option<Dropout> {
    let key = || DropoutKey {
        seed,
        epoch: context.epoch,
        module,
        rows: context.rows.clone(),
        positions: context.positions.clone(),
    };
    (p > 0.0 && context.training).then(|| Dropout { p, key: key() })
}
