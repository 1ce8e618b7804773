//! Adapters of other programs, and DoRA, through the commands.

use crate::cli::{Bench, assert_has};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};

const ASK: [&str; 6] = ["-p", "Say 3.", "-n", "12", "--chat", "--json"];

fn answer(bench: &Bench, more: &[&str]) -> Value {
    let mut said = bench.galen(&[&["generate"], &ASK[..], more].concat()).exits(0).json();
    // How fast it was is no part of the answer.
    if let Some(said) = said.as_object_mut() {
        said.retain(|key, _| key == "text" || key == "tokens");
    }
    said
}

fn trained(more: &[&str]) -> Bench {
    let bench = Bench::new();
    bench.galen(&[&["train", "c.yaml"], more].concat()).exits(0);
    bench
}

/// The run's adapter as mlx-lm keeps one.
fn as_mlx(bench: &Bench, out: &str) {
    let bytes = std::fs::read(bench.path("run/adapter_model.safetensors")).expect("the adapter");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let turned: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .tensors()
        .into_iter()
        .map(|(key, tensor)| {
            let name = key.strip_prefix("base_model.model.").expect("PEFT's prefix");
            let name = name.replace(".lora_A.weight", ".lora_a").replace(".lora_B.weight", ".lora_b");
            let [rows, cols] = tensor.shape()[..] else { panic!("{name} is a matrix") };
            let values: &[[u8; 4]] = tensor.data().as_chunks().0;
            let turned = (0..cols).flat_map(|c| (0..rows).map(move |r| values[r * cols + c]));
            (name, vec![cols, rows], turned.flatten().collect())
        })
        .collect();
    let views = turned.iter().map(|(name, shape, bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a view"))
    });
    let config: Value = serde_json::from_str(&bench.read("run/adapter_config.json")).expect("JSON");
    let scale = config["lora_alpha"].as_f64().expect("alpha") / config["r"].as_f64().expect("r");
    let config = json!({"model": "m.gguf", "fine_tune_type": "lora", "num_layers": 2,
        "lora_parameters": {"rank": config["r"], "scale": scale, "dropout": 0.0}});
    std::fs::create_dir(bench.path(out)).expect("a folder");
    bench.write(&format!("{out}/adapter_config.json"), &config.to_string());
    bench.write_bytes(
        &format!("{out}/adapters.safetensors"),
        &safetensors::serialize(views, None).expect("bytes"),
    );
}

#[test]
fn every_command_takes_adapters_of_other_programs() {
    let bench = trained(&[]);
    bench
        .galen(&["export", "-m", "run", "--format", "gguf-lora", "--out", "lora/a.gguf", "--no-verify"])
        .exits(0);
    as_mlx(&bench, "mlx");
    let want = answer(&bench, &["--adapter", "run"]);
    assert_ne!(answer(&bench, &["-m", "m.gguf"]), want, "the adapter changes the answer");
    // The file, a folder that holds nothing else, and the adapter in the place of the model.
    for args in [
        &["-m", "m.gguf", "--adapter", "lora/a.gguf"][..],
        &["-m", "m.gguf", "--adapter", "lora"],
        &["-m", "lora/a.gguf"],
        &["--adapter", "mlx"],
        &["-m", "mlx"],
    ] {
        assert_eq!(answer(&bench, args), want, "{args:?}");
    }
    for adapter in ["lora/a.gguf", "mlx"] {
        let out = format!("{}-out", adapter.replace('/', "-"));
        for format in ["peft", "gguf"] {
            let path = format!("{out}.{format}");
            let args = ["export", "-m", "m.gguf", "--adapter", adapter, "--format", format];
            bench
                .galen(
                    &[
                        &args[..],
                        &["--quantize", "f32", "--out", &path][..if format == "peft" { 0 } else { 2 }],
                        &["--out", &path],
                    ]
                    .concat(),
                )
                .exits(0);
        }
        assert_eq!(answer(&bench, &["-m", "m.gguf", "--adapter", &format!("{out}.peft")]), want);
        assert_eq!(answer(&bench, &["-m", &format!("{out}.gguf")]), want);
        bench
            .galen(&[
                "merge",
                "-m",
                "m.gguf",
                "--adapter",
                adapter,
                "--adapter",
                "run",
                "--out",
                &format!("{out}-two"),
            ])
            .exits(0);
        // Training goes on from it, and the record says from what.
        let further = format!("output_dir={out}-run");
        let from = format!("lora_model_dir={adapter}");
        bench.galen(&["train", "c.yaml", "--set", &further, "--set", &from, "--set", "max_steps=1"]).exits(0);
        let hashes = bench.read(&format!("{out}-run/run.json"));
        assert_has(&hashes, &["\"adapter\""]);
        let said = bench.galen(&["verify", "run", adapter]).exits(0);
        assert_has(&said.stdout, &[": passed", "answers", "weights"]);
    }
    bench.write("in.jsonl", &format!("{}\n", json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions",
        "body": {"model": "x", "messages": [{"role": "user", "content": "Say 3."}], "max_tokens": 12, "temperature": 0}})));
    let batch = |adapter: &str, out: &str| {
        let adapter = format!("x={adapter}");
        bench
            .galen(&["run-batch", "-i", "in.jsonl", "-o", out, "-m", "m.gguf", "--adapter", &adapter])
            .exits(0);
        let line: Value = serde_json::from_str(bench.read(out).trim()).expect("JSON");
        line["response"]["body"]["choices"][0]["message"]["content"].clone()
    };
    assert_eq!(batch("lora/a.gguf", "o1.jsonl"), want["text"]);
    assert_eq!(batch("mlx", "o2.jsonl"), want["text"]);
}

