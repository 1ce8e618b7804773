//! Models of random weights whose head size the kernels know: two blocks, two query heads over one of keys, a vocabulary that is
//! no whole tile.

use galen_model::{LoadOptions, Model, Precision, WeightCache, Weights};
use galen_ops::ops::Compute;
use galen_ops::quant::WeightDtype;
use galen_testkit::big_gguf::{LlamaShape, write_llama};
use galen_testkit::fuzz::Random;
use std::path::Path;

pub const VOCABULARY: usize = 300;
const HIDDEN: usize = 128;
const FFN: usize = 192;
const HEAD: usize = 64;

fn load(path: &Path, precision: Precision, compute: Compute) -> Model {
    let weights = Weights::open(path).unwrap();
    assert_eq!(weights.without_kernels(), None);
    let options =
        LoadOptions { precision, compute, weight_cache: WeightCache::Stream, ..LoadOptions::default() };
    Model::load(&weights, options).unwrap()
}

pub fn llama(dtype: WeightDtype, precision: Precision, compute: Compute) -> Model {
    let shape = LlamaShape {
        layers: 2,
        hidden: HIDDEN as u64,
        ffn: FFN as u64,
        heads: 2,
        kv_heads: 1,
        vocab: VOCABULARY as u64,
        dtype,
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    write_llama(&path, shape, 3).unwrap();
    load(&path, precision, compute)
}

/// `qwen2`, `qwen3` or `gemma3`, as Hugging Face keeps them, in f32.
pub fn hugging_face(family: &str, compute: Compute) -> Model {
    let (architecture, kind, activation) = match family {
        "qwen2" => ("Qwen2ForCausalLM", "qwen2", "hidden_act"),
        "qwen3" => ("Qwen3ForCausalLM", "qwen3", "hidden_act"),
        _ => ("Gemma3ForCausalLM", "gemma3_text", "hidden_activation"),
    };
    let (name, layers) = if family == "gemma3" {
        ("gelu_pytorch_tanh", ["sliding_attention", "full_attention"])
    } else {
        ("silu", ["full_attention"; 2])
    };
    let rope = serde_json::json!({"rope_theta": 10_000.0, "rope_type": "default"});
    let ropes = serde_json::json!({"full_attention": rope, "sliding_attention": rope});
    let config = serde_json::json!({
        "architectures": [architecture], "model_type": kind, activation: name, "layer_types": layers,
        "hidden_size": HIDDEN, "intermediate_size": FFN, "head_dim": HEAD, "num_attention_heads": 2,
        "num_key_value_heads": 1, "num_hidden_layers": 2, "vocab_size": VOCABULARY, "tie_word_embeddings": true,
        "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "sliding_window": 24, "query_pre_attn_scalar": 64,
        "use_sliding_window": false, "rope_parameters": if family == "gemma3" { ropes } else { rope },
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let random = &mut Random::new(11);
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |name: String, shape: &[usize], mean: f32, spread: f32| {
        let unit = |r: &mut Random| (r.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let n: usize = shape.iter().product();
        let bytes = (0..n).flat_map(|_| (mean + spread * unit(random)).to_le_bytes()).collect();
        tensors.push((name, shape.to_vec(), bytes));
    };
    // Gemma's norms hold what is added to one.
    let one = if family == "gemma3" { 0.0 } else { 1.0 };
    let matrix = |inputs: usize| (3.0 / inputs as f32).sqrt();
    add("model.embed_tokens.weight".into(), &[VOCABULARY, HIDDEN], 0.0, matrix(HIDDEN));
    for layer in 0..2 {
        let at = |part: &str| format!("model.layers.{layer}.{part}");
        for (part, out, inputs) in [
            ("self_attn.q_proj", 2 * HEAD, HIDDEN),
            ("self_attn.k_proj", HEAD, HIDDEN),
            ("self_attn.v_proj", HEAD, HIDDEN),
            ("self_attn.o_proj", HIDDEN, 2 * HEAD),
            ("mlp.gate_proj", FFN, HIDDEN),
            ("mlp.up_proj", FFN, HIDDEN),
            ("mlp.down_proj", HIDDEN, FFN),
        ] {
            add(at(&format!("{part}.weight")), &[out, inputs], 0.0, matrix(inputs));
            if family == "qwen2"
                && inputs == HIDDEN
                && part.starts_with("self_attn")
                && part != "self_attn.o_proj"
            {
                add(at(&format!("{part}.bias")), &[out], 0.0, 0.5);
            }
        }
        let sandwich = ["pre_feedforward_layernorm", "post_feedforward_layernorm"];
        let norms = ["input_layernorm", "post_attention_layernorm"].into_iter();
        for norm in norms.chain(sandwich.into_iter().filter(|_| family == "gemma3")) {
            add(at(&format!("{norm}.weight")), &[HIDDEN], one, 0.3);
        }
        for norm in ["self_attn.q_norm", "self_attn.k_norm"].into_iter().filter(|_| family != "qwen2") {
            add(at(&format!("{norm}.weight")), &[HEAD], one, 0.3);
        }
    }
    add("model.norm.weight".into(), &[HIDDEN], one, 0.3);
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, shape, bytes)| {
            let view =
                safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap();
            (name.clone(), view)
        })
        .collect();
    safetensors::serialize_to_file(views, None, &dir.path().join("model.safetensors")).unwrap();
    load(dir.path(), Precision::Stored, compute)
}
