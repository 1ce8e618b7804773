//! `gpu-rehearsal`: the programs of `gpu-bundle` without a card, over stand-ins: a driver of two cards that runs kernels in the host
//! runtime, cuBLAS and NCCL in plain loops.

use super::bundle::{run_it, target};
use super::kernels;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The checks, then training on one card and on two.
pub fn run() -> Result<(), String> {
    let target = target();
    let [check, galen] =
        ["galen-gpu-check/galen-gpu-check", "galen-cuda/galen"].map(|p| target.join("cuda").join(p));
    if let Some(absent) = [&check, &galen].into_iter().find(|p| !p.exists()) {
        return Err(format!("{}: not there\nhint: `xtask gpu-bundle` makes it", absent.display()));
    }
    let folder = target.join("cuda/rehearsal");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    stand_ins(&folder)?;
    let mut checks = Command::new(check);
    checks.args(["--small", "--tiny", "--out"]).arg(folder.join("report.json"));
    run_it(over(&mut checks, &folder))?;
    train(&target, &galen, &folder)
}

/// A program over the stand-ins.
fn over<'a>(program: &'a mut Command, folder: &Path) -> &'a mut Command {
    program.env("LD_LIBRARY_PATH", folder).env("GALEN_REHEARSAL_CARDS", "2")
}

