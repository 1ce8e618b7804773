//! The configuration in GGUF metadata, with what llama.cpp knows without being told.

use galen_ops::ops::Activation;

use super::config::{INITIALIZER_RANGE, ModelConfig, RopeConfig, RopeScaling};
use super::error::{Result, WeightsError};
use super::gguf::Gguf;

/// Families by GGUF's name for them.
static ARCHITECTURES: &[&str] = &["llama", "qwen2", "qwen3", "gemma3"];

/// Gemma 3 gives these in code, not in the file: rotary base of windowed layers; every sixth layer sees everything.
const GEMMA_LOCAL_THETA: f64 = 10_000.0;
const GEMMA_PATTERN: usize = 6;
/// The one Gemma 3 (27B) whose query scale is `hidden_size / n_heads` rather than `head_dim` has this many layers.
const GEMMA_27B_LAYERS: usize = 62;

/// Reads the configuration of an opened file.
pub fn from_gguf(file: &Gguf) -> Result<ModelConfig> {
    let name =
        file.str("general.architecture").ok_or_else(|| wrong(file, "has no `general.architecture`"))?;
    if let Some(kind) = file.str("general.type").filter(|t| *t != "model") {
        return Err(WeightsError::unsupported(
            file.path(),
            format!("a GGUF file of type `{kind}` as a model"),
        ));
    }
    let Some(architecture) = ARCHITECTURES.iter().find(|a| **a == name) else {
        return Err(WeightsError::Unsupported {
            path: file.path().display().to_string(),
            what: format!("architecture `{name}`"),
            hint: Some(format!("supported: {}", ARCHITECTURES.join(", "))),
        });
    };
    let config = Reader { file, architecture }.model()?;
    config.check().map_err(|what| wrong(file, what))?;
    Ok(config)
}

fn wrong(file: &Gguf, what: impl Into<String>) -> WeightsError {
    WeightsError::config(file.path(), what)
}

struct Reader<'a> {
    file: &'a Gguf,
    architecture: &'static str,
}

