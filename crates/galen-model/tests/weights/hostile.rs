//! Truncated, oversized and lying files: each is refused with a message that names the file and what is wrong.
//! `main.rs` bounds what refusing may allocate.

use super::fixture;
use galen_model::Weights;
use galen_testkit::gguf_writer::{GgufWriter, Meta};
use serde_json::{Value, json};
use std::path::Path;

/// Opens `path` and holds the error against what the case expects: the file's name first, then `expect` somewhere.
fn refused(case: &str, path: &Path, file: &str, expect: &str) {
    let error = match Weights::open(path) {
        Ok(_) => panic!("{case}: opened"),
        Err(error) => error.to_string(),
    };
    let first = error.split(": ").next().unwrap_or_default();
    assert!(first.ends_with(file), "{case}: `{error}` does not begin with `{file}`");
    assert!(error.contains(expect), "{case}: `{error}` does not say `{expect}`");
    assert!(error.len() < 600, "{case}: a message of {} bytes", error.len());
}

fn le64(v: u64) -> Vec<u8> {
    v.to_le_bytes().to_vec()
}

/// An array value: element type, claimed length, bytes.
fn array(kind: u32, len: u64, bytes: &[u8]) -> Meta {
    Meta::Raw(9, [&kind.to_le_bytes()[..], &le64(len), bytes].concat())
}

/// Arrays of arrays, `depth` deep, each of one element.
fn nested(depth: usize) -> Meta {
    let one = [&9u32.to_le_bytes()[..], &le64(1)].concat();
    Meta::Raw(9, one.repeat(depth))
}

/// What a case does to the sound file.
type Change = fn(&mut GgufWriter);

fn set(file: &mut GgufWriter, key: &str, value: Meta) {
    match file.metadata.iter_mut().find(|(k, _)| k == key) {
        Some(pair) => pair.1 = value,
        None => file.metadata.push((key.to_owned(), value)),
    }
}

