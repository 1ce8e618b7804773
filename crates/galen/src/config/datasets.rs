//! The keys of one entry of `datasets:` and `test_datasets:`.

use super::field::{Field, Wrong};
use super::key::{Key, Report, State, key_table, read_map};
use super::types::{Roles, TrainOnEos};
use super::yaml::{Entry, Node, Yaml};
use galen_data::dataset::{CUSTOM_TYPE_KEYS, DatasetSpec, PREFERENCE_KEYS};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

key_table! {
    /// One entry of `datasets:` as it was written.
    pub struct DatasetEntry, DATASET_HONOURED;
    ["Where the rows are"]
    /// A file or folder (`.jsonl .ndjson .json .csv .parquet`, also `.gz .zst`), a hub data set, or `json`, `csv`,
    /// `parquet` with `data_files`.
    path: String = String::new(), |p| if p.is_empty() { Err("is empty".into()) } else { Ok(()) };
    /// Files to read, relative to `path` where that is a folder.
    data_files: Vec<String> = Vec::new();
    /// The hub data set's configuration (a subfolder).
    name: Option<String> = None;
    /// Commit, tag or branch on the hub.
    revision: Option<String> = None;
    /// The split, or a slice of it: `train[:500]`, `train[10%:20%]`.
    split: Option<String> = None;
    /// File format, where the ending does not tell.
    ds_type: Option<String> = None;

    ["What a row is"]
    /// `chat_template` (or `messages`), `alpaca`, `completion` (or `text`), `input_output`, `prompt_completion`,
    /// `sharegpt`, or a map `{field_instruction, field_output, format, ...}`. Left out: detected from the rows
    /// (Axolotl requires it). With `rl:` a preference type instead (`docs/preference-data.md`).
    r#type: Option<TypeField> = None;
    /// Field of the turns (default `messages`; `conversations` for `sharegpt`).
    field_messages: Option<String> = None;
    /// Field of the tool definitions (default `tools`).
    field_tools: Option<String> = None;
    /// Field of a turn that holds its reasoning (default `reasoning_content`).
    field_thinking: Option<String> = None;
    /// What the template calls that field.
    template_thinking_key: Option<String> = None;
    /// Template property to the turn's field: `{role: from, content: value}`.
    message_property_mappings: BTreeMap<String, String> = BTreeMap::new();
    /// Older spelling of `message_property_mappings: {role: ...}`.
    message_field_role: Option<String> = None;
    /// Older spelling of `message_property_mappings: {content: ...}`.
    message_field_content: Option<String> = None;
    /// Field of the text, type `completion` (default `text`).
    field: Option<String> = None;
    /// Role to the names it has in the data.
    roles: BTreeMap<String, Vec<String>> = BTreeMap::new();
    /// Leave the system turn out.
    drop_system_message: Option<bool> = None;
    /// Chat template of this entry (default: the run's).
    chat_template: Option<String> = None;
    /// Chat template of this entry, as text or a file.
    chat_template_jinja: Option<String> = None;

    ["Preference data (with `rl:`)"]
    /// Field of the prompt (default `prompt`).
    field_prompt: Option<String> = None;
    /// Field of the better answer (default `chosen`).
    field_chosen: Option<String> = None;
    /// Field of the worse answer (default `rejected`).
    field_rejected: Option<String> = None;
    /// Field of a labelled answer (default `completion`).
    field_completion: Option<String> = None;
    /// Field of its label (default `label`).
    field_label: Option<String> = None;
    /// Prompt of type `user_defined`, with the places `{system}` and `{prompt}`.
    prompt_format: Option<String> = None;
    /// Its better answer (default `{chosen}`).
    chosen_format: Option<String> = None;
    /// Its worse answer (default `{rejected}`).
    rejected_format: Option<String> = None;
    /// Its labelled answer (default `{completion}`).
    completion_format: Option<String> = None;

    ["What is trained"]
    /// Roles under the loss (default `assistant`). `[]`: none but turns that say so themselves (`message_field_training`).
    roles_to_train: Option<Roles> = None;
    /// Which end-of-sequence tokens are under the loss (default `turn`).
    train_on_eos: Option<TrainOnEos> = None;
    /// Which end-of-turn tokens are under the loss (default: as `train_on_eos`).
    train_on_eot: Option<TrainOnEos> = None;
    /// Boolean field of a turn that overrides `roles_to_train`.
    message_field_training: Option<String> = None;
}

