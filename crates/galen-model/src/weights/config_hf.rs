//! `config.json` as transformers writes it, in its older form (`rope_theta`, `rope_scaling`) and its newer
//! (`rope_parameters`).

use std::path::Path;

use galen_ops::ops::Activation;
use serde_json::Value;

use super::config::{INITIALIZER_RANGE, ModelConfig, RopeConfig, RopeScaling};
use super::error::{Result, WeightsError};

/// What a family assumes where its `config.json` is silent: transformers' own defaults.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a family")]
struct Family {
    model_type: &'static str,
    architecture: &'static str,
    /// None: `hidden_size / num_attention_heads`.
    head_dim: Option<usize>,
    /// None: as many as attention heads.
    n_kv_heads: Option<usize>,
    max_position_embeddings: usize,
    sliding_window: Option<usize>,
    tie_word_embeddings: bool,
    attention_bias: bool,
    qk_norm: bool,
    gemma: bool,
}

const LLAMA: Family = Family {
    model_type: "llama",
    architecture: "llama",
    head_dim: None,
    n_kv_heads: None,
    max_position_embeddings: 2048,
    sliding_window: None,
    tie_word_embeddings: false,
    attention_bias: false,
    qk_norm: false,
    gemma: false,
};

static FAMILIES: &[Family] = &[
    LLAMA,
    Family {
        model_type: "mistral",
        n_kv_heads: Some(8),
        max_position_embeddings: 131_072,
        sliding_window: Some(4096),
        ..LLAMA
    },
    Family {
        model_type: "qwen2",
        architecture: "qwen2",
        n_kv_heads: Some(32),
        max_position_embeddings: 32_768,
        sliding_window: Some(4096),
        attention_bias: true,
        ..LLAMA
    },
    Family {
        model_type: "qwen3",
        architecture: "qwen3",
        head_dim: Some(128),
        n_kv_heads: Some(32),
        max_position_embeddings: 32_768,
        sliding_window: Some(4096),
        qk_norm: true,
        ..LLAMA
    },
    Family {
        model_type: "gemma3_text",
        architecture: "gemma3",
        head_dim: Some(256),
        n_kv_heads: Some(4),
        max_position_embeddings: 131_072,
        sliding_window: Some(4096),
        tie_word_embeddings: true,
        attention_bias: false,
        qk_norm: true,
        gemma: true,
    },
];

/// Sizes Gemma 3's image-text configurations leave out of `text_config`.
const GEMMA_SIZES: &[(&str, usize)] = &[("vocab_size", 262_208), ("num_attention_heads", 8)];

/// A `config.json`. `path` is for messages.
pub fn from_hf(path: &Path, config: &Value) -> Result<ModelConfig> {
    Reader { path, fields: config, family: &LLAMA }.read()
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    path: &'a Path,
    fields: &'a Value,
    family: &'static Family,
}

impl<'a> Reader<'a> {
    fn read(mut self) -> Result<ModelConfig> {
        if !self.fields.is_object() {
            return Err(self.wrong("is not a JSON object"));
        }
        self.refuse_set("quantization_config", self.fields)?;
        let Some(mut model_type) = self.get("model_type").and_then(Value::as_str) else {
            return Err(self.wrong("has no `model_type`"));
        };
        let outer = self.fields;
        if model_type == "gemma3" {
            // The text half of an image-text model; its images are not.
            self.fields = self
                .get("text_config")
                .filter(|t| t.is_object())
                .ok_or_else(|| self.wrong("has no `text_config`"))?;
            self.refuse_set("quantization_config", self.fields)?;
            model_type = "gemma3_text";
        }
        let Some(family) = FAMILIES.iter().find(|f| f.model_type == model_type) else {
            let known: Vec<_> = FAMILIES.iter().map(|f| f.model_type).collect();
            return Err(WeightsError::Unsupported {
                path: self.path.display().to_string(),
                what: format!("architecture `{model_type}`"),
                hint: Some(format!("supported: {}", known.join(", "))),
            });
        };
        self.family = family;
        for key in ["attn_logit_softcapping", "final_logit_softcapping", "num_local_experts", "num_experts"] {
            self.refuse_set(key, self.fields)?;
        }
        for key in ["mlp_bias", "use_bidirectional_attention", "add_cross_attention"] {
            self.refuse_set(key, self.fields)?;
        }
        if !family.attention_bias {
            self.refuse_set("attention_bias", self.fields)?;
        }
        let config = self.model(outer)?;
        config.check().map_err(|what| self.wrong(what))?;
        Ok(config)
    }

