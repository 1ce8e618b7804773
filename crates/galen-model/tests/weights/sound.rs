//! What sound files give, and that all forms of one model give the same.

use super::fixture;
use galen_model::weights::{RopeScaling, config_from_gguf, config_from_hf};
use galen_model::{ModelConfig, Weights};
use galen_testkit::gguf_writer::Meta;
use serde_json::json;
use std::path::{Path, PathBuf};

fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens").join(name)
}

fn check_tiny(weights: &Weights) {
    assert_eq!(weights.names().len(), fixture::names().count());
    for name in fixture::names() {
        let want = fixture::values(name);
        let got = match weights.shape(name).unwrap().len() {
            1 => weights.vector(name).unwrap(),
            _ => weights.matrix(name).unwrap().to_f32(),
        };
        assert_eq!(got, want, "{name}");
    }
    assert_eq!(weights.nbytes(), 4 * weights.formats().iter().map(|(_, n)| n).sum::<usize>());
}

#[test]
fn gguf_safetensors_and_shards_of_one_model_agree() {
    let dir = tempfile::tempdir().unwrap();
    let gguf = dir.path().join("tiny.gguf");
    std::fs::write(&gguf, fixture::gguf().bytes()).unwrap();
    let gguf = Weights::open(&gguf).unwrap();
    check_tiny(&gguf);
    let mut configs = vec![gguf.config().clone()];
    for write in [fixture::write_dir as fn(&Path), fixture::write_shards] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path());
        let weights = Weights::open(dir.path()).unwrap();
        check_tiny(&weights);
        configs.push(weights.config().clone());
    }
    assert_eq!(configs[0], configs[1]);
    assert_eq!(configs[0], configs[2]);
    assert!(gguf.matrix("model.layers.0.mlp.up_proj.weight").unwrap().data().is_mapped());
}

#[test]
fn a_split_gguf_is_one_model() {
    let whole = fixture::gguf();
    let dir = tempfile::tempdir().unwrap();
    let name = |i: usize| dir.path().join(format!("tiny-{:05}-of-00003.gguf", i + 1));
    for i in 0..3 {
        let mut part = whole.clone();
        part.tensors = whole.tensors.iter().skip(i).step_by(3).cloned().collect();
        if i > 0 {
            part.metadata.clear();
        }
        part.metadata.push(("split.no".into(), Meta::U16(i as u16)));
        part.metadata.push(("split.count".into(), Meta::U16(3)));
        part.metadata.push(("split.tensors.count".into(), Meta::I32(whole.tensors.len() as i32)));
        std::fs::write(name(i), part.bytes()).unwrap();
    }
    for i in 0..3 {
        check_tiny(&Weights::open(&name(i)).unwrap());
    }
    std::fs::remove_file(name(2)).unwrap();
    let error = Weights::open(&name(0)).unwrap_err().to_string();
    assert!(error.contains("tiny-00003-of-00003.gguf"), "{error}");
    std::fs::copy(name(1), name(2)).unwrap();
    let error = Weights::open(&name(0)).unwrap_err().to_string();
    assert!(error.contains("tiny-00003-of-00003.gguf: is not part 2"), "{error}");
}

#[test]
fn metadata_is_readable_by_type() {
    let bytes = fixture::gguf()
        .with("nested", Meta::Raw(9, [9u32.to_le_bytes().to_vec(), 0u64.to_le_bytes().to_vec()].concat()))
        .bytes();
    let file = galen_model::weights::Gguf::parse(Path::new("x"), &bytes.into()).unwrap();
    let tokens: Vec<_> = file.array("tokenizer.ggml.tokens").unwrap().strs().unwrap().collect();
    assert_eq!(tokens, ["a", "b", "c", "d", "e"]);
    let scores: Vec<_> =
        file.array("tokenizer.ggml.scores").unwrap().values().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(scores, [0.0, 1.0, 2.0, 3.0, 4.0]);
    assert!(file.array("tokenizer.ggml.scores").unwrap().strs().is_none());
    assert_eq!(file.array("tokenizer.ggml.token_type").unwrap().len(), 5);
    assert_eq!(file.bool("tokenizer.ggml.add_bos_token"), Some(true));
    assert_eq!(file.str("general.architecture"), Some("llama"));
    assert_eq!(file.u64("general.architecture"), None);
}

