//! The reference policy: where training started. No second model: the base with the adapter off, or with a frozen copy of the
//! adapter that training goes on from.

use crate::error::{Result, run_error};
use galen_adapter::Adapter;
use galen_data::pack::{Sharing, pack_sequences};
use galen_model::{Model, Pass, PassOptions};
use galen_ops::hook::ProjectionHook;
use galen_ops::mmap::Bytes;
use galen_types::Tokenized;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Which rows of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Those trained on.
    Train,
    /// Those validated on.
    Validation,
}

impl Part {
    const ALL: [Self; 2] = [Self::Train, Self::Validation];

    fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Train => 0,
            Self::Validation => 1,
        }
    }
}

/// Rows and, for each, the sequences whose log-probabilities the reference is asked for.
pub trait RowSequences {
    /// Number of rows of a part.
    fn rows(&self, part: Part) -> usize;
    /// The sequences of one row, in a fixed order.
    fn sequences(&self, part: Part, row: usize) -> Vec<&Tokenized>;
}

/// The policy that training starts from, and what is known of its log-probabilities.
#[derive(Default)]
pub struct Reference {
    /// The adapter that training goes on from; where it trains on devices, on each of them.
    starts: Vec<Adapter>,
    /// By part and row: its sequences' log-probabilities, end to end.
    known: Option<[Vec<Vec<f32>>; 2]>,
}

/// The cache file's entry that names what it was computed from.
const KEY: &str = "key";

impl Reference {
    /// The base alone, or with the adapter that training goes on from: one, or one on each device of the run.
    pub fn new(starts: impl IntoIterator<Item = Adapter>) -> Self {
        Self { starts: starts.into_iter().collect(), known: None }
    }

    /// The adapter that stands for the reference beside `model`; none where it is the base alone.
    pub fn hook(&self, model: &Model) -> Option<&dyn ProjectionHook> {
        let here = |a: &&Adapter| match (a.placed(), model.device()) {
            (Some(placed), Some(on)) => placed.on().is(on),
            _ => false,
        };
        let start = self.starts.iter().find(here).or(self.starts.first());
        start.map(|a| a as &dyn ProjectionHook)
    }

    /// Log-probabilities of the supervised tokens of each sequence of `rows`, in order, without dropout.
    pub fn logps(
        &self,
        model: &Model,
        data: &dyn RowSequences,
        part: Part,
        rows: &[usize],
        sharing: Sharing,
    ) -> Result<Vec<Vec<f32>>> {
        let sequences: Vec<&Tokenized> = rows.iter().flat_map(|row| data.sequences(part, *row)).collect();
        if let Some(known) = &self.known {
            let flat: Vec<f32> =
                rows.iter().flat_map(|row| known[part.index()][*row].iter().copied()).collect();
            return Ok(cut(&flat, &sequences));
        }
        let packed = pack_sequences(&sequences, sharing)?;
        let pass = Pass::forward(model, self.hook(model), packed.batch(), PassOptions::default())?;
        Ok(packed.split(&pass.logps)?.into_iter().map(<[f32]>::to_vec).collect())
    }

    /// Computes all log-probabilities once, or reads them where `file` holds those of the same `key`. The file is written whole or
    /// not at all. `progress` is told of rows done and of all there are.
    pub fn precompute(
        &mut self,
        model: &Model,
        data: &dyn RowSequences,
        micro_batch_size: usize,
        file: &Path,
        key: &str,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        if let Some(known) = read(file, key, data) {
            self.known = Some(known);
            return Ok(());
        }
        let total: usize = Part::ALL.iter().map(|p| data.rows(*p)).sum();
        let mut known = [Vec::new(), Vec::new()];
        let mut done = 0;
        for part in Part::ALL {
            let all: Vec<usize> = (0..data.rows(part)).collect();
            for rows in all.chunks(micro_batch_size.max(1)) {
                let mut logps = self.logps(model, data, part, rows, Sharing::AcrossRows)?.into_iter();
                for row in rows {
                    let n = data.sequences(part, *row).len();
                    known[part.index()].push(logps.by_ref().take(n).flatten().collect());
                }
                done += rows.len();
                progress(done as u64, total as u64);
            }
        }
        write(file, key, &known).or_else(|e| run_error(file.display(), e))?;
        self.known = Some(known);
        Ok(())
    }
}

/// One slice a sequence, as many values as it has supervised tokens.
fn cut(flat: &[f32], sequences: &[&Tokenized]) -> Vec<Vec<f32>> {
    let mut rest = flat;
    let mut out = Vec::with_capacity(sequences.len());
    for sequence in sequences {
        let (head, tail) = rest.split_at(sequence.supervised_tokens().min(rest.len()));
        out.push(head.to_vec());
        rest = tail;
    }
    out
}

fn write(file: &Path, key: &str, known: &[Vec<Vec<f32>>; 2]) -> std::result::Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let bytes: Vec<(&str, Vec<u8>)> = Part::ALL
        .iter()
        .map(|p| (p.name(), known[p.index()].iter().flatten().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let mut views = BTreeMap::new();
    for (name, bytes) in &bytes {
        views.insert(*name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map_err(|e| text(&e))?);
    }
    let metadata = HashMap::from([(KEY.to_owned(), key.to_owned())]);
    let all = safetensors::serialize(views, Some(metadata)).map_err(|e| text(&e))?;
    let parent = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|e| text(&e))?;
    // Two runs may write the same file at once: each has a name of its own until it is whole.
    galen_files::replace(file, &all).map_err(|e| text(&e))
}

/// What a file holds of these rows; nothing where it is not there, is broken, or has another key.
fn read(file: &Path, key: &str, data: &dyn RowSequences) -> Option<[Vec<Vec<f32>>; 2]> {
    let bytes = Bytes::open(file).ok()?;
    let (_, header) = SafeTensors::read_metadata(bytes.as_slice()).ok()?;
    if header.metadata().as_ref()?.get(KEY)? != key {
        return None;
    }
    let tensors = SafeTensors::deserialize(bytes.as_slice()).ok()?;
    let mut known = [Vec::new(), Vec::new()];
    for part in Part::ALL {
        let tensor = tensors.tensor(part.name()).ok().filter(|t| t.dtype() == Dtype::F32)?;
        let values: Vec<f32> = tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let mut rest = &values[..];
        for row in 0..data.rows(part) {
            let n = data.sequences(part, row).iter().map(|s| s.supervised_tokens()).sum();
            let (head, tail) = rest.split_at_checked(n)?;
            known[part.index()].push(head.to_vec());
            rest = tail;
        }
        if !rest.is_empty() || !values.iter().all(|v| v.is_finite()) {
            return None;
        }
    }
    Some(known)
}

/// Slices of what [`Reference::logps`] gave.
pub(super) fn slices(logps: &[Vec<f32>]) -> Vec<&[f32]> {
    logps.iter().map(Vec::as_slice).collect()
}
