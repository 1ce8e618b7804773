//! Whole training steps of an 8B shape, by the code that trains: tokens a second and the card's memory.

use galen_adapter::{Adapter, AdapterConfig, Init, Targets};
use galen_model::{LoadOptions, Model, Precision, WeightCache, Weights};
use galen_ops::cuda::Gpu;
use galen_ops::device::{Accelerator, Backend as _};
use galen_ops::ops::Compute;
use galen_ops::quant::WeightDtype;
use galen_optim::AdamW;
use galen_testkit::big_gguf::{LlamaShape, write_llama};
use galen_train::{OnDevice, Place, TrainSettings, module_shapes, step_gradient};
use galen_types::{Origin, Tokenized};
use serde_json::{Value, json};
use std::error::Error;
use std::time::Instant;

/// Blocks of Llama 3 8B.
const BLOCKS: f64 = 32.0;

/// What is trained over which base, at each of these numbers of blocks.
struct Case {
    what: &'static str,
    stored: WeightDtype,
    precision: Precision,
    blocks: &'static [u64],
}

const CASES: [Case; 3] = [
    Case { what: "LoRA, bf16", stored: WeightDtype::BF16, precision: Precision::Stored, blocks: &[4, 8] },
    Case { what: "QLoRA, NF4", stored: WeightDtype::BF16, precision: Precision::Nf4, blocks: &[4, 8] },
    Case { what: "QLoRA, Q4_K", stored: WeightDtype::Q4_K, precision: Precision::Stored, blocks: &[32] },
];

/// How large, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    hidden: u64,
    ffn: u64,
    heads: u64,
    vocab: u64,
    rows: usize,
    row: usize,
    runs: usize,
    tiny: bool,
}

impl Sizes {
    /// Llama 3 8B, 4,096 tokens a step, a loss on each.
    pub const FULL: Self = Self {
        hidden: 4096,
        ffn: 14_336,
        heads: 32,
        vocab: 128_256,
        rows: 8,
        row: 512,
        runs: 5,
        tiny: false,
    };
    /// For a rehearsal on the CPU.
    pub const TINY: Self =
        Self { hidden: 256, ffn: 512, heads: 4, vocab: 300, rows: 2, row: 9, runs: 1, tiny: true };
}

/// A row of the report for each, and what went wrong.
pub fn all(ordinal: usize, sizes: Sizes) -> (Vec<Value>, Vec<String>) {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for case in CASES {
        for recompute in [false, true] {
            let what = format!("step of an 8B shape, {}, recomputing {recompute}", case.what);
            match of_case(ordinal, sizes, &case, recompute) {
                Ok(row) => {
                    println!("{what}: {row}");
                    found.push(row);
                }
                Err(e) => failures.push(format!("{what}: {e}")),
            }
        }
    }
    (found, failures)
}

fn of_case(ordinal: usize, sizes: Sizes, case: &Case, recompute: bool) -> Result<Value, Box<dyn Error>> {
    let tokens = (sizes.rows * sizes.row) as f64;
    let mut measured = Vec::new();
    let numbers: &[u64] = if sizes.tiny { &[1] } else { case.blocks };
    for &blocks in numbers {
        let (seconds, bytes) = time(ordinal, sizes, case, blocks, recompute)?;
        measured.push((blocks as f64, seconds, bytes));
    }
    let shown = |(blocks, seconds, bytes): &(f64, f64, u64)| json!({"blocks": blocks, "ms": seconds * 1e3, "bytes": bytes});
    let mut row = json!({
        "what": case.what, "recompute": recompute, "tokens": tokens,
        "measured": measured.iter().map(shown).collect::<Vec<_>>(),
    });
    // What blocks cost is the difference; head, embedding and optimiser are in both.
    let (first, last) = (measured[0], measured[measured.len() - 1]);
    let per_block = if measured.len() > 1 { (last.1 - first.1) / (last.0 - first.0) } else { 0.0 };
    let seconds = last.1 + per_block * (BLOCKS - last.0);
    row["tokens_per_second_of_32_blocks"] = json!(tokens / seconds);
    Ok(row)
}

/// Seconds of a step, and what the card holds at most.
fn time(
    ordinal: usize,
    sizes: Sizes,
    case: &Case,
    blocks: u64,
    recompute: bool,
) -> Result<(f64, u64), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("base.gguf");
    let shape = LlamaShape {
        layers: blocks,
        hidden: sizes.hidden,
        ffn: sizes.ffn,
        heads: sizes.heads,
        kv_heads: sizes.heads / 4,
        vocab: sizes.vocab,
        dtype: case.stored,
    };
    write_llama(&path, shape, 7)?;
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
    let config = AdapterConfig {
        method: "lora".into(),
        r: 16,
        alpha: 32.0,
        dropout: 0.0,
        rslora: false,
        targets: Targets::All,
        layers: None,
        init: Init::Random,
        seed: 7,
    };
    let mut adapter = Adapter::over(config, &module_shapes(&model), &model)?;
    adapter.place(&on)?;
    let settings = settings(recompute);
    let mut moments = AdamW::new(settings.adamw, adapter.buffers().map(<[f32]>::len));
    let optimizer = OnDevice::new(&adapter, &moments)?;
    let row = |i: usize| {
        let ids = (0..sizes.row).map(|t| ((i * 7919 + t * 104_729) % sizes.vocab as usize) as u32).collect();
        Tokenized::new(Origin::new("made up", i as u64 + 1), i as u64, ids, vec![true; sizes.row])
    };
    let rows = (0..sizes.rows).map(row).collect::<Result<Vec<_>, _>>()?;
    let batches = [rows.iter().collect::<Vec<_>>()];
    let mut begin = Instant::now();
    for run in 0..=sizes.runs {
        if run == 1 {
            begin = Instant::now();
        }
        let loss = step_gradient(&Place::new(&model, &adapter, &settings), &batches)?.loss;
        let norm = optimizer.norm(&adapter)?;
        if !(loss.is_finite() && norm.is_finite()) {
            return Err(format!("a loss of {loss}, a norm of {norm}").into());
        }
        optimizer.step(&adapter, &mut moments, settings.learning_rate, 1.0)?;
    }
    // Waits for the last step.
    optimizer.norm(&adapter)?;
    let seconds = begin.elapsed().as_secs_f64() / sizes.runs as f64;
    // Freed memory stays in the pool: what is missing now is the most there was.
    let bytes = free.saturating_sub(on.free_bytes().unwrap_or(free));
    Ok((seconds, bytes))
}

fn settings(recompute: bool) -> TrainSettings {
    TrainSettings {
        micro_batch_size: 8,
        share_prefixes: false,
        gradient_checkpointing: recompute,
        ..TrainSettings::steps(1e-4)
    }
}
