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
            // What was cut off need not be text.
            let old = std::fs::read(path).or_else(|e| run_error(path.display(), e.to_string()))?;
            let of = |line: &[u8]| serde_json::from_slice::<Value>(line).ok()?["step"].as_u64();
            let mut keep = Vec::with_capacity(old.len());
            for line in old.split(|b| *b == b'\n').filter(|line| of(line).is_some_and(|s| s <= step)) {
                keep.extend_from_slice(line);
                keep.push(b'\n');
            }
            if keep != old {
                galen_files::replace(path, &keep).or_else(fail)?;
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
