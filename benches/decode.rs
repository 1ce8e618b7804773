//! Prefill and decoding, timed: greedy, from a prompt of fixed tokens. Prints one JSON line; `decode_llama_cpp.py` does the
//! same with llama.cpp.
//!
//! `cargo run --release -p galen-bench --bin decode -- MODEL [PROMPT] [NEW] [SEQUENCES] [THREADS] [LORA_RANK]
//! [f32|bf16|stream] [blocks|fast|passes] [interleave]`: the arithmetic of prompts, what steps go
//! through, and whether they have a copy of the weights for it.

use galen_adapter::{Adapter, AdapterConfig, Init, Targets};
use galen_model::{LoadOptions, Model, Session, StepKernels, Weights, argmax};
use galen_ops::hook::ProjectionHook;
use galen_ops::quant::Dots;
use galen_train::{module_shapes, peak_rss_bytes};
use std::path::Path;
use std::time::Instant;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, rest @ ..] = &args[..] else {
        anyhow::bail!(
            "usage: decode MODEL [PROMPT] [NEW] [SEQUENCES] [THREADS] [LORA_RANK] [f32|bf16|stream] [blocks|fast|passes] [interleave]"
        );
    };
    let number = |i: usize, default: usize| rest.get(i).map_or(Ok(default), |s| s.parse());
    let (prompt, new, sequences) = (number(0, 512)?, number(1, 64)?.max(1), number(2, 1)?.max(1));
    let (threads, rank) = (number(3, 2)?, number(4, 0)?);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let (prompts, steps) = (rest.get(5).map_or("stream", |s| s), rest.get(6).map_or("blocks", |s| s));
    let (dots, kernels) = match steps {
        "blocks" => (Dots::Float, StepKernels::Blocks),
        "fast" => (Dots::Integer, StepKernels::Blocks),
        "passes" => (Dots::Float, StepKernels::Passes),
        other => anyhow::bail!("`{other}` is none of blocks, fast, passes"),
    };
    let interleave = rest.get(7).is_some_and(|s| s == "interleave");
    let options = LoadOptions { dots, interleave, ..galen_bench::load_options(prompts)? };
    let model = Model::load(&Weights::open(Path::new(path))?, options)?;
    let adapter = (rank > 0).then(|| adapter(&model, rank)).transpose()?;
    let hook = adapter.as_ref().map(|a| a as &dyn ProjectionHook);

    // Warm: pages of the weights mapped, buffers grown.
    let mut family = Session::new(&model, hook).with_kernels(kernels);
    for id in family_prompt(&model, 0, 4) {
        family.feed(&[id])?;
    }
    let mut sessions: Vec<Session> = (0..sequences).map(|_| family.sibling()).collect();
    let (start, processor) = (Instant::now(), galen_bench::process_seconds());
    let mut next = Vec::new();
    for (i, session) in sessions.iter_mut().enumerate() {
        next.push(argmax(&session.feed(&family_prompt(&model, i, prompt.max(1)))?));
    }
    let prefill = start.elapsed().as_secs_f64();
    let prefill_processor = galen_bench::process_seconds() - processor;
    let mut together: Vec<&mut Session> = sessions.iter_mut().collect();
    let (mut times, mut first) = (Vec::new(), Vec::new());
    let processor = galen_bench::process_seconds();
    for _ in 0..new {
        let start = Instant::now();
        let logits = Session::step(&mut together, &next)?;
        next = logits.chunks_exact(logits.len() / sequences).map(argmax).collect();
        times.push(start.elapsed().as_secs_f64());
        first.push(next[0]);
    }
    let decode: f64 = times.iter().sum();
    let processor = galen_bench::process_seconds() - processor;
    times.sort_by(f64::total_cmp);
    let line = serde_json::json!({
        "mode": "galen",
        "prompts": prompts,
        "steps": steps,
        "interleaved": interleave,
        "kernel_path": galen_ops::isa().name(),
        "prompt_tokens": prompt,
        "new_tokens": new,
        "sequences": sequences,
        "lora_rank": rank,
        "threads": threads,
        "prefill_tokens_per_second": (prompt * sequences) as f64 / prefill,
        "decode_tokens_per_second": (new * sequences) as f64 / decode,
        "prefill_processor_ms": prefill_processor * 1e3,
        "decode_processor_ms_per_step": processor / new as f64 * 1e3,
        "decode_median_step_ms": times[times.len() / 2] * 1e3,
        "decode_weight_gb_per_second": model.nbytes() as f64 * new as f64 / decode / 1e9,
        "peak_rss_mb": peak_rss_bytes() / (1 << 20),
        "first_tokens": &first[..first.len().min(8)],
    });
    println!("{line}");
    Ok(())
}

/// Ids without meaning, the same for everyone: `100 + (7919 s + i) 2654435761 mod (V - 200)`.
fn family_prompt(model: &Model, sequence: usize, tokens: usize) -> Vec<u32> {
    let vocabulary = model.config.vocab_size as u64 - 200;
    let id = |i: u64| 100 + ((sequence as u64 * 7919 + i) * 2_654_435_761 % vocabulary) as u32;
    (0..tokens as u64).map(id).collect()
}

fn adapter(model: &Model, r: usize) -> anyhow::Result<Adapter> {
    let config = AdapterConfig {
        method: "lora".into(),
        r,
        alpha: 2.0 * r as f64,
        dropout: 0.0,
        rslora: false,
        targets: Targets::All,
        layers: None,
        init: Init::Kaiming,
        seed: 0,
    };
    Ok(Adapter::new(config, &module_shapes(model))?)
}
