//! Training steps on a base of 1.04 billion weights in Q4_K: a shape-true file of random weights is written to a
//! temporary folder and trained on. Prints one JSON line; the target is 10 steps in under 3 GB.
//!
//! `cargo run --release -p galen-bench --bin one_billion -- [STEPS [ROWS [TOKENS [CHECKPOINT(0|1)]]]] [--keep FILE]`
//!
//! Defaults: 10 steps of 4 rows of 256 tokens, checkpointed. One more step runs first and is not timed. `--keep` writes
//! the model to that file, or takes it from there.

use anyhow::Context as _;
use galen_bench::{StepShape, load_options, train};
use galen_model::{Model, Weights};
use galen_testkit::big_gguf::{ONE_BILLION, write_llama};
use galen_train::peak_rss_bytes;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut keep = None;
    if let Some(at) = args.iter().position(|a| a == "--keep") {
        keep = Some(PathBuf::from(args.get(at + 1).context("`--keep` takes a file")?));
        args.drain(at..at + 2);
    }
    let number = |i: usize, default: usize| -> anyhow::Result<usize> {
        args.get(i).map_or(Ok(default), |a| a.parse().with_context(|| format!("`{a}` is no number")))
    };
    let (steps, rows, tokens) = (number(0, 10)?, number(1, 4)?, number(2, 256)?);
    let checkpointing = number(3, 1)? == 1;
    galen_ops::check_isa()?;
    let folder = tempfile::tempdir()?;
    let path = keep.unwrap_or_else(|| folder.path().join("one-billion.gguf"));
    if !path.exists() {
        let start = Instant::now();
        let size = write_llama(&path, ONE_BILLION, 1).with_context(|| path.display().to_string())?;
        eprintln!("{}: {size} bytes in {:.1} s", path.display(), start.elapsed().as_secs_f64());
    }
    let start = Instant::now();
    let model =
        Model::load(&Weights::open(&path)?, load_options(args.get(4).map_or("stream", String::as_str))?)?;
    let load_s = start.elapsed().as_secs_f64();
    let after_load = peak_rss_bytes();
    let done = train(&model, StepShape { rows, tokens, r: 16, checkpointing }, steps)?;
    let median = done.median()?;
    anyhow::ensure!(done.losses.iter().all(|l| l.is_finite()), "a loss is not finite: {:?}", done.losses);
    let line = serde_json::json!({
        "parameters": ONE_BILLION.parameters(),
        "weights": ONE_BILLION.dtype.to_string(),
        "rows": rows,
        "tokens": tokens,
        "checkpoint": checkpointing,
        "threads": rayon::current_num_threads(),
        "kernel_path": galen_ops::isa().name(),
        "load_s": load_s,
        "steps": steps,
        "median_s": median,
        "tokens_per_second": (rows * tokens) as f64 / median,
        "peak_rss_mb_after_load": after_load / (1 << 20),
        "peak_rss_mb": peak_rss_bytes() / (1 << 20),
        "losses": done.losses,
    });
    println!("{line}");
    Ok(())
}
