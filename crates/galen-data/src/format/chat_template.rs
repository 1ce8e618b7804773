//! `chat_template` (alias `messages`): turns with roles, rendered by the chat template. `sharegpt` is the same with
//! other names, so both are one reader, [`Chat`].

use super::{DatasetType, Fields, RowFormat, kind, no_style, required, wrong_kind};
use crate::{DataError, DatasetSpec, Fault};
use galen_types::{Conversation, Message, Origin, RawRow};
use serde_json::{Map, Value};
use std::collections::HashMap;

pub(super) const TYPE: DatasetType = DatasetType {
    name: "chat_template",
    aliases: &["messages"],
    about: "`messages` (or `conversations`) of `role` and `content`, with `tools` and `tool_calls`",
    detect: |row| ["messages", "conversations"].iter().any(|f| turns_have(row.get(*f), "role")),
    build: |spec, style| {
        no_style(spec, "chat_template", style)?;
        Ok(Box::new(Chat::new(spec, &Names { field: None, role: "role", content: "content", roles: ROLES })))
    },
};

/// Whether the value is turns (a list, or JSON text of one) whose first has this field.
pub(super) fn turns_have(value: Option<&Value>, field: &str) -> bool {
    match value {
        Some(Value::Array(turns)) => turns.first().is_some_and(|t| t.get(field).is_some()),
        Some(Value::String(text)) => serde_json::from_str::<Vec<Fields>>(text)
            .is_ok_and(|t| t.first().is_some_and(|t| t.contains_key(field))),
        _ => false,
    }
}

pub(super) const ROLES: &[(&str, &str)] = &[("human", "user"), ("gpt", "assistant")];

/// What a kind of chat data calls things when the configuration does not say.
pub(super) struct Names {
    pub(super) field: Option<&'static str>,
    pub(super) role: &'static str,
    pub(super) content: &'static str,
    pub(super) roles: &'static [(&'static str, &'static str)],
}

/// Keys of a turn that speak of training and never reach the template.
const TRAINING_KEYS: &[&str] = &["train", "weight"];

/// The reader of chat data.
pub(super) struct Chat {
    field: Option<String>,
    default_field: Option<&'static str>,
    tools: String,
    /// (template property, field of the turn), role and content among them.
    mappings: Vec<(String, String)>,
    roles: HashMap<String, String>,
    train_roles: Vec<String>,
    training_key: Option<String>,
    drop_system: bool,
}

impl Chat {
    pub(super) fn new(spec: &DatasetSpec, names: &Names) -> Self {
        let mut mappings = vec![
            ("role".to_owned(), spec.message_field_role.clone().unwrap_or_else(|| names.role.to_owned())),
            (
                "content".to_owned(),
                spec.message_field_content.clone().unwrap_or_else(|| names.content.to_owned()),
            ),
        ];
        if let Some(thinking) = &spec.field_thinking {
            let key = spec.template_thinking_key.clone().unwrap_or_else(|| "reasoning_content".to_owned());
            mappings.push((key, thinking.clone()));
        } else if let Some(key) = &spec.template_thinking_key {
            mappings.push((key.clone(), "reasoning_content".to_owned()));
        }
        for (property, field) in spec.message_property_mappings.iter().flatten() {
            match mappings.iter_mut().find(|(p, _)| p == property) {
                Some(mapping) => mapping.1.clone_from(field),
                None => mappings.push((property.clone(), field.clone())),
            }
        }
        let roles: HashMap<String, String> = match &spec.roles {
            Some(given) => {
                given.iter().flat_map(|(to, from)| from.iter().map(|f| (f.clone(), to.clone()))).collect()
            }
            None => names.roles.iter().map(|(f, t)| ((*f).to_owned(), (*t).to_owned())).collect(),
        };
        let train_roles = spec.roles_to_train.clone().unwrap_or_else(|| vec!["assistant".to_owned()]);
        let train_roles = train_roles.into_iter().map(|r| roles.get(&r).cloned().unwrap_or(r)).collect();
        Self {
            field: spec.field_messages.clone(),
            default_field: names.field,
            tools: spec.field_tools.clone().unwrap_or_else(|| "tools".to_owned()),
            mappings,
            roles,
            train_roles,
            training_key: spec.message_field_training.clone(),
            drop_system: spec.drop_system_message.unwrap_or(false),
        }
    }

