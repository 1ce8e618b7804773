//! A batch as the model sees it: segments laid end to end, no padding.

use crate::InvariantError;

/// A run of consecutive tokens of a batch. Attention sees the segment's own earlier tokens and, through
/// `parent`, every token of its ancestors; never anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First token's index in the batch.
    pub start: u32,
    /// Number of tokens, at least 1.
    pub len: u32,
    /// Index of the segment this one continues (always an earlier one): a shared prefix.
    pub parent: Option<u32>,
    /// Position of the first token: 0 without a parent, else where the parent ended.
    pub position: u32,
}

/// One supervised prediction: the hidden state at token `index` predicts token id `token`.
///
/// A list rather than one target a token, because the last token of a shared prefix predicts the first token of
/// each of its continuations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Index in the batch of the hidden state that predicts.
    pub index: u32,
    /// The token id it should predict.
    pub token: u32,
    /// The batch's row (0-based, in the order the rows were given) this prediction belongs to.
    pub row: u32,
}

/// Token ids, positions, segments and targets of one forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedBatch {
    ids: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<Segment>,
    targets: Vec<Target>,
    rows: Vec<u64>,
}

impl PackedBatch {
    /// Checks that segments tile `ids` in order, parents come first and positions follow from them, and that
    /// targets point into the batch. `rows[t]` is the data-set row number of token `t` (keys dropout; for a
    /// shared prefix, the first row's).
    pub fn new(
        ids: Vec<u32>,
        segments: Vec<Segment>,
        targets: Vec<Target>,
        rows: Vec<u64>,
    ) -> Result<Self, InvariantError> {
        let fail = |what: String| Err(InvariantError::new("packed batch", what));
        if rows.len() != ids.len() {
            return fail(format!("{} row numbers for {} tokens", rows.len(), ids.len()));
        }
        let mut positions = Vec::with_capacity(ids.len());
        for (i, s) in segments.iter().enumerate() {
            if s.start as usize != positions.len() || s.len == 0 {
                return fail(format!("segment {i} does not continue at token {}", positions.len()));
            }
            let expected = match s.parent {
                None => 0,
                Some(p) if (p as usize) < i => {
                    let p = segments[p as usize];
                    p.position + p.len
                }
                Some(p) => return fail(format!("segment {i} has the later segment {p} as its parent")),
            };
            if s.position != expected {
                return fail(format!("segment {i} starts at position {} instead of {expected}", s.position));
            }
            positions.extend(s.position..s.position + s.len);
        }
        if positions.len() != ids.len() {
            return fail(format!("segments cover {} of {} tokens", positions.len(), ids.len()));
        }
        if let Some(t) = targets.iter().find(|t| t.index as usize >= ids.len()) {
            return fail(format!("target at token {} of {}", t.index, ids.len()));
        }
        Ok(Self { ids, positions, segments, targets, rows })
    }

    /// Token ids, `T` of them.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Position of each token within its row.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Segments in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Supervised predictions.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Data-set row number of each token.
    pub fn rows(&self) -> &[u64] {
        &self.rows
    }
}

/// `log p(token | context)` of every target of a batch, in the order of its targets. Natural logarithm.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogProbs(pub Vec<f32>);
