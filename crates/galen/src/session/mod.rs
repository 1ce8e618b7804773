//! What the commands share: an opened base, prepared rows, a scorer, a run directory.

mod adapters;
mod base;
mod batch;
pub mod device;
pub mod fast_decode;
mod generate;
mod held_out;
mod objective;
mod opened;
mod preference;
mod prepare;
mod record;
pub mod reward_model;
mod rollout;
mod rows;
mod run_dir;
mod samples;
mod scorer;
pub mod selection;
mod serving;
mod shown;
mod summary;
pub mod teachers;
mod texts;
mod train;
mod verify;
mod write_out;

pub use adapters::{is_adapter, open_adapter, open_adapter_over, resolve_run, saved_template};
pub use base::{Base, TemplateChoice, hub_bars};
pub use batch::{BatchFiles, Requests};
pub use generate::{GenerateOptions, generate, generate_all};
pub use opened::Opened;
pub use preference::AnswerRenderer;
pub use prepare::{Prepared, Preparer, Read, Renderer};
pub use record::{sha256_file, sha256_text};
pub use rows::{Parts, Rows, RowsReport};
pub(crate) use run_dir::{no_replace, replace};
pub use scorer::{FastDecoder, ModelScorer};
pub use serving::{EngineName, Serving, ServingOptions};
pub(crate) use serving::{positive, serving_kernels};
pub(crate) use summary::write_reports;
pub use texts::{Read as ReadTexts, Sides, Texts, raw_rows};
pub use train::{Start, Trained, command_of, train};
pub use verify::{
    LimitArgs, Record, SAMPLES, Verdict, Verifier, adapter_sha256, format_of, unverified, write_beside,
};
pub use write_out::{WriteArgs, names_gguf, write_out};
