//! `galen export` and `galen merge`, from outside.

use crate::cli::{Bench, assert_has};

fn trained() -> Bench {
    let bench = Bench::new();
    bench.galen(&["train", "c.yaml"]).exits(0);
    bench
}

#[test]
fn what_is_exported_answers_as_the_run_does() {
    let bench = trained();
    let answer = |more: &[&str]| {
        let args = [&["generate", "-p", "Say 3.", "-n", "12", "--chat", "--json"], more].concat();
        bench.galen(&args).exits(0).json()
    };
    let want = answer(&["--adapter", "run"]);
    for (format, quantize, out) in [
        ("gguf", Some("f32"), "merged.gguf"),
        ("hf", Some("f32"), "hf"),
        ("peft", None, "peft"),
        ("gguf-lora", None, "lora.gguf"),
        ("ollama", Some("f16"), "ollama"),
    ] {
        let mut args =
            vec!["export", "--model", "run", "--format", format, "--out", out, "--json", "--no-verify"];
        args.extend(quantize.into_iter().flat_map(|q| ["--quantize", q]));
        let said = bench.galen(&args).exits(0).json();
        assert_eq!((said["format"].as_str(), said["path"].as_str()), (Some(format), Some(out)));
        assert!(!said["launch"].as_array().expect("lines").is_empty(), "{format}");
        match format {
            "gguf" | "hf" => assert_eq!(answer(&["-m", out]), want, "{format}"),
            "peft" => assert_eq!(answer(&["-m", "m.gguf", "--adapter", out]), want, "{format}"),
            _ => {}
        }
    }
    let modelfile = bench.read("ollama/Modelfile");
    assert_has(
        &modelfile,
        &["FROM ./model.gguf", "<|im_start|>user\n{{ $m.Content }}<|im_end|>", "PARAMETER stop"],
    );
    for name in ["adapter_model.safetensors", "adapter_config.json"] {
        let read = |dir: &str| std::fs::read(bench.path(&format!("{dir}/{name}"))).expect("a file");
        assert!(read("run") == read("peft"), "{name}");
    }
    assert_has(
        &bench.galen(&["export", "-m", "m.gguf", "--format", "peft", "--out", "x"]).exits(1).stderr,
        &["--adapter"],
    );
    assert_has(
        &bench.galen(&["export", "-m", "run", "--format", "tar", "--out", "x"]).exits(2).stderr,
        &["gguf-lora"],
    );
}

#[test]
fn what_is_read_is_not_replaced_and_no_flag_is_dropped() {
    let bench = trained();
    let before = bench.read("run/adapter_config.json");
    for args in [
        &["export", "-m", "run", "--format", "peft", "--out", "run"][..],
        &["export", "-m", "m.gguf", "--adapter", "run", "--format", "gguf", "--out", "m.gguf"],
        &["merge", "--adapter", "run", "--adapter", "run", "--out", "run"],
    ] {
        assert_has(&bench.galen(args).exits(1).stderr, &["is read", "hint:"]);
    }
    assert_eq!(bench.read("run/adapter_config.json"), before);
    for (args, code) in [
        (&["export", "-m", "m.gguf", "--format", "gguf", "--max-kl", "1", "--out", "x.gguf"][..], 2),
        (&["export", "-m", "run", "--format", "gguf", "--max-kl", "nan", "--out", "x.gguf"], 2),
        (
            &[
                "merge",
                "--adapter",
                "run",
                "--adapter",
                "run",
                "--method",
                "cat",
                "--svd-rank",
                "2",
                "--out",
                "x",
            ],
            1,
        ),
        (
            &[
                "merge",
                "--adapter",
                "run",
                "--adapter",
                "run",
                "--method",
                "cat",
                "--density",
                "0.5",
                "--out",
                "x",
            ],
            1,
        ),
    ] {
        bench.galen(args).exits(code);
    }
    assert!(!bench.path("x").exists() && !bench.path("x.gguf").exists());
}

