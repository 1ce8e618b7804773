//! A model's weights and configuration from its files, by Hugging Face names and in Hugging Face layout whatever the
//! files are. Bytes stay where they lie on disk; only what must be rearranged is copied.

mod config;
mod config_gguf;
mod config_hf;
mod error;
pub mod gguf;
mod gguf_value;
mod held;
mod kernels;
mod names;
pub mod safetensors;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use galen_ops::mmap::Bytes;
use galen_ops::quant::{QuantError, QuantMatrix, WeightDtype, dequantize};
use serde_json::Value;

pub use config::{ModelConfig, RopeConfig, RopeScaling};
pub use config_gguf::from_gguf as config_from_gguf;
pub use config_hf::from_hf as config_from_hf;
pub use error::{Result, WeightsError};
pub use gguf::{Gguf, GgufPair, GgufTensor};
pub use gguf_value::{Array, Value as GgufValue};
pub use held::HeldBytes;
pub use names::is_norm;

/// No `config.json` or index comes near this; a larger one is refused unread.
const MAX_JSON_BYTES: usize = 8 << 20;

/// An opened model.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    config: ModelConfig,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Gguf(Gguf),
    Safetensors { tensors: BTreeMap<String, safetensors::StoredTensor>, prefix: &'static str },
}

/// A tensor as stored.
struct Stored<'a> {
    dtype: WeightDtype,
    shape: &'a [usize],
    bytes: &'a Bytes,
}

impl Weights {
    /// Opens a `.gguf` file or a directory with `config.json` and safetensors, and checks that every tensor of the
    /// model is there in the right shape.
    pub fn open(path: &Path) -> Result<Self> {
        let weights = if path.is_dir() { Self::open_dir(path)? } else { Self::open_gguf(path)? };
        for (name, want) in weights.config.tensors() {
            let got = weights.shape(&name)?;
            if got != want {
                let path = weights.path.display().to_string();
                return Err(WeightsError::Shape { path, name, got: got.to_vec(), want });
            }
        }
        weights.refuse_surprises()?;
        Ok(weights)
    }

    fn open_gguf(path: &Path) -> Result<Self> {
        let file = Gguf::open(path)?;
        let config = config_from_gguf(&file)?;
        Ok(Self { path: path.to_owned(), config, source: Source::Gguf(file) })
    }

    fn open_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        if !path.exists() {
            let what = "there is no `config.json`".to_owned();
            return Err(WeightsError::NotAModel { path: dir.display().to_string(), what });
        }
        let config = config_from_hf(&path, &read_json(&path)?)?;
        let tensors = safetensors::open_dir(dir)?;
        let has_embedding = |p: &&&str| tensors.contains_key(&format!("{p}embed_tokens.weight"));
        let prefix = names::HF_PREFIXES.iter().find(has_embedding).copied().unwrap_or("model.");
        Ok(Self { path: dir.to_owned(), config, source: Source::Safetensors { tensors, prefix } })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The GGUF file, if it is one: its metadata holds the tokenizer.
    pub fn gguf(&self) -> Option<&Gguf> {
        if let Source::Gguf(file) = &self.source { Some(file) } else { None }
    }

    /// Hugging Face names of the tensors in the files that the model knows, sorted.
    pub fn names(&self) -> Vec<String> {
        let known: BTreeMap<_, _> = self.config.tensors().into_iter().collect();
        known.into_keys().filter(|name| self.stored_name(name).is_some_and(|s| self.has(&s))).collect()
    }