macro_rules! entry_keys {
    ($($name:literal: $state:expr, $doc:literal;)+) => {
        &[$(Key { name: $name, group: "Dataset entries", doc: &[$doc], state: $state }),+]
    };
}

const QUIET: State<DatasetEntry> = State::NoEffect { unless: |_| None };

const fn no(hint: &'static str) -> State<DatasetEntry> {
    State::Refused { hint, off: Node::is_off }
}

/// Keys of an entry that change nothing, or that galen refuses.
pub static DATASET_OTHERS: &[Key<DatasetEntry>] = entry_keys! {
    "trust_remote_code": QUIET, "no code of a data set's is ever run";
    "preprocess_shards": QUIET, "rows are read as a stream";
    "input_format": QUIET, "only read by formats galen refuses";
    "shards": no("use `split: train[:10%]`"), "training on one of N shards is not built";
    "shards_idx": no("use `split: train[:10%]`"), "training on one of N shards is not built";
    "conversation": no("use `chat_template:`"), "FastChat conversation names are not built";
    "field_human": no("use `message_property_mappings`"), "not built";
    "field_model": no("use `message_property_mappings`"), "not built";
    "message_field_training_detail": no("use `message_field_training` for whole turns"),
        "training parts of a turn by offsets is not built";
    "split_thinking": no("put the reasoning into its own field and name it in `field_thinking`"),
        "splitting the reasoning out of a turn is not built";
    "logprobs_field": no(""), "distillation is not built";
    "temperature": no(""), "distillation is not built";
    "input_transform": no("transform the file beforehand"), "Python transforms are not run";
    "step_separator": no(""), "stepwise reward data is not built";
    "max_completion_length": no(""), "stepwise reward data is not built";
    "train_on_last_step_only": no(""), "stepwise reward data is not built";
    "text_column": no("use `field:` with `type: completion`"), "only `pretraining_dataset` has it";
    "skip": no("use `split: train[N:]`"), "only `pretraining_dataset` has it";
    "weight": no("repeat the entry, or use `split:` slices"), "weighted mixing is not built";
};

/// The tables of a dataset entry.
pub const DATASET_TABLES: &[&[Key<DatasetEntry>]] = &[DATASET_HONOURED, DATASET_OTHERS];

/// `type:` by name or spelt out.
#[derive(Debug, Clone, PartialEq)]
pub enum TypeField {
    /// `alpaca`, `chat_template` ...
    Named(String),
    /// `{field_instruction: ..., format: ...}`.
    Custom(BTreeMap<String, String>),
}

impl Field for TypeField {
    fn type_name() -> String {
        "name, or a map spelling the prompt out".into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        let Yaml::Map(entries) = &node.value else {
            return String::parse(node).map(Self::Named);
        };
        let mut map = BTreeMap::new();
        for entry in entries {
            if !CUSTOM_TYPE_KEYS.contains(&entry.key.as_str()) {
                return Err(Wrong {
                    line: Some(entry.line),
                    message: format!("has no key `{}`", entry.key),
                    hint: super::field::nearest(&entry.key, CUSTOM_TYPE_KEYS.iter().copied())
                        .map(|n| format!("did you mean `{n}`?")),
                });
            }
            if let Some(text) = Option::<String>::parse(&entry.node)? {
                map.insert(entry.key.clone(), text);
            }
        }
        Ok(Self::Custom(map))
    }
    fn dump(&self) -> Value {
        match self {
            Self::Named(name) => name.as_str().into(),
            Self::Custom(map) => map.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect(),
        }
    }
}

