//! A folder for `ollama create`: the model as GGUF and a Modelfile, whose template is one of those known here. Which one is
//! found by rendering: it must give what the model's own template gives.

mod templates;

use crate::error::{Result, at, cannot};
use crate::format::{Format, Kind, Options, Written};
use crate::gguf::GgufModel;
use crate::source::Source;
use galen_types::TextEncoder as _;
use std::path::{Path, PathBuf};
use templates::TEMPLATES;

pub(crate) struct Ollama;

/// The model in the folder.
pub const MODEL: &str = "model.gguf";
/// What Ollama reads first.
pub const MODELFILE: &str = "Modelfile";

impl Format for Ollama {
    fn name(&self) -> &'static str {
        "ollama"
    }

    fn about(&self) -> &'static str {
        "a Modelfile and the model, the adapter merged into it"
    }

    fn kind(&self) -> Kind {
        Kind::Folder
    }

    fn adapter_alone(&self) -> bool {
        false
    }

    fn writes_blocks(&self) -> bool {
        true
    }

    fn model(&self, out: &Path) -> PathBuf {
        out.join(MODEL)
    }

    fn owns(&self, name: &str) -> bool {
        [MODEL, MODELFILE].contains(&name)
    }

    fn check(&self, source: &Source) -> Result<()> {
        modelfile(source).map(|_| ())
    }

    fn write(&self, source: &Source, options: &Options, out: &Path) -> Result<Written> {
        let modelfile = modelfile(source)?;
        let written = GgufModel.write(source, options, &out.join(MODEL))?;
        let path = out.join(MODELFILE);
        std::fs::write(&path, modelfile).map_err(at(&path))?;
        let launch = vec!["ollama create NAME -f {}/Modelfile && ollama run NAME".to_owned()];
        Ok(Written { launch, ..written })
    }
}

/// The Modelfile of a model. Errors: its template is none of those known.
pub fn modelfile(source: &Source) -> Result<String> {
    let hint = "serve it with `--format gguf` and llama.cpp, which runs the template as it is";
    let Some(render) = source.render else {
        return cannot("the model has no chat template for Ollama to follow", hint);
    };
    // llama.cpp puts a beginning-of-sequence token there itself.
    let ids = source.tokenizer.encode("a", true).unwrap_or_default();
    let bos = source.tokenizer.bos().filter(|(bos, _)| ids.first().is_some_and(|(id, _)| id == bos));
    let render = |chat: &[(&str, &str)]| {
        let text = render(chat)?;
        Some(bos.and_then(|(_, b)| text.strip_prefix(b)).map_or(text.clone(), str::to_owned))
    };
    let found = TEMPLATES.iter().find_map(|t| Some((t, t.matches(&render)?)));
    let Some((template, system)) = found else {
        let names: Vec<&str> = TEMPLATES.iter().map(|t| t.name).collect();
        let what = format!("the chat template is none of those known for Ollama ({})", names.join(", "));
        return cannot(what, hint);
    };
    let mut text = format!("FROM ./{MODEL}\nTEMPLATE \"\"\"{}\"\"\"\n", template.go());
    if !system.is_empty() {
        if system.contains("\"\"\"") {
            return cannot("the template's own system message holds three quotation marks", hint);
        }
        text.push_str(&format!("SYSTEM \"\"\"{system}\"\"\"\n"));
    }
    for stop in template.stops {
        text.push_str(&format!("PARAMETER stop \"{stop}\"\n"));
    }
    Ok(text)
}
