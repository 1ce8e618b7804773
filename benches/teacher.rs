//! The native engine as a teacher: prompts of fixed tokens answered together, through the engine's own queue and batch. Prints
//! one JSON line; `teacher_llama_cpp.py` does the same with llama.cpp.
//!
//! `cargo run --release -p galen-bench --bin teacher -- MODEL [ROWS] [BATCH] [PROMPT] [NEW] [THREADS] [blocks|passes]`

use galen_engine::{Encode, Engine, Event, Input, LoadedAdapter, Native, NativeOptions, Options, Request};
use galen_model::tokenizer::Tokenizer;
use galen_model::{Model, StepKernels, Weights};
use galen_train::peak_rss_bytes;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

struct Ids;

impl Encode for Ids {
    fn encode(&self, input: &Input) -> Result<Vec<u32>, String> {
        match input {
            Input::Tokens(ids) => Ok(ids.clone()),
            _ => Err("tokens".into()),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, rest @ ..] = &args[..] else {
        anyhow::bail!("usage: teacher MODEL [ROWS] [BATCH] [PROMPT] [NEW] [THREADS] [blocks|passes]");
    };
    let number = |i: usize, default: usize| rest.get(i).map_or(Ok(default), |s| s.parse());
    let (rows, batch, prompt, new) = (number(0, 64)?, number(1, 16)?.max(1), number(2, 64)?, number(3, 96)?);
    let threads = number(4, 2)?;
    let steps = rest.get(5).map_or("passes", |s| s);
    let kernels = if steps == "blocks" { StepKernels::Blocks } else { StepKernels::PassesApart };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let weights = Weights::open(Path::new(path))?;
    let tokenizer = Arc::new(Tokenizer::open(Path::new(path))?);
    let prompts = if steps == "blocks" { "stream" } else { "bf16" };
    let model = Model::load(&weights, galen_bench::load_options(prompts)?)?;
    let vocabulary = model.config.vocab_size - 200;
    let options = NativeOptions {
        name: "m".into(),
        encode: Arc::new(Ids),
        kernels,
        max_sequences: batch,
        max_waiting: 100_000,
        max_model_tokens: None,
        cache_bytes: 4 << 30,
    };
    // No answer ends before its time.
    let bias = tokenizer.eos_ids().iter().map(|id| (*id, -1e9)).collect();
    let loader = Box::new(|_: &str, _: &Model| Err::<LoadedAdapter, _>("none".to_owned()));
    let (engine, worker) = Native::new(model, tokenizer, options, loader);
    let ask = |row: usize, new: usize| {
        let ids = (0..prompt).map(|i| (100 + (row * 7919 + i) * 2_654_435_761 % vocabulary) as u32).collect();
        let options = Options { max_tokens: Some(new), logit_bias: Vec::clone(&bias), ..Options::default() };
        engine.generate(Request { model: "m".into(), inputs: vec![Input::Tokens(ids)], options })
    };
    let work = || -> anyhow::Result<(f64, usize)> {
        // Warm: pages mapped, buffers grown.
        let answers = (0..batch).map(|i| ask(i, 4)).collect::<Result<Vec<_>, _>>()?;
        answers.into_iter().for_each(|mut a| while a.next_blocking().is_some() {});
        let start = Instant::now();
        let answers = (0..rows).map(|i| ask(i, new)).collect::<Result<Vec<_>, _>>()?;
        let mut drawn = 0;
        for mut answer in answers {
            while let Some(event) = answer.next_blocking() {
                if let Event::End { tokens, .. } = event {
                    drawn += tokens;
                }
            }
        }
        Ok((start.elapsed().as_secs_f64(), drawn))
    };
    let (seconds, drawn) = std::thread::scope(|scope| {
        let job = scope.spawn(|| {
            let done = work();
            engine.stop();
            done
        });
        rayon::scope(|_| worker.run());
        job.join().map_err(|_| anyhow::anyhow!("panicked"))?
    })?;
    let line = json!({
        "mode": format!("galen native {steps}"), "rows": rows, "batch": batch, "prompt_tokens": prompt, "new_tokens": new,
        "threads": threads, "answer_tokens": drawn, "seconds": seconds, "answer_tokens_per_second": drawn as f64 / seconds,
        "peak_rss_mb": peak_rss_bytes() >> 20,
    });
    println!("{line}");
    Ok(())
}
