//! What a run leaves for people: `report.html`, the model card, TensorBoard events.
//!
//! Rows of the user's data appear only in [`RunSummary::samples`], which the caller fills when `report_samples` asks.

mod curves;
mod format;
mod html;
mod model_card;
mod summary;
mod tensorboard;

pub use html::report_html;
pub use model_card::{ModelCard, model_card};
pub use summary::{Compared, DataRow, Fact, MeasuredRow, RunSummary, SampleRow};
pub use tensorboard::EventWriter;

/// A report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file could not be written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A curve could not be drawn.
    #[error("report curve `{curve}`: {what}")]
    Curve {
        /// Its title.
        curve: String,
        /// What the plotting library said.
        what: String,
    },
    /// One of galen's own templates failed: a bug.
    #[error("report template: {0}")]
    Template(#[from] minijinja::Error),
}
