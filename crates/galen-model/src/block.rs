//! A decoder block: its frozen weights, and the vocabulary its architecture's file is written in.

use crate::cache::KvLayer;
use crate::generate::StepKernels;
use galen_ops::device::KvExtension;
use galen_ops::hook::{HookContext, ProjectionHook, Site};
use galen_ops::ops::{
    Activation, Add, Attention, AttentionShape, CachedAttention, Compute, Gated, Projection, Projections,
    Prologue, RmsNorm, StepAttention,
};
use galen_ops::ops::{Rope, RopeTable};
use galen_ops::{Result, Tape, Traced};
use galen_types::Segment;
use std::sync::Arc;

/// The linear projections of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Module {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

/// Every module with its Hugging Face name, in the order of the enum.
pub const MODULES: [(Module, &str); 7] = [
    (Module::Q, "self_attn.q_proj"),
    (Module::K, "self_attn.k_proj"),
    (Module::V, "self_attn.v_proj"),
    (Module::O, "self_attn.o_proj"),
    (Module::Gate, "mlp.gate_proj"),
    (Module::Up, "mlp.up_proj"),
    (Module::Down, "mlp.down_proj"),
];

impl Module {
    /// Hugging Face name within the block.
    pub fn name(self) -> &'static str {
        MODULES[self as usize].1
    }
}

/// Frozen weights of one block.
#[derive(Clone)]
pub struct Block {
    /// In the order of [`MODULES`].
    pub projections: Vec<Projection>,
    /// RMS norms by Hugging Face name.
    pub norms: Vec<(&'static str, Arc<[f32]>)>,
    /// Added to mean squares.
    pub eps: f32,
    /// Heads, scale and window.
    pub attention: AttentionShape,
    /// The gate's nonlinearity.
    pub activation: Activation,
    /// Which of the batch's rotary tables the block uses.
    pub rope: usize,
}

impl Block {
    /// The arithmetic of its products.
    fn compute(&self) -> Compute {
        self.projections.first().map_or(Compute::F32, |p| p.weight().compute())
    }
}

/// What attention sees.
pub enum Context<'a> {
    /// Segments of a batch, differentiable.
    Train(Arc<[Segment]>),
    /// Everything cached, then the new tokens of one sequence.
    Cached(&'a mut KvLayer),
    /// Everything cached, then one new token of each of these sequences.
    Step(Vec<&'a mut KvLayer>),
    /// Either of the two on an accelerator.
    Device(&'a KvExtension),
}

impl Context<'_> {
    /// Whether each row is the next token of a sequence of its own.
    fn is_step(&self) -> bool {
        match self {
            Context::Train(_) | Context::Cached(_) => false,
            Context::Step(_) => true,
            Context::Device(extension) => extension.is_step(),
        }
    }
}

/// A block at work on a batch.
pub struct BlockRun<'a> {
    /// Records the operations.
    pub tape: &'a mut Tape,
    /// The weights.
    pub block: &'a Block,
    /// Block number from 0.
    pub layer: usize,
    /// The adapter, if any, with this block's trainable tensors.
    pub hook: Option<(&'a dyn ProjectionHook, &'a [Traced])>,
    /// Dropout keys of the batch.
    pub hook_context: &'a HookContext,
    /// Rotary tables of the batch.
    pub ropes: &'a [RopeTable],
    /// What generation's few rows go through; training does not ask.
    pub kernels: StepKernels,
    /// What attention sees.
    pub context: Context<'a>,
}

impl BlockRun<'_> {
    /// The modules' projections of one x, adapted where an adapter covers them. x comes from `inputs` by the prologue.
    fn project<const N: usize>(
        &mut self,
        modules: [Module; N],
        prologue: Prologue,
        inputs: &[&Traced],
    ) -> Result<[Traced; N]> {
        let generating = !matches!(self.context, Context::Train(_));
        let decoding = generating && self.kernels == StepKernels::Blocks;
        let stepping = self.context.is_step();
        let bases =
            modules.map(|m| self.block.projections[m as usize].clone().decoding(decoding).stepping(stepping));
        let outputs = if let Some((hook, leaves)) = self.hook {
            let sites = modules.map(|m| Site { layer: self.layer, module: m.name() });
            hook.project(self.tape, leaves, &sites, prologue, inputs, &bases.each_ref(), self.hook_context)?
        } else {
            let members = bases.into_iter().map(|base| (base, None)).collect();
            self.tape.apply_many(Projections { prologue, members }, inputs)?
        };
        outputs.try_into().map_err(|outputs: Vec<Traced>| galen_ops::Error::Shape {
            op: "projections",
            what: format!("{} outputs of {N}", outputs.len()),
        })
    }

