//! A base of an 8B shape on a card.

use galen_model::{LoadOptions, Model, Precision, WeightCache, Weights};
use galen_ops::cuda::Gpu;
use galen_ops::device::{Accelerator, Backend as _};
use galen_ops::ops::Compute;
use galen_ops::quant::WeightDtype;
use galen_testkit::big_gguf::{LlamaShape, write_llama};
use serde_json::{Value, json};
use std::error::Error;

/// Blocks of Llama 3 8B.
const BLOCKS: f64 = 32.0;

/// Which base, at each of these numbers of blocks.
#[derive(Clone, Copy)]
pub struct Case {
    pub what: &'static str,
    pub stored: WeightDtype,
    pub precision: Precision,
    pub blocks: &'static [u64],
}

/// How large a block, and the vocabulary.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub hidden: u64,
    pub ffn: u64,
    pub heads: u64,
    pub vocab: u64,
    /// One block alone.
    pub tiny: bool,
}

impl Shape {
    /// Llama 3 8B.
    pub const FULL: Self = Self { hidden: 4096, ffn: 14_336, heads: 32, vocab: 128_256, tiny: false };
    /// For a rehearsal on the CPU.
    pub const TINY: Self = Self { hidden: 256, ffn: 512, heads: 4, vocab: 300, tiny: true };
}

/// A model on a card, and what was free before.
pub struct Loaded {
    pub on: Accelerator,
    pub model: Model,
    free: u64,
}

impl Loaded {
    pub fn new(ordinal: usize, shape: Shape, case: Case, blocks: u64) -> Result<Self, Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("base.gguf");
        let llama = LlamaShape {
            layers: blocks,
            hidden: shape.hidden,
            ffn: shape.ffn,
            heads: shape.heads,
            kv_heads: shape.heads / 4,
            vocab: shape.vocab,
            dtype: case.stored,
        };
        write_llama(&path, llama, 7)?;
        let gpu = Gpu::open(ordinal)?;
        // What earlier timings left there would be taken for free.
        gpu.trim()?;
        let free = gpu.memory()?.0 as u64;
        let on = Accelerator::new(&format!("cuda:{ordinal}"), gpu);
        let options = LoadOptions {
            precision: case.precision,
            compute: Compute::Bf16,
            weight_cache: WeightCache::Stream,
            ..LoadOptions::default()
        };
        let model = Model::load(&Weights::open(&path)?, options)?.onto(&on)?;
        Ok(Self { on, model, free })
    }

    /// Freed memory stays in the pool: what is missing now is the most there was.
    pub fn bytes(&self) -> u64 {
        self.free.saturating_sub(self.on.free_bytes().unwrap_or(self.free))
    }
}

/// What is measured at each number of blocks (seconds, bytes), and the seconds of 32, which follow from the difference: what is
/// there once is in all of them.
pub fn over_blocks(
    shape: Shape,
    case: Case,
    measure: impl Fn(u64) -> Result<(f64, u64), Box<dyn Error>>,
) -> Result<(Value, f64), Box<dyn Error>> {
    let mut measured = Vec::new();
    let numbers: &[u64] = if shape.tiny { &[1] } else { case.blocks };
    for &blocks in numbers {
        let (seconds, bytes) = measure(blocks)?;
        measured.push((blocks as f64, seconds, bytes));
    }
    let shown = |(blocks, seconds, bytes): &(f64, f64, u64)| json!({"blocks": blocks, "ms": seconds * 1e3, "bytes": bytes});
    let (first, last) = (measured[0], measured[measured.len() - 1]);
    let per_block = if measured.len() > 1 { (last.1 - first.1) / (last.0 - first.0) } else { 0.0 };
    Ok((measured.iter().map(shown).collect(), last.1 + per_block * (BLOCKS - last.0)))
}

/// What each case gave, one after another, and what went wrong.
pub fn report(
    cases: impl Iterator<Item = (String, Result<Value, Box<dyn Error>>)>,
) -> (Vec<Value>, Vec<String>) {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for (what, row) in cases {
        match row {
            Ok(row) => {
                println!("{what}: {row}");
                found.push(row);
            }
            Err(e) => failures.push(format!("{what}: {e}")),
        }
    }
    (found, failures)
}
