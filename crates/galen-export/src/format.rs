//! What a format is, and the list of them.

use crate::error::{Result, cannot};
use crate::feedback::Calibration;
use crate::gguf::Quantization;
use crate::place;
use crate::source::Source;
use std::path::{Path, PathBuf};

/// What a format leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One file.
    File,
    /// A folder of files.
    Folder,
}

/// How to write.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The types of the tensors; the format's own choice where nothing is said.
    pub quantize: Option<Quantization>,
    /// Largest safetensors file, bytes.
    pub max_shard_bytes: u64,
    /// Inputs of the projections, for rounding what the adapter changes so that outputs stay near; none: each weight by itself.
    pub calibration: Option<&'a Calibration>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { quantize: None, max_shard_bytes: 5_000_000_000, calibration: None }
    }
}

/// What was written.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// Bytes of all files.
    pub bytes: u64,
    /// Lines that start a server with it; `{}` stands for the path.
    pub launch: Vec<String>,
    /// What a user should know about it.
    pub notes: Vec<String>,
    /// Mean KL from the model unmerged, nats a token; positions of the same likeliest token; positions. Where it was measured.
    pub divergence: Option<(f64, usize, usize)>,
}

/// A format of other programs.
pub trait Format: Sync + Send {
    /// As the command line names it.
    fn name(&self) -> &'static str;

    /// In a few words.
    fn about(&self) -> &'static str;

    /// File or folder.
    fn kind(&self) -> Kind;

    /// Whether it holds an adapter alone, without the base.
    fn adapter_alone(&self) -> bool;

    /// For a folder: the names of files that it or an earlier version of it may hold. Others keep an existing folder from
    /// being replaced.
    fn owns(&self, _name: &str) -> bool {
        false
    }

    /// Whether it can write weights as quantised blocks.
    fn writes_blocks(&self) -> bool {
        false
    }

    /// Whether it can hold a reward model's head.
    fn holds_score_head(&self) -> bool {
        false
    }

    /// Of what was written at `out`, the part that opens as a model.
    fn model(&self, out: &Path) -> PathBuf {
        out.to_owned()
    }

    /// Whether it can hold the model, as far as that is known without work on the weights.
    fn check(&self, _source: &Source) -> Result<()> {
        Ok(())
    }

    /// Writes `out`, an empty folder or a file that does not exist; nobody reads it before it is whole.
    fn write(&self, source: &Source, options: &Options, out: &Path) -> Result<Written>;
}

/// Every format. Adding one is its file and its line here.
pub static FORMATS: &[&dyn Format] = &[
    &crate::peft::Peft,
    &crate::hf::HuggingFace,
    &crate::gguf::GgufModel,
    &crate::gguf_lora::GgufLora,
    &crate::ollama::Ollama,
];

/// The format of that name.
pub fn find(name: &str) -> Option<&'static dyn Format> {
    FORMATS.iter().copied().find(|f| f.name() == name)
}

/// Writes a format to `out`. What was there stays until the new is whole on the disk.
///
/// Errors: what the format cannot hold, by name; a folder in the way that no export wrote; a full disk.
pub fn export(format: &dyn Format, source: &Source, options: &Options, out: &Path) -> Result<Written> {
    export_checked(format, source, options, out, |_| Ok(()))
}

/// The same; `check` looks at what was written before it takes its place, and keeps it from that by an error.
pub fn export_checked(
    format: &dyn Format,
    source: &Source,
    options: &Options,
    out: &Path,
    check: impl FnOnce(&Path) -> Result<()>,
) -> Result<Written> {
    let name = format.name();
    if format.adapter_alone() && source.adapter.is_none() {
        return cannot(format!("`{name}` holds an adapter, and there is none"), "name one with `--adapter`");
    }
    if source.adapter.is_some_and(|a| a.score_head().is_some()) && !format.holds_score_head() {
        let what = format!("the adapter is a reward model's, whose head `{name}` cannot hold");
        let able: Vec<String> =
            FORMATS.iter().filter(|f| f.holds_score_head()).map(|f| format!("`{}`", f.name())).collect();
        return cannot(what, format!("export it as {}", able.join(" or ")));
    }
    let write = |path: &Path| {
        let written = format.write(source, options, path)?;
        check(path)?;
        Ok(written)
    };
    match format.kind() {
        Kind::File => place::file(out, write),
        Kind::Folder => place::folder(out, |n| format.owns(n), write),
    }
}

/// Whether [`export`] could write there: what is in the way is another export. Looked at before the work is done.
pub fn may_write(format: &dyn Format, out: &Path) -> Result<()> {
    place::check(format.kind(), out, |n| format.owns(n))
}
