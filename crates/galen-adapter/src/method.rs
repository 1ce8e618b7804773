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
    /// Rows and columns, or a vector's length.
    pub dims: Vec<usize>,
    /// Whether LoRA+ (Hayou et al. 2024) has it learn faster: B, and vectors.
    pub faster: bool,
}

impl Parameter {
    /// Number of its values.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An adapted projection's size and factor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    /// Rank R.
    pub r: usize,
    /// Input features.
    pub inputs: usize,
    /// Output features.
    pub outputs: usize,
    /// Factor of the change.
    pub scale: f32,
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
    /// What [`Method::constants`] made of them.
    pub constants: &'a [Traced],
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

    /// Name as people write it.
    fn shown(&self) -> &'static str;

    /// In a few words, for the documentation.
    fn about(&self) -> &'static str;

    /// Its matrices for a projection of `inputs` to `outputs` at rank `r`, in the order of the buffers. The pair of a
    /// low-rank branch comes first.
    fn parameters(&self, r: usize, inputs: usize, outputs: usize) -> Vec<Parameter>;

    /// Their starting values, in the same order. `base` is there where the caller has the model's weights.
    ///
    /// Errors: a method that starts from the weights, without them.
    fn init(
        &self,
        init: Init,
        extent: Extent,
        base: Option<&Projection>,
        key: [u64; 3],
    ) -> crate::Result<Vec<Vec<f32>>>;

    /// What it computes of its matrices and the frozen weight once for a pass or a sequence, where they lie, always as many. No
    /// gradient goes through them.
    fn constants(&self, _leaves: &[Traced], _extent: Extent, _base: &Projection) -> Result<Vec<Traced>> {
        Ok(Vec::new())
    }

    /// Projections of one x, which comes from `inputs` by the prologue, in order, each adapted or not.
    fn project(
        &self,
        tape: &mut Tape,
        prologue: Prologue,
        inputs: &[&Traced],
        members: Vec<Member>,
    ) -> Result<Vec<Traced>>;

    /// Changes the weight `[outputs, inputs]`, row-major, to the same effect without dropout, in f32.
    fn merge(&self, values: &[&[f32]], extent: Extent, weight: &mut [f32]);
}

/// Every method. Adding one is its file and its line here.
pub static METHODS: &[&dyn Method] = &[&crate::lora::Lora, &crate::dora::Dora];

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
