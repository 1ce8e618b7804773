//! A tokenizer from a Hugging Face directory.

use super::error::{Result, TokenizerError, malformed};
use super::{Special, Tokenizer, guarded};
use serde_json::{Map, Value};
use std::path::Path;

/// Largest file of a tokenizer that is read, bytes.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Roles a token can have in `tokenizer_config.json`, which templates see as variables.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl Tokenizer {
    /// From a directory with `tokenizer.json`, and, where present, `tokenizer_config.json`, `special_tokens_map.json`,
    /// `chat_template.jinja` (or `.json`), `generation_config.json` and `config.json`.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let Some(bytes) = read(&dir.join("tokenizer.json"))? else {
            let spm = dir.join("tokenizer.model").exists();
            let hint = if spm {
                "there is a `tokenizer.model`: convert it once with transformers (`save_pretrained`), or take a GGUF file"
            } else {
                "it must stand beside the weights"
            };
            return Err(TokenizerError::Missing { dir: dir.display().to_string(), hint });
        };
        let origin = dir.join("tokenizer.json").display().to_string();
        let inner =
            guarded(|| tokenizers::Tokenizer::from_bytes(&bytes)).map_err(|e| malformed(&origin, e))?;
        drop(bytes);
        let config = object(&dir.join("tokenizer_config.json"))?;
        let map = object(&dir.join("special_tokens_map.json"))?;
        let mut special = Special::default();
        for role in ROLES {
            if let Some(text) = [&config, &map].into_iter().find_map(|m| token_text(m.get(role)?)) {
                special.named.insert(role.into(), text.to_string());
            }
        }
        // Further tokens of a model (`image_token` ...) are template variables too.
        if let Some(Value::Object(extra)) = config.get("extra_special_tokens") {
            for (name, value) in extra {
                if let Some(text) = token_text(value) {
                    special.named.insert(name.clone(), text.to_string());
                }
            }
        }
        let model = object(&dir.join("config.json"))?;
        let generation = object(&dir.join("generation_config.json"))?;
        let mut ids: Vec<u64> = Vec::new();
        ids.extend(special.named.get("eos_token").and_then(|t| inner.token_to_id(t)).map(u64::from));
        let text_config = model.get("text_config").and_then(Value::as_object);
        for config in [Some(&generation), Some(&model), text_config].into_iter().flatten() {
            match config.get("eos_token_id") {
                Some(Value::Array(list)) => ids.extend(list.iter().filter_map(Value::as_u64)),
                Some(one) => ids.extend(one.as_u64()),
                None => {}
            }
        }
        for id in ids.into_iter().filter_map(|id| u32::try_from(id).ok()) {
            if !special.eos_ids.contains(&id) {
                special.eos_ids.push(id);
            }
        }
        let template = template(dir, &config)?;
        let vocab_size =
            [Some(&model), text_config].into_iter().flatten().find_map(|m| m.get("vocab_size")?.as_u64());
        let vocab_size =
            vocab_size.and_then(|n| usize::try_from(n).ok()).filter(|n| *n < 1 << 28).unwrap_or(0);
        Self::build(inner, special, template, Some(dir.to_path_buf()), vocab_size)
    }
}

/// The chat template: its own file first, as in transformers, then the configuration's.
fn template(dir: &Path, config: &Map<String, Value>) -> Result<Option<String>> {
    let path = dir.join("chat_template.jinja");
    if let Some(bytes) = read(&path)? {
        let text = String::from_utf8(bytes).map_err(|e| malformed(&path.display().to_string(), e))?;
        return Ok(Some(text));
    }
    let json = object(&dir.join("chat_template.json"))?;
    let value = json.get("chat_template").or_else(|| config.get("chat_template"));
    Ok(match value {
        Some(Value::String(text)) => Some(text.clone()),
        // Several: [{"name": "default", "template": "..."}]
        Some(Value::Array(list)) => {
            let called =
                |name: &str| list.iter().find(|t| t.get("name").and_then(Value::as_str) == Some(name));
            let chosen = called("default").or_else(|| list.first());
            chosen.and_then(|t| t.get("template")).and_then(Value::as_str).map(str::to_string)
        }
        _ => None,
    })
}

/// `"</s>"` or `{"content": "</s>", ...}`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str()).filter(|t| !t.is_empty())
}

fn object(path: &Path) -> Result<Map<String, Value>> {
    let Some(bytes) = read(path)? else { return Ok(Map::new()) };
    serde_json::from_slice(&bytes).map_err(|e| malformed(&path.display().to_string(), e))
}

/// The bytes of a file; none where there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let io = |source| TokenizerError::Io { path: path.display().to_string(), source };
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
        Ok(m) if m.len() > MAX_FILE_BYTES => {
            return Err(malformed(&path.display().to_string(), format!("`{}` bytes is too large", m.len())));
        }
        Ok(_) => {}
    }
    std::fs::read(path).map(Some).map_err(io)
}