    fn turns<'a>(&'a self, fields: &'a Fields, origin: &Origin) -> Result<(&'a str, Vec<Value>), DataError> {
        let name = match (&self.field, self.default_field) {
            (Some(name), _) => name,
            (None, Some(name)) => name,
            (None, None) if !fields.contains_key("messages") && fields.contains_key("conversations") => {
                "conversations"
            }
            (None, None) => "messages",
        };
        match required(fields, name, origin)? {
            Value::Array(turns) => Ok((name, turns.clone())),
            Value::String(text) => match serde_json::from_str(text) {
                Ok(turns) => Ok((name, turns)),
                Err(e) => {
                    let what = format!("`{name}` is a string but not a JSON list of turns: {e}");
                    Err(DataError::row(origin, Fault::WrongKind, what))
                }
            },
            other => Err(wrong_kind(name, "a list of turns", other, origin)),
        }
    }

    /// One turn: mapped properties first, every other field behind them under its own name.
    pub(super) fn message(&self, turn: Value, i: usize, origin: &Origin) -> Result<Message, DataError> {
        let bad = |fault, what: String| DataError::row(origin, fault, format!("turn {}: {what}", i + 1));
        let Value::Object(mut turn) = turn else {
            return Err(bad(Fault::WrongKind, format!("should be an object, found {}", kind(&turn))));
        };
        let mut fields = Map::new();
        for (property, field) in &self.mappings {
            match turn.shift_remove(field) {
                None | Some(Value::Null) => {}
                Some(value) => drop(fields.insert(property.clone(), value)),
            }
        }
        let role = match fields.get("role") {
            Some(Value::String(role)) => self.roles.get(role).unwrap_or(role).clone(),
            Some(other) => {
                return Err(bad(
                    Fault::WrongKind,
                    format!("its role should be a string, found {}", kind(other)),
                ));
            }
            None => return Err(self.no_role(&turn, i, origin)),
        };
        fields.insert("role".to_owned(), role.clone().into());
        let train = self.trained(&mut turn, &role).map_err(|what| bad(Fault::WrongKind, what))?;
        for (name, value) in turn {
            if !value.is_null() && !fields.contains_key(&name) {
                fields.insert(name, value);
            }
        }
        plain_content(&mut fields).map_err(|what| bad(Fault::WrongKind, what))?;
        let calls = fields.get_mut("tool_calls").map(parse_arguments).transpose();
        let calls = calls.map_err(|what| bad(Fault::WrongKind, what))?.unwrap_or(false);
        if !calls {
            fields.shift_remove("tool_calls");
        }
        let says = |key: &str| fields.get(key).and_then(Value::as_str).is_some_and(|s| !s.trim().is_empty());
        // A system turn may be empty (it silences a template's default one); a tool may answer nothing.
        let may_be_empty = matches!(role.as_str(), "system" | "developer" | "tool" | "ipython" | "function");
        let other_text = self.mappings.iter().any(|(p, _)| p != "role" && says(p));
        if !may_be_empty && !calls && !other_text && !says("reasoning_content") {
            if !fields.contains_key("content") {
                let content = &self.mappings[1].1;
                let what = format!("{role} turn has no `{content}`");
                return Err(bad(Fault::MissingField, what));
            }
            return Err(bad(Fault::EmptyTurn, format!("{role} turn is empty")));
        }
        Ok(Message { role, fields, train })
    }

    fn no_role(&self, turn: &Fields, i: usize, origin: &Origin) -> DataError {
        let wanted = &self.mappings[0].1;
        let what = format!("turn {}: field `{wanted}` is missing", i + 1);
        let e = DataError::row(origin, Fault::MissingField, what);
        let there: Vec<_> = turn.keys().map(String::as_str).collect();
        if turn.contains_key("from") {
            e.with_hint("turns of `from` and `value` are `type: sharegpt`")
        } else {
            e.with_hint(format!(
                "the turn has `{}`; name its role with `message_property_mappings: {{role: ...}}`",
                there.join("`, `")
            ))
        }
    }

    /// Whether the loss covers a turn: its own flags decide before its role.
    fn trained(&self, turn: &mut Fields, role: &str) -> Result<bool, String> {
        let own = self.training_key.as_deref();
        let mut decided = None;
        for key in own.into_iter().chain(TRAINING_KEYS.iter().copied()) {
            let flag = match turn.shift_remove(key) {
                None | Some(Value::Null) => continue,
                Some(Value::Bool(b)) => b,
                Some(Value::Number(n)) if n.as_f64() == Some(0.0) => false,
                Some(Value::Number(n)) if n.as_f64() == Some(1.0) => true,
                Some(other) => return Err(format!("`{key}` should be true, false, 0 or 1, found `{other}`")),
            };
            decided.get_or_insert(flag);
        }
        Ok(decided.unwrap_or_else(|| self.train_roles.iter().any(|r| r == role)))
    }

    fn tools(&self, fields: &Fields, origin: &Origin) -> Result<Option<Value>, DataError> {
        let bad = |what: String| DataError::row(origin, Fault::WrongKind, what);
        let mut tools = match fields.get(&self.tools) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) if text.trim().is_empty() => return Ok(None),
            Some(Value::String(text)) => serde_json::from_str(text)
                .map_err(|e| bad(format!("`{}` is a string but not JSON: {e}", self.tools)))?,
            Some(value) => value.clone(),
        };
        let Value::Array(list) = &mut tools else {
            return Err(wrong_kind(&self.tools, "a list of tool definitions", &tools, origin));
        };
        if list.is_empty() {
            return Ok(None);
        }
        for tool in list {
            // Columns that every tool of a Parquet file shares are null where a tool lacks them.
            drop_nulls(tool);
            if let Some(Value::String(text)) = tool.pointer("/function/parameters") {
                let parsed = serde_json::from_str(text)
                    .map_err(|e| bad(format!("a tool's `parameters` are a string but not JSON: {e}")))?;
                if let Some(place) = tool.pointer_mut("/function/parameters") {
                    *place = parsed;
                }
            }
        }
        Ok(Some(tools))
    }

    /// The row as a conversation of these turns.
    pub(super) fn finish(
        &self,
        fields: &mut Fields,
        messages: Vec<Message>,
        origin: Origin,
    ) -> Result<Conversation, DataError> {
        let (tools, template_kwargs) = self.extras(fields, &origin)?;
        Ok(Conversation::Chat { origin, messages, tools, template_kwargs })
    }

    /// What the template is given beside the turns: tool definitions and further variables.
    pub(super) fn extras(&self, fields: &mut Fields, origin: &Origin) -> Result<Extras, DataError> {
        for key in ["images", "image", "videos", "audios"] {
            let there = match fields.get(key) {
                None | Some(Value::Null) => false,
                Some(Value::Array(list)) => !list.is_empty(),
                Some(_) => true,
            };
            if there {
                let what = format!("the row has `{key}`; galen trains on text");
                return Err(DataError::row(origin, Fault::WrongKind, what));
            }
        }
        let tools = self.tools(fields, origin)?;
        let template_kwargs = match fields.shift_remove("chat_template_kwargs") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(kwargs)) => kwargs,
            Some(other) => return Err(wrong_kind("chat_template_kwargs", "an object", &other, origin)),
        };
        Ok((tools, template_kwargs))
    }

    /// A `system` field beside the turns is the system turn of rows that have none; the entry may leave system turns out.
    pub(super) fn system_turn(&self, fields: &Fields, messages: &mut Vec<Message>, train: bool) {
        if let Some(Value::String(system)) = fields.get("system")
            && messages.first().is_some_and(|m| m.role != "system")
            && !system.is_empty()
        {
            let fields = Map::from_iter([
                ("role".to_owned(), "system".into()),
                ("content".to_owned(), system.clone().into()),
            ]);
            messages.insert(0, Message { role: "system".to_owned(), fields, train });
        }
        if self.drop_system && messages.len() > 1 && messages[0].role == "system" {
            messages.remove(0);
        }
    }

    /// Whether the entry leaves system turns out.
    pub(super) fn drops_system(&self) -> bool {
        self.drop_system
    }
}

