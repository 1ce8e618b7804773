//! What the commands share: an opened base, prepared rows, a scorer, a run directory.

mod base;
mod generate;
mod prepare;
mod record;
mod scorer;
mod train;

pub use base::{Base, TemplateChoice, hub_bars};
pub use generate::{GenerateOptions, generate};
pub use prepare::{Prepared, Preparer, Renderer};
pub use record::{FileRecord, sha256_file, sha256_text};
pub use scorer::ModelScorer;
pub use train::{Start, Trained, open_adapter, resolve_run, train};
pub(crate) use train::{replace, write_reports};
