//! One forward and backward pass over a batch, block by block.
//!
//! The model is a chain of segments (embedding, blocks, end), each with a tape of its own. Backward walks the
//! chain from its end and frees each tape at once; with gradient checkpointing a block keeps only its input and is
//! run again. Blocks below the lowest trainable one record nothing. What stands at the end is the pass's own: the head's
//! log-probabilities ([`Pass`]), or hidden states ([`crate::PooledPass`]).

use crate::block::{BlockRun, Context};
use crate::generate::StepKernels;
use crate::model::Model;
use crate::scores::Scores;
use candle_core::Tensor;
use galen_ops::device::Value;
use galen_ops::hook::{HookContext, ProjectionHook};
use galen_ops::ops::{
    DropoutKey, EmbeddingNoise, LogProbHead, RmsNorm, RopeTable, embed, embed_on, embedding_noise_on,
};
use galen_ops::profile::{Phase, scope, span};
use galen_ops::{Error, Result, Tape, Traced};
use galen_types::{PackedBatch, Segment, Target, TokenLogProbs};
use std::collections::HashMap;
use std::sync::Arc;

/// How a pass runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassOptions {
    /// Keep what backward needs, and apply dropout.
    pub training: bool,
    /// Keep only each block's input, and run the block again in backward.
    pub checkpointing: bool,
    /// Pass over the data, for dropout keys.
    pub epoch: u64,
    /// Log-probabilities of the logits divided by this; nothing for 1.
    pub temperature: Option<f32>,
    /// Noise on the embeddings of training, for rows without prefixes in common.
    pub noise: Option<Noise>,
}

/// How large noise on embeddings is (NEFTune's alpha, Jain et al. 2024), and what it is drawn from besides its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Over `sqrt(L C)`, L being the tokens of a row: the bound of a value.
    pub alpha: f32,
    /// Run seed.
    pub seed: u64,
}

impl Noise {
    fn over(self, context: &HookContext, width: usize) -> EmbeddingNoise {
        let (rows, positions) = (context.rows.clone(), context.positions.clone());
        let mut lengths = HashMap::new();
        for (row, position) in rows.iter().zip(&*positions) {
            let length: &mut u32 = lengths.entry(*row).or_default();
            *length = (*length).max(position + 1);
        }
        let factor = |row| self.alpha / (lengths[row] as f32 * width as f32).sqrt();
        let factors = rows.iter().map(factor).collect();
        let key = DropoutKey { seed: self.seed, epoch: context.epoch, module: 0, rows, positions };
        EmbeddingNoise { key, factors }
    }
}

/// What every block of a pass shares.
struct Shared<'a> {
    model: &'a Model,
    hook: Option<&'a dyn ProjectionHook>,
    context: HookContext,
    ropes: Vec<RopeTable>,
    segments: Arc<[Segment]>,
}

/// A block that has run: its input, and its tape unless it is to run again.
struct Link {
    input: Traced,
    record: Option<Record>,
}

struct Record {
    tape: Tape,
    input: Traced,
    leaves: Vec<Traced>,
    output: Traced,
}

/// Takes a block's number and its leaf gradients; of leaves on an accelerator none, as those are added where they belong.
pub type Sink<'a> = dyn FnMut(usize, Vec<Option<Tensor>>) -> Result<()> + Send + 'a;

/// The chain run forward, ready to be walked back.
pub(crate) struct Chain<'a> {
    shared: Shared<'a>,
    links: Vec<Link>,
    /// The end's tape with its input and output, where the pass was run for training.
    end: Option<(Tape, Traced, Traced)>,
}

/// A forward pass whose log-probabilities nobody has waited for yet.
pub struct Launched<'a> {
    chain: Chain<'a>,
    scores: Scores,
}

/// A forward pass, ready for backward.
pub struct Pass<'a> {
    launched: Launched<'a>,
    /// Log-probability of each of the batch's targets.
    pub logps: TokenLogProbs,
    /// Whether each target is the most likely token.
    pub correct: Vec<bool>,
}

