//! An adapter over a model: its matrices in one flat f32 buffer a block, and a reward model's head in a further one.

use crate::config::{AdapterConfig, scale};
use crate::error::{Error, Result};
use crate::method::{self, Adapted, Extent, Member, Method, dropout};
use crate::placed::Placed;
use crate::score;
use crate::targets::ModuleShape;
use galen_ops::hook::{Bases, HookContext, ProjectionHook, Site};
use galen_ops::ops::{Projection, Prologue};
use galen_ops::tensor::f32_tensor;
use galen_ops::{Tape, Traced};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// One adapted projection.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The projection.
    pub shape: ModuleShape,
    /// Its rank.
    pub r: usize,
    /// Factor of its low-rank branch.
    pub scale: f32,
    /// Where each of its matrices lies in the block's buffer, in the method's order.
    pub ranges: Vec<Range<usize>>,
}

impl Entry {
    pub(crate) fn extent(&self) -> Extent {
        let ModuleShape { inputs, outputs, .. } = self.shape;
        Extent { r: self.r, inputs, outputs, scale: self.scale }
    }

    fn site(&self) -> Site {
        Site { layer: self.shape.layer, module: self.shape.module }
    }
}

/// A block's part of the adapter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layer {
    /// All its matrices, end to end.
    pub values: Vec<f32>,
    /// What they belong to, in order.
    pub entries: Vec<Entry>,
}

/// An adapter's configuration and values.
#[derive(Clone)]
pub struct Adapter {
    /// What it was made from.
    pub config: AdapterConfig,
    method: &'static dyn Method,
    layers: Vec<Layer>,
    pub(crate) score_head: Option<Vec<f32>>,
    pub(crate) placed: Option<Arc<Placed>>,
}

impl Adapter {
    /// A fresh adapter over the chosen subset of `modules`. Errors: a method that starts from the base's weights, which
    /// [`Adapter::over`] has.
    pub fn new(config: AdapterConfig, modules: &[ModuleShape]) -> Result<Self> {
        Self::over(config, modules, &Nowhere)
    }

    /// The same over a model at hand, for every method.
    pub fn over(config: AdapterConfig, modules: &[ModuleShape], bases: &dyn Bases) -> Result<Self> {
        let chosen = config.targets.select(modules, config.layers.as_deref())?;
        let (r, rslora, alpha) = (config.r, config.rslora, config.alpha);
        let with_rank = chosen.into_iter().map(|shape| (shape, r, scale(alpha, r, rslora) as f32)).collect();
        let mut adapter = Self::zeros(config, with_rank)?;
        let (init, seed) = (adapter.config.init, adapter.config.seed);
        let method = adapter.method;
        adapter.layers.par_iter_mut().try_for_each(|layer| {
            for entry in &layer.entries {
                let s = &entry.shape;
                let key = [seed, s.layer as u64, name_key(s.module)];
                let start = method.init(init, entry.extent(), bases.base(entry.site()), key)?;
                for (range, values) in entry.ranges.iter().zip(start) {
                    if range.len() != values.len() {
                        let (layer, module) = (s.layer, s.module);
                        let what = format!("`layers.{layer}.{module}` of the base has another size");
                        return Err(Error::Config(what));
                    }
                    layer.values[range.clone()].copy_from_slice(&values);
                }
            }
            Ok(())
        })?;
        Ok(adapter)
    }

    /// An adapter of zeros over (projection, rank, scale), to be filled. Errors: an unknown method, a rank beyond reason.
    pub fn zeros(config: AdapterConfig, chosen: Vec<(ModuleShape, usize, f32)>) -> Result<Self> {
        let Some(method) = method::find(&config.method) else {
            return Err(Error::Config(format!("adapter method `{}` is unknown", config.method)));
        };
        let mut layers = Vec::new();
        for (shape, r, scale) in chosen {
            if r == 0 || r > shape.inputs.min(shape.outputs).max(1) * 64 {
                return Err(Error::Config(format!(
                    "rank {r} for a projection of {} to {}",
                    shape.inputs, shape.outputs
                )));
            }
            if layers.len() <= shape.layer {
                layers.resize_with(shape.layer + 1, Layer::default);
            }
            let layer: &mut Layer = &mut layers[shape.layer];
            let mut ranges = Vec::new();
            for p in method.parameters(r, shape.inputs, shape.outputs) {
                let start = layer.values.len();
                layer.values.resize(start + p.len(), 0.0);
                ranges.push(start..layer.values.len());
            }
            layer.entries.push(Entry { shape, r, scale, ranges });
        }
        Ok(Self { config, method, layers, score_head: None, placed: None })
    }

    /// The adapter's parts by block; blocks it does not cover are empty, or missing at the end.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// All trainable values, a buffer a block and then the score head's where there is one: what gradients and the optimiser's
    /// moments are laid out by.
    pub fn buffers(&self) -> impl Iterator<Item = &[f32]> {
        self.layers.iter().map(|l| &l.values[..]).chain(self.score_head.as_deref())
    }

