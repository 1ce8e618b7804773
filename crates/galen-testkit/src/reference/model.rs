//! Twin of the whole forward: one decoder for every family, driven by the configuration alone.

use super::ops::{add_ref, attention_ref, gated_ref, lora_ref, projection_ref, rms_norm_ref, rope_ref};
use galen_model::weights::{ModelConfig, RopeConfig, RopeScaling};
use galen_model::{MODULES, Weights, WeightsError};
use galen_ops::ops::AttentionShape;
use galen_types::{Segment, Target};
use std::collections::BTreeMap;
use std::f64::consts::TAU;

/// The low-rank branch of one projection.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraRef {
    /// A `[R, in]`.
    pub a: Vec<f64>,
    /// B `[out, R]`.
    pub b: Vec<f64>,
    /// s.
    pub scale: f64,
}

/// A model's weights in f64, by Hugging Face name, and the branches by (block, module).
pub struct ModelRef {
    config: ModelConfig,
    tensors: BTreeMap<String, Vec<f64>>,
}

/// Branches by block number and Hugging Face name within the block.
pub type Branches = BTreeMap<(usize, &'static str), LoraRef>;

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

impl ModelRef {
    /// Takes every tensor, dequantised.
    pub fn new(weights: &Weights) -> Result<Self, WeightsError> {
        let mut tensors = BTreeMap::new();
        for (name, shape) in weights.config().tensors() {
            let values =
                if shape.len() == 2 { weights.matrix(&name)?.to_f32() } else { weights.vector(&name)? };
            tensors.insert(name, widen(&values));
        }
        Ok(Self { config: weights.config().clone(), tensors })
    }

    fn tensor(&self, layer: usize, name: &str) -> &[f64] {
        &self.tensors[&format!("model.layers.{layer}.{name}")]
    }

    fn linear(&self, layer: usize, short: &str, x: &[f64], branches: &Branches) -> Vec<f64> {
        let module = MODULES.iter().map(|(_, name)| *name).find(|name| name.ends_with(short)).unwrap_or("");
        let w = self.tensor(layer, &format!("{module}.weight"));
        let bias = self.tensors.get(&format!("model.layers.{layer}.{module}.bias"));
        let outputs = match short {
            "q_proj" => self.config.n_heads * self.config.head_dim,
            "k_proj" | "v_proj" => self.config.n_kv_heads * self.config.head_dim,
            "gate_proj" | "up_proj" => self.config.intermediate_size,
            _ => self.config.hidden_size,
        };
        let inputs = w.len() / outputs;
        let y = projection_ref(x, w, inputs, bias.map(Vec::as_slice));
        match branches.get(&(layer, module)) {
            Some(l) => add_ref(&y, &lora_ref(x, &l.a, &l.b, inputs, l.scale)),
            None => y,
        }
    }

    fn norm(&self, layer: usize, name: &str, x: &[f64]) -> Vec<f64> {
        rms_norm_ref(x, self.tensor(layer, &format!("{name}.weight")), f64::from(self.config.rms_norm_eps))
    }

    fn block(&self, layer: usize, x: &[f64], branches: &Branches) -> Vec<f64> {
        let c = &self.config;
        let tokens = x.len() / c.hidden_size;
        let h = self.norm(layer, "input_layernorm", x);
        let [mut q, mut k, v] = ["q_proj", "k_proj", "v_proj"].map(|m| self.linear(layer, m, &h, branches));
        if c.qk_norm {
            (q, k) = (self.norm(layer, "self_attn.q_norm", &q), self.norm(layer, "self_attn.k_norm", &k));
        }
        let positions: Vec<u32> = (0..tokens as u32).collect();
        let frequencies = inverse_frequencies_ref(c.layer_rope(layer), c.head_dim);
        (q, k) = (rope_ref(&q, &positions, &frequencies), rope_ref(&k, &positions, &frequencies));
        let shape = AttentionShape {
            n_heads: c.n_heads,
            n_kv_heads: c.n_kv_heads,
            head_dim: c.head_dim,
            scale: c.query_scale,
            window: c.layer_window(layer),
        };
        let row = [Segment { start: 0, len: tokens as u32, parent: None, position: 0 }];
        let mut a = self.linear(layer, "o_proj", &attention_ref(&q, &k, &v, &row, &shape), branches);
        if c.sandwich_norms {
            a = self.norm(layer, "post_attention_layernorm", &a);
        }
        let x = add_ref(x, &a);
        let before = if c.sandwich_norms { "pre_feedforward_layernorm" } else { "post_attention_layernorm" };
        let h = self.norm(layer, before, &x);
        let [gate, up] = ["gate_proj", "up_proj"].map(|m| self.linear(layer, m, &h, branches));
        let mut m = self.linear(layer, "down_proj", &gated_ref(c.activation, &gate, &up), branches);
        if c.sandwich_norms {
            m = self.norm(layer, "post_feedforward_layernorm", &m);
        }
        add_ref(&x, &m)
    }

    /// Hidden states `[T, C]` of one row, after the last norm.
    pub fn hidden(&self, branches: &Branches, ids: &[u32]) -> Vec<f64> {
        let c = &self.config;
        let embedding = &self.tensors["model.embed_tokens.weight"];
        let mut x: Vec<f64> = Vec::new();
        for id in ids {
            let row = &embedding[*id as usize * c.hidden_size..][..c.hidden_size];
            x.extend(row.iter().map(|e| e * f64::from(c.embedding_scale)));
        }
        for layer in 0..c.n_layers {
            x = self.block(layer, &x, branches);
        }
        rms_norm_ref(&x, &self.tensors["model.norm.weight"], f64::from(c.rms_norm_eps))
    }

    /// `-sum log p(ids[t] | ids[..t])` over the `t` where `mask[t]`, of one row.
    pub fn negative_log_likelihood(&self, branches: &Branches, ids: &[u32], mask: &[bool]) -> f64 {
        let c = &self.config;
        let x = self.hidden(branches, ids);
        let head = if c.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        let head = &self.tensors[head];
        let targets: Vec<Target> = (1..ids.len())
            .filter(|t| mask[*t])
            .map(|t| Target { index: t as u32 - 1, token: ids[t], row: 0 })
            .collect();
        -super::ops::log_prob_head_ref(&x, head, c.hidden_size, &targets).iter().sum::<f64>()
    }
}

/// Radians a position of each of D/2 pairs: `theta^(-2i/D)`, scaled as the configuration says (Llama 3.1's: the
/// wavelengths between `original / high` and `original / low` are interpolated).
pub fn inverse_frequencies_ref(rope: &RopeConfig, head_dim: usize) -> Vec<f64> {
    let one = |i: usize| {
        let f = rope.theta.powf(-2.0 * i as f64 / head_dim as f64);
        match &rope.scaling {
            RopeScaling::None => f,
            RopeScaling::Linear { factor } => f / f64::from(*factor),
            RopeScaling::Factors(factors) => f / f64::from(factors[i]),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
                let [factor, low, high, original] =
                    [factor, low_freq_factor, high_freq_factor, original_max_position].map(|x| f64::from(*x));
                let turns = original * f / TAU; // in the original context
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                kept * f + (1.0 - kept) * f / factor
            }
        }
    };
    (0..head_dim / 2).map(one).collect()
}
