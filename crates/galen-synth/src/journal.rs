//! What became of every row of a step, on disk: appended line by line, read again after a kill.
//!
//! A line is written with one call, so that a kill leaves whole lines and at most one torn, which is cut off. Rows are
//! found by their place in the file and read when their turn comes: a pipeline's memory does not grow with its rows.

use crate::error::SynthError;
use crate::row::Row;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Longest line; a step's own bounds keep rows far below.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It goes on, perhaps as several.
    Kept,
    /// A filter took it out.
    Filtered,
    /// Something went wrong with it.
    Failed,
}

/// One row of a step's input and what the step made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    /// Its number in the step's input.
    pub i: usize,
    /// Its id there.
    pub id: String,
    /// The seed it comes from.
    pub from: String,
    pub fate: Fate,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<Row>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What the step measured.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub figures: Map<String, Value>,
    /// Tokens of prompts, tokens of answers, requests.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub usage: [u64; 3],
}

fn is_zero(usage: &[u64; 3]) -> bool {
    *usage == [0; 3]
}

impl Line {
    /// As it stands in the journal at `path`.
    pub fn text(&self, path: &Path) -> Result<String, SynthError> {
        serde_json::to_string(self).map_err(|e| SynthError::Journal {
            file: path.display().to_string(),
            what: format!("a row cannot be written: {e}"),
            hint: "please report this".into(),
        })
    }
}

/// What a journal begins with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Head {
    galen_synth: u32,
    step: String,
    /// Of all that its rows depend on.
    fingerprint: String,
    /// What was spent on lines that are no more, since their rows were done again; as [`Line::usage`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spent_before: [u64; 3],
}

impl Head {
    pub fn new(step: &str, fingerprint: &str) -> Self {
        Self {
            galen_synth: 1,
            step: step.to_owned(),
            fingerprint: fingerprint.to_owned(),
            spent_before: [0; 3],
        }
    }

    /// `None`: it is no head.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Whether both are of one step over the same rows.
    pub fn same(&self, other: &Self) -> bool {
        (self.galen_synth, &self.step, &self.fingerprint)
            == (other.galen_synth, &other.step, &other.fingerprint)
    }

