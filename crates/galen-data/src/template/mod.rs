//! Chat templates: rendering as Hugging Face renders, and the exact bytes the loss covers.
//!
//! A template is Jinja source that came with a model, run by minijinja under limits (`limits.rs`). Supervision comes
//! from rendering (`mask.rs`), never from searching token ids.

mod answer;
mod builtin;
mod env;
mod error;
mod filters;
mod limits;
mod markers;
mod mask;
pub mod prompt;
mod python;
mod renderer;
pub mod sandbox;
mod source;

pub use answer::{render_answer, render_labelled, render_pair, render_prompt_row};
pub use builtin::{BUILTIN, Builtin, builtin};
pub use chrono::NaiveDateTime;
pub use error::TemplateError;

use galen_types::{Conversation, Message, Rendered};
use renderer::Renderer;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Which end-of-turn tokens the loss covers (Axolotl's `train_on_eos`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainOnEos {
    /// Every turn's, also of turns that are not trained.
    All,
    /// Those of trained turns.
    #[default]
    Turn,
    /// Only that of the last trained turn.
    Last,
    /// None.
    None,
}

impl TrainOnEos {
    /// Names in configuration files, in the order of the variants.
    pub const NAMES: [&'static str; 4] = ["all", "turn", "last", "none"];

    /// By its name in configuration files.
    pub fn from_name(name: &str) -> Option<Self> {
        let index = Self::NAMES.iter().position(|n| *n == name)?;
        [Self::All, Self::Turn, Self::Last, Self::None].get(index).copied()
    }
}

/// The tokenizer's special tokens, as a template and the mask need them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpecialTokens {
    /// Template variables: `bos_token`, `eos_token`, `pad_token`, `unk_token` ... to their text.
    pub named: BTreeMap<String, String>,
    /// Text of every control token (`<|im_end|>`, `</s>` ...): what may end a turn.
    pub control: Vec<String>,
    /// Axolotl's `eot_tokens`: what ends a turn, where the configuration says it. Else the end is the first control
    /// token after a turn's text.
    pub eot: Vec<String>,
}

/// How to render a conversation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RenderOptions {
    /// Which end-of-turn tokens the loss covers.
    pub train_on_eos: TrainOnEos,
    /// Whether the text ends with the beginning of an assistant turn.
    pub add_generation_prompt: bool,
    /// Further template variables (`chat_template_kwargs`); a row's own take precedence.
    pub kwargs: Map<String, Value>,
    /// What `strftime_now` says; the clock where absent. Fix it for reproducible text.
    pub date: Option<NaiveDateTime>,
}

/// A compiled chat template with its tokenizer's special tokens.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    engine: env::Engine,
    special: SpecialTokens,
    has_generation: bool,
    names: std::collections::HashSet<String>,
}

impl ChatTemplate {
    /// Compiles `source` (a `chat_template.jinja`). Errors: not Jinja, or larger than 1 MiB.
    pub fn new(source: &str, special: SpecialTokens) -> Result<Self, TemplateError> {
        let rewritten = source::rewrite(source).map_err(|what| TemplateError::Syntax { what })?;
        let engine = limits::on_deep_stack(|| env::Engine::new(&rewritten))
            .ok_or(TemplateError::Thread)?
            .map_err(|e| TemplateError::Syntax { what: error::describe(&e) })?;
        Ok(Self {
            source: source.to_string(),
            engine,
            special,
            has_generation: rewritten.has_generation,
            names: rewritten.names,
        })
    }

    /// The template as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The special tokens it was given.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// Whether the text depends on the date (`RenderOptions::date`).
    pub fn uses_date(&self) -> bool {
        self.names.contains("strftime_now")
    }

    /// Whether the template looks at tool definitions; where it does not, a row's `tools` have no effect.
    pub fn uses_tools(&self) -> bool {
        self.names.contains("tools")
    }

