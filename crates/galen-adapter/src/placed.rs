//! An adapter's values and gradients on an accelerator: one buffer each for all blocks, as the optimiser's kernel reads them.
//!
//! A pair lies as A `[P, in]` and B `[out, P]`, P being the rank in whole pieces of 8. What the rank does not fill is zero, gets
//! gradients of zero and so stays zero.

use crate::adapter::{Adapter, Layer};
use crate::error::{Error, Result};
use galen_ops::Traced;
use galen_ops::device::{Accelerator, Backend as _, DeviceTensor, Memory};

/// Values of a piece.
const PIECE: usize = 8;

/// A pair's sizes and where it begins, in values.
struct Pair {
    r: usize,
    padded: usize,
    inputs: usize,
    outputs: usize,
    at: usize,
}

impl Pair {
    fn b(&self) -> usize {
        self.at + self.padded * self.inputs
    }

    fn end(&self) -> usize {
        self.b() + self.outputs * self.padded
    }
}

/// Where an adapter's values lie on an accelerator.
pub struct Placed {
    on: Accelerator,
    /// By block, in the order of its entries.
    pairs: Vec<Vec<Pair>>,
    /// f32.
    values: Memory,
    /// f32, in the same places.
    gradients: Memory,
    /// bf16: what products read.
    rounded: Memory,
}

impl Placed {
    fn new(adapter: &Adapter, on: &Accelerator) -> Result<Self> {
        let method = adapter.method();
        if method.name() != "lora" || adapter.score_head().is_some() {
            let what = if adapter.score_head().is_some() { "reward models" } else { method.shown() };
            return Err(Error::Config(format!(
                "training {what} on `{}` is not supported\nhint: `--device cpu`",
                on.name()
            )));
        }
        let (mut pairs, mut at) = (Vec::new(), 0);
        for layer in adapter.layers() {
            let mut own = Vec::new();
            for e in &layer.entries {
                let (r, inputs, outputs) = (e.r, e.shape.inputs, e.shape.outputs);
                if inputs % PIECE != 0 {
                    let what =
                        format!("`{}` has {inputs} inputs, which are not whole pieces of 8", e.shape.module);
                    return Err(Error::Config(format!("{what}\nhint: `--device cpu`")));
                }
                own.push(Pair { r, padded: r.next_multiple_of(PIECE), inputs, outputs, at });
                at = own.last().map_or(at, Pair::end);
            }
            pairs.push(own);
        }
        let mut placed = Self {
            on: on.clone(),
            pairs,
            values: on.zeros(0)?,
            gradients: on.zeros(4 * at)?,
            rounded: on.zeros(0)?,
        };
        let values = placed.spread(adapter.buffers());
        placed.values = on.upload_floats(&values)?;
        let rounded: Vec<u8> = values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
        placed.rounded = on.upload(&rounded)?;
        Ok(placed)
    }

    /// Where it lies.
    pub fn on(&self) -> &Accelerator {
        &self.on
    }

    /// Values of each buffer, those that only fill pieces included: a multiple of 8.
    pub fn len(&self) -> usize {
        self.pairs.iter().flatten().last().map_or(0, Pair::end)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values, f32.
    pub fn values(&self) -> &Memory {
        &self.values
    }

    /// Their gradients, f32, which passes add to.
    pub fn gradients(&self) -> &Memory {
        &self.gradients
    }

    /// The values that products read, bf16: to be kept equal to the others.
    pub fn rounded(&self) -> &Memory {
        &self.rounded
    }

    /// The host's buffers, a block each, as the device's buffer.
    pub fn spread<'a>(&self, buffers: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
        let mut all = vec![0f32; self.len()];
        for (pairs, buffer) in self.pairs.iter().zip(buffers) {
            let mut rest = buffer;
            for p in pairs {
                let (a, later) = rest.split_at(p.r * p.inputs);
                let (b, later) = later.split_at(p.outputs * p.r);
                all[p.at..p.at + a.len()].copy_from_slice(a);
                for (to, from) in all[p.b()..p.end()].chunks_exact_mut(p.padded).zip(b.chunks_exact(p.r)) {
                    to[..p.r].copy_from_slice(from);
                }
                rest = later;
            }
        }
        all
    }

    /// The device's buffer as the host's.
    pub fn gather<'a>(&self, all: &[f32], buffers: impl Iterator<Item = &'a mut [f32]>) {
        for (pairs, buffer) in self.pairs.iter().zip(buffers) {
            let mut rest = buffer;
            for p in pairs {
                let (a, later) = rest.split_at_mut(p.r * p.inputs);
                let (b, later) = later.split_at_mut(p.outputs * p.r);
                a.copy_from_slice(&all[p.at..p.at + a.len()]);
                for (from, to) in all[p.b()..p.end()].chunks_exact(p.padded).zip(b.chunks_exact_mut(p.r)) {
                    to.copy_from_slice(&from[..p.r]);
                }
                rest = later;
            }
        }
    }

    /// A block's A and B, in order.
    pub(crate) fn leaves(&self, layer: usize) -> impl Iterator<Item = DeviceTensor> {
        let leaf = |at: usize, rows, cols| {
            let (values, gradient) = (self.rounded.part(2 * at), self.gradients.part(4 * at));
            DeviceTensor::leaf(&self.on, (rows, cols), values, gradient)
        };
        self.pairs
            .get(layer)
            .into_iter()
            .flatten()
            .flat_map(move |p| [leaf(p.at, p.padded, p.inputs), leaf(p.b(), p.outputs, p.padded)])
    }
}

impl Adapter {
    /// Puts the values on an accelerator, where passes on it then find them. The host's stay as they are until
    /// [`Adapter::fetch`]. Errors: a method without kernels, no memory.
    pub fn place(&mut self, on: &Accelerator) -> Result<()> {
        self.placed = Some(Placed::new(self, on)?.into());
        Ok(())
    }

    /// Where the values lie on an accelerator, if they do.
    pub fn placed(&self) -> Option<&Placed> {
        self.placed.as_deref()
    }

    /// Takes over the accelerator's values; waits for them.
    pub fn fetch(&mut self) -> Result<()> {
        let Some(placed) = self.placed.clone() else { return Ok(()) };
        let all = placed.on.download_floats(&placed.values)?;
        placed.gather(&all, self.buffers_mut());
        Ok(())
    }

    /// The same, and gives the accelerator's memory back.
    pub fn leave(&mut self) -> Result<()> {
        self.fetch()?;
        self.placed = None;
        Ok(())
    }

    /// A block's leaves for a tape on an accelerator.
    pub(crate) fn placed_leaves(
        &self,
        layer: usize,
        on: &Accelerator,
        mut enter: impl FnMut(DeviceTensor) -> Traced,
    ) -> galen_ops::Result<Vec<Traced>> {
        let covered = self.layers().get(layer).is_some_and(|l: &Layer| !l.entries.is_empty());
        match &self.placed {
            _ if !covered => Ok(vec![]),
            Some(placed) if placed.on.is(on) => Ok(placed.leaves(layer).map(&mut enter).collect()),
            _ => Err(galen_ops::Error::Device(format!("the adapter does not lie on `{}`", on.name()))),
        }
    }
}
