//! A batch whose targets belong to sequences: what objectives over whole answers need.

use crate::{InvariantError, PackedBatch, TokenLogProbs};
use std::ops::Range;

/// A packed batch with the place of each sequence's predictions among its targets.
///
/// Sequence `i` is row `i` of the batch's targets ([`crate::Target::row`]). Whether sequences share segments makes no
/// difference here: every sequence has a target of its own for each of its supervised tokens, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceBatch {
    batch: PackedBatch,
    ranges: Vec<Range<usize>>,
}

impl SequenceBatch {
    /// `sequences`: how many rows the batch was packed from. Errors: targets are not sorted by row, or a row has none.
    pub fn new(batch: PackedBatch, sequences: usize) -> Result<Self, InvariantError> {
        let fail = |what: String| Err(InvariantError::new("sequence batch", what));
        let mut ranges: Vec<Range<usize>> = Vec::with_capacity(sequences);
        for (t, target) in batch.targets().iter().enumerate() {
            let row = target.row as usize;
            let begun = ranges.len();
            match ranges.last_mut() {
                Some(last) if row + 1 == begun => last.end = t + 1,
                _ if row == begun => ranges.push(t..t + 1),
                _ => return fail(format!("target {t} of row {row} follows those of {begun} rows")),
            }
        }
        if ranges.len() != sequences {
            return fail(format!("targets of `{}` rows for `{sequences}` sequences", ranges.len()));
        }
        Ok(Self { batch, ranges })
    }

    /// The batch, for the forward pass.
    pub fn batch(&self) -> &PackedBatch {
        &self.batch
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether there are none (then there is nothing to train on).
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Where sequence `i`'s predictions lie among the targets (and so among the log-probabilities).
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// Each sequence's log-probabilities, in the order of its supervised tokens. Error: not one a target.
    pub fn split<'a>(&self, logps: &'a TokenLogProbs) -> Result<Vec<&'a [f32]>, InvariantError> {
        self.split_slice(&logps.0)
    }

    /// The same for any value a target (reference log-probabilities, entropies).
    pub fn split_slice<'a, T>(&self, values: &'a [T]) -> Result<Vec<&'a [T]>, InvariantError> {
        let targets = self.batch.targets().len();
        if values.len() != targets {
            let what = format!("`{}` values for `{targets}` targets", values.len());
            return Err(InvariantError::new("sequence batch", what));
        }
        Ok(self.ranges.iter().map(|r| &values[r.clone()]).collect())
    }

    /// The way back: a value for each supervised token of each sequence becomes one for each target, in the order the
    /// backward pass takes. Errors: another number of sequences, or of a sequence's tokens.
    pub fn scatter<V: AsRef<[f32]>>(&self, sequences: &[V]) -> Result<Vec<f32>, InvariantError> {
        let fail = |what: String| Err(InvariantError::new("sequence batch", what));
        if sequences.len() != self.ranges.len() {
            return fail(format!("gradients of `{}` for `{}` sequences", sequences.len(), self.ranges.len()));
        }
        let mut out = Vec::with_capacity(self.batch.targets().len());
        for (i, (values, range)) in sequences.iter().zip(&self.ranges).enumerate() {
            let values = values.as_ref();
            if values.len() != range.len() {
                let what = format!("sequence {i} has `{}` values for `{}` tokens", values.len(), range.len());
                return fail(what);
            }
            out.extend_from_slice(values);
        }
        Ok(out)
    }

    /// The way back for objectives of summed log-probabilities: every token of sequence `i` gets `values[i]`.
    /// Error: another number of sequences.
    pub fn spread(&self, values: &[f32]) -> Result<Vec<f32>, InvariantError> {
        if values.len() != self.ranges.len() {
            let what = format!("gradients of `{}` for `{}` sequences", values.len(), self.ranges.len());
            return Err(InvariantError::new("sequence batch", what));
        }
        let tokens = self.ranges.iter().zip(values);
        Ok(tokens.flat_map(|(range, v)| std::iter::repeat_n(*v, range.len())).collect())
    }
}
