//! `config.json` and `generation_config.json`.

use crate::error::{Result, at, cannot};
use crate::source::Source;
use galen_model::ModelConfig;
use galen_model::weights::{RopeConfig, RopeScaling};
use galen_ops::quant::WeightDtype;
use galen_types::TextEncoder as _;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Largest configuration read.
const MAX_BYTES: u64 = 8 << 20;

/// The configuration: the base's own with the new type, or one that says the same as a GGUF file.
pub(super) fn config_json(source: &Source, dtype: WeightDtype) -> Result<Value> {
    let name = match dtype {
        WeightDtype::F16 => "float16",
        WeightDtype::BF16 => "bfloat16",
        _ => "float32",
    };
    let own = if source.weights.gguf().is_none() {
        object(&source.weights.path().join("config.json"))?
    } else {
        None
    };
    let mut config = match own {
        // The language model of an image-text model is written as a model of its own.
        Some(own) if !own.contains_key("text_config") => own,
        _ => generated(source)?,
    };
    config.remove("torch_dtype");
    config.remove("dtype");
    // The key that every version of transformers reads.
    config.insert("torch_dtype".into(), json!(name));
    Ok(Value::Object(config))
}

/// The base's own, or the ends of a generation.
pub(super) fn generation_json(source: &Source) -> Result<Value> {
    if source.weights.gguf().is_none()
        && let Some(own) = object(&source.weights.path().join("generation_config.json"))?
    {
        return Ok(Value::Object(own));
    }
    let tokenizer = source.tokenizer;
    let mut map = Map::new();
    if let Some((id, _)) = tokenizer.bos() {
        map.insert("bos_token_id".into(), json!(id));
    }
    map.insert("eos_token_id".into(), json!(tokenizer.eos_ids()));
    if let Some(id) = tokenizer.special_tokens().get("pad_token").and_then(|t| tokenizer.token_id(t)) {
        map.insert("pad_token_id".into(), json!(id));
    }
    Ok(Value::Object(map))
}

fn object(path: &Path) -> Result<Option<Map<String, Value>>> {
    let Ok(size) = std::fs::metadata(path).map(|m| m.len()) else { return Ok(None) };
    if size > MAX_BYTES {
        return cannot(format!("{}: {size} bytes is too large", path.display()), "fetch the model again");
    }
    let text = std::fs::read(path).map_err(at(path))?;
    match serde_json::from_slice(&text) {
        Ok(Value::Object(map)) => Ok(Some(map)),
        _ => cannot(format!("{}: not a JSON object", path.display()), "fetch the model again"),
    }
}

/// transformers' names of the family.
fn family(c: &ModelConfig) -> (&'static str, &'static str) {
    match c.architecture {
        "qwen2" => ("qwen2", "Qwen2ForCausalLM"),
        "qwen3" => ("qwen3", "Qwen3ForCausalLM"),
        "gemma3" => ("gemma3_text", "Gemma3ForCausalLM"),
        _ if c.sliding_window.is_some() => ("mistral", "MistralForCausalLM"),
        _ => ("llama", "LlamaForCausalLM"),
    }
}

fn generated(source: &Source) -> Result<Map<String, Value>> {
    let c = source.config();
    let (model_type, class) = family(c);
    let tokenizer = source.tokenizer;
    let gemma = c.architecture == "gemma3";
    let value = json!({
        "architectures": [class],
        "attention_bias": c.attention_bias,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.bos().map(|(id, _)| id),
        "eos_token_id": tokenizer.eos().map(|(id, _)| id),
        "head_dim": c.head_dim,
        "hidden_act": if gemma { "gelu_pytorch_tanh" } else { "silu" },
        "hidden_size": c.hidden_size,
        "initializer_range": c.initializer_range,
        "intermediate_size": c.intermediate_size,
        "max_position_embeddings": c.max_position_embeddings,
        "model_type": model_type,
        "num_attention_heads": c.n_heads,
        "num_hidden_layers": c.n_layers,
        "num_key_value_heads": c.n_kv_heads,
        "rms_norm_eps": decimal(c.rms_norm_eps),
        "rope_theta": c.rope.theta,
        "rope_scaling": scaling(c)?,
        "tie_word_embeddings": c.tie_word_embeddings,
        "use_cache": true,
        "vocab_size": c.vocab_size,
    });
    let Value::Object(mut map) = value else { return Ok(Map::new()) };
    let windowed = c.sliding_layers.contains(&true);
    if windowed {
        let kind = |w: &bool| if *w { "sliding_attention" } else { "full_attention" };
        map.insert("sliding_window".into(), json!(c.sliding_window));
        if model_type != "mistral" {
            map.insert("layer_types".into(), c.sliding_layers.iter().map(kind).collect());
        }
    }
    if c.architecture.starts_with("qwen") {
        map.insert("use_sliding_window".into(), json!(windowed));
    }
    if gemma {
        map.insert("hidden_activation".into(), json!("gelu_pytorch_tanh"));
        map.insert("query_pre_attn_scalar".into(), json!((1.0 / f64::from(c.query_scale).powi(2)).round()));
        if let Some(local) = &c.local_rope {
            map.insert("rope_local_base_freq".into(), json!(local.theta));
        }
    }
    Ok(map)
}

/// An f32 by its shortest decimal form, which is what the configuration once said.
fn decimal(x: f32) -> Value {
    x.to_string().parse::<f64>().map_or(json!(x), |x| json!(x))
}

/// `rope_scaling`. A GGUF file's divisors are recognised where they are those of a Llama 3 model.
fn scaling(c: &ModelConfig) -> Result<Value> {
    let llama3 = |factor: f32, low: f32, high: f32, original: f32| {
        json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": original as u64,
        })
    };
    match &c.rope.scaling {
        RopeScaling::None => Ok(Value::Null),
        RopeScaling::Linear { factor } => Ok(json!({"rope_type": "linear", "factor": factor})),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
            Ok(llama3(*factor, *low_freq_factor, *high_freq_factor, *original_max_position))
        }
        RopeScaling::Factors(_) => {
            let wanted = c.rope.inverse_frequencies(c.head_dim);
            for factor in [8.0, 32.0, 16.0, 4.0] {
                let guess = RopeScaling::Llama3 {
                    factor,
                    low_freq_factor: 1.0,
                    high_freq_factor: 4.0,
                    original_max_position: 8192.0,
                };
                let guess = RopeConfig { scaling: guess, ..c.rope.clone() };
                let same = |(a, b): (&f32, f32)| (a - b).abs() <= 1e-5 * a.abs();
                if wanted.iter().zip(guess.inverse_frequencies(c.head_dim)).all(same) {
                    return Ok(llama3(factor, 1.0, 4.0, 8192.0));
                }
            }
            cannot(
                "`rope_freqs.weight` holds divisors that are no Llama 3 model's",
                "export it as `gguf`, or start from the model's Hugging Face folder",
            )
        }
    }
}