    /// The modules' projections of x after the norm of that name.
    pub fn normed<const N: usize>(
        &mut self,
        norm: &'static str,
        modules: [Module; N],
        x: &Traced,
    ) -> Result<[Traced; N]> {
        let norm = self.norm_of(norm)?;
        self.project(modules, Prologue::Norm(norm), &[x])
    }

    /// The module's projection of x.
    pub fn linear(&mut self, module: Module, x: &Traced) -> Result<Traced> {
        let [y] = self.project([module], Prologue::Plain, &[x])?;
        Ok(y)
    }

    /// The norm of that name. The loader has checked that the block has every norm its architecture lists.
    fn norm_of(&self, name: &'static str) -> Result<RmsNorm> {
        let Some((_, weight)) = self.block.norms.iter().find(|(n, _)| *n == name) else {
            return Err(galen_ops::Error::Shape { op: "norm", what: format!("the block has no `{name}`") });
        };
        Ok(RmsNorm { weight: weight.clone(), eps: self.block.eps })
    }

    /// x after the norm of that name.
    pub fn norm(&mut self, name: &'static str, x: &Traced) -> Result<Traced> {
        let norm = self.norm_of(name)?;
        self.tape.apply(norm, &[x])
    }

    /// Rotates q or k.
    pub fn rope(&mut self, x: &Traced) -> Result<Traced> {
        self.tape.apply(Rope { table: self.ropes[self.block.rope].clone() }, &[x])
    }

    /// Causal attention over what the context holds.
    pub fn attention(&mut self, q: &Traced, k: &Traced, v: &Traced) -> Result<Traced> {
        let shape = self.block.attention;
        match &mut self.context {
            Context::Train(segments) => {
                let compute = self.block.compute();
                self.tape.apply(Attention { shape, segments: segments.clone(), compute }, &[q, k, v])
            }
            Context::Cached(cache) => {
                cache.push(k.tensor()?, v.tensor()?)?;
                let compute = self.block.compute();
                let out = CachedAttention { shape, compute }.run(q.tensor()?, &cache.keys, &cache.values)?;
                Ok(Traced::constant(out))
            }
            Context::Step(caches) => {
                for (i, cache) in caches.iter_mut().enumerate() {
                    cache.push(&k.tensor()?.narrow(0, i, 1)?, &v.tensor()?.narrow(0, i, 1)?)?;
                }
                let seen: Vec<_> = caches.iter().map(|c| (&c.keys[..], &c.values[..])).collect();
                Ok(Traced::constant(StepAttention { shape }.run(q.tensor()?, &seen)?))
            }
            Context::Device(extension) => {
                let placed = [q.value().device()?, k.value().device()?, v.value().device()?];
                Ok(Traced::constant(extension.attention(self.layer, shape, placed)?))
            }
        }
    }

    /// `down(act(gate x) * up x)` of x after the norm of that name.
    pub fn feed_forward(&mut self, norm: &'static str, x: &Traced) -> Result<Traced> {
        let [gate, up] = self.normed(norm, [Module::Gate, Module::Up], x)?;
        let gated = Gated { activation: self.block.activation };
        let [y] = self.project([Module::Down], Prologue::Gated(gated), &[&gate, &up])?;
        Ok(y)
    }

    /// The residual sum.
    pub fn add(&mut self, a: &Traced, b: &Traced) -> Result<Traced> {
        self.tape.apply(Add, &[a, b])
    }
}