const GGUF: &[(&str, Change, &str)] = &[
    ("version 1", |f| f.version = 1, "GGUF version `1` is not supported"),
    ("version 99", |f| f.version = 99, "GGUF version `99`"),
    ("big-endian", |f| f.version = 3u32.swap_bytes(), "big-endian"),
    ("2^64-1 tensors", |f| f.claimed_tensors = Some(u64::MAX), "the number of tensors at byte 8"),
    ("10^9 tensors", |f| f.claimed_tensors = Some(1_000_000_000), "more than the rest of the file can hold"),
    ("one tensor more", |f| f.claimed_tensors = Some(13), ""),
    ("2^63 pairs", |f| f.claimed_metadata = Some(1 << 63), "the number of metadata pairs"),
    ("pairs into tensors", |f| f.claimed_metadata = Some(14), ""),
    ("fewer pairs", |f| f.claimed_metadata = Some(3), ""),
    ("a string of 2^64-1", |f| set(f, "s", Meta::Raw(8, le64(u64::MAX))), "metadata `s`"),
    ("a string past the end", |f| set(f, "s", Meta::Raw(8, le64(1 << 40))), "more than the rest of the file"),
    ("text not UTF-8", |f| set(f, "s", Meta::Raw(8, [le64(2), vec![0xff, 0xfe]].concat())), "is not UTF-8"),
    ("token not UTF-8", |f| set(f, "s", array(8, 1, &[le64(1), vec![0x80]].concat())), "is not UTF-8"),
    ("a value type 13", |f| set(f, "s", Meta::Raw(13, vec![0; 8])), "value type `13`"),
    ("an element type 99", |f| set(f, "s", array(99, 1, &[0; 8])), "element type `99`"),
    ("an array of 2^62 bytes", |f| set(f, "s", array(0, 1 << 62, &[])), "an array's length"),
    ("an array of 2^61+ f64", |f| set(f, "s", array(12, (1 << 61) + 1, &[0; 8])), "an array's length"),
    ("an array of 2^60 strings", |f| set(f, "s", array(8, 1 << 60, &[])), "an array's length"),
    ("arrays 5 deep", |f| set(f, "s", nested(5)), "nested more than"),
    ("arrays 100000 deep", |f| set(f, "s", nested(100_000)), "nested more than"),
    ("a truth value 2", |f| set(f, "s", Meta::Raw(7, vec![2])), "a truth value"),
    ("a truth value 7 in an array", |f| set(f, "s", array(7, 2, &[0, 7])), "a truth value"),
    ("a key twice", |f| f.metadata.push(("llama.block_count".into(), Meta::U32(1))), "comes twice"),
    ("an empty key", |f| set(f, "", Meta::U32(1)), "a metadata key has 0 bytes"),
    ("a key of 70000", |f| set(f, &"k".repeat(70_000), Meta::U32(1)), "a metadata key has 70000 bytes"),
    ("alignment 0", |f| set(f, "general.alignment", Meta::U32(0)), "`general.alignment`"),
    ("alignment 33", |f| set(f, "general.alignment", Meta::U32(33)), "`general.alignment`"),
    ("alignment 2^31", |f| set(f, "general.alignment", Meta::U32(1 << 31)), "`general.alignment`"),
    ("alignment text", |f| set(f, "general.alignment", "32".into()), "`general.alignment`"),
    ("0 dimensions", |f| f.tensors[1].shape.clear(), "has 0 dimensions"),
    ("5 dimensions", |f| f.tensors[1].shape = vec![1; 5], "has 5 dimensions"),
    ("a dimension 0", |f| f.tensors[1].shape = vec![0], "has a dimension of `0`"),
    ("dimensions that overflow", |f| f.tensors[0].shape = vec![1 << 33, 1 << 33], "has a dimension of"),
    ("a dimension 2^64-1", |f| f.tensors[0].shape = vec![u64::MAX], "is too large"),
    ("bytes that overflow", |f| f.tensors[0].shape = vec![1 << 61, 2], "is too large"),
    ("a tensor past the end", |f| f.tensors[11].shape = vec![1000, 12], "bytes of data"),
    ("an offset past the end", |f| f.tensors[3].offset = Some(1 << 40), "bytes of data"),
    ("an offset of 2^64-32", |f| f.tensors[3].offset = Some(u64::MAX - 31), "bytes of data"),
    ("an offset not aligned", |f| f.tensors[3].offset = Some(4), "not a multiple of 32"),
    ("tensors that overlap", |f| f.tensors[3].offset = Some(32), "overlaps"),
    ("the same bytes twice", |f| f.tensors[3].offset = Some(0), "overlaps"),
    ("a tensor twice", |f| f.tensors[3].name = "blk.0.ffn_norm.weight".into(), "comes twice"),
    ("a tensor without a name", |f| f.tensors[3].name = String::new(), "a tensor name has 0 bytes"),
    (
        "a type of IQ2_XXS",
        |f| f.tensors[5].kind = 16,
        "tensor type `IQ2_XXS` (ggml type 16) is not supported",
    ),
    ("a type of MXFP4", |f| f.tensors[5].kind = 39, "`MXFP4`"),
    ("a type of no name", |f| f.tensors[5].kind = 777, "`unknown` (ggml type 777)"),
    ("rows of half a block", |f| f.tensors[5].kind = 2, "not whole blocks of `Q4_0`"),
    (
        "a tensor left out",
        |f| drop(f.tensors.remove(6)),
        "there is no tensor `model.layers.0.self_attn.k_proj.weight`",
    ),
    (
        "a tensor too many",
        |f| f.tensor_f32("blk.0.attn_q.bias", &[8], &[0.0; 8]),
        "`blk.0.attn_q.bias` in architecture",
    ),
    ("another shape", |f| f.tensors[6].shape = vec![8, 4], "has shape [8, 4] instead of [4, 8]"),
    ("no architecture", |f| drop(f.metadata.remove(0)), "has no `general.architecture`"),
    (
        "an architecture of numbers",
        |f| set(f, "general.architecture", Meta::U32(7)),
        "`general.architecture`",
    ),
    (
        "an unknown architecture",
        |f| set(f, "general.architecture", "mamba".into()),
        "architecture `mamba` is not supported",
    ),
    ("an adapter", |f| set(f, "general.type", "adapter".into()), "of type `adapter`"),
    ("10^9 layers", |f| set(f, "llama.block_count", Meta::U32(1_000_000_000)), "`llama.block_count`"),
    ("5000 layers", |f| set(f, "llama.block_count", Meta::U32(5000)), "`num_hidden_layers` is `5000`"),
    ("-1 layers", |f| set(f, "llama.block_count", Meta::I32(-1)), "not a size"),
    ("0 heads", |f| set(f, "llama.attention.head_count", Meta::U32(0)), "is `0`"),
    (
        "0 key-value heads",
        |f| set(f, "llama.attention.head_count_kv", Meta::U32(0)),
        "`num_key_value_heads` is `0`",
    ),
    ("2 heads on 3", |f| set(f, "llama.attention.head_count_kv", Meta::U32(3)), "cannot share"),
    (
        "heads by layer",
        |f| set(f, "llama.attention.head_count", Meta::I32s(vec![2])),
        "differs from layer to layer",
    ),
    (
        "an infinite rope base",
        |f| set(f, "llama.rope.freq_base", Meta::F32(f32::INFINITY)),
        "`rope_theta` is `inf`",
    ),
    (
        "an eps of NaN",
        |f| set(f, "llama.attention.layer_norm_rms_epsilon", Meta::F32(f32::NAN)),
        "`rms_norm_eps`",
    ),
    ("yarn", |f| set(f, "llama.rope.scaling.type", "yarn".into()), ""),
    ("experts", |f| set(f, "llama.expert_count", Meta::U32(8)), "`llama.expert_count` is not supported"),
    (
        "part of a rotation",
        |f| set(f, "llama.rope.dimension_count", Meta::U32(2)),
        "`llama.rope.dimension_count` = `2`",
    ),
    (
        "rope factors of 3",
        |f| f.tensor_f32("rope_freqs.weight", &[3], &[1.0; 3]),
        "has shape [3] instead of [2]",
    ),
    ("rope factors of 0", |f| f.tensor_f32("rope_freqs.weight", &[2], &[0.0; 2]), "rotary scaling"),
    ("9 parts, one name", |f| set(f, "split.count", Meta::U16(9)), "`split.count` is 9"),
];

