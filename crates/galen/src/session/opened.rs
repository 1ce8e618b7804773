//! A base and adapters over it, opened to be written elsewhere.

use super::{Base, TemplateChoice, is_adapter, open_adapter_over, resolve_run, saved_template};
use crate::error::UsageError;
use anyhow::Context as _;
use galen_adapter::{Adapter, BaseRecord, ModuleShape};
use galen_data::template::{ChatTemplate, RenderOptions};
use galen_export::merge::{MajoritySign, MergeOptions, combine, find};
use galen_export::{Render, Source};
use galen_model::Precision;
use serde_json::json;
use std::path::{Path, PathBuf};

/// A base and adapters, none of whose weights were touched.
pub struct Opened {
    /// The base.
    pub base: Base,
    /// Each with the folder or file it lies in; a merged one has none.
    pub adapters: Vec<(Adapter, Option<PathBuf>)>,
    /// How the base was held when the adapter was trained over it.
    pub precision: Precision,
    /// What was read: the base, and every adapter.
    inputs: Vec<PathBuf>,
    record: BaseRecord,
    template: Option<String>,
    render: Option<Box<Render<'static>>>,
}

impl Opened {
    /// Opens a model and adapters as the flags of every command name them: a run directory as the model stands for both,
    /// and adapters alone for their base too.
    pub fn new(mut model: Option<String>, mut adapters: Vec<String>, offline: bool) -> anyhow::Result<Self> {
        if adapters.is_empty() && model.as_deref().is_some_and(is_adapter) {
            adapters.extend(model.take());
        }
        let (name, precision) = match (model, adapters.first()) {
            (Some(model), _) => (model, Precision::Stored),
            (None, Some(adapter)) => resolve_run(adapter, offline).map(|(name, o)| (name, o.precision))?,
            (None, None) => return Err(UsageError::new("no model", "`--model M`").into()),
        };
        let base = Base::open(&name, offline)?;
        let shapes = galen_export::module_shapes(base.weights.config());
        let mut record = BaseRecord { name: base.resolved.hf_id.clone(), revision: None };
        let mut opened = Vec::with_capacity(adapters.len());
        let mut inputs = vec![base.resolved.path.clone()];
        let mut template: Option<String> = None;
        for (i, adapter) in adapters.iter().enumerate() {
            let (over, path, its_base) = open_adapter_over(adapter, base.weights.config(), &shapes, offline)?;
            if i == 0 && its_base.name.is_some() {
                record = its_base;
            }
            if let Some(saved) = saved_template(adapter, offline)? {
                anyhow::ensure!(
                    template.as_ref().is_none_or(|t| *t == saved),
                    "{adapter}: it was trained with another chat template than `{}`\nhint: merge adapters of one template",
                    adapters[0]
                );
                template = Some(saved);
            }
            inputs.push(path.clone());
            opened.push((over, Some(path)));
        }
        let choice = TemplateChoice { jinja: template.as_deref(), ..TemplateChoice::default() };
        let render = base.template(choice)?.map(renderer);
        Ok(Self { base, adapters: opened, precision, inputs, record, template, render })
    }

    /// The base's projections.
    pub fn shapes(&self) -> Vec<ModuleShape> {
        galen_export::module_shapes(self.base.weights.config())
    }

    /// The same with one adapter in the place of several: all their changes added, exactly.
    pub fn as_one(self) -> anyhow::Result<Self> {
        if self.adapters.len() < 2 {
            return Ok(self);
        }
        let method = find("cat").context("`cat` is a method")?;
        let options = MergeOptions {
            method,
            density: None,
            majority_sign: MajoritySign::Total,
            svd_rank: None,
            t: None,
            seed: 0,
        };
        let all: Vec<(&Adapter, f64)> = self.adapters.iter().map(|(a, _)| (a, 1.0)).collect();
        let one = combine(&all, &self.shapes(), &options, &|| {})?;
        Ok(self.with_adapter(one))
    }

    /// The same with another adapter, which lies nowhere yet.
    #[must_use]
    pub fn with_adapter(self, adapter: Adapter) -> Self {
        Self { adapters: vec![(adapter, None)], ..self }
    }

    /// Errors: `out` is one of the files or folders that were read, or holds one.
    pub fn check_out(&self, out: &Path) -> anyhow::Result<()> {
        let Ok(out) = out.canonicalize() else { return Ok(()) };
        for input in &self.inputs {
            anyhow::ensure!(
                !input.canonicalize().is_ok_and(|input| input.starts_with(&out)),
                "{}: it would be replaced, and {} is read\nhint: another `--out`",
                out.display(),
                input.display()
            );
        }
        Ok(())
    }

    /// As exports take it.
    pub fn source(&self) -> Source<'_> {
        let adapter = self.adapters.first();
        Source {
            weights: &self.base.weights,
            tokenizer: &self.base.tokenizer,
            adapter: adapter.map(|(a, _)| a),
            adapter_dir: adapter.and_then(|(_, dir)| dir.as_deref()),
            base: self.record.clone(),
            chat_template: self.template.as_deref(),
            render: self.render.as_deref(),
        }
    }
}

fn renderer(template: ChatTemplate) -> Box<Render<'static>> {
    Box::new(move |chat| {
        let turns: Vec<_> = chat.iter().map(|(role, text)| json!({"role": role, "content": text})).collect();
        template.render_prompt(&turns, None, true, &RenderOptions::default()).ok()
    })
}
