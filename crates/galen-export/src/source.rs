//! What is exported: a base, and an adapter over it or none.

use crate::error::{Result, of_tensor};
use galen_adapter::{Adapter, BaseRecord, ModuleShape};
use galen_model::tokenizer::Tokenizer;
use galen_model::{MODULES, ModelConfig, Weights};
use galen_ops::quant::WeightDtype;
use std::path::Path;

/// A base and what changes it.
pub struct Source<'a> {
    /// The base.
    pub weights: &'a Weights,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Over it.
    pub adapter: Option<&'a Adapter>,
    /// The folder or file the adapter came from, where it is one adapter as it was saved.
    pub adapter_dir: Option<&'a Path>,
    /// What the adapter's files call the base.
    pub base: BaseRecord,
    /// The template the adapter was trained with; takes the place of the model's own.
    pub chat_template: Option<&'a str>,
    /// That template at work: a chat of (role, text), the assistant's turn begun. None where there is no template.
    pub render: Option<&'a Render<'a>>,
}

/// Renders a chat; none where the template refuses it.
pub type Render<'a> = dyn Fn(&[(&str, &str)]) -> Option<String> + 'a;

impl Source<'_> {
    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        self.weights.config()
    }

    /// The template that goes out.
    pub fn template(&self) -> Option<&str> {
        self.chat_template.or(self.tokenizer.chat_template())
    }

    /// Whether the adapter changes a tensor, by its Hugging Face name.
    pub fn changes(&self, name: &str) -> bool {
        let adapter = self.adapter.zip(module_of(name));
        adapter.is_some_and(|(a, (layer, module))| a.covers(layer, module))
    }

    /// How the base stores a tensor.
    pub fn stored_dtype(&self, name: &str) -> Result<WeightDtype> {
        Ok(self.weights.dtype(name)?)
    }

    /// A tensor of the merged model, rows in Hugging Face order, in f32. Norm weights are what the
    /// normalised values are multiplied by.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        merged(self.weights, self.adapter, name)
    }

    /// The same with its rows in the given order (`None`: as they are).
    pub(crate) fn ordered(&self, name: &str, order: Option<&[usize]>) -> Result<Vec<f32>> {
        let values = self.values(name)?;
        let cols = self.weights.shape(name)?.last().copied().unwrap_or(1);
        Ok(match order {
            Some(order) => in_order(&values, cols, order),
            None => values,
        })
    }

    /// A tensor encoded for a file.
    pub(crate) fn encoded(&self, name: &str, dtype: WeightDtype, order: Option<&[usize]>) -> Result<Vec<u8>> {
        let cols = self.weights.shape(name)?.last().copied().unwrap_or(1);
        galen_ops::quant::quantize(dtype, cols, &self.ordered(name, order)?).map_err(of_tensor(name))
    }
}

/// A tensor of a base with an adapter over it, in f32.
pub(crate) fn merged(weights: &Weights, adapter: Option<&Adapter>, name: &str) -> Result<Vec<f32>> {
    if weights.shape(name)?.len() == 1 {
        return Ok(weights.vector(name)?);
    }
    let matrix = weights.matrix(name)?;
    let mut values = matrix.to_f32();
    matrix.data().release();
    if let Some((adapter, (layer, module))) = adapter.zip(module_of(name)) {
        adapter.merge_into(layer, module, &mut values);
    }
    Ok(values)
}

/// The rows of a matrix in another order.
pub(crate) fn in_order(values: &[f32], cols: usize, order: &[usize]) -> Vec<f32> {
    let cols = if order.len() == values.len() { 1 } else { cols };
    order.iter().flat_map(|row| &values[row * cols..(row + 1) * cols]).copied().collect()
}

/// `model.layers.3.mlp.up_proj.weight` to (3, `mlp.up_proj`).
pub(crate) fn module_of(name: &str) -> Option<(usize, &'static str)> {
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let module = rest.strip_suffix(".weight")?;
    let (_, module) = MODULES.iter().find(|(_, m)| *m == module)?;
    Some((layer.parse().ok()?, module))
}

/// The projections of a model, as adapters see them.
pub fn module_shapes(config: &ModelConfig) -> Vec<ModuleShape> {
    let mut shapes = Vec::new();
    for (name, shape) in config.tensors() {
        if let (Some((layer, module)), [outputs, inputs]) = (module_of(&name), &shape[..]) {
            shapes.push(ModuleShape { layer, module, inputs: *inputs, outputs: *outputs });
        }
    }
    shapes
}
