//! `galen verify`: good artifacts pass, tampered ones fail by what was tampered with.

use crate::cli::{Bench, Said, assert_has};
use crate::goldens::path;
use galen_testkit::tiny_gguf::tiny_gguf;
use serde_json::{Value, json};

/// A run that has learned to end its answers.
fn trained() -> Bench {
    train(Bench::new())
}

fn train(bench: Bench) -> Bench {
    let sets =
        ["--set", "num_epochs=12", "--set", "lora_r=8", "--set", "lora_dropout=0", "--set", "save_steps=100"];
    bench.galen(&[&["train", "c.yaml"], &sets[..]].concat()).exits(0);
    bench
}

fn export(bench: &Bench, format: &str, quantize: Option<&str>, out: &str) -> Said {
    let mut args = vec!["export", "--model", "run", "--format", format, "--out", out];
    args.extend(quantize.into_iter().flat_map(|q| ["--quantize", q]));
    bench.galen(&args)
}

fn edit_json(bench: &Bench, file: &str, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_str(&bench.read(file)).expect("JSON");
    edit(&mut value);
    bench.write(file, &value.to_string());
}

#[test]
fn every_export_of_a_run_passes_and_is_noted() {
    let bench = trained();
    for (format, quantize, out) in [
        ("gguf", Some("f32"), "f32.gguf"),
        ("gguf", Some("f16"), "f16.gguf"),
        ("gguf", Some("q8_0"), "q8.gguf"),
        ("gguf-lora", None, "lora.gguf"),
        ("gguf-lora", Some("f16"), "lora-f16.gguf"),
        ("hf", Some("f32"), "hf"),
        ("peft", None, "peft"),
        ("ollama", Some("f16"), "ollama"),
    ] {
        // Twice: what lies in a folder beside the export is no stranger there.
        for _ in 0..2 {
            assert_has(&export(&bench, format, quantize, out).exits(0).stderr, &["passed"]);
        }
    }
    assert_has(&bench.read("peft/README.md"), &["## Served as trained", "| peft | peft |"]);
    for file in ["hf/verify.json", "f32.gguf.verify.json", "ollama/verify.json"] {
        let verdict: Value = serde_json::from_str(&bench.read(file)).expect("JSON");
        assert_eq!(verdict["passed"], true, "{verdict}");
        assert!(verdict["model"]["answers"]["mean_kl"].as_f64().is_some_and(|kl| kl <= 1e-4), "{verdict}");
        assert_eq!(verdict["text"]["template"], "the run's");
        assert_eq!(verdict["stop"]["token"], "<|im_end|>");
        assert_eq!(verdict["stop"]["supervised_rows"], 20);
    }
    let all = bench.galen(&["verify", "run", "--json"]).exits(0).json();
    let artifacts = all["artifacts"].as_array().expect("a list");
    assert_eq!(artifacts.len(), 9, "{all}");
    assert_eq!(artifacts[0]["format"], "run");
    let card = bench.read("run/README.md");
    assert_eq!(card.matches("## Served as trained").count(), 1);
    assert_eq!(card.matches("| passed |").count(), 9, "{card}");
    // Of other data the run's rows are unknown: the model's own answers are compared.
    std::fs::rename(bench.path("d.jsonl"), bench.path("moved.jsonl")).expect("moved");
    let said = bench.galen(&["verify", "run", "lora.gguf", "--limit", "4"]);
    assert_has(&said.stderr, &["rows cannot be read"]);
}

