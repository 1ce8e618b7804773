//! Text from the model: cached decoding of one sequence, or of several at once.

use crate::block::{BlockRun, Context};
use crate::cache::Cache;
use crate::model::Model;
use crate::routed::{Routed, Run};
use galen_ops::device::{KvExtension, Value};
use galen_ops::hook::{HookContext, ProjectionHook};

use galen_ops::ops::{Projection, Projections, RmsNorm, embed, embed_on, logits, logits_on};
use galen_ops::tensor::f32_view;
use galen_ops::{Error, Result, Tape, Traced};
use std::sync::{Arc, OnceLock};

/// The adapter's matrices as the blocks take them, made once for all sequences of a family.
type Leaves = Arc<OnceLock<Vec<Vec<Traced>>>>;

/// Which kernels a step of generation goes through. In both a sequence's bits depend neither on the sequences beside
/// it nor on threads; from one to the other they differ within rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StepKernels {
    /// All rows share a reading of the stored blocks, eight of them its decoding: the fastest for a few sequences.
    #[default]
    Blocks,
    /// Those of training's passes, whatever the number of rows: the fastest for many sequences.
    Passes,
    /// The same for the base, and each adapter's branch apart from it, in f32 as [`StepKernels::Blocks`] has it: so rows
    /// of different adapters share the products with the base.
    PassesApart,
}

/// A family's adapter.
#[derive(Clone)]
enum Hook<'a> {
    Of(Option<&'a dyn ProjectionHook>),
    Shared(Arc<dyn ProjectionHook + Send>),
}

impl Hook<'_> {
    fn get(&self) -> Option<&dyn ProjectionHook> {
        match self {
            Self::Of(hook) => *hook,
            Self::Shared(hook) => Some(&**hook),
        }
    }
}

/// One sequence being extended; a clone goes on from the same tokens. Uses the training projections, so what is
/// measured is what was trained. The adapter's values are those at the first token of a family.
#[derive(Clone)]
pub struct Session<'a> {
    model: &'a Model,
    kernels: StepKernels,
    hook: Hook<'a>,
    leaves: Leaves,
    cache: Cache,
    tokens: usize,
}

impl<'a> Session<'a> {
    /// Tokens of a prompt that go through the model at once: bounds the memory of a long prompt. Feeding a prompt in
    /// parts of so many gives the bits of feeding it at once.
    pub const PREFILL_TOKENS: usize = 512;

    /// An empty sequence.
    pub fn new(model: &'a Model, hook: Option<&'a dyn ProjectionHook>) -> Self {
        Self::of(model, Hook::Of(hook))
    }

    /// An empty sequence that keeps its adapter: for adapters that come and go while others are at work.
    pub fn shared(model: &'a Model, hook: Arc<dyn ProjectionHook + Send>) -> Self {
        Self::of(model, Hook::Shared(hook))
    }

    fn of(model: &'a Model, hook: Hook<'a>) -> Self {
        let (kernels, leaves) = (StepKernels::default(), Leaves::default());
        Self { model, kernels, hook, leaves, cache: model.cache(), tokens: 0 }
    }

    /// The same sequence, its steps and those of later siblings and clones through other kernels.
    #[must_use]
    pub fn with_kernels(self, kernels: StepKernels) -> Self {
        Self { kernels, ..self }
    }

    /// An empty sequence over the same model and adapter: the two can step together.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self { leaves: self.leaves.clone(), kernels: self.kernels, ..Self::of(self.model, self.hook.clone()) }
    }

    /// Tokens seen so far.
    pub fn len(&self) -> usize {
        self.tokens
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.tokens == 0
    }

    /// Appends tokens (at least one) and gives the logits `[V]` after the last.
    pub fn feed(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        if ids.is_empty() {
            return Err(Error::Shape { op: "feed", what: "no token to append".into() });
        }
        // Within the pool: from outside of it, every product would wake its threads anew.
        rayon::scope(|_| {
            let mut last = None;
            for ids in ids.chunks(Self::PREFILL_TOKENS) {
                last = Some(extend(&mut [self], ids)?);
            }
            last.map_or_else(|| Ok(Vec::new()), |last| head(self.model, self.kernels, &last))
        })
    }

    /// Appends one token to each of several sequences over one model and gives the logits `[M, V]`, row by row: for
    /// each the bits that [`Session::feed`] would have given. Each base weight is read once for all; siblings side by
    /// side share the products of their adapter. Errors: sequences over other models or through other kernels, of
    /// different families through [`StepKernels::Passes`] (there a branch is part of the base's product), or another
    /// number of tokens.
    pub fn step(sessions: &mut [&mut Session<'a>], ids: &[u32]) -> Result<Vec<f32>> {
        let fail = |what: String| Err(Error::Shape { op: "step", what });
        let Some(first) = sessions.first() else { return fail("no sequence".into()) };
        let (model, kernels) = (first.model, first.kernels);
        if sessions.len() != ids.len() {
            return fail(format!("{} tokens for {} sequences", ids.len(), sessions.len()));
        }
        if !sessions.iter().all(|s| std::ptr::eq(s.model, model) && s.kernels == kernels) {
            return fail("sequences over different models".into());
        }
        let leaves = first.leaves.clone();
        let one_family = sessions.iter().all(|s| Arc::ptr_eq(&s.leaves, &leaves));
        if kernels == StepKernels::Passes && !one_family {
            return fail("sequences of different families".into());
        }
        rayon::scope(|_| match model.device() {
            // There is no product of rows under different adapters there: a family at a time.
            Some(_) if !one_family => {
                let (mut logits, mut first) = (Vec::new(), 0);
                for family in sessions.chunk_by_mut(|a, b| Arc::ptr_eq(&a.leaves, &b.leaves)) {
                    let own = &ids[first..first + family.len()];
                    first += family.len();
                    logits.append(&mut head(model, kernels, &extend(family, own)?)?);
                }
                Ok(logits)
            }
            _ => head(model, kernels, &extend(sessions, ids)?),
        })
    }

    fn leaves(&self) -> Result<&[Vec<Traced>]> {
        if let Some(leaves) = self.leaves.get() {
            return Ok(leaves);
        }
        let mut made = Vec::with_capacity(self.model.blocks.len());
        if let Some(hook) = self.hook.get() {
            for layer in 0..self.model.blocks.len() {
                let mut tape = Tape::frozen().on(self.model.device());
                made.push(hook.leaves(layer, self.model, &mut tape)?);
            }
        }
        Ok(self.leaves.get_or_init(|| made))
    }
}