/// Tool definitions, and further template variables.
type Extras = (Option<Value>, Map<String, Value>);

impl RowFormat for Chat {
    fn conversation(&self, row: RawRow) -> Result<Conversation, DataError> {
        let RawRow { origin, mut fields } = row;
        let (name, turns) = self.turns(&fields, &origin)?;
        if turns.is_empty() {
            return Err(DataError::row(&origin, Fault::EmptyTurn, format!("`{name}` has no turns")));
        }
        let mut messages = Vec::with_capacity(turns.len() + 1);
        for (i, turn) in turns.into_iter().enumerate() {
            messages.push(self.message(turn, i, &origin)?);
        }
        self.system_turn(&fields, &mut messages, self.train_roles.iter().any(|r| r == "system"));
        self.finish(&mut fields, messages, origin)
    }
}

/// A list of text parts becomes one text; other parts cannot be trained on.
fn plain_content(fields: &mut Fields) -> Result<(), String> {
    let parts = match fields.get("content") {
        None | Some(Value::String(_)) => return Ok(()),
        Some(Value::Array(parts)) => parts,
        Some(other) => return Err(format!("its content should be a string, found {}", kind(other))),
    };
    let mut text = String::new();
    for part in parts {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
        if kind != "text" {
            return Err(format!("a content part of type `{kind}`; galen trains on text"));
        }
        if TRAINING_KEYS.iter().any(|k| part.get(*k).is_some_and(|v| !v.is_null())) {
            return Err("`train` and `weight` are read on turns, not on parts of a turn".to_owned());
        }
        match ["text", "content", "value"].iter().find_map(|k| part.get(*k).and_then(Value::as_str)) {
            Some(t) => text.push_str(t),
            None => return Err("a content part without text".to_owned()),
        }
    }
    fields.insert("content".to_owned(), text.into());
    Ok(())
}

/// Arguments given as JSON text become JSON, as templates expect them. Gives whether there are any calls.
fn parse_arguments(calls: &mut Value) -> Result<bool, String> {
    if let Value::String(text) = calls {
        *calls =
            serde_json::from_str(text).map_err(|e| format!("`tool_calls` is a string but not JSON: {e}"))?;
    }
    let Value::Array(calls) = calls else {
        return Err(format!("`tool_calls` should be a list, found {}", kind(calls)));
    };
    for call in calls.iter_mut() {
        drop_nulls(call);
        let bare = call.get("function").is_none();
        let place = if bare { call.get_mut("arguments") } else { call.pointer_mut("/function/arguments") };
        if let Some(arguments) = place
            && let Value::String(text) = arguments
        {
            let text = if text.trim().is_empty() { "{}" } else { text };
            *arguments = serde_json::from_str(text)
                .map_err(|e| format!("the arguments of a tool call are not JSON: {e}"))?;
        }
    }
    Ok(!calls.is_empty())
}

/// Takes null fields out of objects, all the way down (depth is bounded by the JSON reader's own limit).
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, v| !v.is_null());
            object.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
