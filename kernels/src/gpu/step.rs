//! Whole training steps of an 8B shape, by the code that trains: tokens a second and the card's memory.

use super::shape::{Case, Loaded, Shape, over_blocks, report};
use galen_adapter::{Adapter, AdapterConfig, Init, Targets};
use galen_model::Precision;
use galen_ops::quant::WeightDtype;
use galen_optim::AdamW;
use galen_train::{OnDevice, Place, TrainSettings, module_shapes, step_gradient};
use galen_types::{Origin, Tokenized};
use serde_json::{Value, json};
use std::error::Error;
use std::time::Instant;

const CASES: [Case; 3] = [
    Case { what: "LoRA, bf16", stored: WeightDtype::BF16, precision: Precision::Stored, blocks: &[4, 8] },
    Case { what: "QLoRA, NF4", stored: WeightDtype::BF16, precision: Precision::Nf4, blocks: &[4, 8] },
    Case { what: "QLoRA, Q4_K", stored: WeightDtype::Q4_K, precision: Precision::Stored, blocks: &[32] },
];

/// How large, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    shape: Shape,
    rows: usize,
    row: usize,
    runs: usize,
}

impl Sizes {
    /// 4,096 tokens a step, a loss on each.
    pub const FULL: Self = Self { shape: Shape::FULL, rows: 8, row: 512, runs: 5 };
    /// For a rehearsal on the CPU.
    pub const TINY: Self = Self { shape: Shape::TINY, rows: 2, row: 9, runs: 1 };
}

/// A row of the report for each, and what went wrong.
pub fn all(ordinal: usize, sizes: Sizes) -> (Vec<Value>, Vec<String>) {
    report(CASES.into_iter().flat_map(|case| {
        [false, true].map(|recompute| {
            let what = format!("step of an 8B shape, {}, recomputing {recompute}", case.what);
            (what, of_case(ordinal, sizes, case, recompute))
        })
    }))
}

fn of_case(ordinal: usize, sizes: Sizes, case: Case, recompute: bool) -> Result<Value, Box<dyn Error>> {
    let tokens = (sizes.rows * sizes.row) as f64;
    let (measured, seconds) =
        over_blocks(sizes.shape, case, |blocks| time(ordinal, sizes, case, (blocks, recompute)))?;
    Ok(json!({
        "what": case.what, "recompute": recompute, "tokens": tokens, "measured": measured,
        "tokens_per_second_of_32_blocks": tokens / seconds,
    }))
}

/// Seconds of a step, and what the card holds at most.
fn time(
    ordinal: usize,
    sizes: Sizes,
    case: Case,
    (blocks, recompute): (u64, bool),
) -> Result<(f64, u64), Box<dyn Error>> {
    let loaded = Loaded::new(ordinal, sizes.shape, case, blocks)?;
    let Loaded { on, model, .. } = &loaded;
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
    let mut adapter = Adapter::over(config, &module_shapes(model), model)?;
    adapter.place(on)?;
    let settings = settings(recompute);
    let mut moments = AdamW::new(settings.adamw, adapter.buffers().map(<[f32]>::len));
    let optimizer = OnDevice::new(&adapter, &moments)?;
    let row = |i: usize| {
        let ids =
            (0..sizes.row).map(|t| ((i * 7919 + t * 104_729) % sizes.shape.vocab as usize) as u32).collect();
        Tokenized::new(Origin::new("made up", i as u64 + 1), i as u64, ids, vec![true; sizes.row])
    };
    let rows = (0..sizes.rows).map(row).collect::<Result<Vec<_>, _>>()?;
    let batches = [rows.iter().collect::<Vec<_>>()];
    let mut begin = Instant::now();
    for run in 0..=sizes.runs {
        if run == 1 {
            begin = Instant::now();
        }
        let loss = step_gradient(&Place::new(model, &adapter, &settings), &batches)?.loss;
        let norm = optimizer.norm(&adapter)?;
        if !(loss.is_finite() && norm.is_finite()) {
            return Err(format!("a loss of {loss}, a norm of {norm}").into());
        }
        optimizer.step(&adapter, &mut moments, settings.learning_rate, 1.0)?;
    }
    // Waits for the last step.
    optimizer.norm(&adapter)?;
    let seconds = begin.elapsed().as_secs_f64() / sizes.runs as f64;
    Ok((seconds, loaded.bytes()))
}

fn settings(recompute: bool) -> TrainSettings {
    TrainSettings {
        micro_batch_size: 8,
        share_prefixes: false,
        gradient_checkpointing: recompute,
        ..TrainSettings::steps(1e-4)
    }
}
