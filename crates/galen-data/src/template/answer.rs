//! Preference rows as text: a prompt with each of its answers, the answer as the one span.
//!
//! ```text
//! text     <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n
//! prompt   |--- the prompt's turns, with generation prompt ------>|
//! span                                                            ^^^^^^^^^^^^^^^^^
//! ```
//!
//! The span is everything behind the prompt, the newline after the end-of-turn token too: what TRL takes as the
//! completion. Training on conversations leaves that newline out (`mask.rs`).

use super::renderer::Renderer;
use super::{ChatTemplate, RenderOptions, TemplateError, error, limits, mask};
use galen_types::{
    Answer, Boundary, InvariantError, Labelled, Origin, Pair, Prompt, PromptRow, Rendered, RenderedAnswer,
    RenderedLabelled, RenderedPair, RenderedPrompt,
};

/// Text of a prompt with one of its answers. `template: None` serves prompts of text alone.
///
/// Errors name the row: there is no template for turns, the template refuses the row or leaves something of it out,
/// or where the answer begins cannot be told exactly.
pub fn render_answer(
    origin: &Origin,
    prompt: &Prompt,
    answer: &Answer,
    template: Option<&ChatTemplate>,
    options: &RenderOptions,
) -> Result<RenderedAnswer, TemplateError> {
    let (text, start, append_eos, boundary) = match (prompt, answer) {
        (Prompt::Text { text, boundary }, Answer::Text(answer)) => {
            (format!("{text}{answer}"), text.len(), true, *boundary)
        }
        (Prompt::Chat { messages, tools, template_kwargs }, Answer::Turns(turns)) => {
            let template = template.ok_or_else(|| TemplateError::NoTemplate { origin: origin.clone() })?;
            let mut kwargs = options.kwargs.clone();
            kwargs.extend(template_kwargs.clone());
            let all = [&messages[..], turns].concat();
            let work = || {
                let renderer = Renderer::new(template, &all, tools.as_ref(), &kwargs, options.date);
                mask::answer(&renderer, &all, messages.len())
            };
            let (text, start) = limits::on_deep_stack(work)
                .unwrap_or(Err(mask::Problem::Thread))
                .map_err(|problem| TemplateError::of_row(origin.clone(), problem))?;
            (text, start, false, Boundary::Cut)
        }
        (Prompt::Text { .. }, Answer::Turns(_)) => return Err(mixed(origin, "text", "turns")),
        (Prompt::Chat { .. }, Answer::Text(_)) => return Err(mixed(origin, "turns", "text")),
    };
    let end = text.len();
    let span = std::iter::once(start..end).collect();
    Ok(RenderedAnswer { rendered: Rendered::new(origin.clone(), text, span, append_eos)?, boundary })
}

fn mixed(origin: &Origin, prompt: &str, answer: &str) -> TemplateError {
    let what = format!("a prompt of {prompt} has an answer of {answer}");
    InvariantError { origin: origin.to_string(), what }.into()
}

/// Both texts of a pair. Errors: those of [`render_answer`].
pub fn render_pair(
    pair: &Pair,
    template: Option<&ChatTemplate>,
    options: &RenderOptions,
) -> Result<RenderedPair, TemplateError> {
    let one = |answer| render_answer(&pair.origin, &pair.prompt, answer, template, options);
    Ok(RenderedPair { chosen: one(&pair.chosen)?, rejected: one(&pair.rejected)?, margin: pair.margin })
}

/// The text of a labelled answer. Errors: those of [`render_answer`].
pub fn render_labelled(
    row: &Labelled,
    template: Option<&ChatTemplate>,
    options: &RenderOptions,
) -> Result<RenderedLabelled, TemplateError> {
    let answer = render_answer(&row.origin, &row.prompt, &row.completion, template, options)?;
    Ok(RenderedLabelled { answer, label: row.label })
}

/// The text to sample answers to a prompt from. Errors: those of [`render_answer`].
pub fn render_prompt_row(
    row: &PromptRow,
    template: Option<&ChatTemplate>,
    options: &RenderOptions,
) -> Result<RenderedPrompt, TemplateError> {
    let origin = row.origin.clone();
    let (messages, tools, template_kwargs) = match &row.prompt {
        Prompt::Text { text, .. } => return Ok(RenderedPrompt { origin, text: text.clone() }),
        Prompt::Chat { messages, tools, template_kwargs } => (messages, tools, template_kwargs),
    };
    let template = template.ok_or_else(|| TemplateError::NoTemplate { origin: origin.clone() })?;
    let mut kwargs = options.kwargs.clone();
    kwargs.extend(template_kwargs.clone());
    let work = || {
        let renderer = Renderer::new(template, messages, tools.as_ref(), &kwargs, options.date);
        renderer.plain(renderer.messages(), true).map_err(|e| error::describe(&e))
    };
    let text = limits::on_deep_stack(work)
        .ok_or(TemplateError::Thread)?
        .map_err(|what| TemplateError::Row { origin: origin.clone(), what })?;
    Ok(RenderedPrompt { origin, text })
}
