//! The key table as a page.

use super::key::{Key, State};
use super::table::Config;
use super::{datasets, table, trl};
use std::fmt::Write as _;

/// `docs/config.md`: every key with its state, type and default. `galen plan --list-keys` prints it.
pub fn page() -> String {
    let mut out = String::from(
        "# Configuration keys\n\n\
         A configuration is flat YAML with Axolotl's keys. Every key has one of three states: *honoured*; *no effect*\n\
         (nothing learned depends on it; `galen plan` and `galen train` name each in one line); *refused* (it would\n\
         change what is learned and is not built: the command stops with exit code 2). Unknown keys are refused, with\n\
         the nearest name. `--set key=value` overrides any key, `--set datasets[0].path=x` inside one.\n\n\
         Written by `galen plan --list-keys`; a test holds it up to date.\n\n## Honoured\n",
    );
    let config = Config { optimizer: super::types::Optimizer::default(), ..Config::default() };
    honoured(&mut out, table::HONOURED, &config);
    out.push_str("\n## Honoured in an entry of `datasets:` and `test_datasets:`\n");
    honoured(&mut out, datasets::DATASET_HONOURED, &datasets::DatasetEntry::default());
    out.push_str("\n## Honoured in `trl:`\n");
    honoured(&mut out, trl::TRL_HONOURED, &trl::Trl::default());
    out.push_str("\n## Other names\n\n");
    for key in super::tables() {
        if let State::Alias(of) = key.state {
            let _ = writeln!(out, "- `{}`: `{of}`", key.name);
        }
    }
    out.push_str("\n## No effect here\n");
    others(&mut out, super::tables(), "no effect");
    others(&mut out, datasets::DATASET_OTHERS.iter(), "no effect");
    others(&mut out, trl::TRL_OTHERS.iter(), "no effect");
    out.push_str("\n## Refused\n");
    others(&mut out, super::tables(), "refused");
    others(&mut out, datasets::DATASET_OTHERS.iter(), "refused");
    others(&mut out, trl::TRL_OTHERS.iter(), "refused");
    out
}

fn honoured<C: 'static>(out: &mut String, keys: &'static [Key<C>], defaults: &C) {
    let mut group = "";
    for key in keys {
        let State::Honoured { type_name, get, .. } = key.state else { continue };
        if key.group != group {
            group = key.group;
            let _ = write!(out, "\n### {group}\n\n| key | type | default | |\n|---|---|---|---|\n");
        }
        let default = match get(defaults) {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(s) if s.is_empty() => String::new(),
            _ if key.name == "learning_rate" => String::new(),
            value => format!("`{value}`").replace('"', ""),
        };
        let cell = |text: String| text.replace('|', "\\|");
        let _ = writeln!(out, "| `{}` | {} | {default} | {} |", key.name, cell(type_name()), cell(text(key)));
    }
}

/// Keys of one state, those with the same reason together.
fn others<C: 'static>(out: &mut String, keys: impl Iterator<Item = &'static Key<C>>, state: &str) {
    let mut lines: Vec<(&str, String, Vec<String>)> = Vec::new();
    for key in keys.filter(|k| k.state_name() == state) {
        let reason = match key.state {
            State::Refused { hint, .. } if !hint.is_empty() => format!("{}; {hint}", text(key)),
            _ => text(key),
        };
        let name = format!("`{}`", key.name);
        match lines.iter_mut().find(|(g, r, _)| *g == key.group && *r == reason) {
            Some((_, _, names)) => names.push(name),
            None => lines.push((key.group, reason, vec![name])),
        }
    }
    let mut group = "";
    for (g, reason, names) in lines {
        if g != group {
            group = g;
            let _ = write!(out, "\n### {group}\n\n");
        }
        let _ = writeln!(out, "- {}: {reason}", names.join(" "));
    }
}

/// A key's documentation on one line.
pub fn text<C: 'static>(key: &Key<C>) -> String {
    key.doc.iter().map(|l| l.trim()).collect::<Vec<_>>().join(" ")
}

/// A remedy when `name` is no built-in chat template; `None` when it is one.
pub fn unknown_template(name: &str) -> Option<String> {
    let known: Vec<&str> = galen_data::template::BUILTIN.iter().map(|b| b.name).collect();
    if known.contains(&name) {
        return None;
    }
    Some(match super::field::nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "built in: {}; `tokenizer_default` takes the model's own, `chat_template_jinja` a file",
            known.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
        ),
    })
}
