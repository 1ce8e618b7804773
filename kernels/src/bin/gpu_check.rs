//! Every check and the timings of the kernels on a card; one JSON comes out. Needs nothing but the driver; with cuBLAS its path of the
//! products is checked and timed too. Each part runs in a process of its own and for a bounded time: after an illegal access a process
//! can compute nothing more, and a part that hangs must not take the report of the others along.
//!
//! ```text
//! galen-gpu-check [--card N] [--small] [--no-bench | --tiny] [--part PART] [--out FILE]
//! ```

use galen_kernels::Device;
use galen_kernels::checks::{CHECKS, Check, small};
use galen_kernels::gpu::{OnCard, answers, bench, group, step};
use galen_ops::cuda::{Gpu, blas_version, cards};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

const USAGE: &str =
    "usage: galen-gpu-check [--card N] [--small] [--no-bench | --tiny] [--part PART] [--out FILE]
  --card N     the card, from 0
  --small      the smallest cases alone, in this process: for compute-sanitizer
  --no-bench   checks alone
  --tiny       timings at sizes that mean nothing: for a rehearsal without a card
  --part PART  one part alone, in this process: a check's name, `sums`, `kernels`, `steps`, `answers`
  --out FILE   where the JSON goes (gpu-check.json); it is written anew after each part";

/// Of a part: on a card a check takes seconds, all timings some minutes.
const MOST: Duration = Duration::from_mins(15);

struct Options {
    card: usize,
    small: bool,
    benches: bool,
    tiny: bool,
    part: Option<String>,
    out: String,
}

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

