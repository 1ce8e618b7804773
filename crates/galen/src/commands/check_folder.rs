//! `galen plan --check-config FOLDER`: many configurations at once.

use crate::config;
use crate::error::UsageError;
use crate::stdout;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Files looked at below a folder, at most.
const MAX_FILES: usize = 10_000;
/// Folders below folders, at most.
const MAX_DEPTH: usize = 16;

/// Checks every `.yml` and `.yaml` below `folder`: a line a file, then what was refused how often.
pub fn run(folder: &Path, sets: &[String], as_json: bool) -> anyhow::Result<()> {
    let mut files = Vec::new();
    collect(folder, 0, &mut files)?;
    files.sort();
    if files.is_empty() {
        let message = format!("{}: no `.yml` or `.yaml` below it", folder.display());
        return Err(UsageError::new(message, "name a configuration, or a folder of them").into());
    }
    let mut sound = 0;
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    let mut lines = String::new();
    let mut objects = Vec::new();
    for file in &files {
        let (_, report) = config::check(file, sets);
        sound += usize::from(report.errors.is_empty());
        let mut keys: Vec<&str> = report
            .verdicts
            .iter()
            .filter(|v| matches!(v.state, "refused" | "unknown" | "wrong"))
            .map(|v| v.key.as_str())
            .collect();
        keys.dedup();
        for key in &keys {
            *refused.entry((*key).to_owned()).or_default() += 1;
        }
        let said = report.errors.first().map_or_else(|| "sound".to_owned(), |e| e.message.clone());
        let _ = writeln!(lines, "{}: {said}", file.display());
        objects.push(serde_json::json!({"file": file, "ok": report.errors.is_empty(), "refused": keys}));
    }
    let mut counts: Vec<(String, usize)> = refused.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    if as_json {
        let counts: serde_json::Map<_, _> = counts.into_iter().map(|(k, n)| (k, n.into())).collect();
        return stdout::print_json(&serde_json::json!({
            "files": objects, "sound": sound, "of": files.len(), "refused": counts,
        }));
    }
    let share = 100.0 * f64::from(sound as u32) / files.len() as f64;
    let _ = writeln!(lines, "\n{sound} of {} sound ({share:.1} %)", files.len());
    for (key, n) in counts {
        let _ = writeln!(lines, "{n:>5}  {key}");
    }
    stdout::print(&lines)
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    anyhow::ensure!(depth <= MAX_DEPTH, "{}: folders nested deeper than {MAX_DEPTH}", folder.display());
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        // Links are not followed: they may lead round in a circle.
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&path, depth + 1, files)?;
        } else if kind.is_file() && path.extension().is_some_and(|e| e == "yml" || e == "yaml") {
            anyhow::ensure!(files.len() < MAX_FILES, "{}: more than {MAX_FILES} files", folder.display());
            files.push(path);
        }
    }
    Ok(())
}
