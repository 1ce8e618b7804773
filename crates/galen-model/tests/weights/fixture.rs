//! A tiny llama in both forms: one block, 2 heads of 4, one key-value head, width 8, 5 tokens.

use galen_testkit::gguf_writer::{GgufWriter, Meta};
use std::path::Path;

/// Hugging Face name, GGUF name, shape.
const TENSORS: &[(&str, &str, &[u64])] = &[
    ("model.embed_tokens.weight", "token_embd.weight", &[5, 8]),
    ("model.norm.weight", "output_norm.weight", &[8]),
    ("lm_head.weight", "output.weight", &[5, 8]),
    ("model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight", &[8]),
    ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight", &[8]),
    ("model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight", &[8, 8]),
    ("model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight", &[4, 8]),
    ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight", &[4, 8]),
    ("model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight", &[8, 8]),
    ("model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight", &[12, 8]),
    ("model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight", &[12, 8]),
    ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight", &[8, 12]),
];

pub fn names() -> impl Iterator<Item = &'static str> {
    TENSORS.iter().map(|(hf, _, _)| *hf)
}

/// The tensor's values in Hugging Face order: every one different.
pub fn values(name: &str) -> Vec<f32> {
    let at = names().position(|n| n == name).unwrap();
    let n: u64 = TENSORS[at].2.iter().product();
    (0..n).map(|i| at as f32 * 1000.0 + i as f32).collect()
}

/// Rows as llama.cpp's converter orders them: a head's two halves interleaved.
/// `reshape(heads, 2, D/2, cols).swapaxes(1, 2)`, written as its loops.
fn permuted(values: &[f32], heads: usize) -> Vec<f32> {
    let (cols, dim) = (8, 4);
    let mut out = Vec::new();
    for head in 0..heads {
        for pair in 0..dim / 2 {
            for half in 0..2 {
                let row = head * dim + half * dim / 2 + pair;
                out.extend(&values[row * cols..(row + 1) * cols]);
            }
        }
    }
    out
}

pub fn gguf() -> GgufWriter {
    let mut file = GgufWriter::default()
        .with("general.architecture", "llama")
        .with("llama.block_count", 1)
        .with("llama.context_length", 64)
        .with("llama.embedding_length", 8)
        .with("llama.feed_forward_length", 12)
        .with("llama.attention.head_count", 2)
        .with("llama.attention.head_count_kv", 1)
        .with("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .with("llama.rope.freq_base", 10_000.0)
        .with("tokenizer.ggml.tokens", Meta::Strs(["a", "b", "c", "d", "e"].map(String::from).to_vec()))
        .with("tokenizer.ggml.scores", Meta::F32s(vec![0.0, 1.0, 2.0, 3.0, 4.0]))
        .with("tokenizer.ggml.token_type", Meta::I32s(vec![1; 5]))
        .with("tokenizer.ggml.add_bos_token", Meta::Bool(true));
    for (hf, gguf, shape) in TENSORS {
        let values = match *gguf {
            "blk.0.attn_q.weight" => permuted(&values(hf), 2),
            "blk.0.attn_k.weight" => permuted(&values(hf), 1),
            _ => values(hf),
        };
        file.tensor_f32(gguf, shape, &values);
    }
    file
}

pub fn config() -> serde_json::Value {
    serde_json::json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 5,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 12,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": false,
    })
}

/// A safetensors file of f32 tensors: (name, shape, values).
pub fn safetensors_of(names: &[&str]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for name in names {
        let shape = TENSORS.iter().find(|(hf, _, _)| hf == name).unwrap().2;
        let start = data.len();
        data.extend(values(name).iter().flat_map(|v| v.to_le_bytes()));
        let info = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert((*name).to_owned(), info);
    }
    with_header(&serde_json::Value::Object(header).to_string(), &data)
}

/// A safetensors file of any header.
pub fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

/// Writes `config.json` and one safetensors file.
pub fn write_dir(dir: &Path) {
    std::fs::write(dir.join("config.json"), config().to_string()).unwrap();
    std::fs::write(dir.join("model.safetensors"), safetensors_of(&names().collect::<Vec<_>>())).unwrap();
}

/// Writes `config.json`, two shards and their index, which says that tensor `i` is in shard `i % 2`.
pub fn write_shards(dir: &Path) {
    std::fs::write(dir.join("config.json"), config().to_string()).unwrap();
    let file = |i: usize| format!("model-{:05}-of-00002.safetensors", i + 1);
    for shard in 0..2 {
        let names: Vec<_> = names().skip(shard).step_by(2).collect();
        std::fs::write(dir.join(file(shard)), safetensors_of(&names)).unwrap();
    }
    let map: serde_json::Map<_, _> =
        names().enumerate().map(|(i, n)| (n.to_owned(), file(i % 2).into())).collect();
    std::fs::write(
        dir.join("model.safetensors.index.json"),
        serde_json::json!({"weight_map": map}).to_string(),
    )
    .unwrap();
}

/// Writes the binary files of `tests/fuzz`; run by hand when the fixture changes.
#[test]
#[ignore = "writes the fuzz corpus"]
fn write_corpus() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz");
    let mut file = gguf();
    file.tensor_f32("rope_freqs.weight", &[2], &[1.0, 8.0]);
    file.tensor("blk.1.attn_q.weight", &[2, 32], 2, vec![7; 36]);
    std::fs::write(dir.join("gguf/llama.bin"), gguf().bytes()).unwrap();
    std::fs::write(dir.join("gguf/rope_factors.bin"), file.bytes()).unwrap();
    let mut gemma = GgufWriter::default().with("general.architecture", "gemma3").with("general.alignment", 8);
    gemma.alignment = 8;
    for (key, value) in [
        ("block_count", 12),
        ("context_length", 64),
        ("embedding_length", 8),
        ("feed_forward_length", 12),
        ("attention.head_count", 2),
        ("attention.key_length", 4),
        ("attention.sliding_window", 16),
    ] {
        gemma = gemma.with(&format!("gemma3.{key}"), value);
    }
    gemma.tensor("token_embd.weight", &[3, 32], 8, vec![1; 102]);
    std::fs::write(dir.join("gguf/gemma3.bin"), gemma.bytes()).unwrap();
    std::fs::write(dir.join("safetensors/one.bin"), safetensors_of(&["model.norm.weight"])).unwrap();
    let several = ["lm_head.weight", "model.norm.weight", "model.layers.0.mlp.up_proj.weight"];
    std::fs::write(dir.join("safetensors/several.bin"), safetensors_of(&several)).unwrap();
    let map = serde_json::json!({"metadata": {"total_size": 64}, "weight_map": {
        "model.norm.weight": "model-00001-of-00002.safetensors", "lm_head.weight": "model-00002-of-00002.safetensors"}});
    std::fs::write(dir.join("index/two_shards.json"), map.to_string()).unwrap();
}