#[test]
fn gguf_files_that_lie_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    for (case, change, expect) in GGUF {
        let mut file = fixture::gguf();
        change(&mut file);
        if *case == "yarn" {
            set(&mut file, "llama.rope.scaling.factor", Meta::F32(4.0));
        }
        std::fs::write(&path, file.bytes()).unwrap();
        let expect = if *case == "yarn" { "rotary scaling `yarn` is not supported" } else { expect };
        refused(case, &path, "tiny.gguf", expect);
    }
}

#[test]
fn gguf_files_cut_anywhere_are_refused() {
    let whole = fixture::gguf().bytes();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    for end in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        std::fs::write(&path, &whole[..end]).unwrap();
        refused(&format!("{end} bytes"), &path, "tiny.gguf", "hint: the file is damaged");
    }
}

/// (case, key of `config.json`, its value, what the message says); `null` removes nothing, `"-"` removes the key.
fn configs() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("model_type", json!("-"), "has no `model_type`"),
        ("model_type", json!(7), "has no `model_type`"),
        ("model_type", json!("gpt2"), "architecture `gpt2` is not supported"),
        ("model_type", json!("gemma3"), "has no `text_config`"),
        ("hidden_size", json!("-"), "has no `hidden_size`"),
        ("hidden_size", json!("8"), "`hidden_size` is `\"8\"`, not a size"),
        ("hidden_size", json!(-8), "not a size"),
        ("hidden_size", json!(8.5), "not a size"),
        ("hidden_size", json!(u64::MAX), "`hidden_size` is `18446744073709551615`"),
        ("hidden_size", json!(16), "has shape [5, 8] instead of [5, 16]"),
        ("head_dim", json!(3), "2 heads of 3 dimensions"),
        ("head_dim", json!(1u64 << 40), "`head_dim` is"),
        ("num_hidden_layers", json!(0), "`num_hidden_layers` is `0`"),
        ("num_hidden_layers", json!(1_000_000_000_000u64), "`num_hidden_layers`"),
        ("num_hidden_layers", json!(2), "there is no tensor `model.layers.1."),
        ("num_attention_heads", json!(0), "is `0`"),
        ("num_key_value_heads", json!(3), "cannot share"),
        ("vocab_size", json!(6), "has shape [5, 8] instead of [6, 8]"),
        ("rms_norm_eps", json!(-1.0), "`rms_norm_eps`"),
        ("rms_norm_eps", json!("small"), "`rms_norm_eps` is not a number"),
        ("rope_theta", json!(0), "`rope_theta` is `0`"),
        ("rope_scaling", json!({"type": "yarn", "factor": 4.0}), "rotary scaling `yarn` is not supported"),
        ("rope_scaling", json!({"rope_type": "longrope"}), "rotary scaling `longrope` is not supported"),
        ("rope_scaling", json!({"type": "dynamic", "factor": 2.0}), "`dynamic`"),
        ("rope_scaling", json!({"factor": 2.0}), "has no `rope_type`"),
        ("rope_scaling", json!({"rope_type": 3}), "`rope_type` is not text"),
        ("rope_scaling", json!({"type": "linear"}), "no number `factor`"),
        ("rope_scaling", json!({"type": "linear", "factor": 0}), "rotary scaling"),
        (
            "rope_parameters",
            json!({"rope_type": "default", "partial_rotary_factor": 0.5}),
            "`partial_rotary_factor`",
        ),
        ("hidden_act", json!("relu"), "activation `relu` is not supported"),
        ("hidden_act", json!(1), "`hidden_act` is not text"),
        ("attention_bias", json!(true), "`attention_bias` is not supported"),
        ("mlp_bias", json!(true), "`mlp_bias` is not supported"),
        ("final_logit_softcapping", json!(30.0), "`final_logit_softcapping` is not supported"),
        ("quantization_config", json!({"quant_method": "gptq"}), "`quantization_config` with method `gptq`"),
        ("layer_types", json!(["linear_attention"]), "layer type `linear_attention` is not supported"),
        ("layer_types", json!(["full_attention", "full_attention"]), "2 layer types for 1 layers"),
        ("layer_types", json!(["sliding_attention"]), "without a `sliding_window`"),
    ]
}

