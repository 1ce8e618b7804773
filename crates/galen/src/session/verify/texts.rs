//! The way from a chat to tokens: as the run trained it, and as a server goes with an artifact's template and tokenizer.

use super::super::base::compile_template;
use galen_data::template::{ChatTemplate, RenderOptions};
use galen_data::tokenize::{ExcessLength, TokenizeOptions, tokenize};
use galen_eval::{Prompt, encode_prompt};
use galen_model::tokenizer::Tokenizer;
use galen_types::{Conversation, Message, Origin, TextEncoder as _};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// Contents of every kind: words, digits, other scripts, spaces at the ends, code, what looks like a special token.
const CONTENTS: [&str; 6] = [
    "What is the dose of paracetamol for an adult?",
    "  At 08:30 he took 1,250 mg; at 20.15 only 75 µg (≈ 0.06 %).  ",
    "Déjà vu: 你好，世界 — здравствуйте 👩‍⚕️",
    "Line one\n\n\tdef f(x):\n\t\treturn x ** 2  # {{ braces }} {% and %}",
    "<b>bold</b> & \"quotes\" 'n' \\backslash\\ </s> [INST]",
    "a",
];

/// Tokens shown before a difference.
const CONTEXT: usize = 12;

/// Roles of the chats tried, each turn's content the next of [`CONTENTS`].
const SHAPES: [&[&str]; 4] = [
    &["user", "assistant"],
    &["user", "assistant", "user", "assistant"],
    &["system", "user", "assistant"],
    &["system", "user", "assistant", "user", "assistant", "user", "assistant"],
];

/// A chat as the run trained it: everything before the last answer in tokens.
pub(super) struct TrainedChat {
    /// In words.
    what: String,
    messages: Vec<Value>,
    tools: Option<Value>,
    ids: Vec<u32>,
}

/// The training path.
pub(super) struct Trained {
    /// The template's text; none where the run trained on texts alone.
    template: Option<String>,
    chats: Vec<TrainedChat>,
    /// Shapes that the template refuses.
    refused: Vec<String>,
    /// What ends an answer: behind a turn by the template, else the tokenizer's end of sequence.
    pub stop: Option<u32>,
}

/// What came of holding an artifact's texts against the training path.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TextReport {
    /// Chats compared.
    pub chats: usize,
    /// Plain texts compared.
    pub texts: usize,
    /// Shapes the template refuses, in training too.
    pub refused: Vec<String>,
    /// `the run's`, `other text`, `none`, `of the base`: what template it is.
    pub template: &'static str,
    /// The first difference, in words.
    pub difference: Option<String>,
    /// What to know when serving.
    pub note: Option<String>,
}

/// The template and tokenizer that a server has.
pub(super) struct Served<'a> {
    pub tokenizer: &'a Tokenizer,
    pub template: Option<&'a str>,
}

impl Trained {
    /// Chats of galen's own and `rows` of the run through the training path. `render`: as the run renders its rows.
    pub(super) fn new(
        tokenizer: &Tokenizer,
        template: Option<&ChatTemplate>,
        render: &RenderOptions,
        rows: Vec<(Vec<Message>, Option<Value>)>,
    ) -> Self {
        let mut trained = Self {
            template: template.map(|t| t.source().to_owned()),
            chats: Vec::new(),
            refused: Vec::new(),
            stop: tokenizer.eos().map(|(id, _)| id),
        };
        let Some(template) = template else { return trained };
        trained.stop = end_of_turn(tokenizer, template, render);
        let own = SHAPES.iter().enumerate().flat_map(|(i, roles)| {
            (0..2).map(move |turn| {
                let contents = CONTENTS.iter().cycle().skip(2 * i + 3 * turn);
                let messages = roles.iter().zip(contents).map(|(role, text)| message(role, text)).collect();
                (roles.join(", "), messages, None)
            })
        });
        let rows = rows.into_iter().enumerate();
        let rows = rows.map(|(i, (messages, tools))| (format!("row {} of the run", i + 1), messages, tools));
        for (what, mut messages, tools) in own.chain(rows) {
            // Training encodes each answer apart from what stands before it, as it is generated; a client sends earlier
            // answers back as text, where one that begins with a space is joined with the line end before it. So earlier
            // turns are taken as text here too.
            let last = messages.len().saturating_sub(1);
            messages.iter_mut().enumerate().for_each(|(i, m)| m.train = i == last);
            match prompt_ids(tokenizer, template, render, &messages, tools.as_ref()) {
                Some(ids) => {
                    let messages = messages.into_iter().take(last).map(|m| Value::Object(m.fields)).collect();
                    trained.chats.push(TrainedChat { what, messages, tools, ids });
                }
                None if !trained.refused.contains(&what) => trained.refused.push(what),
                None => {}
            }
        }
        trained
    }

    /// Whether a template of that text is the run's.
    pub(super) fn is_template(&self, text: Option<&str>) -> bool {
        self.template.as_deref() == text
    }

    /// Holds what a server does against it.
    pub(super) fn compare(
        &self,
        tokenizer: &Tokenizer,
        served: &Served,
        render: &RenderOptions,
    ) -> TextReport {
        let template = match (served.template, self.is_template(served.template)) {
            (None, _) => "none",
            (_, true) => "the run's",
            (_, false) => "other text",
        };
        let mut report = TextReport { template, refused: self.refused.clone(), ..TextReport::default() };
        report.difference = self.first_difference(tokenizer, served, render, &mut report);
        report
    }