#[test]
fn what_is_no_adapter_says_so() {
    let bench = trained(&[]);
    bench.write("mlx/adapter_config.json".replace("mlx/", "").as_str(), "{}");
    std::fs::create_dir(bench.path("empty")).expect("a folder");
    for (name, words) in [
        (
            "empty",
            &["empty", "`adapter_config.json` is missing", "hint: an adapter is PEFT's or mlx-lm's folder"][..],
        ),
        ("m.gguf", &["m.gguf: `general.type` is", "instead of `adapter`", "hint:"]),
        ("d.jsonl", &["`adapter_config.json` is missing", "hint:"]),
    ] {
        let said = bench.galen(&["generate", "-m", "m.gguf", "--adapter", name, "-p", "x"]).exits(1);
        assert_has(&said.stderr, words);
    }
    as_mlx(&bench, "mlx");
    let config = bench.read("mlx/adapter_config.json").replace("\"scale\"", "\"alpha\":16,\"scale\"");
    bench.write("mlx/adapter_config.json", &config);
    let said = bench.galen(&["generate", "--adapter", "mlx", "-p", "x"]).exits(1);
    assert_has(&said.stderr, &["mlx/adapter_config.json", "`alpha: 16`", "hint: set `scale`"]);
}

#[test]
fn a_dora_run_goes_through_every_command() {
    let bench = trained(&["--set", "peft_use_dora=true"]);
    let config: Value = serde_json::from_str(&bench.read("run/adapter_config.json")).expect("JSON");
    assert_eq!(config["use_dora"], json!(true));
    let want = answer(&bench, &["--adapter", "run"]);
    assert_ne!(answer(&bench, &["-m", "m.gguf"]), want);
    bench.galen(&["merge", "--adapter", "run", "--quantize", "f32", "--out", "merged.gguf"]).exits(0);
    assert_eq!(answer(&bench, &["-m", "merged.gguf"]), want);
    bench.galen(&["export", "-m", "run", "--format", "peft", "--out", "peft"]).exits(0);
    assert_eq!(answer(&bench, &["-m", "m.gguf", "--adapter", "peft"]), want);
    let said = bench.galen(&["export", "-m", "run", "--format", "gguf-lora", "--out", "a.gguf"]).exits(1);
    assert_has(&said.stderr, &["`dora`", "hint: merge it: `--format gguf`"]);
    let said = bench.galen(&["merge", "--adapter", "run", "--adapter", "run", "--out", "two"]).exits(1);
    assert_has(&said.stderr, &["method `dora`", "hint: merge it into the base"]);
    // On to more steps, and with a LoRA adapter there are no magnitudes to train.
    bench
        .galen(&[
            "train",
            "c.yaml",
            "--set",
            "peft_use_dora=true",
            "--set",
            "num_epochs=3",
            "--set",
            "output_dir=more",
            "--set",
            "lora_model_dir=run",
            "--set",
            "max_steps=2",
        ])
        .exits(0);
    bench.galen(&["train", "c.yaml", "--set", "output_dir=lora"]).exits(0);
    let args = [
        "train",
        "c.yaml",
        "--set",
        "peft_use_dora=true",
        "--set",
        "output_dir=x",
        "--set",
        "lora_model_dir=lora",
    ];
    assert_has(&bench.galen(&args).exits(1).stderr, &["no magnitudes", "hint: leave `peft_use_dora` out"]);
    let plan = |more: &[&str]| bench.galen(&[&["plan", "c.yaml", "--json"], more].concat()).exits(0).json();
    let params = |plan: &Value| plan["estimate"]["adapter"]["params"].as_u64();
    let (lora, dora) = (plan(&[]), plan(&["--set", "peft_use_dora=true"]));
    assert!(params(&dora) > params(&lora) && params(&lora).is_some(), "{lora} {dora}");
}
