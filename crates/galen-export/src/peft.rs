//! The adapter alone, as PEFT keeps it. One that was read from a folder goes out byte for byte.

use crate::error::{Result, at, cannot};
use crate::format::{Format, Kind, Options, Written};
use crate::import::adapter_files;
use crate::source::Source;
use galen_adapter::save_peft;
use std::path::Path;

pub(crate) struct Peft;

/// PEFT's two files.
const TWO: [&str; 2] = ["adapter_config.json", "adapter_model.safetensors"];
/// Files beside them.
const BESIDE: [&str; 5] = [
    "README.md",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
/// Ranks vLLM reserves memory for.
const VLLM_RANKS: [usize; 9] = [1, 8, 16, 32, 64, 128, 256, 320, 512];

impl Format for Peft {
    fn name(&self) -> &'static str {
        "peft"
    }

    fn about(&self) -> &'static str {
        "the adapter alone for PEFT, vLLM and mistral.rs"
    }

    fn kind(&self) -> Kind {
        Kind::Folder
    }

    fn adapter_alone(&self) -> bool {
        true
    }

    fn holds_score_head(&self) -> bool {
        true
    }

    fn owns(&self, name: &str) -> bool {
        TWO.contains(&name) || BESIDE.contains(&name)
    }

    fn write(&self, source: &Source, options: &Options, out: &Path) -> Result<Written> {
        if let Some(q) = options.quantize {
            let what = format!("`peft` keeps the adapter's own type, not `{}`", q.name);
            return cannot(what, "leave `--quantize` out");
        }
        let Some(adapter) = source.adapter else {
            return cannot("there is no adapter", "name one with `--adapter`");
        };
        source.tokenizer.save_to(out, source.template())?;
        // Another program's files are no PEFT folder: such an adapter is written anew.
        let own = |dir: &&Path| adapter_files(dir).is_some_and(|files| files.name() == self.name());
        match source.adapter_dir.filter(own) {
            Some(dir) => {
                for name in TWO.iter().chain(&BESIDE[..1]) {
                    let from = dir.join(name);
                    if from.exists() {
                        std::fs::copy(&from, out.join(name)).map_err(at(&from))?;
                    }
                }
            }
            None => save_peft(adapter, &source.base, out)?,
        }
        let mut bytes = 0;
        for entry in std::fs::read_dir(out).map_err(at(out))?.flatten() {
            bytes += entry.metadata().map_or(0, |m| m.len());
        }
        let base = source.base.name.as_deref().unwrap_or("BASE");
        let rank = adapter.layers().iter().flat_map(|l| &l.entries).map(|e| e.r).max().unwrap_or(0);
        let mut notes = Vec::new();
        let mut launch = Vec::new();
        if !adapter.is_low_rank() {
            let method = adapter.method().name();
            notes.push(format!(
                "PEFT loads an adapter of method `{method}`; vLLM and mistral.rs do not: merge it for them"
            ));
            return Ok(Written { bytes, launch, notes, ..Written::default() });
        }
        match VLLM_RANKS.iter().find(|r| **r >= rank) {
            Some(most) => {
                let template = source.template().map(|_| " --chat-template {}/chat_template.jinja");
                launch.push(format!(
                    "vllm serve {base} --enable-lora --lora-modules adapter={{}} --max-lora-rank {most}{}",
                    template.unwrap_or_default()
                ));
            }
            None => notes.push(format!("vLLM serves no adapter of rank {rank}: merge it")),
        }
        launch.push(format!("mistralrs serve -m {base} --lora {{}}"));
        Ok(Written { bytes, launch, notes, ..Written::default() })
    }
}
