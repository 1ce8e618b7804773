//! Which rows are meant: those of a configuration, or of a data file with what the flags say of it.

use super::Source;
use crate::config::{self, Config, emit};
use crate::error::{ConfigErrors, UsageError};
use crate::session::Base;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Keys that a configuration must have and that looking at data does not use.
const UNUSED: &str = "adapter: lora\nlearning_rate: 1e-4\n";

impl Source {
    /// The configuration that training on these rows would have.
    pub fn config(&self) -> anyhow::Result<Config> {
        let mut sets = self.set.clone();
        if let Some(n) = self.sequence_len {
            sets.push(format!("sequence_len={n}"));
        }
        let is_config = Path::new(&self.input).extension().is_some_and(|e| e == "yaml" || e == "yml");
        if !is_config {
            let (config, report) = config::check_text("the command line", &self.text()?, &sets);
            return if report.errors.is_empty() {
                Ok(config)
            } else {
                Err(ConfigErrors(report.errors).into())
            };
        }
        if self.kind.is_some() {
            let message = format!("`--type` with the configuration `{}`", self.input);
            return Err(UsageError::new(message, "set `type:` in its dataset entry").into());
        }
        sets.extend(self.model.as_ref().map(|model| format!("base_model={}", Value::from(model.as_str()))));
        if let Some(template) = &self.chat_template {
            let (key, other) = template_keys(template);
            sets.push(format!("{key}={}", Value::from(template.as_str())));
            sets.push(format!("{other}=null"));
        }
        Ok(config::load(Path::new(&self.input), &sets)?.0)
    }

    /// A configuration with one entry.
    fn text(&self) -> anyhow::Result<String> {
        let Some(model) = &self.model else {
            let message = format!("`{}` is data, and no model is named", self.input);
            let hint = "`--model M` names the model whose tokenizer and chat template are meant";
            return Err(UsageError::new(message, hint).into());
        };
        let mut entry = Map::from_iter([("path".to_owned(), json!(self.input))]);
        if let Some(kind) = &self.kind {
            entry.insert("type".to_owned(), crate::commands::init::type_value(kind)?);
        }
        let mut text = UNUSED.to_owned();
        emit::entry(&mut text, "base_model", &json!(model));
        emit::entry(&mut text, "datasets", &json!([entry]));
        if let Some(template) = &self.chat_template {
            emit::entry(&mut text, template_keys(template).0, &json!(template));
        }
        Ok(text)
    }
}

/// The key for a template by name or file, and the one it excludes.
fn template_keys(template: &str) -> (&'static str, &'static str) {
    let keys = ("chat_template", "chat_template_jinja");
    if Path::new(template).is_file() { (keys.1, keys.0) } else { keys }
}

/// The tokenizer and template of a configuration's base.
pub fn base(config: &Config, offline: bool) -> anyhow::Result<Base> {
    match &config.revision_of_model {
        Some(revision) => Base::open(&format!("{}@{revision}", config.base_model), offline),
        None => Base::open(&config.base_model, offline),
    }
}
