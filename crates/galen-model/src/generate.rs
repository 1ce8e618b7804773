//! Text from the model: cached decoding and sampling.

use crate::block::{BlockRun, Context};
use crate::cache::KvLayer;
use crate::model::Model;
use galen_ops::hook::{HookContext, ProjectionHook};
use galen_ops::ops::{RmsNorm, embed, logits};
use galen_ops::tensor::f32_view;
use galen_ops::{Result, Tape, Traced};

/// Tokens of a prompt that go through the model at once: bounds the memory of a long prompt.
const PREFILL: usize = 512;

/// One sequence being extended. Uses the training projections, so what is measured is what was trained.
pub struct Session<'a> {
    model: &'a Model,
    hook: Option<&'a dyn ProjectionHook>,
    layers: Vec<KvLayer>,
    tokens: usize,
}

impl<'a> Session<'a> {
    /// An empty sequence.
    pub fn new(model: &'a Model, hook: Option<&'a dyn ProjectionHook>) -> Self {
        Self { model, hook, layers: vec![KvLayer::default(); model.blocks.len()], tokens: 0 }
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
        let mut last = Vec::new();
        for ids in ids.chunks(PREFILL) {
            last = self.feed_chunk(ids)?;
        }
        logits(self.model.head.matrix(), &last)
    }

    /// Normalised hidden state of the last token.
    fn feed_chunk(&mut self, ids: &[u32]) -> Result<Vec<f32>> {
        let model = self.model;
        let positions: Vec<u32> = (self.tokens as u32..(self.tokens + ids.len()) as u32).collect();
        let context = HookContext {
            rows: vec![0; ids.len()].into(),
            positions: positions[..].into(),
            epoch: 0,
            training: false,
        };
        let ropes = model.rope_tables(&positions);
        let mut hidden = Traced::constant(embed(&model.embedding, ids, model.embedding_scale)?);
        for (layer, cache) in self.layers.iter_mut().enumerate() {
            let mut tape = Tape::frozen();
            let leaves = self.hook.map_or(Ok(vec![]), |h| h.leaves(layer, &mut tape))?;
            let mut run = BlockRun {
                tape: &mut tape,
                block: &model.blocks[layer],
                layer,
                hook: self.hook.map(|h| (h, &leaves[..])),
                hook_context: &context,
                ropes: &ropes,
                context: Context::Cached(cache),
            };
            hidden = model.architecture.block(&mut run, &hidden)?;
        }
        self.tokens += ids.len();
        let last = hidden.tensor().narrow(0, ids.len() - 1, 1)?;
        let norm = RmsNorm { weight: model.final_norm.clone(), eps: model.eps };
        let out = Tape::frozen().apply(norm, &[&Traced::constant(last)])?;
        Ok(f32_view(out.tensor())?.to_vec())
    }
}
