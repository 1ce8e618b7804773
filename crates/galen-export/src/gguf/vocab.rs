//! A `tokenizer.json` as GGUF metadata: byte-level BPE (`gpt2`) and SentencePiece BPE (`llama`).

use super::writer::{Metadata, Value};
use crate::error::{Result, at, cannot};
use crate::source::Source;
use galen_model::tokenizer::recognise;
use galen_types::TextEncoder as _;
use serde_json::Value as Json;
use std::collections::HashMap;

/// Largest `tokenizer.json` read.
const MAX_BYTES: u64 = 256 << 20;

/// GGUF's token types.
mod kind {
    pub const NORMAL: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const UNUSED: i32 = 5;
    pub const BYTE: i32 = 6;
}

/// A score of tokens that no merge makes.
const NEVER: f32 = -1e9;

struct Vocab {
    tokens: Vec<String>,
    types: Vec<i32>,
    merges: Vec<(String, String)>,
}

/// Adds the tokenizer of a Hugging Face base.
pub(crate) fn add(source: &Source, m: &mut Metadata) -> Result<()> {
    let path = source.weights.path().join("tokenizer.json");
    let size = std::fs::metadata(&path).map_err(at(&path))?.len();
    let hint = "export the adapter alone: `--format gguf-lora`";
    if size > MAX_BYTES {
        return cannot(format!("{}: {size} bytes is too large", path.display()), hint);
    }
    let text = std::fs::read(&path).map_err(at(&path))?;
    let Ok(json) = serde_json::from_slice::<Json>(&text) else {
        return cannot(format!("{}: not valid JSON", path.display()), hint);
    };
    let refuse = |what: String| cannot::<()>(format!("{}: {what}", path.display()), hint);
    if json["model"]["type"] != "BPE" {
        return refuse(format!("a model of type `{}` has no form in GGUF here", json["model"]["type"]));
    }
    let vocab = match read(&json, source.config().vocab_size) {
        Ok(vocab) => vocab,
        Err(what) => return refuse(what),
    };
    if json["model"]["byte_fallback"] == true {
        let scores = scores(&vocab);
        m.push("tokenizer.ggml.model", Value::Str("llama"));
        m.push("tokenizer.ggml.pre", Value::Str("default"));
        m.push("tokenizer.ggml.tokens", Value::Strs(&vocab.tokens));
        m.push("tokenizer.ggml.scores", Value::F32s(&scores));
        m.push("tokenizer.ggml.token_type", Value::I32s(&vocab.types));
        let prefix = json["normalizer"].to_string().contains("Prepend")
            || json["pre_tokenizer"]["prepend_scheme"].as_str().is_some_and(|s| s != "never");
        m.push("tokenizer.ggml.add_space_prefix", Value::Bool(prefix));
    } else {
        let Some(pre) = recognise(&json) else {
            return refuse("its pre-tokenizer is none that llama.cpp is known to have".into());
        };
        let merges: Vec<String> = vocab.merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
        m.push("tokenizer.ggml.model", Value::Str("gpt2"));
        m.push("tokenizer.ggml.pre", Value::Str(pre.names[0]));
        m.push("tokenizer.ggml.tokens", Value::Strs(&vocab.tokens));
        m.push("tokenizer.ggml.token_type", Value::I32s(&vocab.types));
        m.push("tokenizer.ggml.merges", Value::Strs(&merges));
    }
    special(source, m);
    Ok(())
}

/// Tokens by id, their types, and the merges in order.
fn read(json: &Json, vocab_size: usize) -> std::result::Result<Vocab, String> {
    let Some(entries) = json["model"]["vocab"].as_object() else { return Err("it has no `vocab`".into()) };
    let added = json["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    let unknown = json["model"]["unk_token"].as_str();
    let mut n = vocab_size;
    let id = |v: &Json| v.as_u64().map(|id| id as usize).filter(|id| *id < 1 << 24);
    for v in entries.values().chain(added.iter().map(|t| &t["id"])) {
        let Some(id) = id(v) else { return Err(format!("a token has the id `{v}`")) };
        n = n.max(id + 1);
    }
    if n > vocab_size {
        return Err(format!("it has `{n}` tokens for a model of `{vocab_size}`"));
    }
    let mut tokens: Vec<String> = (0..n).map(|i| format!("[PAD{i}]")).collect();
    let mut types = vec![kind::UNUSED; n];
    let fallback = json["model"]["byte_fallback"] == true;
    for (token, v) in entries {
        let Some(id) = id(v) else { continue };
        types[id] = match token {
            t if Some(t.as_str()) == unknown && fallback => kind::UNKNOWN,
            t if fallback && t.len() == 6 && t.starts_with("<0x") => kind::BYTE,
            _ => kind::NORMAL,
        };
        tokens[id].clone_from(token);
    }
    for t in added {
        let (Some(id), Some(text)) = (id(&t["id"]), t["content"].as_str()) else { continue };
        if types[id] != kind::UNKNOWN {
            types[id] = if t["special"] == true { kind::CONTROL } else { kind::USER_DEFINED };
        }
        text.clone_into(&mut tokens[id]);
    }
    let mut merges = Vec::new();
    for merge in json["model"]["merges"].as_array().map_or(&[][..], Vec::as_slice) {
        let pair = match merge {
            Json::String(line) => line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())),
            _ => merge[0].as_str().zip(merge[1].as_str()).map(|(a, b)| (a.to_owned(), b.to_owned())),
        };
        let Some(pair) = pair else { return Err(format!("the merge `{merge}` is no pair")) };
        merges.push(pair);
    }
    Ok(Vocab { tokens, types, merges })
}

/// SentencePiece merges the pair whose union has the highest score: minus the number of its first merge.
fn scores(vocab: &Vocab) -> Vec<f32> {
    let mut first: HashMap<String, usize> = HashMap::new();
    for (i, (a, b)) in vocab.merges.iter().enumerate() {
        first.entry(format!("{a}{b}")).or_insert(i);
    }
    let score = |(token, kind): (&String, &i32)| match first.get(token) {
        Some(i) => -(*i as f32),
        None if *kind == kind::NORMAL => NEVER,
        None => 0.0,
    };
    vocab.tokens.iter().zip(&vocab.types).map(score).collect()
}

/// Special tokens by role, and whether texts begin with one.
fn special(source: &Source, m: &mut Metadata) {
    let tokenizer = source.tokenizer;
    let roles =
        [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")];
    for (name, variable) in roles {
        let id = tokenizer.special_tokens().get(variable).and_then(|text| tokenizer.token_id(text));
        if let Some(id) = id {
            m.push(format!("tokenizer.ggml.{name}_token_id"), Value::U32(id));
        }
    }
    let ids = tokenizer.encode("a", true).unwrap_or_default();
    let ends = |token: Option<(u32, &str)>, end: Option<&(u32, std::ops::Range<usize>)>| {
        token.is_some_and(|(id, _)| end.is_some_and(|(e, _)| *e == id))
    };
    m.push("tokenizer.ggml.add_bos_token", Value::Bool(ends(tokenizer.bos(), ids.first())));
    m.push("tokenizer.ggml.add_eos_token", Value::Bool(ends(tokenizer.eos(), ids.last())));
}