/// transformers wrote both forms of each configuration and every weight.
#[test]
fn transformers_models_open_in_old_and_new_form() {
    for name in ["llama_tied", "llama_untied", "mistral", "qwen2", "qwen3", "gemma3"] {
        let dir = goldens("tiny").join(name);
        let weights = Weights::open(&dir).unwrap();
        let read = |file: &str| -> ModelConfig {
            let text = std::fs::read_to_string(dir.join(file)).unwrap();
            config_from_hf(Path::new(file), &serde_json::from_str(&text).unwrap()).unwrap()
        };
        assert_eq!(read("config.json"), read("config_legacy.json"), "{name}");
        let config = weights.config();
        assert_eq!((config.hidden_size, config.n_layers, config.vocab_size), (64, 2, 200));
        match name {
            "mistral" => assert_eq!((config.layer_window(0), config.layer_window(1)), (Some(8), Some(8))),
            "gemma3" => {
                assert_eq!((config.layer_window(0), config.layer_window(1)), (Some(8), None));
                assert_eq!((config.layer_rope(0).theta, config.layer_rope(1).theta), (100.0, 1e6));
                assert!((config.query_scale - 24f32.sqrt().recip()).abs() <= 1e-7);
                assert!(config.query_scale > 0.0 && config.embedding_scale == 8.0);
                // transformers stores w of 1 + w, drawn around 0.
                let norm = weights.vector("model.norm.weight").unwrap();
                let mean = norm.iter().sum::<f32>() / 64.0;
                assert!((mean - 1.0).abs() <= 0.2, "{mean}");
            }
            _ => assert_eq!(config.sliding_window, None),
        }
        assert_eq!(config.tie_word_embeddings, !matches!(name, "llama_untied" | "mistral"));
        assert!(weights.matrix("lm_head.weight").is_ok());
    }
}

/// transformers' `_compute_llama3_parameters` on Llama 3.1's own numbers; values printed by it.
#[test]
fn rotary_frequencies_are_transformers() {
    let config = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192});
    let mut model = fixture::config();
    model["rope_theta"] = json!(500_000.0);
    model["rope_scaling"] = config;
    model["head_dim"] = json!(128);
    let config = config_from_hf(Path::new("config.json"), &model).unwrap();
    assert!(matches!(config.rope.scaling, RopeScaling::Llama3 { .. }));
    let got = config.rope.inverse_frequencies(128);
    let want = LLAMA31;
    for (i, value) in want {
        assert!((got[i] - value).abs() <= 1.2e-7 * value, "{i}: {} {value}", got[i]);
    }
}

/// (pair, radians a position)
const LLAMA31: [(usize, f32); 8] = [
    (0, 1.0),
    (1, 0.814_617_2),
    (20, 0.016_560_44),
    (28, 0.003_211_446),
    (31, 0.000_856_751_46),
    (34, 0.000_178_507_79),
    (40, 3.428_102_4e-5),
    (63, 3.068_926e-7),
];

#[test]
fn gguf_factors_and_families_are_read() {
    let mut file = fixture::gguf();
    file.tensor_f32("rope_freqs.weight", &[2], &[1.0, 8.0]);
    let gguf = galen_model::weights::Gguf::parse(Path::new("x"), &file.bytes().into()).unwrap();
    let config = config_from_gguf(&gguf).unwrap();
    assert_eq!(config.rope.scaling, RopeScaling::Factors(vec![1.0, 8.0]));
    assert_eq!(config.rope.inverse_frequencies(4), [1.0, 0.01 / 8.0]);
}

#[test]
fn windows_follow_each_familys_rule() {
    let base = |kind: &str, more: serde_json::Value| {
        let mut config = fixture::config();
        config["model_type"] = json!(kind);
        config["num_hidden_layers"] = json!(8);
        config["head_dim"] = json!(4);
        if kind == "gemma3_text" {
            config["hidden_act"] = json!("gelu_pytorch_tanh");
        }
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        config_from_hf(Path::new("config.json"), &config).unwrap()
    };
    let windows =
        |c: ModelConfig| -> Vec<usize> { (0..8).filter(|i| c.layer_window(*i).is_some()).collect() };
    let (all, none): (Vec<usize>, Vec<usize>) = ((0..8).collect(), Vec::new());
    assert_eq!(windows(base("llama", json!({}))), none);
    assert_eq!(windows(base("mistral", json!({}))), all, "absent means transformers' default of 4096");
    assert_eq!(windows(base("mistral", json!({"sliding_window": null}))), none);
    assert_eq!(windows(base("qwen2", json!({"sliding_window": 9}))), none, "switched off");
    let on = json!({"sliding_window": 9, "use_sliding_window": true, "max_window_layers": 6});
    assert_eq!(windows(base("qwen2", on)), [6, 7]);
    assert_eq!(windows(base("gemma3_text", json!({}))), [0, 1, 2, 3, 4, 6, 7]);
}