impl Reader<'_> {
    fn model(&self) -> Result<ModelConfig> {
        let gemma = self.architecture == "gemma3";
        for key in ["attn_logit_softcapping", "final_logit_softcapping", "expert_count"] {
            if self.file.f64(&self.key(key)).is_some_and(|v| v != 0.0) {
                return Err(self.unsupported(format!("`{}`", self.key(key))));
            }
        }
        let hidden_size = self.size("embedding_length")?;
        let n_layers = self.size("block_count")?;
        let n_heads = self.size("attention.head_count")?;
        let n_kv_heads = self.size_or("attention.head_count_kv", n_heads)?;
        let split = hidden_size.checked_div(n_heads).unwrap_or(0);
        let head_dim = self.size_or("attention.key_length", split)?;
        for key in ["attention.value_length", "rope.dimension_count"] {
            let got = self.size_or(key, head_dim)?;
            if got != head_dim {
                return Err(
                    self.unsupported(format!("`{}` = `{got}` with heads of {head_dim}", self.key(key)))
                );
            }
        }
        let Some([vocab_size, _]) = self.file.tensor("token_embd.weight").map(|t| &t.shape[..]) else {
            return Err(wrong(self.file, "has no matrix `token_embd.weight`"));
        };
        let sliding_window = self.size_or("attention.sliding_window", 0)?;
        let sliding_window = Some(sliding_window).filter(|w| *w > 0);
        let scale_dim = if gemma && n_layers == GEMMA_27B_LAYERS { split } else { head_dim };
        Ok(ModelConfig {
            architecture: self.architecture,
            vocab_size: *vocab_size,
            hidden_size,
            n_layers,
            n_heads,
            n_kv_heads,
            head_dim,
            intermediate_size: self.size("feed_forward_length")?,
            rms_norm_eps: self.float("attention.layer_norm_rms_epsilon")?.unwrap_or(1e-6) as f32,
            rope: self.rope(head_dim)?,
            local_rope: if gemma { Some(self.local_rope()?) } else { None },
            sliding_window,
            sliding_layers: self.sliding_layers(n_layers, sliding_window)?,
            tie_word_embeddings: self.file.tensor("output.weight").is_none(),
            attention_bias: self.architecture == "qwen2",
            qk_norm: gemma || self.architecture == "qwen3",
            sandwich_norms: gemma,
            query_scale: (1.0 / (scale_dim as f64).sqrt()) as f32,
            embedding_scale: if gemma { (hidden_size as f64).sqrt() as f32 } else { 1.0 },
            activation: if gemma { Activation::GeluTanh } else { Activation::Silu },
            max_position_embeddings: self.size("context_length")?,
            initializer_range: INITIALIZER_RANGE,
        })
    }

    fn sliding_layers(&self, n_layers: usize, window: Option<usize>) -> Result<Vec<bool>> {
        if n_layers > 1 << 16 {
            return Err(wrong(self.file, format!("`{}` is `{n_layers}`", self.key("block_count"))));
        }
        if window.is_none() {
            return Ok(vec![false; n_layers]);
        }
        let key = self.key("attention.sliding_window_pattern");
        if let Some(array) = self.file.array(&key) {
            let flags = array.values().map(|v| v.as_bool().or_else(|| v.as_u64().map(|v| v != 0)));
            return flags
                .collect::<Option<_>>()
                .ok_or_else(|| wrong(self.file, format!("`{key}` is not of flags")));
        }
        let default = if self.architecture == "gemma3" { GEMMA_PATTERN } else { 0 };
        let every = self.size_or("attention.sliding_window_pattern", default)?;
        // Without a pattern every layer is windowed.
        Ok((1..=n_layers).map(|i| every == 0 || !i.is_multiple_of(every)).collect())
    }

    fn rope(&self, head_dim: usize) -> Result<RopeConfig> {
        let theta = self.float("rope.freq_base")?.unwrap_or(10_000.0);
        let kind = self.file.str(&self.key("rope.scaling.type"));
        let factor = match self.float("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.float("rope.scale_linear")?,
        };
        let linear = match (kind, factor) {
            (Some("none"), _) | (None, None) => None,
            (Some("linear") | None, Some(factor)) => Some(factor as f32).filter(|f| *f != 1.0),
            (Some("linear"), None) => return Err(wrong(self.file, "linear rotary scaling has no factor")),
            (Some(other), _) => return Err(self.unsupported(format!("rotary scaling `{other}`"))),
        };
        for long in ["rope_factors_long.weight", "rope_factors_short.weight"] {
            if self.file.tensor(long).is_some() {
                return Err(self.unsupported(format!("rotary scaling by `{long}`")));
            }
        }
        let factors = self.file.tensor("rope_freqs.weight");
        let scaling = match (linear, factors) {
            (None, None) => RopeScaling::None,
            (Some(factor), None) => RopeScaling::Linear { factor },
            (None, Some(tensor)) if tensor.shape == [head_dim / 2] => {
                let mut factors = vec![0.0; head_dim / 2];
                galen_ops::quant::dequantize(tensor.dtype, tensor.bytes.as_slice(), &mut factors).map_err(
                    |e| WeightsError::corrupt(self.file.path(), format!("`rope_freqs.weight`: {e}")),
                )?;
                RopeScaling::Factors(factors)
            }
            (None, Some(tensor)) => {
                let (got, want) = (tensor.shape.clone(), vec![head_dim / 2]);
                let (path, name) = (self.file.path().display().to_string(), "rope_freqs.weight".to_owned());
                return Err(WeightsError::Shape { path, name, got, want });
            }
            (Some(_), Some(_)) => {
                return Err(self.unsupported("linear rotary scaling together with `rope_freqs.weight`"));
            }
        };
        Ok(RopeConfig { theta, scaling })
    }

    fn local_rope(&self) -> Result<RopeConfig> {
        let theta = self.float("rope.freq_base_swa")?.unwrap_or(GEMMA_LOCAL_THETA);
        Ok(RopeConfig { theta, scaling: RopeScaling::None })
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn size(&self, key: &str) -> Result<usize> {
        let key = self.key(key);
        let value = self.file.get(&key).ok_or_else(|| wrong(self.file, format!("has no `{key}`")))?;
        self.as_size(&key, value)
    }

    fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        let key = self.key(key);
        self.file.get(&key).map_or(Ok(default), |value| self.as_size(&key, value))
    }

    fn as_size(&self, key: &str, value: &super::gguf_value::Value) -> Result<usize> {
        // Per-layer sizes are given as arrays.
        if value.as_array().is_some() {
            return Err(self.unsupported(format!("`{key}` that differs from layer to layer")));
        }
        let size = value.as_u64().and_then(|v| usize::try_from(v).ok());
        size.ok_or_else(|| wrong(self.file, format!("`{key}` is `{value:?}`, not a size")))
    }

    fn float(&self, key: &str) -> Result<Option<f64>> {
        let key = self.key(key);
        match self.file.get(&key) {
            None => Ok(None),
            Some(v) => {
                v.as_f64().map(Some).ok_or_else(|| wrong(self.file, format!("`{key}` is not a number")))
            }
        }
    }

    fn unsupported(&self, what: impl Into<String>) -> WeightsError {
        WeightsError::unsupported(self.file.path(), what)
    }
}
