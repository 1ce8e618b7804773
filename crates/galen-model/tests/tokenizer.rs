//! Token ids against `tests/goldens/tokens` (made by `tokens.py` there: tokenizers, sentencepiece, llama.cpp).

use galen_model::tokenizer::Tokenizer;
use galen_model::weights::Gguf;
use galen_types::TextEncoder;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/tokens")
}

fn json(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).expect("JSON")
}

fn texts() -> Vec<String> {
    serde_json::from_value(json(&goldens().join("texts.json"))).expect("texts")
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, false).expect("encodes").into_iter().map(|(id, _)| id).collect()
}

/// Ids of the golden `name` as `tokenizer` sees them: `map` from its ids to the full vocabulary's.
fn check(name: &str, tokenizer: &Tokenizer, small: bool) {
    let golden = json(&goldens().join(format!("{name}.json")));
    let map: Vec<u32> = serde_json::from_value(golden["id_map"].clone()).expect("id_map");
    let want: Vec<Vec<u32>> = serde_json::from_value(golden["ids"].clone()).expect("ids");
    let texts = texts();
    assert_eq!(texts.len(), want.len());
    let mut wrong = Vec::new();
    for (text, want) in texts.iter().zip(&want) {
        let got: Vec<u32> =
            ids(tokenizer, text).into_iter().map(|id| if small { map[id as usize] } else { id }).collect();
        if got != *want {
            wrong.push(format!("{text:?}\n  got {got:?}\n want {want:?}"));
        }
    }
    assert!(wrong.is_empty(), "{name}: {} of {} differ\n{}", wrong.len(), texts.len(), wrong.join("\n"));
    println!("{name}: {} texts, {} tokens equal", texts.len(), want.iter().map(Vec::len).sum::<usize>());
}

const NAMES: [&str; 9] =
    ["smollm2", "gemma3", "llama-spm", "gpt-2", "llama-bpe", "qwen2", "deepseek-coder", "starcoder", "refact"];

#[test]
fn ids_from_gguf_metadata() {
    for name in NAMES {
        let file = Gguf::open(&goldens().join(format!("{name}.gguf"))).expect("opens");
        check(name, &Tokenizer::from_gguf_metadata(&file).expect("builds"), true);
    }
}