    /// Text of a conversation and the byte ranges the loss covers: for each trained turn what the model would write,
    /// from the end of the generation prompt to the end-of-turn token. `Pieces` are laid end to end.
    ///
    /// Errors name the row: the template refuses it, a turn or the tools do not appear in the text, or the span of a
    /// trained turn cannot be told exactly.
    pub fn render(
        &self,
        conversation: &Conversation,
        options: &RenderOptions,
    ) -> Result<Rendered, TemplateError> {
        match conversation {
            Conversation::Pieces { .. } => render_pieces(conversation),
            Conversation::Chat { origin, messages, tools, template_kwargs } => {
                let mut kwargs = options.kwargs.clone();
                kwargs.extend(template_kwargs.clone());
                let work = || {
                    let renderer = Renderer::new(self, messages, tools.as_ref(), &kwargs, options.date);
                    mask::render(&renderer, messages, options)
                };
                let (text, spans) = limits::on_deep_stack(work)
                    .unwrap_or(Err(mask::Problem::Thread))
                    .map_err(|problem| TemplateError::of_row(origin.clone(), problem))?;
                Ok(Rendered::new(origin.clone(), text, spans, false)?)
            }
        }
    }

    /// The text to generate from: messages as JSON objects with `role` and `content`.
    pub fn render_prompt(
        &self,
        messages: &[Value],
        tools: Option<&Value>,
        add_generation_prompt: bool,
        options: &RenderOptions,
    ) -> Result<String, TemplateError> {
        let messages: Vec<Message> = messages
            .iter()
            .map(|message| {
                let fields = message.as_object().cloned().unwrap_or_default();
                let role = fields.get("role").and_then(Value::as_str).unwrap_or_default().to_string();
                Message { role, fields, train: false }
            })
            .collect();
        let work = || {
            let renderer = Renderer::new(self, &messages, tools, &options.kwargs, options.date);
            renderer.plain(renderer.messages(), add_generation_prompt).map_err(|e| error::describe(&e))
        };
        limits::on_deep_stack(work)
            .ok_or(TemplateError::Thread)?
            .map_err(|what| TemplateError::Prompt { what })
    }
}

/// Text pieces laid end to end, with the supervised ones as spans. Needs no template.
pub fn render_pieces(conversation: &Conversation) -> Result<Rendered, TemplateError> {
    let Conversation::Pieces { origin, pieces, append_eos } = conversation else {
        return Err(TemplateError::NoTemplate { origin: conversation.origin().clone() });
    };
    let mut text = String::new();
    let mut spans: Vec<std::ops::Range<usize>> = Vec::new();
    for (piece, supervised) in pieces.iter().filter(|(piece, _)| !piece.is_empty()) {
        let start = text.len();
        text.push_str(piece);
        if *supervised {
            match spans.last_mut().filter(|last| last.end == start) {
                Some(last) => last.end = text.len(),
                None => spans.push(start..text.len()),
            }
        }
    }
    Ok(Rendered::new(origin.clone(), text, spans, *append_eos)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compiling and rendering, on a thread whose panics would come back as `Thread`.
    #[test]
    fn fuzz() {
        let messages = serde_json::json!([
            {"role": "user", "content": " hé\n"},
            {"role": "assistant", "content": "ok", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
        ]);
        let messages = messages.as_array().unwrap();
        let named = [("bos_token".to_owned(), "<s>".to_owned())].into();
        let special = SpecialTokens { named, ..SpecialTokens::default() };
        let date = NaiveDateTime::default();
        let options = RenderOptions { date: Some(date), ..RenderOptions::default() };
        let mut rendered = 0;
        let corpus = galen_testkit::fuzz::corpus("template");
        let inputs = galen_testkit::fuzz::run("render", &corpus, |bytes| {
            let template = ChatTemplate::new(&String::from_utf8_lossy(bytes), special.clone());
            assert!(!matches!(template, Err(TemplateError::Thread)), "compiling panicked");
            let Ok(template) = template else { return };
            let text = template.render_prompt(messages, None, true, &options);
            assert!(!matches!(text, Err(TemplateError::Thread)), "rendering panicked");
            rendered += u64::from(text.is_ok());
        });
        println!("render: {inputs} inputs, {rendered} rendered");
        assert!(rendered > 0);
    }
}
