//! Each parser of ours on mutated files: it may refuse, it may not panic, nor allocate without bound (see `main.rs`).
//!
//! `GALEN_FUZZ_SECONDS` (default 2) or `GALEN_FUZZ_INPUTS` a parser; corpus in `tests/fuzz`.

use galen_model::tokenizer::Tokenizer;
use galen_model::weights::{Gguf, config_from_gguf, config_from_hf, parse_json, safetensors};
use galen_testkit::fuzz;
use galen_types::TextEncoder;
use std::path::Path;

#[test]
fn gguf() {
    let (path, mut sound) = (Path::new("fuzz"), 0);
    let inputs = fuzz::run("gguf", &fuzz::corpus("gguf"), |bytes| {
        let Ok(file) = Gguf::parse(path, &bytes.to_vec().into()) else { return };
        for key in file.keys() {
            if let Some(array) = file.array(key) {
                assert!(array.strs().is_none_or(|s| s.count() == array.len()));
                let _ = array.values().count();
            }
        }
        for name in file.tensor_names() {
            let tensor = file.tensor(name).unwrap();
            assert!(!tensor.bytes.is_empty());
        }
        sound += usize::from(config_from_gguf(&file).is_ok());
    });
    println!("gguf: {inputs} inputs, {sound} of them still models");
    assert!(sound > 0);
}

#[test]
fn config() {
    let (path, mut sound) = (Path::new("fuzz"), 0);
    let inputs = fuzz::run("config", &fuzz::corpus("config"), |bytes| {
        let Ok(json) = parse_json(path, bytes) else { return };
        let Ok(config) = config_from_hf(path, &json) else { return };
        for layer in 0..config.n_layers {
            let frequencies = config.layer_rope(layer).inverse_frequencies(config.head_dim.min(512));
            assert!(frequencies.iter().all(|f| f.is_finite()) || config.rope.theta < 1.0, "{config:?}");
            let _ = config.layer_window(layer);
        }
        sound += 1;
    });
    println!("config: {inputs} inputs, {sound} of them still configurations");
    assert!(sound > 0);
}

#[test]
fn safetensors_index() {
    let (path, mut sound) = (Path::new("fuzz"), 0);
    let inputs = fuzz::run("index", &fuzz::corpus("index"), |bytes| {
        let Ok(json) = parse_json(path, bytes) else { return };
        let Ok(pairs) = safetensors::parse_index(path, &json) else { return };
        for (_, file) in pairs {
            assert!(!file.contains(['/', '\\']) && file != "..", "{file}");
        }
        sound += 1;
    });
    println!("index: {inputs} inputs, {sound} of them still indices");
    assert!(sound > 0);
}

#[test]
fn safetensors_header() {
    let (path, mut sound) = (Path::new("fuzz"), 0);
    let inputs = fuzz::run("safetensors", &fuzz::corpus("safetensors"), |bytes| {
        let Ok(tensors) = safetensors::parse(path, &bytes.to_vec().into()) else { return };
        for tensor in tensors.values() {
            if let Some(dtype) = tensor.dtype {
                let n: usize = tensor.shape.iter().product();
                assert_eq!(dtype.row_bytes(n).unwrap(), tensor.bytes.len());
            }
        }
        sound += 1;
    });
    println!("safetensors: {inputs} inputs, {sound} of them still files");
    assert!(sound > 0);
}

/// What a tokenizer of mutated files is asked.
const TEXT: &str = " hello w! 1\u{e9} <|im_end|></s>\n\u{4e2d}";

fn use_tokenizer(tokenizer: &Tokenizer) {
    let Ok(tokens) = tokenizer.encode(TEXT, true) else { return };
    assert!(tokens.iter().all(|(_, range)| range.start <= range.end && range.end <= TEXT.len()));
    let ids: Vec<u32> = tokens.into_iter().map(|(id, _)| id).collect();
    let _ = tokenizer.decode(&ids, true);
    let mut stream = tokenizer.stream(false);
    for id in ids.into_iter().chain([0, u32::MAX]) {
        let _ = stream.push(id);
    }
    let _ = stream.finish();
    let _ = (tokenizer.bos(), tokenizer.eos(), tokenizer.control_tokens(), tokenizer.vocab_size());
}

#[test]
fn tokenizer() {
    let (path, mut sound) = (Path::new("fuzz"), 0);
    let inputs = fuzz::run("tokenizer", &fuzz::corpus("tokenizer"), |bytes| {
        let Ok(file) = Gguf::parse(path, &bytes.to_vec().into()) else { return };
        let Ok(tokenizer) = Tokenizer::from_gguf_metadata(&file) else { return };
        use_tokenizer(&tokenizer);
        sound += 1;
    });
    println!("tokenizer: {inputs} inputs, {sound} of them still tokenizers");
    assert!(sound > 0);
}

/// A tokenizer's folder, one of its files mutated (under every name of `files`).
fn tokenizer_folder(name: &str, files: &[&str]) {
    let dir = fuzz::folder();
    std::fs::write(dir.path().join("tokenizer.json"), &fuzz::corpus("tokenizer_json")[0]).unwrap();
    let mut sound = 0;
    let inputs = fuzz::run(name, &fuzz::corpus(name), |bytes| {
        for file in files {
            std::fs::write(dir.path().join(file), bytes).unwrap();
        }
        let Ok(tokenizer) = Tokenizer::from_dir(dir.path()) else { return };
        use_tokenizer(&tokenizer);
        sound += 1;
    });
    println!("{name}: {inputs} inputs, {sound} of them still tokenizers");
    assert!(sound > 0);
}

#[test]
fn tokenizer_json() {
    fuzz::hush_dependencies();
    tokenizer_folder("tokenizer_json", &["tokenizer.json"]);
}

#[test]
fn tokenizer_config() {
    tokenizer_folder("tokenizer_config", &["tokenizer_config.json", "config.json"]);
}