#[test]
fn configurations_that_lie_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fixture::write_dir(dir.path());
    let dir_name = dir.path().file_name().unwrap().to_str().unwrap();
    for (key, value, expect) in configs() {
        let mut config = fixture::config();
        if value == "-" {
            config.as_object_mut().unwrap().remove(key);
        } else {
            config[key] = value.clone();
        }
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let about_tensors = expect.starts_with("has shape") || expect.starts_with("there is no tensor");
        let file = if about_tensors { dir_name } else { "config.json" };
        refused(&format!("{key} = {value}"), dir.path(), file, expect);
    }
    let raw: &[(&str, Vec<u8>)] = &[
        ("not valid JSON", b"{".to_vec()),
        ("not valid JSON", Vec::new()),
        ("not valid JSON", b"\xff\xfe".to_vec()),
        ("not valid JSON", vec![b'['; 200_000]),
        ("not valid JSON", b"{\"a\":".repeat(100_000)),
        ("is not a JSON object", b"[]".to_vec()),
        ("bytes of JSON", vec![b' '; (8 << 20) + 1]),
    ];
    for (expect, bytes) in raw {
        std::fs::write(dir.path().join("config.json"), bytes).unwrap();
        refused(expect, dir.path(), "config.json", expect);
    }
}

#[test]
fn safetensors_files_that_lie_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fixture::write_dir(dir.path());
    let dir_name = dir.path().file_name().unwrap().to_str().unwrap();
    let whole = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let header = |body: &str| fixture::with_header(body, &[0; 64]);
    let long = |n: u64| [&n.to_le_bytes()[..], &whole[8..]].concat();
    let cut = "hint: the file is damaged";
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), cut),
        ("7 bytes", whole[..7].to_vec(), cut),
        ("half", whole[..whole.len() / 2].to_vec(), cut),
        ("one byte short", whole[..whole.len() - 1].to_vec(), cut),
        ("one byte long", [&whole[..], &[0]].concat(), cut),
        ("a header of 2^64-1", long(u64::MAX), cut),
        ("a header of 100 MB", long(100_000_000), cut),
        ("a header of 0", long(0), cut),
        ("not UTF-8", header("{\"\u{0}\"").into_iter().map(|b| if b == 0 { 0xff } else { b }).collect(), cut),
        ("not JSON", header("{\"a\":"), cut),
        ("nested", header(&"[".repeat(100_000)), cut),
        ("offsets backwards", header(r#"{"a":{"dtype":"F32","shape":[16],"data_offsets":[64,0]}}"#), cut),
        ("offsets past the end", header(r#"{"a":{"dtype":"F32","shape":[32],"data_offsets":[0,128]}}"#), cut),
        ("a hole", header(r#"{"a":{"dtype":"F32","shape":[8],"data_offsets":[32,64]}}"#), cut),
        (
            "overlap",
            header(
                r#"{"a":{"dtype":"F32","shape":[16],"data_offsets":[0,64]},"b":{"dtype":"F32","shape":[8],"data_offsets":[32,64]}}"#,
            ),
            cut,
        ),
        ("a shape that lies", header(r#"{"a":{"dtype":"F32","shape":[17],"data_offsets":[0,64]}}"#), cut),
        (
            "a shape that overflows",
            header(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,64]}}"#),
            cut,
        ),
        ("an unknown type", header(r#"{"a":{"dtype":"Q4","shape":[16],"data_offsets":[0,64]}}"#), cut),
    ];
    for (case, bytes, expect) in cases {
        std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
        refused(case, dir.path(), "model.safetensors", expect);
    }
    // Integers where weights should be.
    let text = String::from_utf8_lossy(&whole[8..]).into_owned();
    let body = text[..=text.rfind('}').unwrap()].replacen("F32", "I32", 1);
    let data = &whole[8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize..];
    std::fs::write(dir.path().join("model.safetensors"), fixture::with_header(&body, data)).unwrap();
    refused("integers", dir.path(), dir_name, "type `I32` is not supported");
    // Nothing to read.
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    refused("no weights", dir.path(), dir_name, "neither `model.safetensors` nor");
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    refused("no config", dir.path(), dir_name, "there is no `config.json`");
}

#[test]
fn indices_that_lie_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fixture::write_shards(dir.path());
    let index = dir.path().join("model.safetensors.index.json");
    let name = "model.norm.weight";
    let outside = "is not a plain `.safetensors` name";
    let sound: Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    let mut cases: Vec<(String, Value, &str, &str)> = [
        "../model-00001-of-00002.safetensors",
        "..",
        "/etc/passwd",
        "/tmp/x.safetensors",
        "sub/x.safetensors",
        "..\\x.safetensors",
        "C:x.safetensors",
        "x.safetensors\0.safetensors",
        "./x.safetensors",
        "",
        "config.json",
    ]
    .iter()
    .map(|file| (format!("{file:?}"), json!({"weight_map": {name: file}}), "index.json", outside))
    .collect();
    let mut swapped = sound.clone();
    swapped["weight_map"][name] = sound["weight_map"]["model.embed_tokens.weight"].clone();
    cases.extend([
        (
            "another shard".into(),
            swapped,
            "model-00001-of-00002.safetensors",
            "has no tensor `model.norm.weight`",
        ),
        ("no map".into(), json!({}), "index.json", "has no object `weight_map`"),
        ("a list".into(), json!({"weight_map": []}), "index.json", "has no object `weight_map`"),
        ("empty".into(), json!({"weight_map": {}}), "index.json", "is empty"),
        ("a number".into(), json!({"weight_map": {name: 3}}), "index.json", "is not text"),
        ("absent".into(), json!({"weight_map": {name: "gone.safetensors"}}), "gone.safetensors", ""),
    ]);
    for (case, value, file, expect) in cases {
        std::fs::write(&index, value.to_string()).unwrap();
        refused(&case, dir.path(), file, expect);
    }
    std::fs::write(&index, vec![b'{'; 300_000]).unwrap();
    refused("nested", dir.path(), "index.json", "not valid JSON");
}
