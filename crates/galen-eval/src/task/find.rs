//! From a task's name to its file.

use super::yaml;
use crate::error::{EvalError, nearest};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Tasks that come with galen.
const BUILT_IN: &[(&str, &str)] = &[("icd10_letter", include_str!("../../tasks/icd10_letter.yaml"))];
/// Files looked at under `--include_path`; lm-evaluation-harness's own tasks folder has 12,000.
const MAX_FILES: usize = 50_000;
const MAX_DEPTH: usize = 16;

/// Where a task's text is.
pub(super) enum Source {
    File(PathBuf),
    BuiltIn { name: &'static str, text: &'static str },
}

/// One task that can be named, for `galen eval ls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEntry {
    /// Its `task:` key.
    pub name: String,
    /// Its file, or `built-in`.
    pub origin: String,
}

/// Every task of `include_path` and every built-in one, sorted by name. Files that are not tasks are passed over.
pub fn list(include_path: Option<&Path>) -> Result<Vec<TaskEntry>, EvalError> {
    let mut entries: Vec<_> = BUILT_IN
        .iter()
        .map(|(name, _)| TaskEntry { name: (*name).into(), origin: "built-in".into() })
        .collect();
    if let Some(folder) = include_path {
        for path in yaml_files(folder)? {
            if let Some(name) = task_name(&path) {
                entries.push(TaskEntry { name, origin: path.display().to_string() });
            }
        }
    }
    entries.sort_by(|a, b| (&a.name, &a.origin).cmp(&(&b.name, &b.origin)));
    Ok(entries)
}

pub(super) fn find(name: &str, include_path: Option<&Path>) -> Result<Source, EvalError> {
    let path = Path::new(name);
    let is_yaml =
        path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"));
    if is_yaml {
        return Ok(Source::File(path.to_owned()));
    }
    if let Some(folder) = include_path {
        let files = yaml_files(folder)?;
        // The file of that name is most likely it; every other file has to be read.
        let stem_first = files.iter().filter(|f| f.file_stem().is_some_and(|s| s == name)).chain(&files);
        for file in stem_first {
            // One that cannot be read says why itself.
            let named = || file.file_stem().is_some_and(|s| s == name) || says_task(file, name);
            if task_name(file).map_or_else(named, |found| found == name) {
                return Ok(Source::File(file.clone()));
            }
        }
    }
    if let Some((name, text)) = BUILT_IN.iter().find(|(n, _)| *n == name) {
        return Ok(Source::BuiltIn { name, text });
    }
    let known = list(include_path)?;
    let hint = match nearest(name, known.iter().map(|e| e.name.as_str())) {
        Some(near) => format!("\nhint: did you mean `{near}`?"),
        None => "\nhint: give a .yaml file, or its folder with `--include_path`; `galen eval ls` lists what is there".into(),
    };
    Err(EvalError::UnknownTask { name: name.to_owned(), hint })
}

/// Whether a file that is not read says that it is the task.
fn says_task(path: &Path, name: &str) -> bool {
    let small = std::fs::metadata(path).is_ok_and(|m| m.len() <= 1 << 20);
    let text = if small { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
    let says = |line: &str| Some(line.strip_prefix("task:")?.trim().trim_matches(['\'', '"']) == name);
    text.lines().any(|line| says(line) == Some(true))
}

/// The `task:` of a file, or `None` when it has none or cannot be read.
fn task_name(path: &Path) -> Option<String> {
    let entries = yaml::read(path).ok()?;
    match entries.into_iter().find(|e| e.key == "task")?.value {
        Value::String(name) => Some(name),
        _ => None,
    }
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, EvalError> {
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let mut entries = std::fs::read_dir(&folder)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| EvalError::io(&folder, e))?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            // `file_type` does not follow links, so that a link cannot make a loop.
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if depth < MAX_DEPTH {
                    folders.push((path, depth + 1));
                }
            } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml") && files.len() < MAX_FILES {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