impl Shared<'_> {
    /// Runs block `layer` on `input` and records it.
    fn block(&self, layer: usize, input: &Value, wanted: bool, recording: bool) -> Result<Record> {
        let tape = if recording { Tape::new() } else { Tape::frozen() };
        let mut tape = tape.on(self.model.device());
        let input = if wanted { tape.leaf(input.clone()) } else { Traced::constant(input.clone()) };
        let leaves = match self.hook {
            Some(hook) => hook.leaves(layer, self.model, &mut tape)?,
            None => vec![],
        };
        let mut run = BlockRun {
            tape: &mut tape,
            block: &self.model.blocks[layer],
            layer,
            hook: self.hook.map(|h| (h, &leaves[..])),
            hook_context: &self.context,
            ropes: &self.ropes,
            kernels: StepKernels::default(),
            context: Context::Train(self.segments.clone()),
        };
        let output = self.model.architecture.block(&mut run, &input)?;
        Ok(Record { tape, input, leaves, output })
    }

    fn trainable_from(&self) -> usize {
        let blocks = self.model.blocks.len();
        self.hook.and_then(|h| (0..blocks).find(|l| h.has_leaves(*l))).unwrap_or(blocks)
    }
}

impl<'a> Pass<'a> {
    /// Runs the model over a batch and gives the log-probability of every target.
    pub fn forward(
        model: &'a Model,
        hook: Option<&'a dyn ProjectionHook>,
        batch: &PackedBatch,
        options: PassOptions,
    ) -> Result<Self> {
        let launched = Self::launch(model, hook, batch, options)?;
        let (logps, correct) = launched.scores.read()?;
        Ok(Self { launched, logps, correct })
    }

    /// The same without waiting for the log-probabilities: for an objective whose gradient does not depend on them.
    pub fn launch(
        model: &'a Model,
        hook: Option<&'a dyn ProjectionHook>,
        batch: &PackedBatch,
        options: PassOptions,
    ) -> Result<Launched<'a>> {
        let targets: Arc<[Target]> = batch.targets().into();
        let (correct, scores) = (Arc::default(), Arc::default());
        let (found, placed) = (Arc::clone(&correct), Arc::clone(&scores));
        let (chain, logps) = Chain::forward(model, hook, batch, options, |tape, hidden, training| {
            let norm = RmsNorm { weight: model.final_norm.clone(), eps: model.eps };
            let head = LogProbHead {
                weight: model.head.clone(),
                targets,
                with_gradient: training,
                temperature: options.temperature,
                correct: found,
                scores: placed,
            };
            let hidden = tape.apply(norm, &[hidden])?;
            tape.apply(head, &[&hidden])
        })?;
        Ok(Launched { chain, scores: Scores::new(logps, correct, scores) })
    }

    /// Walks back from the gradient of each target's log-probability; gives each block's leaf gradients, in the
    /// order of its leaves, to `sink(layer, gradients)`.
    pub fn backward(self, gradient: Vec<f32>, sink: &mut Sink) -> Result<()> {
        self.launched.backward(gradient, sink).map(drop)
    }
}

impl Launched<'_> {
    /// As [`Pass::backward`]; gives the log-probabilities, to be waited for when the step's work is under way.
    pub fn backward(self, gradient: Vec<f32>, sink: &mut Sink) -> Result<Scores> {
        self.chain.backward(self.scores.gradient(gradient)?, sink)?;
        Ok(self.scores)
    }
}

impl<'a> Chain<'a> {
    /// Runs the model's blocks over a batch and `end` over the hidden states `[T, C]` that leave them (before the last
    /// norm); also gives the end's output. `end` is told whether there will be a backward.
    pub(crate) fn forward(
        model: &'a Model,
        hook: Option<&'a dyn ProjectionHook>,
        batch: &PackedBatch,
        options: PassOptions,
        end: impl FnOnce(&mut Tape, &Traced, bool) -> Result<Traced> + Send,
    ) -> Result<(Self, Value)> {
        // Within the pool from end to end: entering it from outside for each operation would wake a thread each time.
        rayon::scope(|_| Self::run(model, hook, batch, options, end))
    }

