//! From prompts to tokens.

use super::super::adapters::saved_template;
use super::super::base::compile_template;
use anyhow::Context as _;
use galen_data::template::{ChatTemplate, RenderOptions};
use galen_engine::{Encode, Input};
use galen_eval::{Prompt, encode_prompt};
use galen_model::tokenizer::Tokenizer;
use std::sync::Arc;

/// How an adapter's inputs become tokens: by the template saved beside it, else as its base's.
pub(super) fn adapter_encoder(
    path: &str,
    tokenizer: &Arc<Tokenizer>,
    base: &Arc<dyn Encode>,
    offline: bool,
) -> anyhow::Result<Arc<dyn Encode>> {
    let Some(source) = saved_template(path, offline)? else { return Ok(base.clone()) };
    let template =
        compile_template(tokenizer, &source, &[]).with_context(|| format!("{path}/chat_template.jinja"))?;
    Ok(Arc::new(Encoder { tokenizer: tokenizer.clone(), template: Some(template) }))
}

/// The way that `galen generate` and `galen eval` go from prompts to tokens.
pub(super) struct Encoder {
    pub tokenizer: Arc<Tokenizer>,
    pub template: Option<ChatTemplate>,
}

impl Encode for Encoder {
    fn encode(&self, input: &Input) -> Result<Vec<u32>, String> {
        let prompt = match input {
            Input::Tokens(ids) => return Ok(ids.clone()),
            Input::Text(text) => Prompt::Plain(text.clone()),
            Input::Chat(messages) => {
                let Some(template) = &self.template else {
                    return Err(
                        "the model has no chat template: ask for a completion of a text, or have the server \
                                started with `--chat-template`"
                            .into(),
                    );
                };
                let text = template.render_prompt(messages, None, true, &RenderOptions::default());
                Prompt::Chat(text.map_err(|e| e.to_string())?)
            }
        };
        encode_prompt(&*self.tokenizer, &prompt).map_err(|e| e.to_string())
    }
}