/// The entries of `datasets:` or `test_datasets:`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Datasets(pub Vec<DatasetEntry>);

impl Field for Datasets {
    fn type_name() -> String {
        "list of maps".into()
    }
    fn parse(node: &Node) -> Result<Self, Wrong> {
        Self::parse_in(node, "datasets", &mut Report::default())
    }
    fn parse_in(node: &Node, place: &str, report: &mut Report) -> Result<Self, Wrong> {
        let wrong = || {
            Wrong::at(node, format!("takes a list of maps, not {}", node.describe()))
                .hint(format!("write `{place}:` and below it `  - path: FILE`"))
        };
        let items = match &node.value {
            Yaml::Seq(items) => items.as_slice(),
            Yaml::Map(_) => std::slice::from_ref(node),
            _ => return Err(wrong()),
        };
        let mut list = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let Yaml::Map(entries) = &item.value else { return Err(wrong()) };
            let inside = format!("{place}[{i}].");
            let entry = read_map(entries, DATASET_TABLES, &inside, belongs_outside, report);
            if !entries.iter().any(|e| e.key == "path" && e.node.value != Yaml::Null) {
                let hint = Some("`path:` is a file, a folder or a hub data set".to_owned());
                report.complain(item.line, &inside, "wrong", format!("`{place}[{i}]` has no `path`"), hint);
            }
            list.push(entry);
        }
        Ok(Self(list))
    }
    fn dump(&self) -> Value {
        if self.0.is_empty() { Value::Null } else { self.0.iter().map(DatasetEntry::dump).collect() }
    }
}

impl Datasets {
    /// Checks what can only be told with `rl:` known: the entries' types, and keys of the other kind of data. `node` is
    /// the list as it was written.
    pub(super) fn check(&self, node: &Node, place: &str, kind: Kind, report: &mut Report) {
        let items = match &node.value {
            Yaml::Seq(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        for (i, (entry, item)) in self.0.iter().zip(items).enumerate() {
            let Yaml::Map(entries) = &item.value else { continue };
            check_type(entry, entries, place, i, kind, report);
            if let (Some(eos), Some(eot)) = (entry.train_on_eos, entry.train_on_eot)
                && eos != eot
                && let Some(written) = entries.iter().find(|e| e.key == "train_on_eot")
            {
                let key = format!("{place}[{i}].train_on_eot");
                let message =
                    format!("`{key}` and `train_on_eos` differ: what ends a turn is trained by one rule");
                report.complain(written.line, &key, "wrong", message, Some("keep one of them".into()));
            }
            let stray =
                entries.iter().filter(|e| PREFERENCE_KEYS.contains(&e.key.as_str()) && !e.node.is_off());
            for written in stray.filter(|_| kind == Kind::Supervised) {
                let key = format!("{place}[{i}].{}", written.key);
                let message = format!("`{key}` is of preference data, and `rl:` is not set");
                report.complain(
                    written.line,
                    &key,
                    "wrong",
                    message,
                    Some("set `rl: dpo`, or leave it out".into()),
                );
            }
        }
    }
}

/// What rows are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Supervised fine-tuning.
    Supervised,
    /// `rl:`.
    Preference,
}

/// Whether galen-data can read an entry of this type; it knows the types, their variants and their own keys.
fn check_type(
    entry: &DatasetEntry,
    entries: &[Entry],
    place: &str,
    index: usize,
    kind: Kind,
    report: &mut Report,
) {
    let Some(written) = entries.iter().find(|e| e.key == "type") else { return };
    let refusal = match (entry.spec(), kind) {
        (Ok(spec), Kind::Supervised) => galen_data::format::build(&spec).err().map(|e| e.to_string()),
        (Ok(spec), Kind::Preference) => {
            galen_data::format::preference::build(&spec).err().map(|e| e.to_string())
        }
        (Err(e), _) => Some(format!("{}: {e}", entry.path)),
    };
    let Some(text) = refusal else { return };
    let (what, hint) = match text.split_once("\nhint: ") {
        Some((what, hint)) => (what, Some(hint.to_owned())),
        None => (text.as_str(), None),
    };
    // galen-data names the entry by its path; here the line says where it is.
    let what = what.strip_prefix(&format!("{}: ", entry.path)).unwrap_or(what);
    let key = format!("{place}[{index}].type");
    report.complain(written.line, &key, "refused", format!("`{key}`: {what}"), hint);
}

fn belongs_outside(key: &str) -> Option<String> {
    super::tables()
        .any(|k| k.matches(key) && matches!(k.state, State::Honoured { .. }))
        .then(|| format!("`{key}` belongs at the top level, not in a dataset entry"))
}

impl DatasetEntry {
    /// The entry as a map of its set keys.
    pub fn dump(&self) -> Value {
        let mut map = Map::new();
        for key in DATASET_HONOURED {
            if let State::Honoured { get, .. } = key.state {
                let value = get(self);
                if !value.is_null() {
                    map.insert(key.name.to_owned(), value);
                }
            }
        }
        Value::Object(map)
    }