fn options() -> Result<Options, String> {
    let mut options = Options {
        card: 0,
        small: false,
        benches: true,
        tiny: false,
        part: None,
        out: "gpu-check.json".into(),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(USAGE);
        match arg.as_str() {
            "--card" => options.card = value()?.parse().map_err(|_| USAGE)?,
            "--small" => (options.small, options.benches) = (true, false),
            "--no-bench" => options.benches = false,
            "--tiny" => (options.tiny, options.benches) = (true, true),
            "--part" => options.part = Some(value()?),
            "--out" => options.out = value()?,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(options)
}

fn run() -> Result<bool, String> {
    let options = options()?;
    if let Some(part) = &options.part {
        return written(&options.out, &alone(&options, part)?);
    }
    let cards = cards().map_err(|e| e.to_string())?;
    cards.iter().for_each(|card| println!("{card}"));
    let card = cards.get(options.card).ok_or_else(|| format!("there are {} cards", cards.len()))?;
    let cublas = blas_version();
    match &cublas {
        Some(version) => println!("cuBLAS {version}"),
        None => println!("no cuBLAS: its path is neither checked nor timed"),
    }
    let mut report = json!({
        "galen": env!("CARGO_PKG_VERSION"),
        "card": { "name": card.name, "capability": format!("{}.{}", card.capability.0, card.capability.1),
            "memory_bytes": card.memory_bytes, "multiprocessors": card.multiprocessors },
        "cublas": cublas, "checks": [], "timings": [], "steps": [], "answers": [], "not_timed": [],
    });
    let mut parts: Vec<&str> = Vec::new();
    if options.small {
        add(&mut report, check(&options, "small", small)?);
    } else {
        parts.extend(CHECKS.iter().map(|(name, _)| *name));
        parts.push("sums");
    }
    if options.benches {
        parts.extend(["kernels", "steps", "answers"]);
    }
    let mut passed = written(&options.out, &report)?;
    for part in parts {
        add(&mut report, apart(&options, part));
        passed = written(&options.out, &report)?;
    }
    println!("{}", options.out);
    Ok(passed)
}

/// Writes the report. Whether nothing in it went wrong.
fn written(out: &str, report: &Value) -> Result<bool, String> {
    let text = serde_json::to_string_pretty(report).map_err(|e| e.to_string())?;
    std::fs::write(out, text).map_err(|e| format!("{out}: {e}"))?;
    let rows = |key: &str| report[key].as_array().into_iter().flatten();
    Ok(rows("checks").all(|r| r["ok"] == Value::Bool(true)) && rows("not_timed").next().is_none())
}

/// Puts a part's rows to those of the report.
fn add(report: &mut Value, part: Value) {
    let Value::Object(part) = part else { return };
    for (key, rows) in part {
        if let (Some(all), Value::Array(rows)) = (report[&key].as_array_mut(), rows) {
            all.extend(rows);
        }
    }
}

/// A part in a process of its own.
fn apart(options: &Options, part: &str) -> Value {
    let out = std::env::temp_dir().join(format!("galen-gpu-check-{}.json", std::process::id()));
    let begin = Instant::now();
    let outcome = in_process(options, part, &out).and_then(|()| {
        let text = std::fs::read_to_string(&out).map_err(|_| "ended without a report".to_owned())?;
        serde_json::from_str(&text).map_err(|e| e.to_string())
    });
    let _ = std::fs::remove_file(&out);
    outcome.unwrap_or_else(|why| failed(part, &why, begin.elapsed()))
}

fn in_process(options: &Options, part: &str, out: &Path) -> Result<(), String> {
    if out.exists() {
        std::fs::remove_file(out).map_err(|e| format!("{}: {e}", out.display()))?;
    }
    let text = |e: std::io::Error| e.to_string();
    let mut command = Command::new(std::env::current_exe().map_err(text)?);
    command.args(["--card", &options.card.to_string(), "--part", part, "--out"]).arg(out);
    if options.tiny {
        command.arg("--tiny");
    }
    let mut child = command.spawn().map_err(text)?;
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().map_err(text)? {
            // A part that found something wrong has said so in its report.
            return if out.exists() { Ok(()) } else { Err(format!("{status}")) };
        }
        if begin.elapsed() > MOST {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("still running after {} s", MOST.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn failed(part: &str, why: &str, after: Duration) -> Value {
    println!("FAIL {part}: {why}");
    let row = json!({ "check": part, "ok": false, "error": why, "seconds": after.as_secs_f64() });
    if ["kernels", "steps", "answers"].contains(&part) {
        json!({ "not_timed": [format!("{part}: {why}")] })
    } else {
        json!({ "checks": [row] })
    }
}

/// A part in this process.
fn alone(options: &Options, part: &str) -> Result<Value, String> {
    let (kernels, steps, answering) = if options.tiny {
        (bench::Sizes::TINY, step::Sizes::TINY, answers::Sizes::TINY)
    } else {
        (bench::Sizes::FULL, step::Sizes::FULL, answers::Sizes::FULL)
    };
    Ok(match part {
        "kernels" => {
            let gpu = Gpu::with_library(options.card).map_err(|e| e.to_string())?;
            let (found, not_timed) = bench::all(&gpu, kernels);
            timed("timings", found.iter().map(row).collect(), not_timed)
        }
        "steps" => {
            let (found, not_timed) = step::all(options.card, steps);
            timed("steps", found, not_timed)
        }
        "answers" => {
            let (found, not_timed) = answers::all(options.card, answering);
            timed("answers", found, not_timed)
        }
        "sums" => sums(),
        name => {
            let (name, found) = CHECKS.iter().find(|(n, _)| *n == name).ok_or(USAGE)?;
            check(options, name, *found)?
        }
    })
}

fn timed(key: &str, rows: Vec<Value>, not_timed: Vec<String>) -> Value {
    not_timed.iter().for_each(|what| eprintln!("not timed: {what}"));
    let mut part = Map::new();
    part.insert(key.into(), rows.into());
    part.insert("not_timed".into(), not_timed.into());
    part.into()
}

fn row(t: &bench::Timing) -> Value {
    let seconds = f64::from(t.ms) * 1e-3;
    let (tflops, gbytes) = (t.flops / seconds * 1e-12, t.bytes / seconds * 1e-9);
    println!("{:<32} {:<60} {:>9.3} ms {tflops:>7.1} TFLOP/s {gbytes:>7.0} GB/s", t.kernel, t.work, t.ms);
    json!({ "kernel": t.kernel, "work": t.work, "ms": t.ms, "tflops": tflops, "gbytes_per_second": gbytes })
}

fn check(options: &Options, name: &str, check: Check) -> Result<Value, String> {
    let gpu = Arc::new(Gpu::with_library(options.card).map_err(|e| e.to_string())?);
    let device = Device::on(Box::new(OnCard(gpu)))?;
    let begin = Instant::now();
    // A check's own failure to set up is a failure of the check, not of the program.
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&device)));
    let error = outcome.unwrap_or_else(|_| Err("panicked".to_owned())).err();
    let seconds = begin.elapsed().as_secs_f64();
    let (ok, why) = (error.is_none(), error.as_deref().unwrap_or(""));
    println!("{} {name} ({seconds:.1} s) {why}", if ok { "ok  " } else { "FAIL" });
    Ok(json!({ "checks": [{ "check": name, "ok": ok, "error": error, "seconds": seconds }] }))
}

/// Of one card there is nothing to add up.
fn sums() -> Value {
    let name = "sums over all cards";
    match group::check() {
        Ok(None) => json!({}),
        Ok(Some(how)) => {
            println!("ok   {name}: {how}");
            json!({ "checks": [{ "check": name, "ok": true, "how": how }] })
        }
        Err(why) => {
            println!("FAIL {name}: {why}");
            json!({ "checks": [{ "check": name, "ok": false, "error": why }] })
        }
    }
}
