//! An adapter's values and gradients on an accelerator: one buffer each for all blocks, as the optimiser's kernel reads them.
//!
//! A pair lies as A `[P, in]` and B `[out, P]`, P being the rank in whole pieces of 8; vectors behind it, in whole pieces too. What they
//! do not fill is zero, gets gradients of zero and so stays zero. Products read the pair rounded; vectors are read in f32.

use crate::adapter::Adapter;
use crate::error::{Error, Result};
use galen_ops::device::{Accelerator, Backend as _, DeviceTensor, Memory};

/// Values of a piece.
const PIECE: usize = 8;

/// A projection's matrices: sizes, and where they begin, in values.
struct Place {
    r: usize,
    padded: usize,
    inputs: usize,
    outputs: usize,
    /// Vectors of as many values as there are outputs, behind the pair.
    vectors: usize,
    at: usize,
}

impl Place {
    fn b(&self) -> usize {
        self.at + self.padded * self.inputs
    }

    fn vector(&self, i: usize) -> usize {
        self.b() + self.outputs * self.padded + i * self.outputs.next_multiple_of(PIECE)
    }

    fn end(&self) -> usize {
        self.vector(self.vectors)
    }

    /// Where the host's values lie, in their order: (first here, how many).
    fn rows(&self) -> impl Iterator<Item = (usize, usize)> {
        let b = (0..self.outputs).map(|row| (self.b() + row * self.padded, self.r));
        let vectors = (0..self.vectors).map(|i| (self.vector(i), self.outputs));
        [(self.at, self.r * self.inputs)].into_iter().chain(b).chain(vectors)
    }
}

/// Where an adapter's values lie on an accelerator.
pub struct Placed {
    on: Accelerator,
    /// By block, in the order of its entries.
    places: Vec<Vec<Place>>,
    /// Whether it is trained there.
    trained: bool,
    /// f32; nothing where nobody reads them.
    values: Memory,
    /// f32, in the same places, where it is trained.
    gradients: Memory,
    /// bf16: what products read.
    rounded: Memory,
}

impl Placed {
    fn new(adapter: &Adapter, on: &Accelerator, trained: bool) -> Result<Self> {
        let method = adapter.method();
        let (mut places, mut at) = (Vec::new(), 0);
        for layer in adapter.layers() {
            let mut own = Vec::new();
            for e in &layer.entries {
                let (r, inputs, outputs) = (e.r, e.shape.inputs, e.shape.outputs);
                // The pair of a low-rank branch comes first.
                let vectors = method.parameters(r, inputs, outputs).len().saturating_sub(2);
                if inputs % PIECE != 0 || (vectors > 0 && outputs % PIECE != 0) {
                    let what = format!(
                        "`{}` has {inputs} inputs and {outputs} outputs, which are not whole pieces of 8",
                        e.shape.module
                    );
                    return Err(Error::Config(format!("{what}\nhint: `--device cpu`")));
                }
                own.push(Place { r, padded: r.next_multiple_of(PIECE), inputs, outputs, vectors, at });
                at = own.last().map_or(at, Place::end);
            }
            places.push(own);
        }
        let mut placed = Self {
            on: on.clone(),
            places,
            values: on.zeros(0)?,
            trained,
            gradients: on.zeros(if trained { 4 * at } else { 0 })?,
            rounded: on.zeros(0)?,
        };
        let values = placed.spread(adapter.buffers());
        if trained || placed.places.iter().flatten().any(|p| p.vectors > 0) {
            placed.values = on.upload_floats(&values)?;
        }
        let rounded: Vec<u8> = values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
        placed.rounded = on.upload(&rounded)?;
        Ok(placed)
    }

    /// Where it lies.
    pub fn on(&self) -> &Accelerator {
        &self.on
    }

    /// Whether there is room for gradients.
    pub fn is_trained(&self) -> bool {
        self.trained
    }

    /// Values of each buffer, those that only fill pieces included: a multiple of 8.
    pub fn len(&self) -> usize {
        self.places.iter().flatten().last().map_or(0, Place::end)
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

    /// The host's buffers, a block each, as the device's buffer. A score head behind them is the host's alone.
    pub fn spread<'a>(&self, buffers: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
        let mut all = vec![0f32; self.len()];
        for (places, buffer) in self.places.iter().zip(buffers) {
            let mut rest = buffer;
            for (at, n) in places.iter().flat_map(Place::rows) {
                let (own, later) = rest.split_at(n);
                all[at..at + n].copy_from_slice(own);
                rest = later;
            }
        }
        all
    }

    /// The device's buffer as the host's.
    pub fn gather<'a>(&self, all: &[f32], buffers: impl Iterator<Item = &'a mut [f32]>) {
        for (places, buffer) in self.places.iter().zip(buffers) {
            let mut rest = buffer;
            for (at, n) in places.iter().flat_map(Place::rows) {
                let (own, later) = rest.split_at_mut(n);
                own.copy_from_slice(&all[at..at + n]);
                rest = later;
            }
        }
    }

    /// A block's matrices, in order.
    fn leaves(&self, layer: usize) -> impl Iterator<Item = DeviceTensor> {
        let gradient = move |at: usize| self.trained.then(|| self.gradients.part(4 * at));
        let leaf = move |at: usize, rows, cols| {
            DeviceTensor::leaf(&self.on, (rows, cols), self.rounded.part(2 * at), gradient(at))
        };
        let vector = move |at: usize, n| {
            DeviceTensor::vector_leaf(&self.on, n, self.values.part(4 * at), gradient(at))
        };
        self.places.get(layer).into_iter().flatten().flat_map(move |p| {
            let pair = [leaf(p.at, p.padded, p.inputs), leaf(p.b(), p.outputs, p.padded)];
            pair.into_iter().chain((0..p.vectors).map(move |i| vector(p.vector(i), p.outputs)))
        })
    }
}

impl Adapter {
    /// Puts the values on an accelerator to be trained there. The host's stay as they are until [`Adapter::fetch`]. Errors: sizes
    /// without kernels, no memory.
    pub fn place(&mut self, on: &Accelerator) -> Result<()> {
        self.placed = Some(Placed::new(self, on, true)?.into());
        Ok(())
    }

    /// The same to answer or to be compared with: without room for gradients.
    pub fn place_frozen(&mut self, on: &Accelerator) -> Result<()> {
        self.placed = Some(Placed::new(self, on, false)?.into());
        Ok(())
    }

    /// Where the values lie on an accelerator, if they do.
    pub fn placed(&self) -> Option<&Placed> {
        self.placed.as_deref()
    }

    /// Takes over the accelerator's values; waits for them.
    pub fn fetch(&mut self) -> Result<()> {
        let Some(placed) = self.placed.clone().filter(|p| p.trained) else { return Ok(()) };
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

    /// A block's matrices on that accelerator.
    pub(crate) fn placed_leaves(
        &self,
        layer: usize,
        on: &Accelerator,
    ) -> galen_ops::Result<impl Iterator<Item = DeviceTensor>> {
        match &self.placed {
            Some(placed) if placed.on.is(on) => Ok(placed.leaves(layer)),
            _ => Err(galen_ops::Error::Device(format!(
                "the adapter does not lie on `{}`\nhint: `--device cpu`; please report this",
                on.name()
            ))),
        }
    }
}
