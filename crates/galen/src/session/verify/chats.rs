//! What a run's rows say of its chats.

use super::super::prepare::Preparer;
use super::super::rows::Rows;
use super::texts::message;
use galen_data::template::RenderOptions;
use galen_types::{Conversation, Message, Prompt};
use serde_json::Value;

/// Rows whose chats are compared.
const CHATS: usize = 8;

/// A row as a chat: its messages, an answer last, and its tools.
pub(super) type Chat = (Vec<Message>, Option<Value>);

/// The run's rows, and some of them as chats.
pub(super) fn read_rows(preparer: &Preparer) -> anyhow::Result<(Rows, Vec<Chat>)> {
    let rows = preparer.prepare()?.rows;
    let (train, _) = preparer.config.dataset_specs()?;
    let supervised = preparer.config.alignment()?.is_none();
    let mut chats = Vec::new();
    for spec in &train {
        if supervised {
            let loaded = preparer.load(spec, preparer.config.bad_rows())?.rows;
            chats.extend(loaded.into_iter().filter_map(|row| match row {
                Conversation::Chat { messages, tools, template_kwargs, .. } if template_kwargs.is_empty() => {
                    Some((messages, tools))
                }
                _ => None,
            }));
        } else {
            let loaded = preparer.load_preferences(spec, preparer.config.bad_rows())?.rows;
            chats.extend(loaded.iter().filter_map(|row| match row.prompt() {
                Prompt::Chat { messages, tools, template_kwargs } if template_kwargs.is_empty() => {
                    let mut messages = messages.clone();
                    messages.push(message("assistant", "Yes."));
                    Some((messages, tools.clone()))
                }
                _ => None,
            }));
        }
        chats.truncate(CHATS);
    }
    Ok((rows, chats))
}

/// As the first entry's rows are rendered.
pub(super) fn render_options(preparer: &Preparer) -> RenderOptions {
    let specs = preparer.config.dataset_specs().map(|(train, _)| train).unwrap_or_default();
    specs.first().map(|spec| preparer.render_options(spec)).unwrap_or_default()
}

/// Training rows with the stop token under the loss; nothing where answers are sampled.
pub(super) fn supervised(rows: &Rows, stop: u32) -> Option<(usize, usize)> {
    if matches!(rows, Rows::Prompts(_)) {
        return None;
    }
    let has = |row: usize| {
        let sequences = rows.sequences(row);
        sequences.iter().any(|s| s.ids().iter().zip(s.mask()).any(|(id, m)| *m && *id == stop))
    };
    Some(((0..rows.n_train()).filter(|row| has(*row)).count(), rows.n_train()))
}