#[test]
fn what_is_tampered_with_fails_by_name() {
    let bench = trained();
    export(&bench, "hf", Some("f32"), "hf").exits(0);
    let verify = |what: &[&str]| {
        let said = bench.galen(&["verify", "run", "hf"]).exits(1);
        assert_has(&said.stdout, &["FAILED"]);
        assert_has(&said.stdout, what);
        assert_has(&said.stderr, &["is not what was trained", "hint:"]);
        // Good again for the next.
        std::fs::remove_dir_all(bench.path("hf")).expect("removed");
        export(&bench, "hf", Some("f32"), "hf").exits(0);
    };
    let template = bench.read("hf/chat_template.jinja");
    bench.write("hf/chat_template.jinja", &template.replace("assistant\\n", "assistant: "));
    verify(&["failed   text: the chat of user, assistant: token ", "instead of", "assistant`"]);

    edit_json(&bench, "hf/tokenizer.json", |t| {
        let (a, b) = (t["model"]["vocab"]["a"].clone(), t["model"]["vocab"]["o"].clone());
        (t["model"]["vocab"]["a"], t["model"]["vocab"]["o"]) = (b, a);
    });
    verify(&["failed   text: the text `What is", "`a` instead of", "behind `Wh`"]);

    let file = bench.path("hf/model.safetensors");
    let mut bytes = std::fs::read(&file).expect("a file");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    let tensors: Value = serde_json::from_slice(&bytes[8..8 + header]).expect("JSON");
    let at =
        tensors["model.layers.1.mlp.up_proj.weight"]["data_offsets"][0].as_u64().expect("an offset") as usize;
    // The signs of a row.
    (0..32).for_each(|i| bytes[8 + header + at + 4 * i + 3] ^= 0x80);
    std::fs::write(&file, bytes).expect("a file");
    verify(&["failed   weights: `model.layers.1.mlp.up_proj.weight` (F32) has a relative error of"]);

    for file in ["hf/config.json", "hf/generation_config.json"] {
        edit_json(&bench, file, |c| c["eos_token_id"] = json!(256));
    }
    for file in ["hf/tokenizer_config.json", "hf/special_tokens_map.json"] {
        edit_json(&bench, file, |c| c["eos_token"] = json!("<|endoftext|>"));
    }
    verify(&["failed   stop: `<|im_end|>` ends no answer of it, only `<|endoftext|>`"]);
}

#[test]
fn strangers_and_broken_files_are_told_apart() {
    let bench = trained();
    let verify = |artifact: &str, what: &[&str]| {
        let said = bench.galen(&["verify", "run", artifact, "--limit", "4"]).exits(1);
        assert_has(&said.stdout, &["FAILED"]);
        assert_has(&said.stdout, what);
    };
    bench.write_bytes("other.gguf", &tiny_gguf(6));
    verify("other.gguf", &["weights: `model.embed_tokens.weight`", "KL:"]);
    // The base without its adapter.
    verify("m.gguf", &["weights: `model.layers.0.self_attn.q_proj.weight`", "KL:"]);
    let shape = path("tiny/qwen2");
    verify(
        &shape.display().to_string(),
        &["of another base", "`architecture` is `qwen2`, the base's `llama`"],
    );
    export(&bench, "gguf", Some("f32"), "m.f32.gguf").exits(0);
    let whole = std::fs::read(bench.path("m.f32.gguf")).expect("a file");
    bench.write_bytes("half.gguf", &whole[..whole.len() / 2]);
    verify("half.gguf", &["half.gguf"]);
    let missing = bench.galen(&["verify", "run", "nothing.gguf"]).exits(2);
    assert_has(&missing.stderr, &["nothing.gguf: there is no such file", "\nhint: "]);
    verify("d.jsonl", &["no model and no adapter"]);
    export(&bench, "gguf", Some("q8_0"), "q8.gguf").exits(0);
    // A stranger that was named is left alone.
    assert!(!shape.join("verify.json").exists() && !bench.path("other.gguf.verify.json").exists());
    assert!(!bench.read("run/verify.json").contains("other.gguf"));
    let strict = bench.galen(&["verify", "run", "q8.gguf", "--max-kl", "1e-12"]).exits(1);
    assert_has(&strict.stdout, &["KL: ", "more than 1e-12"]);
    assert_has(&bench.read("run/README.md"), &["| q8.gguf | gguf | Q8_0 | same |", "**failed**"]);
    bench.galen(&["verify", "d.jsonl"]).exits(2);
}

#[test]
fn an_end_that_was_not_trained_fails() {
    let bench = Bench::new();
    let config = bench.read("c.yaml");
    bench.write(
        "c.yaml",
        &config.replace("type: chat_template", "type: chat_template\n    train_on_eos: none"),
    );
    let bench = train(bench);
    let said = export(&bench, "gguf-lora", None, "lora.gguf").exits(1);
    assert_has(&said.stderr, &["`<|im_end|>` was under the loss in none of 20 training rows"]);
    // The file is there all the same, and noted where it is not verified.
    bench.galen(&["export", "-m", "run", "--format", "gguf-lora", "--out", "b.gguf", "--no-verify"]).exits(0);
    assert_has(&bench.read("run/verify.json"), &["lora.gguf", "b.gguf"]);
}
