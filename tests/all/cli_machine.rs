//! What galen says of the machine (`doctor`) and of its own time (`train --profile`).

use crate::cli::{Bench, Said, assert_has};
use serde_json::Value;
use std::collections::BTreeMap;

#[test]
fn a_profile_nests_and_its_shares_add_up() {
    let bench = Bench::new();
    let args = ["train", "c.yaml", "--set", "gradient_checkpointing=true", "--profile", "trace.json"];
    let said = bench.galen(&args).exits(0);
    assert_has(&said.stderr, &["profile of", "lora_projection (backward)", "spans in trace.json"]);
    let trace: Value = serde_json::from_str(&bench.read("trace.json")).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");

    // Every stage is there, operations with their block, forward, recomputed and backward.
    let mut calls: BTreeMap<(String, String), u64> = BTreeMap::new();
    for e in events {
        assert_eq!(e["ph"], "X");
        let text = |key: &str| e[key].as_str().expect("a string").to_owned();
        *calls.entry((text("name"), text("cat"))).or_default() += 1;
    }
    let steps = calls[&("step".into(), "run".into())];
    assert_eq!(steps, 20, "rows of the epoch: 20 of 24, two a batch, two epochs");
    for phase in ["forward", "recompute", "backward"] {
        assert_eq!(calls[&("block".into(), phase.into())], 2 * steps);
        assert_eq!(calls[&("lora_projection".into(), phase.into())], 2 * 7 * steps);
    }
    for stage in ["prepare data", "load weights", "pack", "optimizer", "gradient norm", "save", "validate"] {
        assert!(calls.contains_key(&(stage.into(), "run".into())), "{stage}: {calls:?}");
    }
    for phase in ["forward", "evaluate"] {
        assert!(calls.contains_key(&("log_prob_head".into(), phase.into())), "{phase}: {calls:?}");
    }
    let layers: Vec<u64> = events
        .iter()
        .filter(|e| e["name"] == "attention" && e["cat"] == "backward")
        .map(|e| e["args"]["layer"].as_u64().expect("a block"))
        .collect();
    assert!(layers.starts_with(&[1, 0, 1, 0]), "backward goes from the last block to the first: {layers:?}");

    // On each thread a span lies inside the one around it, or after it.
    let mut threads: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    for e in events {
        let number = |key: &str| e[key].as_f64().expect("a number");
        let thread = e["tid"].as_u64().expect("a thread");
        threads.entry(thread).or_default().push((number("ts"), number("ts") + number("dur")));
    }
    // Nanoseconds as decimal microseconds: sums are exact to less than half of one.
    let slack = 5e-4;
    for spans in threads.values_mut() {
        spans.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut open: Vec<f64> = Vec::new();
        for (begin, end) in spans.iter() {
            while open.last().is_some_and(|outer| *outer <= begin + slack) {
                open.pop();
            }
            assert!(open.last().is_none_or(|outer| *end <= outer + slack), "{begin}..{end} sticks out");
            open.push(*end);
        }
    }

    let shares = trace["otherData"]["shares"].as_array().expect("shares");
    let percent: Vec<f64> = shares.iter().map(|s| s["percent"].as_f64().expect("a number")).collect();
    assert!((percent.iter().sum::<f64>() - 100.0).abs() < 0.1, "{shares:?}");
    assert!(percent.iter().all(|p| (0.0..=100.0).contains(p)), "{shares:?}");
}

#[test]
fn a_run_without_the_flag_writes_no_profile_and_the_same_bits() {
    let bench = Bench::new();
    bench.galen(&["train", "c.yaml", "--profile", "trace.json", "--set", "output_dir=a"]).exits(0);
    let plain = bench.galen(&["train", "c.yaml", "--set", "output_dir=b"]).exits(0);
    assert!(!plain.stderr.contains("profile"), "{}", plain.stderr);
    let bytes =
        |run: &str| std::fs::read(bench.path(&format!("{run}/adapter_model.safetensors"))).expect("a file");
    assert!(bytes("a") == bytes("b"));
}

#[test]
fn a_profile_that_cannot_be_written_is_refused_before_the_run() {
    let bench = Bench::new();
    for name in ["nowhere/trace.json", "."] {
        let said = bench.galen(&["train", "c.yaml", "--profile", name]).exits(2);
        assert_has(&said.stderr, &["--profile", "hint: "]);
    }
    assert!(!bench.path("run").exists());
    bench.galen(&["train", "c.yaml", "--profile", "run/trace.json"]).exits(0);
    assert!(bench.path("run/trace.json").is_file());
}

#[test]
fn doctor_says_what_is_there() {
    let bench = Bench::new();
    let said = bench.galen(&["doctor", "--json", "--threads", "1"]).exits(0).json();
    assert_eq!(said["galen"], env!("CARGO_PKG_VERSION"));
    assert_eq!(said["cpu"]["threads"], 1);
    let available: Vec<&str> =
        said["kernels"]["available"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(available.last(), Some(&"portable"));
    if std::env::var_os("GALEN_ISA").is_none() {
        assert_eq!(said["kernels"]["chosen"].as_str(), available.first().copied());
        assert_eq!(said["kernels"]["forced"], Value::Null);
    }
    assert!(said["kernels"]["avx512_bf16"].is_boolean());
    assert_eq!(said["caches"][0]["path"].as_str(), bench.path("cache/galen").to_str());
    assert_eq!(said["caches"][0]["exists"], false);
    assert!(said["catalogue"].as_array().is_some_and(|c| c.iter().all(|e| e["path"].is_null())), "{said}");
    let text = bench.galen(&["doctor"]).exits(0).stdout;
    assert_has(&text, &["processor", "kernels", "avx512_bf16", "memory", "not fetched"]);
}

#[test]
fn a_kernel_path_is_forced_or_refused_by_name() {
    let bench = Bench::new();
    let with = |isa: &str, args: &[&str]| {
        Said::of(&bench.command(args).env("GALEN_ISA", isa).output().expect("the binary starts"))
    };
    let said = with("portable", &["doctor", "--json"]).exits(0).json();
    assert_eq!(
        (&said["kernels"]["chosen"], &said["kernels"]["forced"]),
        (&"portable".into(), &"portable".into())
    );
    for args in [&["doctor"][..], &["train", "c.yaml"], &["eval", "ls"]] {
        let said = with("avx3", args).exits(2);
        assert_has(&said.stderr, &["error: GALEN_ISA: `avx3`", "hint: ", "portable"]);
        assert_eq!(said.stdout, "");
    }
}