    /// Shape of a tensor, row-major ([out features, in features]).
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(self.stored(name)?.shape)
    }

    /// How a tensor is stored.
    pub fn dtype(&self, name: &str) -> Result<WeightDtype> {
        Ok(self.stored(name)?.dtype)
    }

    /// A matrix [out features, in features] in its stored format. A tied `lm_head.weight` is the embedding. Bytes are
    /// shared with the file, except where GGUF permutes rows.
    pub fn matrix(&self, name: &str) -> Result<QuantMatrix> {
        let name = if name == "lm_head.weight" && self.config.tie_word_embeddings {
            "model.embed_tokens.weight"
        } else {
            name
        };
        let stored = self.stored(name)?;
        let [rows, cols] = stored.shape else { return Err(self.not_of_rank(name, stored.shape, 2)) };
        let matrix = QuantMatrix::new(stored.dtype, *rows, *cols, stored.bytes.clone());
        let matrix = matrix.map_err(|e| self.broken(name, &e))?;
        match self.permuted_heads(name) {
            Some(heads) => {
                let turned = matrix.select_rows(unpermuted(*rows, heads)).map_err(|e| self.broken(name, &e));
                matrix.data().release();
                turned
            }
            None => Ok(matrix),
        }
    }

    /// A vector as f32. Norm weights are what the normalised values are multiplied by, for Gemma too (whose
    /// safetensors hold that number less one).
    pub fn vector(&self, name: &str) -> Result<Vec<f32>> {
        let stored = self.stored(name)?;
        let [len] = stored.shape else { return Err(self.not_of_rank(name, stored.shape, 1)) };
        if stored.bytes.len() != stored.dtype.row_bytes(*len).map_err(|e| self.broken(name, &e))? {
            return Err(self.not_of_rank(name, stored.shape, 1));
        }
        let mut values = vec![0.0; *len];
        dequantize(stored.dtype, stored.bytes.as_slice(), &mut values).map_err(|e| self.broken(name, &e))?;
        if self.gguf().is_none() && self.config.architecture == "gemma3" && names::is_norm(name) {
            for value in &mut values {
                *value += 1.0;
            }
        }
        match self.permuted_heads(name) {
            Some(heads) => Ok(unpermuted(*len, heads).map(|row| values[row]).collect()),
            None => Ok(values),
        }
    }

    /// Bytes of all tensors of the model as stored.
    pub fn nbytes(&self) -> usize {
        let bytes = |name: &String| self.stored(name).map_or(0, |s| s.bytes.len());
        self.names().iter().map(bytes).sum()
    }

    /// How many of the tensor's elements are stored in each format, largest first: what `plan` prints.
    pub fn formats(&self) -> Vec<(WeightDtype, usize)> {
        let mut counts: BTreeMap<WeightDtype, usize> = BTreeMap::new();
        for name in self.names() {
            if let Ok(stored) = self.stored(&name) {
                *counts.entry(stored.dtype).or_default() += stored.shape.iter().product::<usize>();
            }
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        counts
    }

    /// The name in the files.
    fn stored_name(&self, name: &str) -> Option<String> {
        match &self.source {
            Source::Gguf(_) => names::to_gguf(name, self.config.sandwich_norms),
            Source::Safetensors { prefix, .. } => Some(match name.strip_prefix("model.") {
                Some(rest) => format!("{prefix}{rest}"),
                None if *prefix == "language_model.model." => format!("language_model.{name}"),
                None => name.to_owned(),
            }),
        }
    }

    fn has(&self, stored_name: &str) -> bool {
        match &self.source {
            Source::Gguf(file) => file.tensor(stored_name).is_some(),
            Source::Safetensors { tensors, .. } => tensors.contains_key(stored_name),
        }
    }

    fn stored(&self, name: &str) -> Result<Stored<'_>> {
        let stored_name = self.stored_name(name);
        let missing = || WeightsError::Missing {
            path: self.path.display().to_string(),
            name: name.to_owned(),
            stored: stored_name.clone().filter(|s| s != name),
        };
        let stored_name = stored_name.as_deref().ok_or_else(missing)?;
        match &self.source {
            Source::Gguf(file) => {
                let t = file.tensor(stored_name).ok_or_else(missing)?;
                Ok(Stored { dtype: t.dtype, shape: &t.shape, bytes: &t.bytes })
            }
            Source::Safetensors { tensors, .. } => {
                let t = tensors.get(stored_name).ok_or_else(missing)?;
                let Some(dtype) = t.dtype else {
                    let what = format!("tensor `{stored_name}`: type `{}`", t.dtype_name);
                    return Err(WeightsError::unsupported(&self.path, what));
                };
                Ok(Stored { dtype, shape: &t.shape, bytes: &t.bytes })
            }
        }
    }

    /// A tensor in the blocks that the family does not use (a bias, an expert, another norm) means that the files are of
    /// another model than the one we would compute: refuse it by name rather than leave it out.
    fn refuse_surprises(&self) -> Result<()> {
        let expected: BTreeMap<_, _> = self.config.tensors().into_iter().collect();
        let surprise = match &self.source {
            Source::Gguf(file) => file.tensor_names().find(|name| {
                let hf = names::from_gguf(name, self.config.sandwich_norms);
                *name != "rope_freqs.weight" && !hf.is_some_and(|hf| expected.contains_key(&hf))
            }),
            Source::Safetensors { tensors, prefix } => tensors.keys().map(String::as_str).find(|name| {
                let rest = name.strip_prefix(prefix).filter(|rest| rest.starts_with("layers."));
                // Old Llama checkpoints store their rotary frequencies, which follow from the configuration.
                rest.is_some_and(|r| {
                    !r.ends_with("inv_freq") && !expected.contains_key(&format!("model.{r}"))
                })
            }),
        };
        match surprise {
            None => Ok(()),
            Some(name) => {
                let what = format!("tensor `{name}` in architecture `{}`", self.config.architecture);
                Err(WeightsError::unsupported(&self.path, what))
            }
        }
    }

    /// The number of heads, for a tensor whose rows lie in another order in the file.
    fn permuted_heads(&self, name: &str) -> Option<usize> {
        self.gguf().and_then(|_| gguf_heads(&self.config, name))
    }

    fn not_of_rank(&self, name: &str, shape: &[usize], rank: usize) -> WeightsError {
        let what = format!("tensor `{name}` has shape {shape:?}, not {rank} dimensions");
        WeightsError::corrupt(&self.path, what)
    }

    fn broken(&self, name: &str, error: &QuantError) -> WeightsError {
        WeightsError::corrupt(&self.path, format!("tensor `{name}`: {error}"))
    }
}

