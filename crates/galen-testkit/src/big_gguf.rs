//! Models of a true shape and random weights, streamed to disk: for memory and time at sizes whose weights need not
//! be downloaded.

use crate::blocks::random_blocks;
use crate::fuzz::Random;
use crate::gguf_writer::{GgufWriter, Meta};
use crate::tiny_gguf::tokenizer;
use galen_ops::quant::WeightDtype;
use std::io::{BufWriter, Error, ErrorKind, Result, Write as _};
use std::path::Path;

/// A llama's sizes. Every width is whole blocks of the format.
#[derive(Debug, Clone, Copy)]
pub struct LlamaShape {
    /// Blocks.
    pub layers: u64,
    /// Hidden width.
    pub hidden: u64,
    /// Feed-forward width.
    pub ffn: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads.
    pub kv_heads: u64,
    /// Tokens; at least the 259 of the tokenizer, the rest unused.
    pub vocab: u64,
    /// Of every matrix; norms are F32. The head is the embedding.
    pub dtype: WeightDtype,
}

/// 1.04 billion weights: the widths of Llama 3.2 1B with a smaller vocabulary.
pub const ONE_BILLION: LlamaShape = LlamaShape {
    layers: 16,
    hidden: 2048,
    ffn: 8192,
    heads: 32,
    kv_heads: 8,
    vocab: 32_000,
    dtype: WeightDtype::Q4_K,
};

/// Bytes written at once.
const CHUNK: usize = 1 << 20;
/// Tensors lie at multiples of this.
const ALIGNMENT: u64 = 32;

impl LlamaShape {
    /// All weights but the norms'.
    pub fn parameters(&self) -> u64 {
        self.tensors().iter().filter(|t| t.1.len() == 2).map(|t| t.1.iter().product::<u64>()).sum()
    }

    /// Names and shapes in file order.
    fn tensors(&self) -> Vec<(String, Vec<u64>)> {
        let (d, kv) = (self.hidden, self.hidden / self.heads * self.kv_heads);
        let mut all = vec![("token_embd.weight".to_owned(), vec![self.vocab, d])];
        for layer in 0..self.layers {
            let block: [(&str, Vec<u64>); 9] = [
                ("attn_norm", vec![d]),
                ("attn_q", vec![d, d]),
                ("attn_k", vec![kv, d]),
                ("attn_v", vec![kv, d]),
                ("attn_output", vec![d, d]),
                ("ffn_norm", vec![d]),
                ("ffn_gate", vec![self.ffn, d]),
                ("ffn_up", vec![self.ffn, d]),
                ("ffn_down", vec![d, self.ffn]),
            ];
            all.extend(block.map(|(name, shape)| (format!("blk.{layer}.{name}.weight"), shape)));
        }
        all.push(("output_norm.weight".to_owned(), vec![d]));
        all
    }

    fn header(&self) -> GgufWriter {
        let writer = GgufWriter::default()
            .with("general.architecture", "llama")
            .with("general.name", "shape-true random weights")
            .with("llama.context_length", 4096_u32)
            .with("llama.embedding_length", self.hidden as u32)
            .with("llama.block_count", self.layers as u32)
            .with("llama.feed_forward_length", self.ffn as u32)
            .with("llama.attention.head_count", self.heads as u32)
            .with("llama.attention.head_count_kv", self.kv_heads as u32)
            .with("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)
            .with("llama.rope.freq_base", 500_000.0_f32)
            .with("llama.vocab_size", Meta::U32(self.vocab as u32));
        tokenizer(writer, self.vocab as usize)
    }
}

/// Writes the model; memory stays at a few megabytes. Gives the file's size in bytes.
pub fn write_llama(path: &Path, shape: LlamaShape, seed: u64) -> Result<u64> {
    let refuse = |what: String| Error::new(ErrorKind::InvalidInput, what);
    let mut writer = shape.header();
    let mut plan = Vec::new();
    let mut at = 0u64;
    for (name, dims) in shape.tensors() {
        let (dtype, elements) =
            (if dims.len() == 1 { WeightDtype::F32 } else { shape.dtype }, dims.iter().product::<u64>());
        let id = galen_ops::quant::FORMATS.iter().find(|f| f.dtype == dtype).and_then(|f| f.ggml_id);
        let id = id.ok_or_else(|| refuse(format!("`{dtype}` is no GGUF type")))?;
        let row = *dims.last().unwrap_or(&0);
        if !row.is_multiple_of(dtype.block_size() as u64) {
            return Err(refuse(format!("`{name}`: rows of {row} are not whole blocks of `{dtype}`")));
        }
        writer.tensor(&name, &dims, id, Vec::new());
        if let Some(tensor) = writer.tensors.last_mut() {
            tensor.offset = Some(at);
        }
        let bytes = elements / dtype.block_size() as u64 * dtype.block_bytes() as u64;
        plan.push((dims, dtype, elements, bytes));
        at += bytes.next_multiple_of(ALIGNMENT);
    }
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    // Without tensor bytes, these are the header and its padding.
    let header = writer.bytes();
    file.write_all(&header)?;
    let random = &mut Random::new(seed);
    let mut buffer = Vec::with_capacity(CHUNK + 256);
    for (dims, dtype, elements, bytes) in plan {
        let mut left = elements as usize;
        // Outputs of about the inputs' size; ones for norms.
        let spread = 1.0 / (*dims.last().unwrap_or(&1) as f32).sqrt();
        while left > 0 {
            buffer.clear();
            let count = left.min(CHUNK / dtype.block_bytes() * dtype.block_size());
            if dims.len() == 1 {
                (0..count).for_each(|_| buffer.extend(1f32.to_le_bytes()));
            } else if !random_blocks(dtype, count, spread, random, &mut buffer) {
                return Err(refuse(format!("no random blocks of `{dtype}`")));
            }
            file.write_all(&buffer)?;
            left -= count;
        }
        file.write_all(&vec![0; (bytes.next_multiple_of(ALIGNMENT) - bytes) as usize])?;
    }
    file.flush()?;
    Ok(header.len() as u64 + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use galen_model::tokenizer::Tokenizer;
    use galen_model::{Model, Precision, Weights};
    use galen_types::TextEncoder as _;

    #[test]
    fn a_small_one_loads_and_a_billion_is_a_billion() {
        assert_eq!(ONE_BILLION.parameters() / 10_000_000, 103);
        let shape = LlamaShape {
            layers: 2,
            hidden: 256,
            ffn: 512,
            heads: 4,
            kv_heads: 2,
            vocab: 300,
            dtype: WeightDtype::Q4_K,
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        let size = write_llama(&path, shape, 1).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
        let weights = Weights::open(&path).unwrap();
        let model = Model::load(&weights, Precision::Stored).unwrap();
        let projections: usize = model.projections().iter().map(|p| p.inputs * p.outputs).sum();
        assert_eq!(projections as u64 + 300 * 256, shape.parameters());
        let matrix = weights.matrix("model.layers.1.mlp.down_proj.weight").unwrap().to_f32();
        let square = matrix.iter().map(|w| w * w).sum::<f32>() / matrix.len() as f32;
        assert!((square * 512.0 - 1.0).abs() < 0.05, "mean square {square}");
        let tokenizer = Tokenizer::open(&path).unwrap();
        let ids: Vec<u32> = tokenizer.encode("a é", false).unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), 4, "a token a byte");
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "a é");
        assert!(write_llama(&path, LlamaShape { hidden: 128, heads: 2, ..shape }, 1).is_err());
    }
}
