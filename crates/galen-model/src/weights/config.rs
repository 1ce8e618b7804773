//! What a model's files say about its shape, in one form whatever they were.

use galen_ops::ops::Activation;

/// Bounds that no real model comes near; a configuration outside them is refused before anything is sized by it.
const MAX_LAYERS: usize = 4096;
const MAX_WIDTH: usize = 1 << 24;
/// transformers' `initializer_range` where a model does not say.
pub(super) const INITIALIZER_RANGE: f64 = 0.02;

/// How rotary frequencies are changed for long contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency divided by `factor` (Chen et al. 2023).
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, those between interpolated.
    Llama3 {
        /// The divisor of long wavelengths.
        factor: f32,
        /// Wavelengths above `original_max_position / low_freq_factor` are long.
        low_freq_factor: f32,
        /// Wavelengths below `original_max_position / high_freq_factor` are short.
        high_freq_factor: f32,
        /// Context length before the extension.
        original_max_position: f32,
    },
    /// A divisor for each frequency (GGUF's `rope_freqs.weight`), `head_dim / 2` of them.
    Factors(Vec<f32>),
}

/// Rotary position embedding of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// The base of the frequencies.
    pub theta: f64,
    /// How they are changed.
    pub scaling: RopeScaling,
}

impl RopeConfig {
    /// Radians a position for each of `head_dim / 2` pairs: theta^(-2i/d), scaled. Rounded to single precision where
    /// transformers rounds, so that far positions get the same angles.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        let plain = (0..head_dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            1.0 / self.theta.powf(f64::from(exponent)) as f32
        });
        match &self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            RopeScaling::Factors(factors) => plain.zip(factors).map(|(f, by)| f / by).collect(),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => plain
                .map(|f| {
                    let wavelength = std::f32::consts::TAU / f;
                    if wavelength > original_max_position / low_freq_factor {
                        f / factor
                    } else if wavelength < original_max_position / high_freq_factor {
                        f
                    } else {
                        let smooth = (original_max_position / wavelength - low_freq_factor)
                            / (high_freq_factor - low_freq_factor);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                })
                .collect(),
        }
    }
}

/// Everything the forward pass needs beside the tensors.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a model")]
pub struct ModelConfig {
    /// The family's name in our registry: `llama` (Mistral too), `qwen2`, `qwen3`, `gemma3`.
    pub architecture: &'static str,
    /// V.
    pub vocab_size: usize,
    /// C.
    pub hidden_size: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// H.
    pub n_heads: usize,
    /// G; query head h reads key-value head `h / (H / G)`.
    pub n_kv_heads: usize,
    /// D; H D need not be C.
    pub head_dim: usize,
    /// F.
    pub intermediate_size: usize,
    /// Added to mean squares.
    pub rms_norm_eps: f32,
    /// Rotary embedding of layers that see everything (of all layers, where there is no [`Self::local_rope`]).
    pub rope: RopeConfig,
    /// Rotary embedding of windowed layers, where it is another.
    pub local_rope: Option<RopeConfig>,
    /// A windowed layer's query at position p sees positions in `(p - window, p]`.
    pub sliding_window: Option<usize>,
    /// Which layers are windowed, one entry a layer; all false without a window.
    pub sliding_layers: Vec<bool>,
    /// The head is the embedding.
    pub tie_word_embeddings: bool,
    /// q, k and v have biases.
    pub attention_bias: bool,
    /// q and k are normalised per head.
    pub qk_norm: bool,
    /// Norms after each sublayer as well as before.
    pub sandwich_norms: bool,
    /// Scores are q k times this.
    pub query_scale: f32,
    /// Embeddings are multiplied by this.
    pub embedding_scale: f32,
    /// The gate's nonlinearity.
    pub activation: Activation,
    /// Longest sequence the model was made for, tokens.
    pub max_position_embeddings: usize,
    /// Standard deviation of its weights before any training: that of a layer put on top of it.
    pub initializer_range: f64,
}

impl ModelConfig {
    /// Window of a layer, if it has one.
    pub fn layer_window(&self, layer: usize) -> Option<usize> {
        let windowed = self.sliding_layers.get(layer).copied().unwrap_or(false);
        self.sliding_window.filter(|_| windowed)
    }

