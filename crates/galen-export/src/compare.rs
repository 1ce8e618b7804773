//! Two models tensor by tensor: what was written against what should have been.

use crate::error::{Result, cannot};
use crate::source::{Source, merged, module_of};
use galen_adapter::Adapter;
use galen_model::{ModelConfig, Weights};
use galen_ops::quant::WeightDtype;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// How far a tensor is from what it should hold.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorError {
    /// Hugging Face name.
    pub name: String,
    /// How it is stored.
    pub dtype: WeightDtype,
    /// `|w - v| / |v|` over all its elements, v what it should hold. Infinite where an element is no number.
    pub relative: f64,
}

/// Every tensor of `written` against base and adapter merged, in the order of the model.
///
/// Errors: a tensor that cannot be read.
pub fn tensor_errors(source: &Source, written: &Weights) -> Result<Vec<TensorError>> {
    let tied = written.config().tie_word_embeddings;
    let names: Vec<String> = source
        .config()
        .tensors()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| !(tied && name == "lm_head.weight"))
        .collect();
    let (weights, adapter) = (source.weights, source.adapter);
    names
        .into_par_iter()
        .map(|name| {
            let (want, got) = (merged(weights, adapter, &name)?, merged(written, None, &name)?);
            if want.len() != got.len() {
                return cannot(
                    format!("`{name}` has {} values instead of {}", got.len(), want.len()),
                    "it is of another base",
                );
            }
            let relative = relative(&want, &got, 1.0);
            Ok(TensorError { dtype: written.dtype(&name)?, name, relative })
        })
        .collect()
}

/// Every matrix of `other` against that of `adapter`; B times the branch's factor.
pub fn adapter_errors(adapter: &Adapter, other: &Adapter) -> Vec<TensorError> {
    let mut errors = Vec::new();
    let theirs: BTreeMap<String, &[f32]> = other.tensors().map(|(key, _, values)| (key, values)).collect();
    let scales = |of: &Adapter| -> BTreeMap<(usize, &'static str), f32> {
        let entries = of.layers().iter().flat_map(|l| &l.entries);
        entries.map(|e| ((e.shape.layer, e.shape.module), e.scale)).collect()
    };
    let (our_scales, their_scales) = (scales(adapter), scales(other));
    for (key, _, ours) in adapter.tensors() {
        let name = key.trim_start_matches("base_model.model.").trim_end_matches(".weight").to_owned();
        let factor =
            match module_of(&format!("{}.weight", name.rsplit_once('.').map_or("", |(module, _)| module))) {
                Some(place) if name.ends_with(".lora_B") => {
                    let (ours, theirs) = (our_scales.get(&place), their_scales.get(&place));
                    theirs.zip(ours).map_or(f32::NAN, |(theirs, ours)| theirs / ours)
                }
                _ => 1.0,
            };
        let theirs = theirs.get(&key).filter(|t| t.len() == ours.len());
        let relative = theirs.map_or(f64::INFINITY, |theirs| relative(ours, theirs, factor));
        errors.push(TensorError { name, dtype: WeightDtype::F32, relative });
    }
    errors
}

/// `|f w - v| / |v|`, infinite where that is no number.
fn relative(want: &[f32], got: &[f32], factor: f32) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let norm: f64 = want.iter().map(|v| square(*v)).sum();
    let error: f64 = want.iter().zip(got).map(|(v, w)| square(factor * w - v)).sum();
    let relative = if error == 0.0 { 0.0 } else { (error / norm).sqrt() };
    if relative.is_finite() { relative } else { f64::INFINITY }
}

/// The first thing in which two models are not of one shape, in words; none where they are.
pub fn first_shape_difference(base: &ModelConfig, other: &ModelConfig) -> Option<String> {
    let facts = |c: &ModelConfig| {
        [
            ("architecture", c.architecture.to_owned()),
            ("num_hidden_layers", c.n_layers.to_string()),
            ("hidden_size", c.hidden_size.to_string()),
            ("vocab_size", c.vocab_size.to_string()),
            ("intermediate_size", c.intermediate_size.to_string()),
            ("num_attention_heads", c.n_heads.to_string()),
            ("num_key_value_heads", c.n_kv_heads.to_string()),
            ("head_dim", c.head_dim.to_string()),
            ("rms_norm_eps", c.rms_norm_eps.to_string()),
            ("rope_theta", c.rope.theta.to_string()),
        ]
    };
    let pairs = facts(base).into_iter().zip(facts(other));
    let mut different = pairs.filter(|((_, ours), (_, its))| ours != its);
    different.next().map(|((name, ours), (_, its))| format!("`{name}` is `{its}`, the base's `{ours}`"))
}