    fn model(&self, outer: &Value) -> Result<ModelConfig> {
        let family = self.family;
        let hidden_size = self.size("hidden_size", None)?;
        let n_layers = self.size("num_hidden_layers", None)?;
        let n_heads = self.size("num_attention_heads", None)?;
        let split = hidden_size.checked_div(n_heads).unwrap_or(0);
        let head_dim = self.size("head_dim", Some(family.head_dim.unwrap_or(split)))?;
        let (sliding_window, sliding_layers) = self.windows(n_layers)?;
        let (rope, local_rope) = self.ropes()?;
        let scale_dim =
            if family.gemma { self.float("query_pre_attn_scalar", 256.0)? } else { head_dim as f64 };
        let tie = |fields: &Value| fields.get("tie_word_embeddings").and_then(Value::as_bool);
        Ok(ModelConfig {
            architecture: family.architecture,
            vocab_size: self.size("vocab_size", None)?,
            hidden_size,
            n_layers,
            n_heads,
            n_kv_heads: self.size("num_key_value_heads", Some(family.n_kv_heads.unwrap_or(n_heads)))?,
            head_dim,
            intermediate_size: self.size("intermediate_size", None)?,
            rms_norm_eps: self.float("rms_norm_eps", 1e-6)? as f32,
            rope,
            local_rope,
            sliding_window,
            sliding_layers,
            tie_word_embeddings: tie(self.fields)
                .or_else(|| tie(outer))
                .unwrap_or(family.tie_word_embeddings),
            attention_bias: family.attention_bias,
            qk_norm: family.qk_norm,
            sandwich_norms: family.gemma,
            query_scale: (1.0 / scale_dim.sqrt()) as f32,
            embedding_scale: if family.gemma { (hidden_size as f64).sqrt() as f32 } else { 1.0 },
            activation: self.activation()?,
            max_position_embeddings: self
                .size("max_position_embeddings", Some(family.max_position_embeddings))?,
            initializer_range: self.float("initializer_range", INITIALIZER_RANGE)?,
        })
    }