    /// The same, for the optimiser.
    pub fn buffers_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.layers.iter_mut().map(|l| &mut l.values[..]).chain(self.score_head.as_deref_mut())
    }

    /// Number of trainable values.
    pub fn n_parameters(&self) -> usize {
        self.buffers().map(<[f32]>::len).sum()
    }

    /// Where the values lie that LoRA+ has learn faster, by block.
    pub fn faster(&self) -> Vec<Vec<Range<usize>>> {
        let of_entry = |e: &Entry| {
            let parameters = self.method.parameters(e.r, e.shape.inputs, e.shape.outputs);
            let ranges = parameters.into_iter().zip(e.ranges.clone());
            ranges.filter(|(p, _)| p.faster).map(|(_, range)| range).collect::<Vec<_>>()
        };
        self.layers.iter().map(|layer| layer.entries.iter().flat_map(of_entry).collect()).collect()
    }

    /// The method.
    pub fn method(&self) -> &'static dyn Method {
        self.method
    }

    /// Every matrix by PEFT's key, with its shape and values, in order of blocks; then the score head.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Vec<usize>, &[f32])> {
        let head = self.score_head.iter().map(|w| (score::KEY.to_owned(), vec![1, w.len()], &w[..]));
        let of_blocks = self.layers.iter().flat_map(move |layer| {
            layer.entries.iter().flat_map(move |e| {
                let s = &e.shape;
                self.method.parameters(e.r, s.inputs, s.outputs).into_iter().zip(&e.ranges).map(
                    move |(p, range)| {
                        let key =
                            format!("base_model.model.model.layers.{}.{}.{}", s.layer, s.module, p.suffix);
                        (key, p.dims, &layer.values[range.clone()])
                    },
                )
            })
        });
        of_blocks.chain(head)
    }

    /// Whether it changes that projection.
    pub fn covers(&self, layer: usize, module: &str) -> bool {
        self.layers.get(layer).is_some_and(|l| l.entries.iter().any(|e| e.shape.module == module))
    }

    /// Replaces one matrix's values. `key` is one of [`Adapter::tensors`]; the length must fit.
    pub fn set(&mut self, key: &str, values: &[f32]) -> bool {
        if let Some(head) = self.score_head.as_mut().filter(|h| key == score::KEY && h.len() == values.len())
        {
            head.copy_from_slice(values);
            return true;
        }
        let method = self.method;
        for layer in &mut self.layers {
            for e in &layer.entries {
                let s = &e.shape;
                let prefix = format!("base_model.model.model.layers.{}.{}.", s.layer, s.module);
                let Some(suffix) = key.strip_prefix(&prefix) else { continue };
                for (p, range) in method.parameters(e.r, s.inputs, s.outputs).iter().zip(&e.ranges) {
                    if p.suffix == suffix && range.len() == values.len() {
                        layer.values[range.clone()].copy_from_slice(values);
                        return true;
                    }
                }
            }
        }
        false
    }
}

/// A stable number for a module's name, to key random numbers.
pub(crate) fn name_key(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// No model at hand.
struct Nowhere;

impl Bases for Nowhere {
    fn base(&self, _: Site) -> Option<&Projection> {
        None
    }
}

impl Adapter {
    /// A block's matrices on the CPU.
    fn host_leaves(&self, layer: usize, tape: &mut Tape) -> galen_ops::Result<Vec<Traced>> {
        let Layer { values, entries } = &self.layers[layer];
        let mut leaves = Vec::new();
        for e in entries {
            let parameters = self.method.parameters(e.r, e.shape.inputs, e.shape.outputs);
            for (p, range) in parameters.into_iter().zip(&e.ranges) {
                leaves.push(tape.leaf(f32_tensor(values[range.clone()].to_vec(), p.dims)?));
            }
        }
        Ok(leaves)
    }
}

impl ProjectionHook for Adapter {
    fn leaves(&self, layer: usize, bases: &dyn Bases, tape: &mut Tape) -> galen_ops::Result<Vec<Traced>> {
        if !self.has_leaves(layer) {
            return Ok(vec![]);
        }
        let mut leaves = match tape.device().cloned() {
            Some(on) => self.placed_leaves(layer, &on)?.map(|tensor| tape.leaf(tensor)).collect(),
            None => self.host_leaves(layer, tape)?,
        };
        let (mut constants, mut first) = (Vec::new(), 0);
        for e in &self.layers[layer].entries {
            let own = first..first + e.ranges.len();
            first = own.end;
            let Some(base) = bases.base(e.site()) else {
                let what = format!("the base has no `layers.{}.{}`", e.shape.layer, e.shape.module);
                return Err(galen_ops::Error::Shape { op: "adapter", what });
            };
            constants.extend(self.method.constants(&leaves[own], e.extent(), base)?);
        }
        leaves.append(&mut constants);
        Ok(leaves)
    }

    fn has_leaves(&self, layer: usize) -> bool {
        self.layers.get(layer).is_some_and(|l| !l.entries.is_empty())
    }

    fn project(
        &self,
        tape: &mut Tape,
        leaves: &[Traced],
        sites: &[Site],
        prologue: Prologue,
        inputs: &[&Traced],
        bases: &[&Projection],
        context: &HookContext,
    ) -> galen_ops::Result<Vec<Traced>> {
        let mut members = Vec::with_capacity(bases.len());
        for (site, base) in sites.iter().zip(bases) {
            let entries = self.layers.get(site.layer).map_or(&[][..], |l| &l.entries);
            let trained = entries.iter().map(|e| e.ranges.len()).sum::<usize>().min(leaves.len());
            let (leaves, constants) = leaves.split_at(trained);
            let each = constants.len() / entries.len().max(1);
            let mut adapted = None;
            let mut first = 0;
            for (i, e) in entries.iter().enumerate() {
                let n = e.ranges.len();
                if e.shape.module == site.module {
                    let module = (site.layer as u64) << 32 ^ name_key(site.module);
                    let dropout = dropout(self.config.dropout, self.config.seed, module, context);
                    let (leaves, constants) = (&leaves[first..first + n], &constants[i * each..][..each]);
                    adapted = Some(Adapted { leaves, constants, dropout, scale: e.scale });
                }
                first += n;
            }
            members.push(Member { base, adapted });
        }
        self.method.project(tape, prologue, inputs, members)
    }
}
