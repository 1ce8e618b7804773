//! One DPO step with LoRA, timed: prompts shared by both answers of a pair, and every sequence apart, taking turns. Prints
//! one JSON line.
//!
//! `cargo run --release -p galen-bench --bin dpo_step -- MODEL PAIRS [STEPS] [THREADS] [f32|bf16|stream] [both|shared]`
//!
//! PAIRS: `4x256+64` (four random pairs of a 256-token prompt and 64-token answers), or a file with a line a pair,
//! `{"prompt": [ids], "chosen": [ids], "rejected": [ids]}`, all of a step.

use anyhow::Context as _;
use galen_adapter::Adapter;
use galen_bench::{StepShape, load_options, lora, median, settings};
use galen_data::pack::Sharing;
use galen_loss::pair::Dpo;
use galen_model::{Model, Weights};
use galen_optim::AdamW;
use galen_train::preference::{Displacement, OnDisplacement, PairRows, Pairs, Reference};
use galen_train::{Objective as _, Place, module_shapes, peak_rss_bytes};
use galen_types::{Origin, TokenizedAnswer, TokenizedPair};
use serde::Deserialize;
use std::path::Path;
use std::time::Instant;

#[derive(Deserialize)]
struct Ids {
    prompt: Vec<u32>,
    chosen: Vec<u32>,
    rejected: Vec<u32>,
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, pairs, rest @ ..] = &args[..] else {
        anyhow::bail!("usage: dpo_step MODEL PAIRS [STEPS] [THREADS] [f32|bf16|stream] [both|shared]");
    };
    let steps: usize = rest.first().map_or(Ok(4), |s| s.parse())?;
    let threads: usize = rest.get(1).map_or(Ok(2), |s| s.parse())?;
    let compute = rest.get(2).map_or("bf16", String::as_str);
    let ways: &[Sharing] = match rest.get(3).map(String::as_str) {
        Some("shared") => &[Sharing::WithinRow],
        _ => &[Sharing::WithinRow, Sharing::Apart],
    };
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    galen_ops::check_isa()?;
    let model = Model::load(&Weights::open(Path::new(path))?, load_options(compute)?)?;
    let train = pairs_of(pairs, model.config.vocab_size)?;
    let tokens: usize = train.iter().flat_map(TokenizedPair::sequences).map(|s| s.ids().len()).sum();
    let loss = Dpo::default();
    let start = Adapter::new(lora(16), &module_shapes(&model))?;
    let shape = StepShape { rows: train.len(), tokens, r: 16, checkpointing: false };
    let settings = settings(shape, steps as u64);
    let mut runs: Vec<_> = ways
        .iter()
        .map(|sharing| {
            let objective = Pairs {
                rows: PairRows { train: &train, validation: &[] },
                loss: &loss,
                reference: Reference::default(),
                sharing: *sharing,
                displacement: Displacement::new(OnDisplacement::Off, 0.1),
            };
            let adapter = start.clone();
            let optimizer = AdamW::new(settings.adamw, adapter.buffers().map(<[f32]>::len));
            (objective, adapter, optimizer, Vec::new(), Vec::new())
        })
        .collect();
    let rows: Vec<usize> = (0..train.len()).collect();
    for step in 0..=steps {
        for (objective, adapter, optimizer, seconds, losses) in &mut runs {
            let began = Instant::now();
            let at = Place { step: step as u64, ..Place::new(&model, adapter, &settings) };
            let made = objective.step(&at, std::slice::from_ref(&rows))?;
            optimizer.step(adapter.buffers_mut(), &made.gradients, settings.learning_rate, 1.0);
            // The first step warms caches up.
            if step > 0 {
                seconds.push(began.elapsed().as_secs_f64());
            }
            losses.push(made.loss);
        }
    }
    let medians: Vec<f64> =
        runs.iter().map(|r| median(&r.3).context("at least one step")).collect::<anyhow::Result<_>>()?;
    let line = serde_json::json!({
        "mode": format!("galen {compute}"),
        "pairs": train.len(),
        "tokens": tokens,
        "threads": threads,
        "shared_median_s": medians.first(),
        "apart_median_s": medians.get(1),
        "apart_over_shared": medians.get(1).zip(medians.first()).map(|(apart, shared)| apart / shared),
        "tokens_per_second": medians.first().map(|s| tokens as f64 / s),
        "peak_rss_mb": peak_rss_bytes() / (1 << 20),
        "losses": runs.iter().map(|r| r.4.clone()).collect::<Vec<_>>(),
    });
    println!("{line}");
    Ok(())
}

fn pairs_of(text: &str, vocabulary: usize) -> anyhow::Result<Vec<TokenizedPair>> {
    let ids: Vec<Ids> = if Path::new(text).is_file() {
        std::fs::read_to_string(text)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?
    } else {
        random(text, vocabulary as u64 - 200).context("PAIRS is a file, or like `4x256+64`")?
    };
    let pair = |(i, ids): (usize, Ids)| -> anyhow::Result<TokenizedPair> {
        let one = |answer: Vec<u32>| {
            let all = [ids.prompt.clone(), answer].concat();
            TokenizedAnswer::new(Origin::new("pairs", i as u64 + 1), i as u64, all, ids.prompt.len())
        };
        Ok(TokenizedPair::new(one(ids.chosen.clone())?, one(ids.rejected.clone())?, None)?)
    };
    ids.into_iter().enumerate().map(pair).collect()
}

fn random(text: &str, vocabulary: u64) -> Option<Vec<Ids>> {
    let (pairs, lengths) = text.split_once('x')?;
    let (prompt, answer) = lengths.split_once('+')?;
    let (pairs, prompt, answer): (u64, u64, u64) =
        (pairs.parse().ok()?, prompt.parse().ok()?, answer.parse().ok()?);
    let ids = |series: u64, n: u64| -> Vec<u32> {
        (0..n).map(|i| 100 + ((series * 7919 + i) * 2_654_435_761 % vocabulary) as u32).collect()
    };
    let one = |pair: u64| Ids {
        prompt: ids(3 * pair, prompt),
        chosen: ids(3 * pair + 1, answer),
        rejected: ids(3 * pair + 2, answer),
    };
    Some((0..pairs).map(one).collect())
}
