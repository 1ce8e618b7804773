//! Where an adapter meets a frozen projection. The model asks; `galen-adapter` answers; neither knows the other.

use crate::error::Result;
use crate::ops::{Projection, Prologue};
use crate::tape::{Tape, Traced};
use std::sync::Arc;

/// A projection's place in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Site {
    /// Block number from 0.
    pub layer: usize,
    /// Hugging Face name within the block: `self_attn.q_proj`.
    pub module: &'static str,
}

/// What keys a dropout mask, and whether there is one.
#[derive(Debug, Clone)]
pub struct HookContext {
    /// Data-set row of each token.
    pub rows: Arc<[u64]>,
    /// Position of each token in its row.
    pub positions: Arc<[u32]>,
    /// Pass over the data.
    pub epoch: u64,
    /// False in evaluation: nothing is dropped.
    pub training: bool,
}

/// A model's frozen projections, by their places.
pub trait Bases: Sync {
    /// The projection there; none where there is none.
    fn base(&self, site: Site) -> Option<&Projection>;
}

/// An adapter over the projections of a model.
pub trait ProjectionHook: Sync {
    /// Enters a block's trainable tensors into its tape, in a fixed order; behind them, without gradients, what the adapter
    /// computes of them and of the bases once for a pass or a sequence.
    fn leaves(&self, layer: usize, bases: &dyn Bases, tape: &mut Tape) -> Result<Vec<Traced>>;

    /// Whether a block has any.
    fn has_leaves(&self, layer: usize) -> bool;

    /// The adapted projections of one x by the modules of a block, in order; x comes from `inputs` by the prologue, and
    /// `leaves` are the block's, from [`ProjectionHook::leaves`].
    fn project(
        &self,
        tape: &mut Tape,
        leaves: &[Traced],
        sites: &[Site],
        prologue: Prologue,
        inputs: &[&Traced],
        bases: &[&Projection],
        context: &HookContext,
    ) -> Result<Vec<Traced>>;
}