    /// The entry as galen-data takes it.
    ///
    /// Errors only if the two crates' types have drifted apart; a test holds them together.
    pub fn spec(&self) -> Result<DatasetSpec, serde_json::Error> {
        serde_json::from_value(self.dump())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use galen_data::dataset::DATASET_KEYS;

    #[test]
    fn the_keys_are_those_of_galen_data() {
        let mut ours: Vec<_> = DATASET_HONOURED.iter().map(|k| k.name).collect();
        let mut theirs = [DATASET_KEYS, PREFERENCE_KEYS].concat();
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs);
    }

    /// Nobody but turns that say so themselves, which is another thing than the default.
    #[test]
    fn no_role_to_train_stays_none() {
        let read = |text: &str| {
            let node = super::super::yaml::parse(text).unwrap();
            Datasets::parse(&node).unwrap().0[0].spec().unwrap().roles_to_train
        };
        assert_eq!(read("- {path: a, roles_to_train: []}"), Some(vec![]));
        assert_eq!(read("- {path: a}"), None);
    }

    #[test]
    fn every_key_arrives_in_the_spec() {
        let text = "- {path: a.jsonl, data_files: [b], name: n, revision: r, split: s, ds_type: json, type: alpaca, \
                    field_messages: m, field_tools: t, field_thinking: h, template_thinking_key: k, \
                    message_property_mappings: {role: from}, message_field_role: mr, message_field_content: mc, \
                    field: f, roles: {user: [human]}, drop_system_message: true, chat_template: chatml, \
                    chat_template_jinja: x, roles_to_train: [user], train_on_eos: all, train_on_eot: none, \
                    message_field_training: q, field_prompt: p1, field_chosen: p2, field_rejected: p3, \
                    field_completion: p4, field_label: p5, prompt_format: p6, chosen_format: p7, rejected_format: p8, \
                    completion_format: p9}";
        let node = super::super::yaml::parse(text).unwrap();
        let mut report = Report::default();
        let list = Datasets::parse_in(&node, "datasets", &mut report).unwrap();
        assert_eq!(report.errors, []);
        let spec = serde_json::to_value(list.0[0].spec().unwrap()).unwrap();
        let written = list.0[0].dump();
        for key in DATASET_KEYS.iter().chain(PREFERENCE_KEYS) {
            assert!(!written[key].is_null(), "{key} is not written");
            assert_eq!(spec[key], written[key], "{key}");
        }
    }
    #[test]
    fn an_entry_needs_a_path_with_a_value() {
        for text in ["- type: alpaca", "- path:", "- {path: null}"] {
            let node = super::super::yaml::parse(text).unwrap();
            let mut report = Report::default();
            Datasets::parse_in(&node, "datasets", &mut report).unwrap();
            let said: Vec<_> = report.errors.iter().map(ToString::to_string).collect();
            assert!(said.iter().any(|e| e.contains("`datasets[0]` has no `path`")), "{text}: {said:?}");
        }
    }
}
