//! Writes what a server needs beside an adapter.

use super::Tokenizer;
use super::error::{Result, TokenizerError, malformed};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Files copied from a Hugging Face directory.
const FILES: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];

impl Tokenizer {
    /// Writes `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and, where there is a template,
    /// `chat_template.jinja` into `dir`, which must exist. `chat_template` takes the place of the model's own. Files of
    /// a Hugging Face directory are copied as they are.
    pub fn save_to(&self, dir: &Path, chat_template: Option<&str>) -> Result<()> {
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.join(name);
            std::fs::write(&path, bytes)
                .map_err(|source| TokenizerError::Io { path: path.display().to_string(), source })
        };
        if let Some(files) = &self.files {
            for name in FILES {
                let from = files.join(name);
                if !from.exists() {
                    continue;
                }
                let bytes = std::fs::read(&from)
                    .map_err(|source| TokenizerError::Io { path: from.display().to_string(), source })?;
                write(name, &bytes)?;
            }
        } else {
            let mut whole = self.inner.clone();
            whole.with_post_processor(self.post_processor.clone());
            let text = whole.to_string(false).map_err(|e| malformed("tokenizer.json", e))?;
            write("tokenizer.json", text.as_bytes())?;
            let mut config: Map<String, Value> =
                self.special.named.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
            write("special_tokens_map.json", pretty(&config).as_bytes())?;
            config.insert("clean_up_tokenization_spaces".into(), json!(false));
            config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
            write("tokenizer_config.json", pretty(&config).as_bytes())?;
        }
        match chat_template.or(self.template.as_deref()) {
            Some(template) => write("chat_template.jinja", template.as_bytes()),
            None => Ok(()),
        }
    }
}

fn pretty(map: &Map<String, Value>) -> String {
    serde_json::to_string_pretty(map).unwrap_or_default() + "\n"
}
