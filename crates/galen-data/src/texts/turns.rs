//! The texts of conversations and of preference rows, system turns left out.

use super::{RowText, every_text};
use galen_types::{Answer, Conversation, Message, Preference, Prompt};
use serde_json::Value;

/// Fields of a turn that say something, in the order in which they are said.
const SAYING: [&str; 3] = ["reasoning_content", "content", "tool_calls"];

pub(super) fn conversation(row: &Conversation) -> Vec<RowText> {
    match row {
        Conversation::Chat { messages, .. } => said_by(messages).collect(),
        Conversation::Pieces { pieces, .. } => pieces
            .iter()
            .map(|(text, answer)| RowText { text: text.trim().to_owned(), answer: *answer })
            .collect(),
    }
}

pub(super) fn preference(row: &Preference) -> Vec<RowText> {
    let answers: Vec<&Answer> = match row {
        Preference::Pair(pair) => vec![&pair.chosen, &pair.rejected],
        Preference::Labelled(row) => vec![&row.completion],
        Preference::Ranked(row) => row.answers.iter().map(|(answer, _)| answer).collect(),
        Preference::Prompt(_) => Vec::new(),
    };
    let mut texts: Vec<RowText> = match row.prompt() {
        Prompt::Chat { messages, .. } => said_by(messages).map(|t| RowText { answer: false, ..t }).collect(),
        Prompt::Text { text, .. } => vec![RowText { text: text.clone(), answer: false }],
    };
    for answer in answers {
        match answer {
            Answer::Turns(messages) => texts.extend(said_by(messages).map(|t| RowText { answer: true, ..t })),
            Answer::Text(text) => texts.push(RowText { text: text.clone(), answer: true }),
        }
    }
    texts
}

fn said_by(messages: &[Message]) -> impl Iterator<Item = RowText> {
    let turns = messages.iter().filter(|m| m.role != "system" && m.role != "developer");
    turns.map(|m| RowText { text: said(m), answer: m.train })
}

fn said(message: &Message) -> String {
    let mut texts = Vec::new();
    SAYING.iter().filter_map(|name| message.fields.get(*name)).for_each(|v| content(v, &mut texts));
    texts.join("\n")
}

/// A content, or the parts of one: `{"type": "text", "text": ...}` says its `text` alone.
fn content(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Array(parts) => parts.iter().for_each(|part| content(part, out)),
        Value::Object(part) => match part.get("text") {
            Some(Value::String(text)) => out.push(text.clone()),
            _ => every_text(value, out),
        },
        value => every_text(value, out),
    }
}
