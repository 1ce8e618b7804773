//! Checkpoints: a PEFT directory each, plus everything needed to go on to the same bits.
//!
//! Written whole under a temporary name in the run directory, synced, and renamed: a directory called
//! `checkpoint-N` is always complete.

use crate::error::{Result, run_error};
use crate::hacking::RewardHacking;
use crate::objective::Validation;
use galen_adapter::{Adapter, BaseRecord, save_peft};
use galen_files::{sync_folder, write_synced};
use galen_ops::mmap::Bytes;
use galen_optim::AdamW;
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What besides the adapter and the optimiser a run must remember.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Optimiser steps done.
    pub step: u64,
    /// Tokens of the rows so far.
    pub num_tokens: u64,
    /// The best validation so far and the step it followed.
    pub best: Option<(u64, Validation)>,
    /// Validations since the best.
    pub stale_validations: u64,
    /// Steps running with a loss above the watchdog's limit.
    pub watchdog_steps: u64,
    /// The newest validation.
    pub last: Option<Validation>,
    /// Rewards beside held-out accuracy.
    #[serde(default)]
    pub hacking: RewardHacking,
    /// What the objective must remember.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub objective: Value,
    /// What the run was started with: settings and hashes by name. A resumed run must have the same.
    pub fingerprint: BTreeMap<String, String>,
}

const STATE_FILE: &str = "trainer_state.json";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// Largest `trainer_state.json` read.
const MAX_STATE_BYTES: u64 = 1 << 30;

/// Writes `checkpoint-N` into the run directory.
pub fn save(
    dir: &Path,
    adapter: &Adapter,
    base: &BaseRecord,
    optimizer: &AdamW,
    state: &RunState,
) -> Result<PathBuf> {
    let target = dir.join(format!("checkpoint-{}", state.step));
    let io = |e: std::io::Error| run_error::<()>(target.display(), e.to_string());
    let temporary = match galen_files::folder_beside(&target) {
        Ok(t) => t,
        Err(e) => return run_error(target.display(), e.to_string()),
    };
    save_peft(adapter, base, temporary.path())?;
    write_optimizer(&temporary.path().join(OPTIMIZER_FILE), optimizer, &target)?;
    let text = serde_json::to_vec_pretty(state).or_else(|e| run_error(target.display(), e.to_string()))?;
    write_synced(&temporary.path().join(STATE_FILE), &text).or_else(io)?;
    sync_folder(temporary.path()).or_else(io)?;
    let path = temporary.keep();
    // Repeating a step after a resume writes the same bits again.
    if target.exists() {
        std::fs::remove_dir_all(&target).or_else(io)?;
    }
    std::fs::rename(&path, &target).or_else(io)?;
    sync_folder(dir).or_else(io)?;
    Ok(target)
}

/// A checkpoint of another folder, under a temporary name until all of it is there.
pub fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let temporary = galen_files::folder_beside(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let copy = temporary.path().join(entry.file_name());
        std::fs::copy(entry.path(), &copy)?;
        File::open(&copy)?.sync_all()?;
    }
    sync_folder(temporary.path())?;
    std::fs::rename(temporary.keep(), to)?;
    to.parent().map_or(Ok(()), sync_folder)
}

/// A buffer of moments, turned into bytes only while it is written: the file's copy would be the largest of a step.
struct Moments<'a>(&'a [f32], [usize; 1]);

impl View for Moments<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.1
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        size_of_val(self.0)
    }
}

fn write_optimizer(path: &Path, optimizer: &AdamW, origin: &Path) -> Result<()> {
    let mut views = BTreeMap::new();
    for (name, buffers) in [("exp_avg", &optimizer.m), ("exp_avg_sq", &optimizer.v)] {
        for (i, buffer) in buffers.iter().enumerate() {
            views.insert(format!("{name}.{i:05}"), Moments(buffer, [buffer.len()]));
        }
    }
    safetensors::serialize_to_file(views, None, path)
        .or_else(|e| run_error(origin.display(), e.to_string()))?;
    File::open(path).and_then(|f| f.sync_all()).or_else(|e| run_error(origin.display(), e.to_string()))
}

/// Reads the optimiser's moments and the run's state of a checkpoint; the adapter is read by
/// [`galen_adapter::load_peft`]. `optimizer` gives the expected lengths.
pub fn load(checkpoint: &Path, optimizer: &mut AdamW) -> Result<RunState> {
    let state = load_state(checkpoint)?;
    let path = checkpoint.join(OPTIMIZER_FILE);
    let origin = path.display().to_string();
    let bytes = Bytes::open(&path).or_else(|e| run_error(&origin, e.to_string()))?;
    let tensors =
        SafeTensors::deserialize(bytes.as_slice()).or_else(|e| run_error(&origin, e.to_string()))?;
    for (name, buffers) in [("exp_avg", &mut optimizer.m), ("exp_avg_sq", &mut optimizer.v)] {
        for (i, buffer) in buffers.iter_mut().enumerate() {
            let key = format!("{name}.{i:05}");
            let t = tensors.tensor(&key).or_else(|e| run_error(&origin, e.to_string()))?;
            if t.dtype() != Dtype::F32 || t.shape() != [buffer.len()] {
                return run_error(
                    &origin,
                    format!("`{key}` is `{:?}`, expected {} values", t.shape(), buffer.len()),
                );
            }
            for (x, b) in buffer.iter_mut().zip(t.data().as_chunks().0) {
                *x = f32::from_le_bytes(*b);
            }
        }
    }
    optimizer.steps = state.step;
    Ok(state)
}

