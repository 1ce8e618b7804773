//! The files of `galen run-batch`: what was asked, what is answered already, what came out.

use super::{replace, sha256_text};
use crate::error::UsageError;
use anyhow::Context as _;
use galen_engine::batch::Line;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Largest input read: it is held in memory.
const MAX_INPUT: u64 = 1 << 30;

/// A batch and its progress. Answers go to `OUT.partial` as they come, a line each; the output is written at once, at
/// the end. A killed run leaves the partial file, and the next takes its answers from there.
pub struct BatchFiles {
    /// The requests, in order.
    pub lines: Vec<Line>,
    out: PathBuf,
    partial: PathBuf,
    /// Answers by `custom_id`, as text.
    done: Mutex<(HashMap<String, String>, File)>,
}

/// What was asked: read before there is a model to ask.
pub struct Requests {
    lines: Vec<Line>,
    /// The line of each name.
    places: HashMap<String, usize>,
    /// Of the whole input.
    sha256: String,
    out: PathBuf,
}

impl Requests {
    /// Errors: a line that is no request; two of one name; an output that is there.
    pub fn read(input: &Path, out: &Path) -> anyhow::Result<Self> {
        if out.exists() {
            let message = format!("{} is there already", out.display());
            return Err(UsageError::new(message, "remove it, or name another `-o`").into());
        }
        let origin = input.display();
        let size = std::fs::metadata(input).with_context(|| origin.to_string())?.len();
        anyhow::ensure!(size <= MAX_INPUT, "{origin}: {size} bytes\nhint: split it: at most 1 GiB is read");
        let text = std::fs::read_to_string(input).with_context(|| origin.to_string())?;
        let mut lines: Vec<Line> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let place = i + 1;
            let line = Line::parse(line).map_err(|e| anyhow::anyhow!("{origin}:{place}: {e}"))?;
            if let Some(first) = places.insert(line.custom_id.clone(), place) {
                anyhow::bail!("{origin}:{place}: `custom_id` `{}` is line {first}'s too", line.custom_id);
            }
            lines.push(line);
        }
        anyhow::ensure!(!lines.is_empty(), "{origin}: there is no request in it");
        Ok(Self { lines, places, sha256: sha256_text(&text), out: out.to_owned() })
    }
}

impl BatchFiles {
    /// The files of these requests, with what an earlier run left. `identity`: what answers depend on besides the input.
    ///
    /// Errors: what was left is of another input or other models.
    pub fn open(requests: Requests, identity: &str) -> anyhow::Result<Self> {
        let Requests { lines, places, sha256, out } = requests;
        let name = out.file_name().and_then(|n| n.to_str()).unwrap_or("out.jsonl");
        let partial = out.with_file_name(format!("{name}.partial"));
        let head = json!({"galen_batch": sha256_text(&format!("{sha256}\n{identity}"))}).to_string();
        let (answers, file) = left(&partial, &head, &places)?;
        Ok(Self { lines, out, partial, done: Mutex::new((answers, file)) })
    }

    /// How many requests have an answer.
    pub fn n_done(&self) -> usize {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).0.len()
    }

    /// Whether this one has.
    pub fn is_done(&self, line: &Line) -> bool {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).0.contains_key(&line.custom_id)
    }

    /// Keeps an answer.
    pub fn add(&self, line: &Line, answer: &Value) -> anyhow::Result<()> {
        let text = answer.to_string();
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        // One write a line: a kill leaves whole lines and at most one torn.
        done.1
            .write_all(format!("{text}\n").as_bytes())
            .with_context(|| self.partial.display().to_string())?;
        done.0.insert(line.custom_id.clone(), text);
        Ok(())
    }

    /// Writes the output in the order of the input. Gives how many answers are errors. Errors: an answer is missing.
    pub fn finish(self) -> anyhow::Result<usize> {
        let (answers, _) = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (mut out, mut failed) = (String::new(), 0);
        for line in &self.lines {
            let Some(answer) = answers.get(&line.custom_id) else {
                anyhow::bail!("{}: `{}` has no answer", self.partial.display(), line.custom_id);
            };
            let value: Value = serde_json::from_str(answer)?;
            failed += usize::from(value["response"]["status_code"] != 200);
            out.push_str(answer);
            out.push('\n');
        }
        replace(&self.out, out.as_bytes())?;
        match std::fs::remove_file(&self.partial) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| self.partial.display().to_string())
            }
            _ => Ok(failed),
        }
    }
}

/// What an earlier run left, and the file to go on in, behind its last whole line.
fn left(
    path: &Path,
    head: &str,
    places: &HashMap<String, usize>,
) -> anyhow::Result<(HashMap<String, String>, File)> {
    let origin = || path.display().to_string();
    let mut answers = HashMap::new();
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path).with_context(origin)?;
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        let message = format!("{}: another run is writing it", path.display());
        return Err(UsageError::new(message, "wait for it, or name another `-o`").into());
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text).with_context(origin)?;
    // A torn line at the end is from a kill, and goes.
    let mut whole = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let mut lines = std::str::from_utf8(&text[..whole]).with_context(origin)?.lines();
    match lines.next() {
        None => {}
        Some(first) if first == head => {
            for (i, line) in lines.enumerate() {
                let value: Value =
                    serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), i + 2))?;
                let id = value["custom_id"].as_str().filter(|id| places.contains_key(*id));
                let id = id.with_context(|| format!("{}:{}: no request's answer", path.display(), i + 2))?;
                answers.insert(id.to_owned(), line.to_owned());
            }
        }
        // Nothing was answered yet: nothing is lost.
        Some(_) if lines.next().is_none() => whole = 0,
        Some(_) => {
            let message = format!("{} is of another input, other models or other settings", path.display());
            return Err(UsageError::new(message, "remove it to begin anew, or name another `-o`").into());
        }
    }
    file.set_len(whole as u64).with_context(origin)?;
    if whole == 0 {
        file.write_all(format!("{head}\n").as_bytes()).with_context(origin)?;
    }
    Ok((answers, file))
}