    pub fn text(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

/// A step's journal, open for appending.
pub(crate) struct Journal {
    path: PathBuf,
    /// With the length of its whole lines.
    file: Mutex<(File, u64)>,
    done: Vec<bool>,
}

impl Journal {
    /// Goes on behind the last whole line, or begins with `head`. Errors: the file begins with another head.
    pub fn open(path: &Path, head: &Head, n_inputs: usize) -> Result<Self, SynthError> {
        let io = |e| SynthError::io(path, e);
        let mut done = vec![false; n_inputs];
        let mut whole = 0;
        if path.exists() {
            let mut lines = Lines::open(path)?;
            if let Some(found) = lines.text()? {
                if !Head::parse(&found).is_some_and(|found| found.same(head)) {
                    return Err(other_run(path, &found, head));
                }
                whole = lines.at;
                while let Some((_, line)) = lines.line::<Line>()? {
                    let slot = done.get_mut(line.i).filter(|d| !**d);
                    *slot
                        .ok_or_else(|| damaged(path, lines.number, "a row that is none or there twice"))? =
                        true;
                    whole = lines.at;
                }
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(io)?;
        file.set_len(whole).map_err(io)?;
        let journal = Self { path: path.to_owned(), file: Mutex::new((file, whole)), done };
        if whole == 0 {
            journal.write(&head.text())?;
        }
        Ok(journal)
    }

    /// Rows that have no line yet, in order.
    pub fn pending(&self) -> Vec<usize> {
        self.done.iter().enumerate().filter(|(_, d)| !**d).map(|(i, _)| i).collect()
    }

    /// Appends.
    pub fn add(&self, line: &Line) -> Result<(), SynthError> {
        self.write(&line.text(&self.path)?)
    }

    fn write(&self, text: &str) -> Result<(), SynthError> {
        let mut slot = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, whole) = &mut *slot;
        let line = format!("{text}\n");
        if let Err(e) = file.write_all(line.as_bytes()) {
            // A full disk leaves part of a line: another thread's must not follow on it.
            let _ = file.set_len(*whole);
            return Err(SynthError::io(&self.path, e));
        }
        *whole += line.len() as u64;
        Ok(())
    }

    /// All lines are there: they are put on the disk, and the rows that go on can be read.
    pub fn finish(self) -> Result<Rows, SynthError> {
        let (file, _) = self.file.into_inner().unwrap_or_else(PoisonError::into_inner);
        file.sync_all().map_err(|e| SynthError::io(&self.path, e))?;
        Rows::open(&self.path)
    }
}

pub(crate) fn other_run(path: &Path, found: &str, head: &Head) -> SynthError {
    let what = match Head::parse(found) {
        Some(found) if found.step != head.step => {
            format!("is of step `{}`, and this is `{}`", found.step, head.step)
        }
        Some(_) => "is of another configuration, other seeds, templates or models".into(),
        None => "does not begin as a journal".into(),
    };
    let hint =
        "remove it and those behind it to have these steps made anew; what is before them is kept".into();
    SynthError::Journal { file: path.display().to_string(), what, hint }
}

fn damaged(path: &Path, line: usize, what: &str) -> SynthError {
    let file = format!("{}:{line}", path.display());
    SynthError::Journal { file, what: what.into(), hint: "remove the file to have the step made anew".into() }
}

/// Whole lines of a journal, with their places.
pub(crate) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    /// Behind the last line read.
    pub at: u64,
    number: usize,
}

impl Lines {
    pub fn open(path: &Path) -> Result<Self, SynthError> {
        let file = File::open(path).map_err(|e| SynthError::io(path, e))?;
        Ok(Self { path: path.to_owned(), reader: BufReader::with_capacity(1 << 16, file), at: 0, number: 0 })
    }

    /// The next whole line; `None` at the end, and where the last line is torn.
    pub fn text(&mut self) -> Result<Option<String>, SynthError> {
        let mut bytes = Vec::new();
        let mut limited = (&mut self.reader).take(MAX_LINE_BYTES);
        limited.read_until(b'\n', &mut bytes).map_err(|e| SynthError::io(&self.path, e))?;
        if bytes.last() != Some(&b'\n') {
            return Ok(None);
        }
        self.at += bytes.len() as u64;
        self.number += 1;
        let text = String::from_utf8(bytes);
        text.map(Some).map_err(|_| damaged(&self.path, self.number, "not valid UTF-8"))
    }

    /// The next line with the place where it begins.
    pub fn line<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<(u64, T)>, SynthError> {
        let at = self.at;
        let Some(text) = self.text()? else { return Ok(None) };
        match serde_json::from_str(&text) {
            Ok(line) => Ok(Some((at, line))),
            Err(e) => Err(damaged(&self.path, self.number, &format!("not a line of a journal: {e}"))),
        }
    }
}

/// Where a row stands.
struct Place {
    at: u64,
    /// Which of its line's rows.
    k: u32,
}

/// Rows that a step gave, in the order of the rows it was given.
pub struct Rows {
    path: PathBuf,
    file: Mutex<File>,
    places: Vec<Place>,
}

impl Rows {
    /// Of a journal that is complete.
    pub(crate) fn open(path: &Path) -> Result<Self, SynthError> {
        let mut lines = Lines::open(path)?;
        lines.text()?;
        let mut found: Vec<(usize, u64, u32)> = Vec::new();
        while let Some((at, line)) = lines.line::<Counted>()? {
            found.extend((0..line.rows.len()).map(|k| (line.i, at, k as u32)));
        }
        found.sort_unstable();
        let file = File::open(path).map_err(|e| SynthError::io(path, e))?;
        let places = found.into_iter().map(|(_, at, k)| Place { at, k }).collect();
        Ok(Self { path: path.to_owned(), file: Mutex::new(file), places })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// One of them.
    pub fn get(&self, i: usize) -> Result<Row, SynthError> {
        let Some(place) = self.places.get(i) else { return Err(damaged(&self.path, i, "no such row")) };
        let mut bytes = Vec::new();
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let io = |e| SynthError::io(&self.path, e);
            file.seek(SeekFrom::Start(place.at)).map_err(io)?;
            BufReader::new(&mut *file).read_until(b'\n', &mut bytes).map_err(io)?;
        }
        let line: Line =
            serde_json::from_slice(&bytes).map_err(|e| damaged(&self.path, i, &e.to_string()))?;
        let row = line.rows.into_iter().nth(place.k as usize);
        row.ok_or_else(|| damaged(&self.path, i, "no such row"))
    }

    /// All of them, read as they are asked for.
    pub fn iter(&self) -> impl Iterator<Item = Result<Row, SynthError>> + '_ {
        (0..self.len()).map(|i| self.get(i))
    }
}

/// A line of which only the number of rows matters.
#[derive(Deserialize)]
struct Counted {
    i: usize,
    #[serde(default)]
    rows: Vec<serde::de::IgnoredAny>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(i: usize, rows: usize) -> Line {
        let row = |k: usize| Row { id: format!("{i}.{k}"), ..Row::default() };
        Line {
            i,
            id: i.to_string(),
            from: i.to_string(),
            fate: if rows > 0 { Fate::Kept } else { Fate::Filtered },
            rows: (0..rows).map(row).collect(),
            reason: String::new(),
            detail: String::new(),
            figures: Map::new(),
            usage: [0; 3],
        }
    }

    #[test]
    fn a_torn_line_goes_and_rows_come_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        let head = Head::new("a", "f");
        let journal = Journal::open(&path, &head, 3).unwrap();
        journal.add(&line(2, 2)).unwrap();
        journal.add(&line(0, 1)).unwrap();
        drop(journal);
        let text = std::fs::read_to_string(&path).unwrap();
        for cut in 1..40 {
            std::fs::write(&path, format!("{text}{}", &text[text.len() - 60..text.len() - cut])).unwrap();
            let journal = Journal::open(&path, &head, 3).unwrap();
            assert_eq!(journal.pending(), [1]);
        }
        let journal = Journal::open(&path, &head, 3).unwrap();
        journal.add(&line(1, 0)).unwrap();
        let rows = journal.finish().unwrap();
        let ids: Vec<String> = rows.iter().map(|r| r.unwrap().id).collect();
        assert_eq!(ids, ["0.0", "2.0", "2.1"]);
        let other = Journal::open(&path, &Head::new("b", "f"), 3).err().unwrap().to_string();
        assert!(other.contains("is of step `a`") && other.contains("hint:"), "{other}");
        std::fs::write(&path, format!("{text}{{\"i\": 7}}\n")).unwrap();
        assert!(Journal::open(&path, &head, 3).err().unwrap().to_string().contains("j.jsonl:4"));
    }
}