    /// Rotary embedding of a layer.
    pub fn layer_rope(&self, layer: usize) -> &RopeConfig {
        let windowed = self.sliding_layers.get(layer).copied().unwrap_or(false);
        self.local_rope.as_ref().filter(|_| windowed).unwrap_or(&self.rope)
    }

    /// Sizes that agree with each other and that buffers may be sized by. Errors say what does not fit.
    pub(super) fn check(&self) -> Result<(), String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.n_heads),
            ("num_key_value_heads", self.n_kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        for (name, size) in sizes {
            let most = if name == "max_position_embeddings" { 1 << 31 } else { MAX_WIDTH };
            if size == 0 || size > most {
                return Err(format!("`{name}` is `{size}`"));
            }
        }
        if self.n_layers == 0 || self.n_layers > MAX_LAYERS {
            return Err(format!("`num_hidden_layers` is `{}`", self.n_layers));
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(format!(
                "{} attention heads cannot share {} key-value heads",
                self.n_heads, self.n_kv_heads
            ));
        }
        if self.n_heads * self.head_dim > MAX_WIDTH || !self.head_dim.is_multiple_of(2) {
            return Err(format!("{} heads of {} dimensions", self.n_heads, self.head_dim));
        }
        if self.sliding_layers.len() != self.n_layers {
            return Err(format!("{} layer types for {} layers", self.sliding_layers.len(), self.n_layers));
        }
        if self.sliding_window == Some(0)
            || (self.sliding_window.is_none() && self.sliding_layers.contains(&true))
        {
            return Err("windowed layers without a `sliding_window`".to_owned());
        }
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let scales = [
            ("rms_norm_eps", f64::from(self.rms_norm_eps)),
            ("the query scale", f64::from(self.query_scale)),
            ("rope_theta", self.rope.theta),
            ("rope_local_base_freq", self.local_rope.as_ref().map_or(1.0, |r| r.theta)),
        ];
        for (name, value) in scales {
            if !positive(value) {
                return Err(format!("`{name}` is `{value}`"));
            }
        }
        for rope in std::iter::once(&self.rope).chain(&self.local_rope) {
            let sound = match &rope.scaling {
                RopeScaling::None => true,
                RopeScaling::Linear { factor } => positive(f64::from(*factor)),
                RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
                    [factor, low_freq_factor, high_freq_factor, original_max_position]
                        .iter()
                        .all(|x| positive(f64::from(**x)))
                        && high_freq_factor > low_freq_factor
                }
                RopeScaling::Factors(factors) => {
                    factors.len() == self.head_dim / 2 && factors.iter().all(|x| positive(f64::from(*x)))
                }
            };
            if !sound {
                return Err(format!("rotary scaling `{:?}`", rope.scaling));
            }
        }
        Ok(())
    }

    /// Every tensor of the model by Hugging Face name, with its shape.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (c, f) = (self.hidden_size, self.intermediate_size);
        let (q, kv, d) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim, self.head_dim);
        let mut all = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocab_size, c]),
            ("model.norm.weight".to_owned(), vec![c]),
        ];
        if !self.tie_word_embeddings {
            all.push(("lm_head.weight".to_owned(), vec![self.vocab_size, c]));
        }
        let mut block = vec![
            ("input_layernorm.weight", vec![c]),
            ("post_attention_layernorm.weight", vec![c]),
            ("self_attn.q_proj.weight", vec![q, c]),
            ("self_attn.k_proj.weight", vec![kv, c]),
            ("self_attn.v_proj.weight", vec![kv, c]),
            ("self_attn.o_proj.weight", vec![c, q]),
            ("mlp.gate_proj.weight", vec![f, c]),
            ("mlp.up_proj.weight", vec![f, c]),
            ("mlp.down_proj.weight", vec![c, f]),
        ];
        if self.attention_bias {
            block.extend([
                ("self_attn.q_proj.bias", vec![q]),
                ("self_attn.k_proj.bias", vec![kv]),
                ("self_attn.v_proj.bias", vec![kv]),
            ]);
        }
        if self.qk_norm {
            block.extend([("self_attn.q_norm.weight", vec![d]), ("self_attn.k_norm.weight", vec![d])]);
        }
        if self.sandwich_norms {
            let names = ["pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"];
            block.extend(names.map(|name| (name, vec![c])));
        }
        for layer in 0..self.n_layers {
            all.extend(
                block.iter().map(|(name, shape)| (format!("model.layers.{layer}.{name}"), shape.clone())),
            );
        }
        all
    }
}
