//! What a run keeps on an accelerator: the adapter's values, their gradients and the optimiser's moments stay there from step to
//! step. The host gets a step's losses and its gradient norm, and everything for a checkpoint.

use crate::error::{Error, Result};
use galen_adapter::{Adapter, Placed};
use galen_ops::device::{AdamWStep, Memory, adamw, square_sum};
use galen_optim::{AdamW, StepNumbers};

/// The moments, beside the adapter's own buffers.
pub struct OnDevice {
    m: Memory,
    v: Memory,
}

/// The adapter's buffers; it was placed before.
fn placed(adapter: &Adapter) -> Result<&Placed> {
    let none = || galen_ops::Error::Device("the adapter does not lie on an accelerator".into());
    adapter.placed().ok_or_else(|| Error::Ops(none()))
}

impl OnDevice {
    /// Moments beside an adapter that lies on an accelerator ([`Adapter::place`]).
    pub fn new(adapter: &Adapter, optimizer: &AdamW) -> Result<Self> {
        let placed = placed(adapter)?;
        let upload = |moments: &[Vec<f32>]| {
            placed.on().upload_floats(&placed.spread(moments.iter().map(Vec::as_slice)))
        };
        Ok(Self { m: upload(&optimizer.m)?, v: upload(&optimizer.v)? })
    }

    /// L2 norm of all gradients. Waits.
    pub fn norm(&self, adapter: &Adapter) -> Result<f64> {
        let placed = placed(adapter)?;
        Ok(square_sum(placed.on(), placed.len(), placed.gradients())?.sqrt())
    }

    /// One step of [`AdamW::step`]'s; the gradients are zero afterwards.
    pub fn step(
        &self,
        adapter: &Adapter,
        optimizer: &mut AdamW,
        learning_rate: f64,
        factor: f32,
    ) -> Result<()> {
        let placed = placed(adapter)?;
        let StepNumbers { beta1, beta2, step_size, root, eps, decay } = optimizer.next_step(learning_rate);
        let step = AdamWStep { factor, beta1, beta2, step_size, root, eps, decay };
        let buffers = [placed.values(), placed.gradients(), &self.m, &self.v];
        Ok(adamw(placed.on(), placed.len(), buffers, Some(placed.rounded()), step)?)
    }

    /// Brings values and moments to the host.
    pub fn fetch(&self, adapter: &mut Adapter, optimizer: &mut AdamW) -> Result<()> {
        adapter.fetch()?;
        let placed = placed(adapter)?;
        for (from, to) in [(&self.m, &mut optimizer.m), (&self.v, &mut optimizer.v)] {
            let all = placed.on().download_floats(from)?;
            placed.gather(&all, to.iter_mut().map(Vec::as_mut_slice));
        }
        Ok(())
    }
}
