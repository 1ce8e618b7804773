//! What an evaluation leaves: the JSON of `galen eval --out`, samples, a table, and what flipped.

mod compare;
mod json;
mod samples;
mod table;

pub use compare::{Flip, Flips, GroupFlips, compare};
pub use json::{Comparison, EvalReport, MetricValue, RunMeta, RunReport, TaskReport};
pub use samples::{Docs, Sample, read_samples, samples_path, write_samples};
pub(crate) use samples::{doc_hash, text_hash};
pub use table::table;

use crate::EvalError;
use std::io::Write;
use std::path::Path;

/// Writes beside the file, then renames: a reader never sees half of it.
fn write_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), EvalError> {
    galen_files::replace_with(path, write).map_err(|e| EvalError::io(path, e))
}
