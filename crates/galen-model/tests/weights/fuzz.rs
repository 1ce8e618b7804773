//! Each parser of ours on mutated files: it may refuse, it may not panic, nor allocate without bound (see `main.rs`).
//!
//! `GALEN_FUZZ_SECONDS` (default 2) or `GALEN_FUZZ_INPUTS` a parser; corpus in `tests/fuzz`.

use galen_model::weights::{Gguf, config_from_gguf, config_from_hf, parse_json, safetensors};
use galen_testkit::fuzz;
use std::path::Path;

fn corpus(parser: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz").join(parser);
    let mut files: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    files.iter().map(|f| std::fs::read(f).unwrap()).collect()
}

#[test]
fn gguf() {
    let (path, mut sound) = (Path::new("fuzz"), 0);
    let inputs = fuzz::run("gguf", &corpus("gguf"), |bytes| {
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
    let inputs = fuzz::run("config", &corpus("config"), |bytes| {
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
    let inputs = fuzz::run("index", &corpus("index"), |bytes| {
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
    let inputs = fuzz::run("safetensors", &corpus("safetensors"), |bytes| {
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
