//! Owns: what lies between a data file and a batch - file readers, dataset types, chat templates, masks,
//! tokenization, packing, splitting, checking, duplicates, contamination.
//! Takes: paths, dataset entries of a configuration, a `TextEncoder`.
//! Gives: `Conversation`, `Rendered`, `Tokenized`, `PackedBatch`, and reports on them.
//! Never: touches tensors, opens a socket, prints, or searches token ids for what to supervise.

pub mod check;
pub mod contamination;
pub mod dataset;
pub mod dedup;
pub mod dsir;
mod error;
pub mod format;
pub mod inspect;
pub mod ngrams;
pub mod order;
pub mod pack;
pub mod preference;
pub mod reader;
pub mod recipe;
pub mod select;
pub mod split;
pub mod template;
#[cfg(test)]
mod testing;
pub mod texts;
pub mod tokenize;
mod words;

pub use dataset::{DatasetSpec, Loaded, OnBadRow, load, load_preferences};
pub use error::{DataError, Fault};
pub use template::render_pieces;
pub use words::{beginning, normalized, words};

/// Writes a file under a temporary name beside it and renames it: it is there whole or not at all.
fn write_file(path: &std::path::Path, bytes: &[u8]) -> Result<(), DataError> {
    galen_files::replace(path, bytes).map_err(|e| DataError::io(path.display().to_string(), e))
}
