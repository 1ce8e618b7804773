//! One row's messages as template values, rendered whole, in part, or with marks.

use super::ChatTemplate;
use super::env::{Run, from_json};
use chrono::NaiveDateTime;
use galen_types::Message;
use minijinja::{Error, Value};
use serde_json::{Map, Value as Json};

/// Names a message's reasoning goes by. transformers gives templates the first for any of them.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A text, and the byte ranges of it that were marked.
pub(super) type Marked = (String, Vec<std::ops::Range<usize>>);

/// Renders one row in many ways. Lives on the rendering thread.
pub(super) struct Renderer<'a> {
    template: &'a ChatTemplate,
    messages: Vec<Value>,
    variables: Vec<(String, Value)>,
    input_bytes: usize,
    /// Four characters that occur nowhere in the row: marks' and generation blocks' brackets.
    sigils: Option<[char; 4]>,
    date: Option<NaiveDateTime>,
}

impl<'a> Renderer<'a> {
    pub(super) fn new(
        template: &'a ChatTemplate,
        messages: &[Message],
        tools: Option<&Json>,
        kwargs: &Map<String, Json>,
        date: Option<NaiveDateTime>,
    ) -> Self {
        let mut variables: Vec<(String, Value)> = Vec::new();
        let special = &template.special.named;
        variables.extend(special.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))));
        variables.push(("tools".into(), tools.map_or(Value::from(()), from_json)));
        variables.push(("documents".into(), Value::from(())));
        variables.extend(kwargs.iter().map(|(k, v)| (k.clone(), from_json(v))));
        let mut seen = Seen::default();
        for message in messages {
            seen.map(&message.fields);
        }
        seen.map(kwargs);
        if let Some(tools) = tools {
            seen.json(tools);
        }
        seen.text(&template.source);
        Self {
            template,
            messages: messages.iter().map(|m| message_value(&m.fields)).collect(),
            variables,
            input_bytes: seen.bytes,
            sigils: seen.free(),
            date,
        }
    }

    pub(super) fn template(&self) -> &'a ChatTemplate {
        self.template
    }

    /// The row's messages.
    pub(super) fn messages(&self) -> &[Value] {
        &self.messages
    }

    /// The same for the first `n` of the row's messages only.
    pub(super) fn beginning(&self, n: usize) -> Self {
        Self {
            template: self.template,
            messages: self.messages.get(..n).unwrap_or(&self.messages).to_vec(),
            variables: self.variables.clone(),
            input_bytes: self.input_bytes,
            sigils: self.sigils,
            date: self.date,
        }
    }

    /// The brackets of a mark, where any are free.
    pub(super) fn mark_sigils(&self) -> Option<(char, char)> {
        self.sigils.map(|s| (s[0], s[1]))
    }

    fn run(&self, messages: &[Value], add_generation_prompt: bool, run: &Run) -> Result<String, Error> {
        let variables: Value = self
            .variables
            .iter()
            .cloned()
            .chain([
                ("messages".to_string(), Value::from(messages.to_vec())),
                ("add_generation_prompt".to_string(), Value::from(add_generation_prompt)),
            ])
            .map(|(k, v)| (Value::from(k), v))
            .collect();
        self.template.engine.render(variables, self.input_bytes, run)
    }

    /// The text of `messages`.
    pub(super) fn plain(&self, messages: &[Value], add_generation_prompt: bool) -> Result<String, Error> {
        self.run(messages, add_generation_prompt, &Run { date: self.date, generation: None })
    }

    /// The text of the whole row, and the byte ranges of its `{% generation %}` blocks. `None`: no free characters.
    pub(super) fn generation_blocks(&self) -> Option<Result<Marked, Error>> {
        let [.., open, close] = self.sigils?;
        let run = Run { date: self.date, generation: Some((open, close)) };
        Some(self.run(&self.messages, false, &run).map(|marked| {
            let mut text = String::with_capacity(marked.len());
            let mut blocks: Vec<std::ops::Range<usize>> = Vec::new();
            let mut start = None;
            for c in marked.chars() {
                if c == open {
                    start = Some(text.len());
                } else if c == close {
                    if let Some(start) = start.take().filter(|s| *s < text.len()) {
                        blocks.push(start..text.len());
                    }
                } else {
                    text.push(c);
                }
            }
            (text, blocks)
        }))
    }
}

/// A message as the template sees it, with its reasoning under the names transformers gives it.
pub(super) fn message_value(fields: &Map<String, Json>) -> Value {
    let reasoning = REASONING.iter().filter_map(|name| fields.get(*name)).find(|v| !v.is_null());
    let Some(reasoning) = reasoning else { return from_json(&Json::Object(fields.clone())) };
    let mut out = Map::new();
    out.insert("thinking".into(), reasoning.clone());
    for (k, v) in fields {
        out.insert(k.clone(), v.clone());
    }
    out.insert("reasoning_content".into(), reasoning.clone());
    from_json(&Json::Object(out))
}

/// Text seen in a row: how much, and which of the reserved characters.
#[derive(Default)]
struct Seen {
    bytes: usize,
    reserved: u32,
}

/// First of the 32 noncharacters Unicode sets aside for internal use.
const FIRST_RESERVED: u32 = 0xFDD0;

impl Seen {
    fn map(&mut self, map: &Map<String, Json>) {
        for (k, v) in map {
            self.text(k);
            self.json(v);
        }
    }

    fn json(&mut self, json: &Json) {
        match json {
            Json::String(text) => self.text(text),
            Json::Array(items) => items.iter().for_each(|v| self.json(v)),
            Json::Object(map) => self.map(map),
            _ => self.bytes += 8,
        }
    }

    fn text(&mut self, text: &str) {
        self.bytes += text.len();
        // All reserved characters begin with the same two bytes: skip text without them.
        if !text.as_bytes().windows(2).any(|w| w == [0xEF, 0xB7]) {
            return;
        }
        for c in text.chars() {
            let offset = (c as u32).wrapping_sub(FIRST_RESERVED);
            if offset < 32 {
                self.reserved |= 1 << offset;
            }
        }
    }

    fn free(&self) -> Option<[char; 4]> {
        let mut free = (0..32)
            .filter(|i| self.reserved & (1 << i) == 0)
            .filter_map(|i| char::from_u32(FIRST_RESERVED + i));
        Some([free.next()?, free.next()?, free.next()?, free.next()?])
    }
}