/// GGUF interleaves the halves of each head's rows in the llama family: the number of heads, for such a tensor by its
/// Hugging Face name.
fn gguf_heads(config: &ModelConfig, name: &str) -> Option<usize> {
    match name {
        _ if config.architecture != "llama" => None,
        _ if name.contains(".self_attn.q_proj.") => Some(config.n_heads),
        _ if name.contains(".self_attn.k_proj.") => Some(config.n_kv_heads),
        _ => None,
    }
}

/// GGUF's name of a tensor.
pub fn gguf_name(config: &ModelConfig, name: &str) -> Option<String> {
    names::to_gguf(name, config.sandwich_norms)
}

/// For each of `rows` rows of the tensor in a GGUF file, its row in Hugging Face order; none where both are the same.
pub fn gguf_rows(config: &ModelConfig, name: &str, rows: usize) -> Option<Vec<usize>> {
    let heads = gguf_heads(config, name)?;
    let mut order = vec![0; rows];
    unpermuted(rows, heads).enumerate().for_each(|(hf, gguf)| order[gguf] = hf);
    Some(order)
}

/// For each row in Hugging Face order, its row in a llama-family GGUF: there, dimension 2i + j of a head is what here
/// is dimension j D/2 + i.
fn unpermuted(rows: usize, heads: usize) -> impl Iterator<Item = usize> {
    let dim = (rows / heads.max(1)).max(2);
    (0..rows).map(move |row| {
        let (head, at) = (row / dim, row % dim);
        head * dim + 2 * (at % (dim / 2)) + at / (dim / 2)
    })
}

/// Reads a small JSON file. `serde_json` bounds the depth of nesting.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let bytes = Bytes::open(path)?;
    parse_json(path, bytes.as_slice())
}

/// Parses JSON bytes of at most 8 MiB. `path` is for messages.
pub fn parse_json(path: &Path, bytes: &[u8]) -> Result<Value> {
    if bytes.len() > MAX_JSON_BYTES {
        return Err(WeightsError::corrupt(path, format!("{} bytes of JSON", bytes.len())));
    }
    serde_json::from_slice(bytes).map_err(|e| WeightsError::corrupt(path, format!("not valid JSON: {e}")))
}
