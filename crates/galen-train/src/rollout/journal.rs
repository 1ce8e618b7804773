//! `completions.jsonl`: sampled answers with their rewards, for people to read.

use crate::error::Result;
use crate::log::Log;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Which answers of a step are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// None.
    Nothing,
    /// The first so many.
    First(usize),
    /// All.
    All,
}

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    /// The step that learns from it.
    pub step: u64,
    /// `file:line` of the prompt.
    pub row: String,
    pub prompt: &'a str,
    pub completion: &'a str,
    /// By function; `null` where it does not apply.
    pub rewards: serde_json::Map<String, serde_json::Value>,
    pub advantage: f64,
    pub tokens: usize,
    /// `stop` or `length`.
    pub finish_reason: &'static str,
}

pub(super) struct Journal {
    path: PathBuf,
    keep: Keep,
    log: Option<Log>,
}

impl Journal {
    pub fn new(dir: &Path, keep: Keep) -> Self {
        Self { path: dir.join("completions.jsonl"), keep, log: None }
    }

    /// How many of `n` answers are kept.
    pub fn keeps(&self, n: usize) -> usize {
        match self.keep {
            Keep::Nothing => 0,
            Keep::First(first) => first.min(n),
            Keep::All => n,
        }
    }

    /// Appends a line of a run that has done `step` steps; lines of later steps, which are repeated, go.
    pub fn write(&mut self, step: u64, line: &Line) -> Result<()> {
        if self.log.is_none() {
            self.log = Some(Log::open(&self.path, step)?);
        }
        match &mut self.log {
            Some(log) => log.write(line),
            None => Ok(()),
        }
    }
}
