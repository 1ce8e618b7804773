//! Sampled answers and what is known of them, on disk until they are learned from.

use crate::checkpoint::{sync_dir, write_synced};
use crate::error::{Result, run_error};
use galen_model::{Completion, End};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file of answers that wait for their judge.
const PENDING: &str = "pending_rollouts.json";
/// Largest such file read.
const MAX_BYTES: u64 = 1 << 30;

/// Numbers kept to the bit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<u32>", into = "Vec<u32>")]
pub(super) struct Bits(pub Vec<f32>);

impl From<Vec<u32>> for Bits {
    fn from(bits: Vec<u32>) -> Self {
        Self(bits.into_iter().map(f32::from_bits).collect())
    }
}

impl From<Bits> for Vec<u32> {
    fn from(bits: Bits) -> Self {
        bits.0.into_iter().map(f32::to_bits).collect()
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    pub ids: Vec<u32>,
    /// The generator's log-probability of each token.
    pub logps: Bits,
    /// Whether it ended by itself.
    pub stopped: bool,
}

impl Sample {
    pub fn end(&self) -> End {
        if self.stopped { End::Stop } else { End::Length }
    }
}

impl From<Completion> for Sample {
    fn from(c: Completion) -> Self {
        Self { ids: c.ids, logps: Bits(c.logps), stopped: c.end == End::Stop }
    }
}

/// The answers of one sampling, and what is known of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sampled {
    /// What they follow from.
    pub key: String,
    /// Steps done before they were sampled.
    pub step: u64,
    /// Rows of the prompts.
    pub rows: Vec<usize>,
    /// `num_generations` a prompt, in the prompts' order.
    pub answers: Vec<Sample>,
    /// Bits of one number an answer, once judged.
    pub advantages: Vec<u64>,
    /// Log-probabilities of the policy that sampled them, where several iterations or the reward need them.
    pub policy: Option<Vec<Bits>>,
    /// Those of the reference.
    pub reference: Option<Vec<Bits>>,
}

impl Sampled {
    /// Whether these are the judged answers to `rows` after `step` steps.
    pub fn is(&self, step: u64, rows: &[usize]) -> bool {
        self.step == step && self.rows == rows && self.advantages.len() == self.answers.len()
    }

    /// The advantage of each answer.
    pub fn advantages(&self) -> Vec<f64> {
        self.advantages.iter().map(|bits| f64::from_bits(*bits)).collect()
    }

    /// Writes the answers into a run directory, whole or not at all.
    pub fn keep(&self, dir: &Path) -> Result<()> {
        let path = dir.join(PENDING);
        let write = || -> std::io::Result<()> {
            let temporary = tempfile::Builder::new().prefix(".tmp-rollouts-").tempfile_in(dir)?;
            write_synced(temporary.path(), &serde_json::to_vec(self)?)?;
            temporary.persist(&path)?;
            sync_dir(dir)
        };
        write().or_else(|e| run_error(path.display(), e.to_string()))
    }

    /// The answers that wait in a run directory, where they are those to `rows` after `step` steps.
    pub fn pending(dir: &Path, key: &str, step: u64, rows: &[usize], answers: usize) -> Option<Self> {
        let path = dir.join(PENDING);
        let size = std::fs::metadata(&path).ok()?.len();
        let bytes = if size <= MAX_BYTES { std::fs::read(&path).ok()? } else { return None };
        let found: Self = serde_json::from_slice(&bytes).ok()?;
        let whole = |s: &Sample| !s.ids.is_empty() && s.ids.len() == s.logps.0.len();
        let fits = found.key == key && found.step == step && found.rows == rows;
        (fits && found.answers.len() == answers && found.answers.iter().all(whole)).then(|| Self {
            advantages: Vec::new(),
            policy: None,
            reference: None,
            ..found
        })
    }

    /// Forgets the answers that waited: they have been judged.
    pub fn settle(dir: &Path) {
        // A file that stays is that of another step, and not read.
        let _gone = std::fs::remove_file(dir.join(PENDING));
    }
}