/// Reads the run's state of a checkpoint.
pub fn load_state(checkpoint: &Path) -> Result<RunState> {
    let path = checkpoint.join(STATE_FILE);
    let origin = path.display().to_string();
    let size = std::fs::metadata(&path).or_else(|e| run_error(&origin, e.to_string()))?.len();
    if size > MAX_STATE_BYTES {
        return run_error(&origin, format!("{size} bytes is too large for a trainer state"));
    }
    let text = std::fs::read(&path).or_else(|e| run_error(&origin, e.to_string()))?;
    let state: RunState = serde_json::from_slice(&text).or_else(|e| run_error(&origin, e.to_string()))?;
    // Another step would end the run at once, or train rows again.
    match checkpoint.file_name().and_then(|name| step_of(name.to_str()?)) {
        Some(step) if step != state.step => run_error(
            &origin,
            format!(
                "step `{}` in the folder of step `{step}`\nhint: the file is damaged; resume from another checkpoint",
                state.step
            ),
        ),
        _ => Ok(state),
    }
}

/// The step of a checkpoint's folder.
fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("checkpoint-")?.parse().ok()
}

/// The same, of a run that was started with these settings and hashes: errors name the first that differs.
pub fn load_state_of(checkpoint: &Path, fingerprint: &BTreeMap<String, String>) -> Result<RunState> {
    let saved = load_state(checkpoint)?;
    let absent = String::from("(absent)");
    for name in saved.fingerprint.keys().chain(fingerprint.keys()) {
        let [was, is] = [&saved.fingerprint, fingerprint].map(|of| of.get(name).unwrap_or(&absent));
        // A key that there was not yet when the run was started was not set.
        let unset = |value: &String| value == "null" || value == &absent;
        if was == is || (unset(was) && unset(is)) {
            continue;
        }
        let what = match name.strip_prefix("sha256 of the ") {
            Some(input) => format!(
                "the {input} is not what the run was started with (sha256 `{was}`, now `{is}`)\nhint: bring it back as it was, or start anew with --overwrite"
            ),
            None => format!(
                "the run was started with `{name}: {was}`, now it is `{is}`\nhint: resume with the run's own config.yaml, start anew with --overwrite, or train its adapter further in a new run (`lora_model_dir`)"
            ),
        };
        return run_error(checkpoint.display(), what);
    }
    Ok(saved)
}

/// The run directory's checkpoints by step, oldest first.
pub fn list(dir: &Path) -> Vec<(u64, PathBuf)> {
    let mut found: Vec<(u64, PathBuf)> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| {
            let step = step_of(e.file_name().to_str()?)?;
            Some((step, e.path()))
        })
        .collect();
    found.sort();
    found
}

/// Removes the oldest checkpoints beyond `limit`, never the newest nor step `best`, and what an interrupted write
/// left behind.
pub fn prune(dir: &Path, limit: Option<usize>, best: Option<u64>) -> Result<()> {
    remove_leftovers(dir)?;
    let Some(limit) = limit else { return Ok(()) };
    let mut have = list(dir);
    let newest = have.pop();
    let best_is_older = have.iter().any(|(s, _)| Some(*s) == best);
    let keep = limit.max(1).saturating_sub(usize::from(newest.is_some()) + usize::from(best_is_older));
    have.retain(|(s, _)| Some(*s) != best);
    for (_, path) in have.iter().take(have.len().saturating_sub(keep)) {
        // Renamed first, so that no half-removed directory bears a checkpoint's name.
        let doomed =
            dir.join(format!(".tmp-removed-{}", path.file_name().and_then(|n| n.to_str()).unwrap_or("")));
        std::fs::rename(path, &doomed).or_else(|e| run_error(path.display(), e.to_string()))?;
        std::fs::remove_dir_all(&doomed).or_else(|e| run_error(path.display(), e.to_string()))?;
    }
    Ok(())
}

/// Removes temporary files and directories of writes that were cut off.
pub fn remove_leftovers(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|n| n.starts_with(galen_files::PREFIX)) {
            let path = entry.path();
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.or_else(|e| run_error(path.display(), e.to_string()))?;
        }
    }
    Ok(())
}