    fn run(
        model: &'a Model,
        hook: Option<&'a dyn ProjectionHook>,
        batch: &PackedBatch,
        options: PassOptions,
        end: impl FnOnce(&mut Tape, &Traced, bool) -> Result<Traced>,
    ) -> Result<(Self, Value)> {
        let phase = if options.training { Phase::Forward } else { Phase::Evaluate };
        let _forward = scope("forward", phase, None);
        let context = HookContext {
            rows: batch.rows().into(),
            positions: batch.positions().into(),
            epoch: options.epoch,
            training: options.training,
        };
        let ropes = model.rope_tables(batch.positions());
        let shared = Shared { model, hook, context, ropes, segments: batch.segments().into() };
        let first = if options.training { shared.trainable_from() } else { model.blocks.len() };
        let mut hidden = {
            let _span = span("embedding");
            let (table, ids, scale) = (&model.embedding, batch.ids(), model.embedding_scale);
            let noise = options.noise.filter(|n| options.training && n.alpha > 0.0);
            let noise = noise.map(|n| n.over(&shared.context, table.cols()));
            match (model.device(), noise) {
                (None, None) => Value::from(embed(table, ids, scale)?),
                (None, Some(noise)) => noise.apply(&embed(table, ids, scale)?)?.into(),
                (Some(on), None) => embed_on(on, table, ids, scale)?.into(),
                (Some(on), Some(noise)) => {
                    embedding_noise_on(on, embed_on(on, table, ids, scale)?, &noise)?.into()
                }
            }
        };
        let mut links = Vec::new();
        for layer in 0..model.blocks.len() {
            let _block = scope("block", phase, Some(layer));
            let recording = options.training && layer >= first && !options.checkpointing;
            let record = shared.block(layer, &hidden, layer > first, recording)?;
            let input = Traced::constant(hidden);
            hidden = record.output.value().clone();
            if options.training && layer >= first {
                links.push(Link { input, record: recording.then_some(record) });
            }
        }
        let _head = scope("head", phase, None);
        let training = options.training && first < model.blocks.len();
        let tape = if training { Tape::new() } else { Tape::frozen() };
        let mut tape = tape.on(model.device());
        let input = tape.leaf(hidden);
        let output = end(&mut tape, &input, training)?;
        let value = output.value().clone();
        Ok((Self { shared, links, end: training.then_some((tape, input, output)) }, value))
    }

    /// Walks back from the gradient of the end's output.
    pub(crate) fn backward(self, gradient: Value, sink: &mut Sink) -> Result<()> {
        rayon::scope(|_| self.walk_back(gradient, sink))
    }

    fn walk_back(mut self, gradient: Value, sink: &mut Sink) -> Result<()> {
        let _backward = scope("backward", Phase::Backward, None);
        let Some((tape, input, output)) = self.end.take() else {
            let what = "the pass was not run for training, or nothing is trainable".into();
            return Err(Error::Shape { op: "backward", what });
        };
        let mut gradients = {
            let _head = scope("head", Phase::Backward, None);
            tape.backward(&[(&output, gradient)])?
        };
        let mut flowing = gradients.take(&input);
        drop((input, output, gradients));
        let blocks = self.shared.model.blocks.len();
        let first = blocks - self.links.len();
        while let (Some(link), Some(gradient)) = (self.links.pop(), flowing.take()) {
            let layer = first + self.links.len();
            let record = if let Some(record) = link.record {
                record
            } else {
                let _again = scope("block", Phase::Recompute, Some(layer));
                self.shared.block(layer, link.input.value(), layer > first, true)?
            };
            let _block = scope("block", Phase::Backward, Some(layer));
            drop(link.input);
            let Record { tape, input, leaves, output } = record;
            let mut gradients = tape.backward(&[(&output, gradient)])?;
            flowing = gradients.take(&input);
            let trained = leaves.iter().filter(|l| l.needs_grad());
            let found = trained.map(|l| gradients.take(l).map(Value::into_host).transpose());
            sink(layer, found.collect::<Result<_>>()?)?;
        }
        Ok(())
    }
}
