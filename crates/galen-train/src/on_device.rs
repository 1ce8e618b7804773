//! What a run keeps on accelerators: the adapter's values, their gradients and the optimiser's moments stay there from step to
//! step. The host gets a step's losses and its gradient norm, and everything for a checkpoint.
//!
//! Of several devices each has the whole of it. Micro-batches are dealt among them ([`crate::Place::each`]), gradients are
//! added up once a step, and all make the same step with the same bits.

use crate::error::{Error, Result};
use galen_adapter::{Adapter, Placed};
use galen_model::Model;
use galen_ops::device::{Backend as _, Group, Memory, adamw, square_sum};
use galen_optim::AdamW;
use galen_types::AdamWStep;

/// The moments beside an adapter's own buffers, and which values learn faster: a byte each, where any do.
struct Moments {
    m: Memory,
    v: Memory,
    faster: Option<Memory>,
}

/// A further device: the same model and the same adapter, there.
pub struct Replica<'a> {
    /// The base.
    pub model: &'a Model,
    /// What is trained.
    pub adapter: Adapter,
}

/// An adapter in training on accelerators.
pub struct OnDevice<'a> {
    /// By device, the run's own first.
    moments: Vec<Moments>,
    others: Vec<Replica<'a>>,
    group: Option<&'a Group>,
}

/// The adapter's buffers; it was placed before.
fn placed(adapter: &Adapter) -> Result<&Placed> {
    let wrong = |what: &str| Error::Ops(galen_ops::Error::Device(format!("the adapter {what}")));
    match adapter.placed() {
        Some(placed) if placed.is_trained() => Ok(placed),
        Some(_) => Err(wrong("was not placed to be trained")),
        None => Err(wrong("does not lie on an accelerator")),
    }
}

impl Moments {
    fn new(adapter: &Adapter, optimizer: &AdamW) -> Result<Self> {
        let placed = placed(adapter)?;
        let upload = |moments: &[Vec<f32>]| {
            placed.on().upload_floats(&placed.spread(moments.iter().map(Vec::as_slice)))
        };
        let faster = optimizer.faster.as_ref().map(|faster| {
            let mut marks: Vec<Vec<f32>> = optimizer.m.iter().map(|m| vec![0.0; m.len()]).collect();
            for (marks, ranges) in marks.iter_mut().zip(&faster.ranges) {
                ranges.iter().for_each(|range| marks[range.clone()].fill(1.0));
            }
            let marks = placed.spread(marks.iter().map(Vec::as_slice));
            placed.on().upload(&marks.iter().map(|mark| u8::from(*mark > 0.0)).collect::<Vec<_>>())
        });
        Ok(Self { m: upload(&optimizer.m)?, v: upload(&optimizer.v)?, faster: faster.transpose()? })
    }
}

impl<'a> OnDevice<'a> {
    /// Moments beside an adapter that lies on an accelerator ([`Adapter::place`]).
    pub fn new(adapter: &Adapter, optimizer: &AdamW) -> Result<Self> {
        Ok(Self { moments: vec![Moments::new(adapter, optimizer)?], others: vec![], group: None })
    }

    /// The same, and on the devices of `others` too. `group`: the adapter's device and theirs, in order.
    pub fn over(
        adapter: &Adapter,
        optimizer: &AdamW,
        others: &'a [Model],
        group: Option<&'a Group>,
    ) -> Result<Self> {
        let mut all = Self { group, ..Self::new(adapter, optimizer)? };
        for model in others {
            let mut adapter = adapter.clone();
            let on = model.device().ok_or_else(|| {
                Error::Ops(galen_ops::Error::Device("a further model that lies on no accelerator".into()))
            })?;
            adapter.place(on)?;
            all.moments.push(Moments::new(&adapter, optimizer)?);
            all.others.push(Replica { model, adapter });
        }
        Ok(all)
    }

    /// The further devices.
    pub fn others(&self) -> &[Replica<'a>] {
        &self.others
    }

    /// The adapter on every device.
    fn adapters<'b>(&'b self, own: &'b Adapter) -> impl Iterator<Item = &'b Adapter> {
        [own].into_iter().chain(self.others.iter().map(|r| &r.adapter))
    }

    /// Adds up all devices' gradients; their L2 norm. Waits.
    pub fn norm(&self, adapter: &Adapter) -> Result<f64> {
        let own = placed(adapter)?;
        if let Some(group) = self.group {
            let all =
                self.adapters(adapter).map(|a| Ok(placed(a)?.gradients())).collect::<Result<Vec<_>>>()?;
            group.sum(&all, own.len())?;
        }
        Ok(square_sum(own.on(), own.len(), own.gradients())?.sqrt())
    }

    /// One step of [`AdamW::step`]'s on every device; the gradients are zero afterwards. Gives the step's numbers.
    pub fn step(
        &self,
        adapter: &Adapter,
        optimizer: &mut AdamW,
        learning_rate: f64,
        factor: f32,
    ) -> Result<AdamWStep> {
        let step = optimizer.next_step(learning_rate, factor);
        for (adapter, Moments { m, v, faster }) in self.adapters(adapter).zip(&self.moments) {
            let placed = placed(adapter)?;
            let buffers = [placed.values(), placed.gradients(), m, v];
            adamw(placed.on(), placed.len(), buffers, Some(placed.rounded()), faster.as_ref(), step)?;
        }
        Ok(step)
    }

    /// The score head's part of that step: the head is the host's, and the same for every device.
    pub fn step_head(
        &mut self,
        adapter: &mut Adapter,
        optimizer: &mut AdamW,
        gradient: &[f32],
        step: AdamWStep,
    ) {
        let Some(head) = adapter.buffers_mut().last() else { return };
        optimizer.step_last(step, head, gradient);
        for other in &mut self.others {
            if let Some(own) = other.adapter.buffers_mut().last() {
                own.copy_from_slice(head);
            }
        }
    }

    /// Brings values and moments to the host.
    pub fn fetch(&self, adapter: &mut Adapter, optimizer: &mut AdamW) -> Result<()> {
        adapter.fetch()?;
        let placed = placed(adapter)?;
        for Moments { m, v, .. } in self.moments.iter().take(1) {
            for (from, to) in [(m, &mut optimizer.m), (v, &mut optimizer.v)] {
                let all = placed.on().download_floats(from)?;
                placed.gather(&all, to.iter_mut().map(Vec::as_mut_slice));
            }
        }
        Ok(())
    }
}
