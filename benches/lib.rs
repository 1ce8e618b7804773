//! Owns: what the timed programs share: a LoRA training step on random tokens, clocks, medians.
//! Takes: a model, sizes.
//! Gives: times, losses, peak memory.
//! Never: is part of the product, or a test.

use anyhow::Context as _;
use galen_adapter::{Adapter, AdapterConfig, Init, Targets};
use galen_model::{LoadOptions, Model, WeightCache};
use galen_ops::ops::Compute;
use galen_optim::AdamW;
use galen_train::{Place, TrainSettings, module_shapes, step_gradient};
use galen_types::{Origin, Tokenized};
use std::time::Instant;

/// The product's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sets the allocator as the product does, and how a timed model computes: `f32`, `bf16` over packed weights, or bf16 as `stream`ed from the stored blocks.
pub fn load_options(name: &str) -> anyhow::Result<LoadOptions> {
    let (compute, weight_cache) = match name {
        "f32" => (Compute::F32, WeightCache::Stream),
        "bf16" => (Compute::Bf16, WeightCache::Packed),
        "stream" => (Compute::Bf16, WeightCache::Stream),
        other => anyhow::bail!("`{other}` is none of f32, bf16, stream"),
    };
    galen_ops::alloc::keep_freed_pages();
    Ok(LoadOptions { compute, weight_cache, ..LoadOptions::default() })
}

/// A training step: LoRA on every projection, the loss on every token, AdamW.
#[derive(Debug, Clone, Copy)]
pub struct StepShape {
    /// Rows.
    pub rows: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// Rank.
    pub r: usize,
    /// Keep only each block's input, and run blocks again in backward.
    pub checkpointing: bool,
}

/// What steps took.
#[derive(Debug, Clone)]
pub struct Steps {
    /// Seconds of each, the first left out: it warms caches up.
    pub seconds: Vec<f64>,
    /// Loss of each, the first too.
    pub losses: Vec<f64>,
}

impl Steps {
    /// The median step, seconds.
    pub fn median(&self) -> anyhow::Result<f64> {
        median(&self.seconds).context("at least one step after the first")
    }
}

/// Runs one step, then `steps` more.
pub fn train(model: &Model, shape: StepShape, steps: usize) -> anyhow::Result<Steps> {
    let mut adapter = Adapter::new(lora(shape.r), &module_shapes(model))?;
    let rows = random_rows(model, shape)?;
    let settings = settings(shape, steps as u64);
    let mut optimizer = AdamW::new(settings.adamw, adapter.buffers().map(<[f32]>::len));
    let micro = vec![rows.iter().collect::<Vec<_>>()];
    let mut out = Steps { seconds: Vec::new(), losses: Vec::new() };
    for i in 0..=steps {
        let start = Instant::now();
        let step = step_gradient(&Place::new(model, &adapter, &settings), &micro)?;
        optimizer.step(adapter.buffers_mut(), &step.gradients, settings.learning_rate, 1.0);
        if i > 0 {
            out.seconds.push(start.elapsed().as_secs_f64());
        }
        out.losses.push(step.loss);
    }
    Ok(out)
}

/// LoRA of this rank on every projection.
pub fn lora(r: usize) -> AdapterConfig {
    AdapterConfig {
        method: "lora".into(),
        r,
        alpha: 32.0,
        dropout: 0.0,
        rslora: false,
        targets: Targets::All,
        layers: None,
        init: Init::Kaiming,
        seed: 0,
    }
}

fn random_rows(model: &Model, shape: StepShape) -> anyhow::Result<Vec<Tokenized>> {
    let vocabulary = model.config.vocab_size as u64 - 200;
    let row = |row: u64| {
        let id = |i: u64| 100 + ((row * 7919 + i) * 2_654_435_761 % vocabulary) as u32;
        let ids = (0..shape.tokens as u64).map(id).collect();
        Tokenized::new(Origin::new("random", row + 1), row, ids, vec![true; shape.tokens])
    };
    Ok((0..shape.rows as u64).map(row).collect::<Result<_, _>>()?)
}

/// Settings of a timed run.
pub fn settings(shape: StepShape, steps: u64) -> TrainSettings {
    TrainSettings {
        micro_batch_size: shape.rows,
        total_steps: steps,
        gradient_checkpointing: shape.checkpointing,
        ..TrainSettings::steps(2e-4)
    }
}

/// The median; the upper one of two.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Processor time of this thread, seconds: what others do on the machine meanwhile does not count. Wall time where the
/// system does not tell.
pub fn thread_seconds() -> f64 {
    processor_seconds(
        #[cfg(unix)]
        rustix::time::ClockId::ThreadCPUTime,
    )
}

/// The same of all threads of this process.
pub fn process_seconds() -> f64 {
    processor_seconds(
        #[cfg(unix)]
        rustix::time::ClockId::ProcessCPUTime,
    )
}

fn processor_seconds(#[cfg(unix)] clock: rustix::time::ClockId) -> f64 {
    #[cfg(unix)]
    {
        let t = rustix::time::clock_gettime(clock);
        t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
    }
    #[cfg(not(unix))]
    {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_secs_f64()
    }
}