/// Logits `[M, V]` of hidden states `[M, C]`, each a sequence's last. Waits for an accelerator.
fn head(model: &Model, kernels: StepKernels, hidden: &Traced) -> Result<Vec<f32>> {
    let norm = RmsNorm { weight: model.final_norm.clone(), eps: model.eps };
    let hidden = Tape::frozen().on(model.device()).apply(norm, &[hidden])?;
    if let Some(on) = model.device() {
        return logits_on(on, model.head.matrix(), hidden.value().device()?);
    }
    match kernels {
        StepKernels::Blocks => logits(model.head.matrix(), &f32_view(hidden.tensor()?)?),
        StepKernels::Passes | StepKernels::PassesApart => {
            let product = Projections::frozen(Projection::new(model.head.clone(), None)?);
            let out = Tape::frozen().apply_many(product, &[&hidden])?;
            out.first().map_or_else(|| Ok(Vec::new()), |out| Ok(f32_view(out.tensor()?)?.to_vec()))
        }
    }
}

/// Siblings side by side: how many, and what they share.
fn families<'a>(sessions: &[&mut Session<'a>]) -> Result<Vec<(usize, Hook<'a>, Leaves)>> {
    let mut families: Vec<(usize, Hook, Leaves)> = Vec::new();
    for session in sessions {
        match families.last_mut() {
            Some((rows, _, leaves)) if Arc::ptr_eq(leaves, &session.leaves) => *rows += 1,
            _ => {
                session.leaves()?;
                families.push((1, session.hook.clone(), session.leaves.clone()));
            }
        }
    }
    Ok(families)
}

/// Hidden states `[M, C]` of the last tokens, as they leave the blocks: of the last of several tokens of one sequence, or of one token
/// of each of several.
fn extend(sessions: &mut [&mut Session], ids: &[u32]) -> Result<Traced> {
    let [first, ..] = sessions else { return Err(Error::Shape { op: "step", what: "no sequence".into() }) };
    let (model, kernels) = (first.model, first.kernels);
    let families = families(sessions)?;
    let runs: Vec<Run> = families
        .iter()
        .map(|(rows, hook, leaves)| Run {
            rows: *rows,
            hook: hook.get(),
            leaves: leaves.get().map_or(&[][..], |l| &l[..]),
        })
        .collect();
    let routed = Routed { runs: &runs };
    let together = sessions.len() == ids.len();
    let apart = kernels == StepKernels::PassesApart && together && model.device().is_none();
    let positions: Vec<u32> = if together {
        sessions.iter().map(|s| s.tokens as u32).collect()
    } else {
        (0..ids.len()).map(|i| (sessions[0].tokens + i) as u32).collect()
    };
    let context = HookContext {
        rows: vec![0; ids.len()].into(),
        positions: positions[..].into(),
        epoch: 0,
        training: false,
    };
    let ropes = model.rope_tables(&positions);
    let placed = placed(sessions, ids.len())?;
    let mut hidden = match model.device() {
        None => Traced::constant(embed(&model.embedding, ids, model.embedding_scale)?),
        Some(on) => Traced::constant(embed_on(on, &model.embedding, ids, model.embedding_scale)?),
    };
    for (layer, block) in model.blocks.iter().enumerate() {
        let mut run = BlockRun {
            tape: &mut Tape::frozen().on(model.device()),
            block,
            layer,
            hook: match &runs[..] {
                [one] if !apart => one.hook.map(|h| (h, one.leaves_of(layer))),
                _ => Some((&routed, &[])),
            },
            hook_context: &context,
            ropes: &ropes,
            kernels,
            context: match &placed {
                Some(extension) => Context::Device(extension),
                None if together => {
                    Context::Step(sessions.iter_mut().map(|s| s.cache.layer(layer)).collect::<Result<_>>()?)
                }
                None => Context::Cached(sessions[0].cache.layer(layer)?),
            },
        };
        hidden = model.architecture.block(&mut run, &hidden)?;
    }
    let new = if together { 1 } else { ids.len() };
    sessions.iter_mut().for_each(|s| s.tokens += new);
    let kept = sessions.len();
    Ok(match hidden.value() {
        Value::Host(all) => Traced::constant(all.narrow(0, ids.len() - kept, kept)?),
        Value::Device(all) => Traced::constant(all.rows(ids.len() - kept, kept)?),
    })
}

/// What attention on an accelerator is told of the sequences; nothing for the CPU's.
fn placed(sessions: &mut [&mut Session], new: usize) -> Result<Option<KvExtension>> {
    let (mut sequences, rows) = (Vec::new(), sessions.len());
    for session in sessions.iter_mut() {
        let past = session.tokens;
        if let Cache::Device(sequence) = &mut session.cache {
            sequences.push((sequence, past));
        }
    }
    match &mut sequences[..] {
        [] => Ok(None),
        [(sequence, past)] if rows != new => KvExtension::prompt(sequence, *past, new).map(Some),
        all => KvExtension::step(all).map(Some),
    }
}
