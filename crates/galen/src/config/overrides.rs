//! `--set key=value`.

use super::key::Report;
use super::yaml::{self, Entry, Node, Yaml};

/// Puts each `key=value` into the map. A key may go inside: `datasets[0].path=x` or `datasets.0.path=x`.
pub fn apply(mut entries: Vec<Entry>, sets: &[String], report: &mut Report) -> Vec<Entry> {
    for set in sets {
        if let Err((message, hint)) = apply_one(&mut entries, set) {
            report.complain(0, set, "wrong", message, hint);
        }
    }
    entries
}

type Complaint = (String, Option<String>);

fn apply_one(entries: &mut Vec<Entry>, set: &str) -> Result<(), Complaint> {
    let Some((path, text)) = set.split_once('=') else {
        return Err((format!("`{set}` has no `=`"), Some("write `--set learning_rate=1e-4`".into())));
    };
    let path = path.trim().replace('[', ".").replace(']', "");
    let parts: Vec<&str> = path.split('.').collect();
    if parts.iter().any(|p| p.is_empty()) || parts.len() > 8 {
        return Err((format!("`{set}` names no key"), Some("write `--set learning_rate=1e-4`".into())));
    }
    let mut value = if text.trim().is_empty() {
        Node { line: 0, value: Yaml::Null }
    } else {
        yaml::parse(text).map_err(|e| (format!("`{set}`: {}", e.message), None))?
    };
    unplace(&mut value);
    let (first, rest) = (parts[0], &parts[1..]);
    let slot = slot(entries, first);
    let mut node = &mut slot.node;
    for part in rest {
        node =
            step(node, part).ok_or_else(|| (format!("`{set}`: there is no `{part}` in `{first}`"), None))?;
    }
    *node = value;
    Ok(())
}

/// The entry named `key`, made where it is missing. Its line becomes that of `--set`.
fn slot<'a>(entries: &'a mut Vec<Entry>, key: &str) -> &'a mut Entry {
    let at = entries.iter().position(|e| e.key == key).unwrap_or_else(|| {
        entries.push(Entry { key: key.into(), line: 0, node: Node { line: 0, value: Yaml::Null } });
        entries.len() - 1
    });
    let entry = &mut entries[at];
    entry.line = 0;
    entry
}

fn step<'a>(node: &'a mut Node, part: &str) -> Option<&'a mut Node> {
    if node.value == Yaml::Null {
        node.value = Yaml::Map(Vec::new());
    }
    match &mut node.value {
        Yaml::Map(entries) => Some(&mut slot(entries, part).node),
        Yaml::Seq(items) => items.get_mut(part.parse::<usize>().ok()?),
        _ => None,
    }
}

fn unplace(node: &mut Node) {
    node.line = 0;
    match &mut node.value {
        Yaml::Seq(items) => items.iter_mut().for_each(unplace),
        Yaml::Map(entries) => entries.iter_mut().for_each(|e| {
            e.line = 0;
            unplace(&mut e.node);
        }),
        _ => {}
    }
}
