//! `log.jsonl`: one object a step.

use crate::error::{Result, run_error};
use serde::Serialize;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// An open log.
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log of a run that has done `step` steps: later rows, of steps that are about to be repeated, and
    /// a cut-off last line are dropped.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        let fail = |e: std::io::Error| run_error(path.display(), e.to_string());
        if path.exists() {
            let old = std::fs::read_to_string(path).or_else(|e| run_error(path.display(), e.to_string()))?;
            let keep: String = old
                .lines()
                .filter(|line| {
                    serde_json::from_str::<Value>(line)
                        .ok()
                        .and_then(|row| row["step"].as_u64())
                        .is_some_and(|s| s <= step)
                })
                .flat_map(|line| [line, "\n"])
                .collect();
            if keep != old {
                galen_files::replace(path, keep.as_bytes()).or_else(fail)?;
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self { path: path.into(), file: file.or_else(|e| run_error(path.display(), e.to_string()))? })
    }

    /// Appends one object.
    pub fn write(&mut self, row: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(row).or_else(|e| run_error(self.path.display(), e.to_string()))?;
        line.push(b'\n');
        self.file.write_all(&line).or_else(|e| run_error(self.path.display(), e.to_string()))
    }
}