#[cfg(unix)]
#[test]
fn an_interrupted_export_leaves_the_old_file_and_no_other() {
    let bench = trained();
    let args = ["export", "-m", "run", "--format", "gguf", "--quantize", "f32", "--out", "x/merged.gguf"];
    bench.galen(&args).exits(0);
    let before = std::fs::read(bench.path("x/merged.gguf")).expect("a file");
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(bench.path("x"))
            .expect("a folder")
            .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let (listed, mut during) = (names(), 0);
    for delay in 0..40 {
        let mut child = bench.command(&args).stderr(std::process::Stdio::null()).spawn().expect("starts");
        // Whatever stage it has reached by then.
        std::thread::sleep(std::time::Duration::from_millis(3 * delay));
        if child.try_wait().expect("asked").is_none() {
            crate::kill::signal(&child, "-TERM");
        }
        // Before it listens a signal ends it; at the end it may be done already.
        let status = child.wait().expect("waited for");
        during += u32::from(status.code() == Some(143));
        assert!(matches!(status.code(), None | Some(0 | 143)), "{status}");
        assert_eq!(std::fs::read(bench.path("x/merged.gguf")).expect("a file"), before);
        assert_eq!(names(), listed, "after {delay}");
    }
    assert!(during > 0, "no signal came while it wrote or verified");
}

#[test]
fn a_merge_that_loses_too_much_leaves_the_old_file() {
    let bench = trained();
    let merge =
        |more: &[&str]| bench.galen(&[&["merge", "--adapter", "run", "--out", "merged.gguf"], more].concat());
    let said = merge(&["--quantize", "q4_0", "--json"]).exits(0).json();
    assert!(said["kl"].as_f64().is_some_and(|kl| kl > 0.0), "{said}");
    let before = std::fs::read(bench.path("merged.gguf")).expect("a file");
    for how in ["plain", "feedback"] {
        let refused = merge(&["--quantize", "q4_0", "--max-kl", "0", "--requantize", how]).exits(1);
        assert_has(&refused.stderr, &["nats a token", "hint:", "--max-kl"]);
    }
    assert!(std::fs::read(bench.path("merged.gguf")).expect("a file") == before);
    // Nothing is lost in single precision.
    merge(&["--quantize", "f32", "--max-kl", "1e-6"]).exits(0);
    bench.write("texts.txt", "One\nTwo\nThree\nFour\n");
    let said = merge(&["--quantize", "q8_0", "--samples", "texts.txt"]).exits(0);
    assert_has(&said.stderr, &["KL of the merged model", "texts.txt"]);
}

#[test]
fn adapters_are_merged_into_one() {
    let bench = trained();
    let delta = |args: &[&str], out: &str| {
        bench.galen(&[&["merge", "--out", out], args].concat()).exits(0);
        let args =
            ["generate", "-m", "m.gguf", "--adapter", out, "-p", "Say 3.", "-n", "12", "--chat", "--json"];
        bench.galen(&args).exits(0).json()
    };
    let want = bench
        .galen(&["generate", "--adapter", "run", "-p", "Say 3.", "-n", "12", "--chat", "--json"])
        .exits(0)
        .json();
    // Halves of one adapter are the adapter.
    assert_eq!(delta(&["--adapter", "run:0.5", "--adapter", "run:0.5"], "cat"), want);
    assert_eq!(delta(&["--adapter", "run:0.25", "--adapter", "run:0.75", "--method", "svd"], "svd"), want);
    delta(
        &["--adapter", "run", "--adapter", "run", "--method", "dare_ties", "--density", "0.5", "--seed", "3"],
        "dare",
    );
    let refused = bench
        .galen(&["merge", "--adapter", "run", "--adapter", "run", "--method", "ties", "--out", "t"])
        .exits(1);
    assert_has(&refused.stderr, &["`ties`", "--density"]);
    bench.galen(&["merge", "--adapter", "run", "--method", "ties", "--out", "t"]).exits(2);
    bench
        .galen(&["merge", "--adapter", "run", "--into", "adapter", "--quantize", "f16", "--out", "t"])
        .exits(2);
}
