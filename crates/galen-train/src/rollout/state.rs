//! Sampled answers and what is known of them, on disk until they are learned from.

use super::Keep;
use super::journal::Journal;
use crate::error::{Result, run_error};
use galen_model::{Completion, End};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The file of answers that wait for their judge.
const PENDING: &str = "pending_rollouts.json";
/// Largest such file read.
const MAX_BYTES: u64 = 1 << 30;

/// What a policy keeps of its answers: in the run directory, and between the steps that learn from them.
pub struct Store {
    pub(super) dir: PathBuf,
    /// Names everything that answers follow from beside the step's number.
    pub(super) key: String,
    pub(super) journal: Journal,
    pub(super) sampled: Option<Sampled>,
}

impl Store {
    /// In the run directory `dir`; answers of runs with another `key` are not taken up.
    pub fn new(dir: PathBuf, key: String, keep: Keep) -> Self {
        let journal = Journal::new(&dir, keep);
        Self { dir, key, journal, sampled: None }
    }
}

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
    /// Whether these are `group` whole answers to each of `rows` after `step` steps. Files are not trusted.
    fn answers_to(&self, rows: &[usize], group: usize, step: u64) -> bool {
        let whole = |s: &Sample| !s.ids.is_empty() && s.ids.len() == s.logps.0.len();
        self.step == step
            && self.rows == rows
            && self.answers.len() == rows.len().saturating_mul(group)
            && self.answers.iter().all(whole)
    }

    /// Whether they are judged, and what is known of each token is there for all of them.
    pub fn judged(&self, rows: &[usize], group: usize, step: u64) -> bool {
        let layout = |known: &Option<Vec<Bits>>| {
            known.as_ref().is_none_or(|known| {
                known.len() == self.answers.len()
                    && known.iter().zip(&self.answers).all(|(k, a)| k.0.len() == a.ids.len())
            })
        };
        self.answers_to(rows, group, step)
            && self.advantages.len() == self.answers.len()
            && layout(&self.policy)
            && layout(&self.reference)
    }

    /// The advantage of each answer.
    pub fn advantages(&self) -> Vec<f64> {
        self.advantages.iter().map(|bits| f64::from_bits(*bits)).collect()
    }

    /// Writes the answers into a run directory, whole or not at all.
    pub fn keep(&self, dir: &Path) -> Result<()> {
        let path = dir.join(PENDING);
        let write = || -> std::io::Result<()> { galen_files::replace(&path, &serde_json::to_vec(self)?) };
        write().or_else(|e| run_error(path.display(), e.to_string()))
    }

    /// The answers that wait in a run directory, where they are those to `rows` after `step` steps.
    pub fn pending(store: &Store, rows: &[usize], group: usize, step: u64) -> Option<Self> {
        let path = store.dir.join(PENDING);
        let size = std::fs::metadata(&path).ok()?.len();
        let bytes = if size <= MAX_BYTES { std::fs::read(&path).ok()? } else { return None };
        let found: Self = serde_json::from_slice(&bytes).ok()?;
        (found.key == store.key && found.answers_to(rows, group, step)).then(|| Self {
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
