//! What a model predicts at every place of a text that is given to it whole.

use crate::divergence::Divergence;
use crate::model::Model;
use crate::pass::PassOptions;
use crate::pooled::PooledPass;
use crate::sample::argmax;
use galen_ops::hook::ProjectionHook;
use galen_ops::ops::logits;
use galen_ops::{Error, Result};
use galen_types::{PackedBatch, Segment};

/// Logits are formed for so many places at a time: of a vocabulary of 256,000 that is 32 MiB a model.
const TOGETHER: usize = 32;

/// What two models predict behind each token of a text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Predictions {
    /// Places chosen, in order.
    pub places: Vec<u32>,
    /// How far the second model is from the first, by place.
    pub divergence: Vec<Divergence>,
    /// The first model's likeliest token, by place.
    pub first: Vec<u32>,
    /// The second's.
    pub second: Vec<u32>,
}

impl Predictions {
    /// One pass of each model over `ids`, compared behind the tokens `places` (indexes into `ids`).
    ///
    /// Errors: a place or a token beyond what there is, or models of different vocabularies.
    pub fn of(
        (model, hook): (&Model, Option<&dyn ProjectionHook>),
        (other, its_hook): (&Model, Option<&dyn ProjectionHook>),
        ids: &[u32],
        places: &[u32],
    ) -> Result<Self> {
        let mut result = Self { places: places.to_vec(), ..Self::default() };
        if places.is_empty() {
            return Ok(result);
        }
        let (p_vocab, q_vocab) = (model.config.vocab_size, other.config.vocab_size);
        if p_vocab != q_vocab {
            let what = format!("logits of {p_vocab} and of {q_vocab} tokens");
            return Err(Error::Shape { op: "compare", what });
        }
        let (p_states, q_states) = (states(model, hook, ids, places)?, states(other, its_hook, ids, places)?);
        let (p_width, q_width) = (model.config.hidden_size, other.config.hidden_size);
        let chunks = p_states.chunks(TOGETHER * p_width).zip(q_states.chunks(TOGETHER * q_width));
        for (p_states, q_states) in chunks {
            let p = logits(model.head.matrix(), p_states)?;
            let q = logits(other.head.matrix(), q_states)?;
            for (p, q) in p.chunks(p_vocab).zip(q.chunks(q_vocab)) {
                let mut one = Divergence::default();
                one.add(p, q);
                result.divergence.push(one);
                result.first.push(argmax(p));
                result.second.push(argmax(q));
            }
        }
        Ok(result)
    }
}

/// Hidden states `[N, C]` after the last norm of the tokens at `places`.
fn states(model: &Model, hook: Option<&dyn ProjectionHook>, ids: &[u32], places: &[u32]) -> Result<Vec<f32>> {
    let segment = Segment { start: 0, len: ids.len() as u32, parent: None, position: 0 };
    let batch = PackedBatch::new(ids.to_vec(), vec![segment], Vec::new(), vec![0; ids.len()])
        .map_err(|e| Error::Shape { op: "compare", what: e.to_string() })?;
    Ok(PooledPass::forward(model, hook, &batch, places, PassOptions::default())?.states)
}
