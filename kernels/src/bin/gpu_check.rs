//! Every check and the timings of the kernels on a card; one JSON comes out. Needs nothing but the driver; with cuBLAS its path of the
//! products is checked and timed too.
//!
//! ```text
//! galen-gpu-check [--card N] [--small] [--no-bench | --tiny] [--out FILE]
//! ```

use galen_kernels::Device;
use galen_kernels::checks::{CHECKS, small};
use galen_kernels::gpu::{OnCard, answers, bench, group, step};
use galen_ops::cuda::{Gpu, blas_version, cards};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

const USAGE: &str = "usage: galen-gpu-check [--card N] [--small] [--no-bench | --tiny] [--out FILE]
  --card N     the card, from 0
  --small      the smallest cases alone: for compute-sanitizer
  --no-bench   checks alone
  --tiny       timings at sizes that mean nothing: for a rehearsal without a card
  --out FILE   where the JSON goes (gpu-check.json)";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, String> {
    let (mut ordinal, mut only_small, mut benches, mut out) = (0, false, true, "gpu-check.json".to_owned());
    let mut tiny = false;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(USAGE);
        match arg.as_str() {
            "--card" => ordinal = value()?.parse().map_err(|_| USAGE)?,
            "--small" => (only_small, benches) = (true, false),
            "--no-bench" => benches = false,
            "--tiny" => (tiny, benches) = (true, true),
            "--out" => out = value()?,
            _ => return Err(USAGE.to_owned()),
        }
    }
    for card in cards().map_err(|e| e.to_string())? {
        println!("{card}");
    }
    let cublas = blas_version();
    match &cublas {
        Some(version) => println!("cuBLAS {version}"),
        None => println!("no cuBLAS: its path is neither checked nor timed"),
    }
    let gpu = Arc::new(Gpu::open(ordinal).map_err(|e| e.to_string())?);
    let device = Device::on(Box::new(OnCard(Arc::clone(&gpu))))?;
    let checks: Vec<(&str, galen_kernels::checks::Check)> =
        if only_small { vec![("small", small)] } else { CHECKS.to_vec() };
    let mut results = Vec::new();
    for (name, check) in checks {
        let begin = Instant::now();
        // A check's own failure to set up is a failure of the check, not of the program.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&device)));
        let error = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(_) => Some("panicked".to_owned()),
        };
        let seconds = begin.elapsed().as_secs_f64();
        println!(
            "{} {name} ({seconds:.1} s) {}",
            if error.is_none() { "ok  " } else { "FAIL" },
            error.as_deref().unwrap_or("")
        );
        results.push(json!({ "check": name, "ok": error.is_none(), "error": error, "seconds": seconds }));
    }
    // Of one card there is nothing to add up.
    match group::check() {
        Ok(None) => {}
        Ok(Some(how)) => {
            println!("ok   sums over all cards: {how}");
            results.push(json!({ "check": "sums over all cards", "ok": true, "how": how }));
        }
        Err(why) => {
            println!("FAIL sums over all cards: {why}");
            results.push(json!({ "check": "sums over all cards", "ok": false, "error": why }));
        }
    }
    let passed = results.iter().all(|r| r["ok"] == Value::Bool(true));
    let (of_kernels, of_steps, of_answers) = if tiny {
        (bench::Sizes::TINY, step::Sizes::TINY, answers::Sizes::TINY)
    } else {
        (bench::Sizes::FULL, step::Sizes::FULL, answers::Sizes::FULL)
    };
    let (mut timings, mut steps, mut answered, mut failures) = (vec![], vec![], vec![], vec![]);
    if benches {
        (timings, failures) = bench::all(&gpu, of_kernels);
        for (rows, (found, failed)) in
            [(&mut steps, step::all(ordinal, of_steps)), (&mut answered, answers::all(ordinal, of_answers))]
        {
            *rows = found;
            failures.extend(failed);
        }
    }
    let timed: Vec<Value> = timings
        .iter()
        .map(|t| {
            let seconds = f64::from(t.ms) * 1e-3;
            let (tflops, gbytes) = (t.flops / seconds * 1e-12, t.bytes / seconds * 1e-9);
            println!("{:<32} {:<60} {:>9.3} ms {tflops:>7.1} TFLOP/s {gbytes:>7.0} GB/s", t.kernel, t.work, t.ms);
            json!({ "kernel": t.kernel, "work": t.work, "ms": t.ms, "tflops": tflops, "gbytes_per_second": gbytes })
        })
        .collect();
    for failure in &failures {
        eprintln!("not timed: {failure}");
    }
    let card = gpu.card();
    let report = json!({
        "galen": env!("CARGO_PKG_VERSION"),
        "card": { "name": card.name, "capability": format!("{}.{}", card.capability.0, card.capability.1),
            "memory_bytes": card.memory_bytes, "multiprocessors": card.multiprocessors },
        "cublas": cublas, "checks": results, "timings": timed, "steps": steps, "answers": answered, "not_timed": failures,
    });
    let text = serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?;
    std::fs::write(&out, text).map_err(|e| format!("{out}: {e}"))?;
    println!("{out}");
    Ok(passed && failures.is_empty())
}
