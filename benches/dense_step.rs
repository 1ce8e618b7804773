//! One LoRA training step, timed: rank 16 on every projection, the loss on every token, AdamW. Prints one JSON line
//! with the fields of the PyTorch stack's counterpart.
//!
//! `cargo run --release -p galen-bench --bin dense_step -- MODEL BATCH TOKENS CHECKPOINT(0|1) [STEPS] [THREADS] [f32|bf16|stream]`

use galen_bench::{StepShape, load_options, train};
use galen_model::{Model, Weights};
use galen_train::peak_rss_bytes;
use std::path::Path;
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, batch, tokens, checkpoint, rest @ ..] = &args[..] else {
        anyhow::bail!(
            "usage: dense_step MODEL BATCH TOKENS CHECKPOINT(0|1) [STEPS] [THREADS] [f32|bf16|stream]"
        );
    };
    let (rows, tokens): (usize, usize) = (batch.parse()?, tokens.parse()?);
    let steps: usize = rest.first().map_or(Ok(4), |s| s.parse())?;
    let threads: usize = rest.get(1).map_or(Ok(2), |s| s.parse())?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    galen_ops::check_isa()?;
    let compute = rest.get(2).map_or("bf16", String::as_str);
    let began = Instant::now();
    let model = Model::load(&Weights::open(Path::new(path))?, load_options(compute)?)?;
    let load_s = began.elapsed().as_secs_f64();
    let checkpointing = checkpoint == "1";
    let done = train(&model, StepShape { rows, tokens, r: 16, checkpointing }, steps)?;
    let median = done.median()?;
    let line = serde_json::json!({
        "mode": format!("galen {} {compute}", model_formats(Path::new(path))?),
        "batch": rows,
        "tokens": tokens,
        "checkpoint": checkpointing,
        "threads": threads,
        "load_s": load_s,
        "median_s": median,
        "tokens_per_second": (rows * tokens) as f64 / median,
        "peak_rss_mb": peak_rss_bytes() / (1 << 20),
        "losses": done.losses,
    });
    println!("{line}");
    Ok(())
}

fn model_formats(path: &Path) -> anyhow::Result<String> {
    let formats = Weights::open(path)?.formats();
    Ok(formats.first().map_or_else(String::new, |(dtype, _)| dtype.to_string()))
}