    fn activation(&self) -> Result<Activation> {
        let family_default = if self.family.gemma { "gelu_pytorch_tanh" } else { "silu" };
        let name = self.get("hidden_activation").or_else(|| self.get("hidden_act"));
        match name.map_or(Some(family_default), Value::as_str) {
            Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Activation::GeluTanh),
            Some(other) => Err(self.unsupported(format!("activation `{other}`"))),
            None => Err(self.wrong("`hidden_act` is not text")),
        }
    }

    /// The window, and which layers have it.
    fn windows(&self, n_layers: usize) -> Result<(Option<usize>, Vec<bool>)> {
        if n_layers > 1 << 16 {
            return Err(self.wrong(format!("`num_hidden_layers` is `{n_layers}`")));
        }
        let family = self.family;
        // A family without windows does not read `sliding_window`, as in transformers; layers said to be of another kind are
        // refused all the same.
        if family.sliding_window.is_none() {
            let layers = self
                .get("layer_types")
                .map_or_else(|| Ok(vec![false; n_layers]), |types| self.layer_types(types))?;
            return Ok((None, layers));
        }
        let window = match self.fields.get("sliding_window") {
            Some(Value::Null) => None,
            Some(_) => Some(self.size("sliding_window", None)?),
            None => family.sliding_window,
        };
        let off = family.architecture.starts_with("qwen")
            && self.get("use_sliding_window").and_then(Value::as_bool) != Some(true);
        let window = if off { None } else { window };
        let layers = if let Some(types) = self.get("layer_types") {
            self.layer_types(types)?
        } else if window.is_none() {
            vec![false; n_layers]
        } else if family.gemma {
            let every = match self.get("_sliding_window_pattern") {
                Some(_) => self.size("_sliding_window_pattern", None)?,
                None => self.size("sliding_window_pattern", Some(6))?,
            };
            if every == 0 {
                return Err(self.wrong("`sliding_window_pattern` is `0`"));
            }
            (1..=n_layers).map(|i| !i.is_multiple_of(every)).collect()
        } else if family.architecture == "llama" {
            vec![true; n_layers]
        } else {
            let first = self.size("max_window_layers", Some(28))?;
            (0..n_layers).map(|i| i >= first).collect()
        };
        let used = window.filter(|_| layers.contains(&true));
        Ok((used, layers))
    }

    fn layer_types(&self, types: &Value) -> Result<Vec<bool>> {
        let Some(types) = types.as_array() else { return Err(self.wrong("`layer_types` is not a list")) };
        let kind = |t: &Value| match t.as_str() {
            Some("sliding_attention") => Ok(true),
            Some("full_attention") => Ok(false),
            Some(other) => Err(self.unsupported(format!("layer type `{other}`"))),
            None => Err(self.wrong("`layer_types` holds something that is not text")),
        };
        types.iter().map(kind).collect()
    }

    /// Rotary embedding of full layers, and of windowed ones where it is another.
    fn ropes(&self) -> Result<(RopeConfig, Option<RopeConfig>)> {
        let default_theta = if self.family.gemma { 1e6 } else { 1e4 };
        if let Some(parameters) = self.get("rope_parameters") {
            if let Some(full) = parameters.get("full_attention") {
                let rope = self.rope(full, self.theta(full, default_theta)?)?;
                let local = match parameters.get("sliding_attention") {
                    Some(local) => Some(self.rope(local, self.theta(local, 1e4)?)?),
                    None => None,
                };
                return Ok((rope.clone(), local.filter(|local| *local != rope)));
            }
            let rope = self.rope(parameters, self.theta(parameters, default_theta)?)?;
            return Ok((rope, self.local_rope()?));
        }
        let theta = self.float("rope_theta", default_theta)?;
        let rope = self.rope(self.fields.get("rope_scaling").unwrap_or(&Value::Null), theta)?;
        Ok((rope, self.local_rope()?))
    }

    /// Gemma's windowed layers have a base of their own, never scaled.
    fn local_rope(&self) -> Result<Option<RopeConfig>> {
        let local = self.float("rope_local_base_freq", 1e4)?;
        let local = RopeConfig { theta: local, scaling: RopeScaling::None };
        Ok(Some(local).filter(|_| self.family.gemma))
    }

    fn theta(&self, parameters: &Value, default: f64) -> Result<f64> {
        match parameters.get("rope_theta").or_else(|| self.get("rope_theta")) {
            None | Some(Value::Null) => Ok(default),
            Some(theta) => theta.as_f64().ok_or_else(|| self.wrong("`rope_theta` is not a number")),
        }
    }

    fn rope(&self, scaling: &Value, theta: f64) -> Result<RopeConfig> {
        let partial = scaling.get("partial_rotary_factor").or_else(|| self.get("partial_rotary_factor"));
        if partial.is_some_and(|p| p.as_f64() != Some(1.0) && !p.is_null()) {
            return Err(self.unsupported("`partial_rotary_factor`"));
        }
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
        let number = |key: &str| match scaling.get(key).and_then(Value::as_f64) {
            Some(x) => Ok(x as f32),
            None => Err(self.wrong(format!("rotary scaling has no number `{key}`"))),
        };
        let scaling = match kind
            .map(|k| k.as_str().ok_or_else(|| self.wrong("`rope_type` is not text")))
            .transpose()?
        {
            None if scaling.get("factor").is_some() => {
                return Err(self.wrong("rotary scaling has no `rope_type`"));
            }
            None | Some("default") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear { factor: number("factor")? },
            Some("llama3") => RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position: number("original_max_position_embeddings")?,
            },
            Some(other) => return Err(self.unsupported(format!("rotary scaling `{other}`"))),
        };
        Ok(RopeConfig { theta, scaling })
    }

    /// A field that is there and not null.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.fields.get(key).filter(|v| !v.is_null())
    }

    fn size(&self, key: &str, default: Option<usize>) -> Result<usize> {
        let gemma = GEMMA_SIZES.iter().find(|(k, _)| *k == key && self.family.gemma).map(|(_, size)| *size);
        match self.get(key) {
            None => default.or(gemma).ok_or_else(|| self.wrong(format!("has no `{key}`"))),
            Some(value) => value
                .as_u64()
                .and_then(|v| usize::try_from(v).ok())
                .ok_or_else(|| self.wrong(format!("`{key}` is `{value}`, not a size"))),
        }
    }

    fn float(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.wrong(format!("`{key}` is not a number"))),
        }
    }

    /// A feature that must not be switched on: its key absent, null, false or zero.
    fn refuse_set(&self, key: &str, fields: &Value) -> Result<()> {
        match fields.get(key) {
            None | Some(Value::Null | Value::Bool(false)) => Ok(()),
            Some(value) if value.as_f64() == Some(0.0) => Ok(()),
            Some(value) => {
                let method = value.get("quant_method").and_then(Value::as_str);
                Err(self.unsupported(match method {
                    Some(method) => format!("`{key}` with method `{method}`"),
                    None => format!("`{key}`"),
                }))
            }
        }
    }

    fn wrong(&self, what: impl Into<String>) -> WeightsError {
        WeightsError::config(self.path, what)
    }

    fn unsupported(&self, what: impl Into<String>) -> WeightsError {
        WeightsError::unsupported(self.path, what)
    }
}