    fn first_difference(
        &self,
        tokenizer: &Tokenizer,
        served: &Served,
        render: &RenderOptions,
        report: &mut TextReport,
    ) -> Option<String> {
        // The tokenizers first: of another one every chat differs.
        for text in CONTENTS {
            let want: Vec<u32> = tokenizer.encode(text, true).ok()?.into_iter().map(|(id, _)| id).collect();
            let got = match encode_prompt(served.tokenizer, &Prompt::Plain(text.to_owned())) {
                Ok(got) => got,
                Err(e) => return Some(format!("the text `{text}` has no tokens: {e}")),
            };
            if let Some(where_) = first_token(tokenizer, &want, served.tokenizer, &got) {
                return Some(format!("the text `{text}`: {where_}"));
            }
            report.texts += 1;
        }
        if let Some(difference) = vocabulary(tokenizer, served.tokenizer) {
            return Some(difference);
        }
        if self.chats.is_empty() {
            return None;
        }
        let Some(source) = served.template else {
            return Some("it has no chat template, and the run was trained with one".into());
        };
        let template = match compile_template(served.tokenizer, source, &[]) {
            Ok(template) => template,
            Err(e) => return Some(format!("its chat template: {e:#}")),
        };
        // A server is given no variables of the run's; the day is the run's, which no file can hold.
        let options = RenderOptions { date: render.date, ..RenderOptions::default() };
        for chat in &self.chats {
            let text = match template.render_prompt(&chat.messages, chat.tools.as_ref(), true, &options) {
                Ok(text) => text,
                Err(e) => return Some(format!("the chat of {}: {e}", chat.what)),
            };
            let got = match encode_prompt(served.tokenizer, &Prompt::Chat(text)) {
                Ok(got) => got,
                Err(e) => return Some(format!("the chat of {}: {e}", chat.what)),
            };
            if let Some(where_) = first_token(tokenizer, &chat.ids, served.tokenizer, &got) {
                return Some(format!("the chat of {}: {where_}", chat.what));
            }
            report.chats += 1;
        }
        None
    }
}

pub(super) fn message(role: &str, text: &str) -> Message {
    let mut fields = Map::new();
    fields.insert("role".into(), json!(role));
    fields.insert("content".into(), json!(text));
    Message { role: role.to_owned(), fields, train: role == "assistant" }
}

/// A chat's tokens with what is trained of them; none where the template refuses it.
fn tokens(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    render: &RenderOptions,
    messages: &[Message],
    tools: Option<&Value>,
) -> Option<(Vec<u32>, Vec<bool>)> {
    let chat = Conversation::Chat {
        origin: Origin::new("galen verify", 1),
        messages: messages.to_vec(),
        tools: tools.cloned(),
        template_kwargs: Map::new(),
    };
    let rendered = template.render(&chat, render).ok()?;
    let options =
        TokenizeOptions { sequence_len: usize::MAX, excess: ExcessLength::Raise, train_on_inputs: false };
    let (rows, _) = tokenize(&[rendered], tokenizer, options).ok()?;
    let row = rows.first()?;
    Some((row.ids().to_vec(), row.mask().to_vec()))
}

/// The tokens before the last answer.
fn prompt_ids(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    render: &RenderOptions,
    messages: &[Message],
    tools: Option<&Value>,
) -> Option<Vec<u32>> {
    let (mut ids, mask) = tokens(tokenizer, template, render, messages, tools)?;
    let last = mask.iter().rposition(|m| *m)?;
    let start = mask[..last].iter().rposition(|m| !*m).map_or(0, |i| i + 1);
    ids.truncate(start);
    Some(ids)
}

/// The token that a template writes behind an answer; none where it writes no control token there.
pub(super) fn end_of_turn(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    render: &RenderOptions,
) -> Option<u32> {
    let options = RenderOptions { train_on_eos: galen_data::template::TrainOnEos::Turn, ..render.clone() };
    let chat = [message("user", "One?"), message("assistant", "Two.")];
    let (ids, mask) = tokens(tokenizer, template, &options, &chat, None)?;
    let id = *ids.get(mask.iter().rposition(|m| *m)?)?;
    let control = tokenizer.control_tokens();
    tokenizer.token(id).filter(|text| control.contains(text)).map(|_| id)
}

/// The first token in which two encodings differ, with what stands before it.
fn first_token(ours: &Tokenizer, want: &[u32], its: &Tokenizer, got: &[u32]) -> Option<String> {
    let at = want.iter().zip(got).position(|(w, g)| w != g).unwrap_or(want.len().min(got.len()));
    if at == want.len() && at == got.len() {
        return None;
    }
    let say = |tokenizer: &Tokenizer, id: Option<&u32>| {
        id.map_or("the end".to_owned(), |id| format!("{id} `{}`", text_of(tokenizer, *id)))
    };
    let before = ours.decode(&want[at.saturating_sub(CONTEXT)..at], false).unwrap_or_default();
    let (got, want) = (say(its, got.get(at)), say(ours, want.get(at)));
    Some(format!("token {at} is {got} instead of {want}, behind `{}`", before.escape_debug()))
}

fn text_of(tokenizer: &Tokenizer, id: u32) -> String {
    tokenizer.token(id).map_or("no token".into(), |t| t.escape_debug().to_string())
}

/// The first token that two vocabularies write otherwise.
fn vocabulary(ours: &Tokenizer, its: &Tokenizer) -> Option<String> {
    let ids = 0..u32::try_from(ours.vocab_size()).ok()?;
    ids.filter_map(|id| Some((id, ours.token(id)?)))
        .find(|(id, text)| its.token(*id).as_ref() != Some(text))
        .map(|(id, text)| {
            format!(
                "token {id} of the vocabulary is `{}` instead of `{}`",
                text_of(its, id),
                text.escape_debug()
            )
        })
}
