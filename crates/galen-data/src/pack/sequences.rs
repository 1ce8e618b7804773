//! Batches for objectives over whole answers: the sequences of pairs, of labelled answers, of a group of samples.
//!
//! ```text
//! pair:     [prompt, what both answers begin with] <- [rest of chosen]
//!                                                  <- [rest of rejected]
//! group:    [prompt] <- [sample 1]  <- [sample 2] ...            (samples that begin alike nest further)
//! ```
//!
//! Pairs enter as `pair.sequences()`: sequence 2i is pair i's chosen, 2i + 1 its rejected.

use super::{MIN_SHARED_TOKENS, pack_groups, pack_groups_to_ends};
use galen_types::{InvariantError, PackedBatch, SequenceBatch, Tokenized};
use std::collections::HashMap;

/// What sequences of a batch may compute once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Nothing: every sequence stands alone.
    Apart,
    /// Sequences with one row number: a pair, a group of samples. Exact with dropout too, since its masks are keyed by
    /// row number and position and so are the same for both.
    WithinRow,
    /// Any sequences: a system prompt of all rows too. With dropout the shared tokens get the first row's mask.
    AcrossRows,
}

/// Lays sequences end to end; common beginnings of at least [`MIN_SHARED_TOKENS`] are laid once, as far as `sharing`
/// allows. Sequence `i` of the result is `sequences[i]`.
///
/// Errors: no sequences, or more tokens than `u32` counts.
pub fn pack_sequences(sequences: &[&Tokenized], sharing: Sharing) -> Result<SequenceBatch, InvariantError> {
    pack_with(sequences, sharing, MIN_SHARED_TOKENS)
}

/// Lays sequences end to end for objectives that read the hidden state of each one's last token: the batch, and the index in
/// it of that token of each sequence.
pub fn pack_to_ends(
    sequences: &[&Tokenized],
    sharing: Sharing,
) -> Result<(PackedBatch, Vec<u32>), InvariantError> {
    pack_groups_to_ends(sequences, groups(sequences, sharing), MIN_SHARED_TOKENS)
}

/// Tokens that [`pack_sequences`] would lay for these: the length by which batches are planned
/// ([`super::plan_batches`]). Zero for no sequences.
pub fn packed_tokens(sequences: &[&Tokenized], sharing: Sharing) -> usize {
    pack_sequences(sequences, sharing).map_or(0, |packed| packed.batch().ids().len())
}

pub(super) fn pack_with(
    sequences: &[&Tokenized],
    sharing: Sharing,
    min_shared: usize,
) -> Result<SequenceBatch, InvariantError> {
    let batch = pack_groups(sequences, groups(sequences, sharing), min_shared)?;
    SequenceBatch::new(batch, sequences.len())
}

/// Sequences that may share, in the order of their first.
fn groups(sequences: &[&Tokenized], sharing: Sharing) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut of_row: HashMap<u64, usize> = HashMap::new();
    for (i, sequence) in sequences.iter().enumerate() {
        let group = match sharing {
            Sharing::Apart => groups.len(),
            Sharing::WithinRow => *of_row.entry(sequence.row()).or_insert(groups.len()),
            Sharing::AcrossRows => 0,
        };
        match groups.get_mut(group) {
            Some(group) => group.push(i),
            None => groups.push(vec![i]),
        }
    }
    groups
}

#[cfg(test)]
mod tests;
