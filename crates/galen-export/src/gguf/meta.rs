//! Metadata for a base that is no GGUF file: what llama.cpp wants to know of each family.

use super::vocab;
use super::writer::{Metadata, Value};
use crate::error::{Result, cannot};
use crate::source::Source;
use galen_model::ModelConfig;
use galen_model::weights::RopeScaling;

/// Gemma 3's layers: every sixth sees everything. llama.cpp has this in code.
const GEMMA_PATTERN: usize = 6;
/// The Gemma 3 of 27B, whose query scale llama.cpp knows by its layers.
const GEMMA_27B_LAYERS: usize = 62;

/// The model's own part, then the tokenizer's.
pub(crate) fn from_config(source: &Source) -> Result<Metadata> {
    let c = source.config();
    check(c)?;
    let mut m = Metadata::default();
    let arch = c.architecture;
    m.push("general.architecture", Value::Str(arch));
    m.push("general.type", Value::Str("model"));
    if let Some(name) = &source.base.name {
        m.push("general.name", Value::Str(name.rsplit('/').next().unwrap_or(name)));
    }
    let mut size = |key: &str, value: usize| m.push(format!("{arch}.{key}"), Value::U32(value as u32));
    size("context_length", c.max_position_embeddings);
    size("embedding_length", c.hidden_size);
    size("block_count", c.n_layers);
    size("feed_forward_length", c.intermediate_size);
    size("attention.head_count", c.n_heads);
    size("attention.head_count_kv", c.n_kv_heads);
    size("attention.key_length", c.head_dim);
    size("attention.value_length", c.head_dim);
    size("rope.dimension_count", c.head_dim);
    size("vocab_size", c.vocab_size);
    if let Some(window) = c.sliding_window {
        size("attention.sliding_window", window);
    }
    m.push(format!("{arch}.attention.layer_norm_rms_epsilon"), Value::F32(c.rms_norm_eps));
    m.push(format!("{arch}.rope.freq_base"), Value::F32(c.rope.theta as f32));
    if let RopeScaling::Linear { factor } = c.rope.scaling {
        m.push(format!("{arch}.rope.scaling.type"), Value::Str("linear"));
        m.push(format!("{arch}.rope.scaling.factor"), Value::F32(factor));
    }
    if let Some(local) = &c.local_rope {
        m.push(format!("{arch}.rope.freq_base_swa"), Value::F32(local.theta as f32));
    }
    vocab::add(source, &mut m)?;
    Ok(m)
}

/// What llama.cpp computes from the family's name must be what the model does.
fn check(c: &ModelConfig) -> Result<()> {
    let refuse = |what: &str| {
        cannot(
            format!("llama.cpp's `{}` cannot express {what}", c.architecture),
            "export it as `hf`, or `--format gguf-lora` for a GGUF base made elsewhere",
        )
    };
    let windows = |want: &dyn Fn(usize) -> bool| {
        c.sliding_layers.iter().enumerate().all(|(i, windowed)| *windowed == want(i))
    };
    let fits = match c.architecture {
        "gemma3" => windows(&|i| !(i + 1).is_multiple_of(GEMMA_PATTERN)),
        "llama" => windows(&|_| c.sliding_window.is_some()),
        _ => windows(&|_| false),
    };
    if !fits {
        return refuse("which layers are windowed");
    }
    let split = c.hidden_size as f64 / c.n_heads as f64;
    let over =
        if c.architecture == "gemma3" && c.n_layers == GEMMA_27B_LAYERS { split } else { c.head_dim as f64 };
    if (f64::from(c.query_scale) * over.sqrt() - 1.0).abs() > 1e-5 {
        return refuse("the query scale");
    }
    Ok(())
}

/// llama.cpp's tensor of a divisor for each rotary frequency, where the model changes them one by one (Llama 3.1).
pub(crate) fn frequency_factors(c: &ModelConfig) -> Option<Vec<f32>> {
    match &c.rope.scaling {
        RopeScaling::None | RopeScaling::Linear { .. } => None,
        RopeScaling::Factors(factors) => Some(factors.clone()),
        RopeScaling::Llama3 { .. } => {
            let plain = galen_model::weights::RopeConfig { scaling: RopeScaling::None, ..c.rope.clone() };
            let plain = plain.inverse_frequencies(c.head_dim);
            Some(plain.iter().zip(c.rope.inverse_frequencies(c.head_dim)).map(|(p, s)| p / s).collect())
        }
    }
}
