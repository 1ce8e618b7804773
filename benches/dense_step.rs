//! One LoRA training step, timed: rank 16 on every projection, the loss on every token, AdamW. Prints one JSON line
//! with the fields of the PyTorch stack's counterpart.
//!
//! `cargo run --release -p galen-bench --bin dense_step -- MODEL BATCH TOKENS CHECKPOINT(0|1) [STEPS] [THREADS] [f32|bf16|stream]`

use anyhow::Context as _;
use galen_adapter::{Adapter, AdapterConfig, Init, Targets};
use galen_model::{LoadOptions, Model, WeightCache, Weights};
use galen_ops::ops::Compute;
use galen_optim::{AdamW, AdamWConfig};
use galen_train::{BestMetric, Cadence, TrainSettings, module_shapes, peak_rss_bytes, step_gradient};
use galen_types::{Origin, Tokenized};
use std::path::Path;
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, batch, tokens, checkpoint, rest @ ..] = &args[..] else {
        anyhow::bail!(
            "usage: dense_step MODEL BATCH TOKENS CHECKPOINT(0|1) [STEPS] [THREADS] [f32|bf16|stream]"
        );
    };
    let (batch, tokens): (usize, usize) = (batch.parse()?, tokens.parse()?);
    let steps: usize = rest.first().map_or(Ok(4), |s| s.parse())?;
    let threads: usize = rest.get(1).map_or(Ok(2), |s| s.parse())?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let compute = rest.get(2).map_or("bf16", String::as_str);
    let options = match compute {
        "f32" => LoadOptions::default(),
        "bf16" | "stream" => LoadOptions {
            compute: Compute::Bf16,
            weight_cache: if compute == "bf16" { WeightCache::Packed } else { WeightCache::Stream },
            ..LoadOptions::default()
        },
        other => anyhow::bail!("`{other}` is none of f32, bf16, stream"),
    };
    let began = Instant::now();
    let model = Model::load(&Weights::open(Path::new(path))?, options)?;
    let load_s = began.elapsed().as_secs_f64();
    let config = AdapterConfig {
        method: "lora".into(),
        r: 16,
        alpha: 32.0,
        dropout: 0.0,
        rslora: false,
        targets: Targets::All,
        layers: None,
        init: Init::Kaiming,
        seed: 0,
    };
    let mut adapter = Adapter::new(config, &module_shapes(&model))?;
    let vocabulary = model.config.vocab_size as u64 - 200;
    let rows: Vec<Tokenized> = (0..batch as u64)
        .map(|row| {
            let id = |i: u64| 100 + ((row * 7919 + i) * 2_654_435_761 % vocabulary) as u32;
            let ids = (0..tokens as u64).map(id).collect();
            Tokenized::new(Origin::new("random", row + 1), row, ids, vec![true; tokens])
        })
        .collect::<Result<_, _>>()?;
    let settings = TrainSettings {
        micro_batch_size: batch,
        gradient_accumulation_steps: 1,
        total_steps: steps as u64,
        packing: None,
        share_prefixes: true,
        gradient_checkpointing: checkpoint == "1",
        lr_scheduler: "constant".into(),
        learning_rate: 2e-4,
        warmup_steps: 0,
        adamw: AdamWConfig::default(),
        max_grad_norm: 0.0,
        seed: 0,
        eval: Cadence::Never,
        save: Cadence::Never,
        save_total_limit: None,
        metric_for_best_model: BestMetric::EvalLoss,
        load_best_model_at_end: false,
        early_stopping_patience: None,
        loss_watchdog_threshold: None,
        loss_watchdog_patience: 1,
    };
    let mut optimizer = AdamW::new(settings.adamw, adapter.layers().iter().map(|l| l.values.len()));
    let micro = vec![rows.iter().collect::<Vec<_>>()];
    let (mut times, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..=steps {
        let start = Instant::now();
        let step = step_gradient(&model, &adapter, &micro, &settings, 0)?;
        optimizer.step(adapter.layers_mut(), &step.gradients, settings.learning_rate, 1.0);
        times.push(start.elapsed().as_secs_f64());
        losses.push(step.loss);
    }
    // The first step warms caches up.
    times.remove(0);
    times.sort_by(f64::total_cmp);
    let median = *times.get(times.len() / 2).context("at least one step")?;
    let line = serde_json::json!({
        "mode": format!("galen {} {compute}", model_formats(Path::new(path))?),
        "batch": batch,
        "tokens": tokens,
        "checkpoint": checkpoint == "1",
        "threads": threads,
        "load_s": load_s,
        "median_s": median,
        "tokens_per_second": (batch * tokens) as f64 / median,
        "peak_rss_mb": peak_rss_bytes() / (1 << 20),
        "losses": losses,
    });
    println!("{line}");
    Ok(())
}

fn model_formats(path: &Path) -> anyhow::Result<String> {
    let formats = Weights::open(path)?.formats();
    Ok(formats.first().map_or_else(String::new, |(dtype, _)| dtype.to_string()))
}