fn stand_ins(folder: &Path) -> Result<(), String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(kernels()).map_err(|e| format!("{}: {e}", kernels().display()))? {
        let path = entry.map_err(|e| e.to_string())?.path();
        if path.extension().is_some_and(|e| e == "cu") {
            names.extend(path.file_stem().map(|n| n.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    // One unit: every file's kernels register themselves.
    let mut all: String = names
        .iter()
        .map(|n| format!("#include \"{}\"\n", kernels().join(format!("{n}.cu")).display()))
        .collect();
    all.push_str("extern \"C\" void galen_units() {}\n");
    let unit = folder.join("units.cpp");
    fs::write(&unit, all).map_err(|e| format!("{}: {e}", unit.display()))?;
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let compiler = || Command::new(&compiler);
    let flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-w", "-DGALEN_HOST", "-shared", "-fPIC"];
    let host = |name: &str| kernels().join("host").join(name);
    let driver = [unit, host("runtime.cpp"), host("driver.cpp")];
    // What a thread of a card is, is asked for at every turn.
    let near = "-ftls-model=initial-exec";
    run_it(compiler().args(flags).arg(near).args(driver).arg("-o").arg(folder.join("libcuda.so.1")))?;
    fs::copy(folder.join("libcuda.so.1"), folder.join("libcuda.so")).map_err(|e| e.to_string())?;
    for (source, name) in [("cublas.cpp", "libcublas.so"), ("nccl.cpp", "libnccl.so.2")] {
        run_it(compiler().args(flags).arg(host(source)).arg("-o").arg(folder.join(name)))?;
    }
    Ok(())
}

/// Two cards are to a run what twice the accumulation on one card is.
fn train(target: &Path, galen: &Path, folder: &Path) -> Result<(), String> {
    let model = folder.join("tiny.gguf");
    run_it(Command::new(target.join("release/examples/tiny_model")).arg(&model))?;
    let row = |i: u32| {
        let text = format!("{i} and {} make {}", i + 1, 2 * i + 1);
        let (user, assistant) = (format!("add {i}"), text);
        json!({"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]})
    };
    let rows: String = (0..12).map(|i| format!("{}\n", row(i))).collect();
    let data = folder.join("rows.jsonl");
    fs::write(&data, rows).map_err(|e| format!("{}: {e}", data.display()))?;
    let config = folder.join("train.yaml");
    let text = format!(
        "base_model: {}\nadapter: lora\nlora_r: 8\nlora_dropout: 0.1\ndatasets:\n  - path: {}\n    type: chat_template\n\
         micro_batch_size: 2\nnum_epochs: 1\nlearning_rate: 0.01\nlr_scheduler: constant\n",
        model.display(),
        data.display(),
    );
    fs::write(&config, text).map_err(|e| format!("{}: {e}", config.display()))?;
    let run = |name: &str, words: &[&str]| -> Result<Vec<(f64, String)>, String> {
        let out = folder.join(name);
        let _ = fs::remove_dir_all(&out);
        let set = format!("output_dir={}", out.display());
        let mut train = Command::new(galen);
        train.arg("train").arg(&config).args(["--offline", "--device", "cuda:0", "--set", &set]).args(words);
        run_it(over(&mut train, folder))?;
        steps(&out.join("log.jsonl"))
    };
    let one = run("one", &["--set", "gradient_accumulation_steps=2"])?;
    // The pool's one thread works for both.
    let two = run("two", &["--gpus", "2", "--threads", "1"])?;
    let close = |(a, b): (&(f64, String), &(f64, String))| (a.0 - b.0).abs() <= 1e-3 * a.0;
    if one.len() != 3 || two.len() != 3 || !one.iter().zip(&two).all(close) || two[2].0 >= two[0].0 {
        return Err(format!("losses of one card {one:?}, of two {two:?}"));
    }
    if two[0].1 != "cuda:0, cuda:1" {
        return Err(format!("trained on `{}`", two[0].1));
    }
    println!(
        "ok   training on two cards: losses {:.4}, {:.4}, {:.4}, as on one",
        two[0].0, two[1].0, two[2].0
    );
    answer(galen, folder, &model)
}

/// What was trained answers on a card as it does on the processor, for as long as rounding lets it.
fn answer(galen: &Path, folder: &Path, model: &Path) -> Result<(), String> {
    let tokens = |device: &str| -> Result<Vec<u64>, String> {
        let mut generate = Command::new(galen);
        generate.args([
            "generate",
            "--offline",
            "--json",
            "-n",
            "8",
            "-p",
            "add 3",
            "--device",
            device,
            "--model",
        ]);
        generate.arg(model).arg("--adapter").arg(folder.join("one"));
        let output = over(&mut generate, folder).output().map_err(|e| format!("{}: {e}", galen.display()))?;
        if !output.status.success() {
            return Err(format!("galen generate: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let value: Value = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
        Ok(value["tokens"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect())
    };
    let (card, cpu) = (tokens("cuda:0")?, tokens("cpu")?);
    if card.is_empty() || card.first() != cpu.first() {
        return Err(format!("a card answers {card:?}, the processor {cpu:?}"));
    }
    println!("ok   answering on a card: {card:?}, on the processor {cpu:?}");
    batch(galen, folder, model)
}

/// Several requests at a time, each of two answers, under the adapter and without it.
fn batch(galen: &Path, folder: &Path, model: &Path) -> Result<(), String> {
    let request = |i: u32| {
        let who = if i.is_multiple_of(2) { "taught" } else { "base" };
        let messages = json!([{"role": "user", "content": format!("add {i}")}]);
        json!({"custom_id": i.to_string(), "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": who, "messages": messages, "max_tokens": 4, "temperature": 1, "seed": i, "n": 2}})
    };
    let requests: String = (0..4).map(|i| format!("{}\n", request(i))).collect();
    let (input, output) = (folder.join("requests.jsonl"), folder.join("answers.jsonl"));
    fs::write(&input, requests).map_err(|e| format!("{}: {e}", input.display()))?;
    let _ = fs::remove_file(&output);
    let mut run = Command::new(galen);
    run.args(["run-batch", "--offline", "--device", "cuda:0", "--served-model-name", "base", "-i"])
        .arg(&input);
    run.arg("-o").arg(&output).arg("--model").arg(model).arg("--adapter");
    run.arg(format!("taught={}", folder.join("one").display()));
    run_it(over(&mut run, folder))?;
    let text = fs::read_to_string(&output).map_err(|e| format!("{}: {e}", output.display()))?;
    let mut answers = 0;
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let choices = row["response"]["body"]["choices"].as_array().map_or(0, Vec::len);
        if row["response"]["status_code"] != 200 || choices != 2 {
            return Err(format!("galen run-batch on a card: {row}"));
        }
        answers += choices;
    }
    if answers != 8 {
        return Err(format!("{answers} answers of 8"));
    }
    println!("ok   {answers} answers of a batch under two adapters on a card");
    Ok(())
}

/// Loss and device of each step.
fn steps(log: &PathBuf) -> Result<Vec<(f64, String)>, String> {
    let text = fs::read_to_string(log).map_err(|e| format!("{}: {e}", log.display()))?;
    let mut steps = Vec::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).map_err(|e| format!("{}: {e}", log.display()))?;
        if let (Some(loss), Some(device)) = (row["loss"].as_f64(), row["device"].as_str()) {
            steps.push((loss, device.to_owned()));
        }
    }
    Ok(steps)
}
