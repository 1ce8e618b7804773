//! A YAML file as JSON for a reader that knows no lines, and the lines of its keys for that reader's complaints.

use super::yaml::{self, Entry, Node, Yaml};
use super::{key::Report, overrides, read_text, yaml_hint};
use crate::error::{ConfigError, ConfigErrors};
use std::collections::HashMap;
use std::path::Path;

/// Where each key stands: `steps[2].template` -> line; 0 for `--set`.
#[derive(Debug, Default)]
pub struct Places {
    file: String,
    lines: HashMap<String, usize>,
}

impl Places {
    /// Complaints about keys as complaints about lines of the file. A key that is not there (it is missing) is placed at
    /// the nearest one around it.
    pub fn complaints(&self, errors: Vec<galen_reward::ConfigError>) -> ConfigErrors {
        let mut placed: Vec<(usize, ConfigError)> = errors.into_iter().map(|e| self.place(e)).collect();
        placed.sort_by_key(|(line, _)| *line);
        ConfigErrors(placed.into_iter().map(|(_, e)| e).collect())
    }

    fn place(&self, error: galen_reward::ConfigError) -> (usize, ConfigError) {
        let key = error.key.trim_start_matches('.').to_owned();
        let mut around = key.as_str();
        let line = loop {
            if let Some(line) = self.lines.get(around) {
                break *line;
            }
            match around.rfind(['.', '[']) {
                Some(at) => around = &around[..at],
                None => break usize::MAX,
            }
        };
        let origin = match line {
            0 => "--set".to_owned(),
            usize::MAX => self.file.clone(),
            line => format!("{}:{line}", self.file),
        };
        let message = if key.is_empty() { error.what } else { format!("`{key}`: {}", error.what) };
        (line, ConfigError { origin, message, hint: error.hint })
    }
}

/// Reads a file and applies `--set`.
pub fn load(path: &Path, sets: &[String]) -> Result<(serde_json::Value, Places), ConfigErrors> {
    let file = path.display().to_string();
    let fail = |line: Option<usize>, message: String, hint: Option<String>| {
        let origin = line.map_or(file.clone(), |l| format!("{file}:{l}"));
        ConfigErrors(vec![ConfigError { origin, message, hint }])
    };
    let text = read_text(path).map_err(|(message, _)| fail(None, message, None))?;
    let entries = match yaml::parse(&text) {
        Ok(Node { value: Yaml::Map(entries), .. }) => entries,
        Ok(node) => {
            let message = format!("a configuration is a map of keys, not {}", node.describe());
            return Err(fail(Some(node.line), message, Some("write `key: value` lines".into())));
        }
        Err(e) => {
            let hint = yaml_hint(&file, &e.message).to_owned();
            return Err(fail(Some(e.line), e.message, Some(hint)));
        }
    };
    let mut report = Report { file: file.clone(), ..Report::default() };
    let entries = overrides::apply(entries, sets, &mut report);
    if !report.errors.is_empty() {
        return Err(ConfigErrors(report.errors));
    }
    let mut places = Places { file, lines: HashMap::new() };
    places.of_entries("", &entries);
    let value = Node { line: 1, value: Yaml::Map(entries) }.to_json();
    Ok((value, places))
}

impl Places {
    fn of_entries(&mut self, above: &str, entries: &[Entry]) {
        for entry in entries {
            let key = if above.is_empty() { entry.key.clone() } else { format!("{above}.{}", entry.key) };
            self.lines.insert(key.clone(), entry.line);
            self.of_node(&key, &entry.node);
        }
    }

    fn of_node(&mut self, key: &str, node: &Node) {
        match &node.value {
            Yaml::Map(entries) => {
                self.of_entries(key, entries);
                // `- dedup: {...}`: complaints are about `steps[0].threshold`.
                if let [Entry { node: Node { value: Yaml::Map(inner), .. }, .. }] = entries.as_slice()
                    && key.ends_with(']')
                {
                    self.of_entries(key, inner);
                }
            }
            Yaml::Seq(items) => {
                for (i, item) in items.iter().enumerate() {
                    let key = format!("{key}[{i}]");
                    self.lines.insert(key.clone(), item.line);
                    self.of_node(&key, item);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.yaml");
        std::fs::write(
            &path,
            "seed: 1\nsteps:\n  - dedup:\n      threshold: 2\n  - type: filter\n    x: 1\n",
        )
        .unwrap();
        let (value, places) = load(&path, &["steps[1].y=3".to_owned()]).unwrap();
        assert_eq!(value["steps"][1]["y"], 3);
        let error = |key: &str| {
            let errors = places.complaints(vec![galen_reward::ConfigError::new(key, "no")]);
            errors.0[0].origin.rsplit('/').next().unwrap_or_default().to_owned()
        };
        for (key, expect) in [
            ("steps[0].threshold", "p.yaml:4"),
            ("steps[0].missing", "p.yaml:3"),
            ("steps[1].x", "p.yaml:6"),
            ("steps[1].y", "--set"),
            ("output_dir", "p.yaml"),
            ("seed", "p.yaml:1"),
        ] {
            assert_eq!(error(key), expect, "{key}");
        }
    }
}
