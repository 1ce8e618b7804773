//! Rows that failed, done again: the earlier run's journals are put aside, and a run begins that takes over from them what
//! still holds.
//!
//! A line is taken over where its step asks a model, the row did not fail, and the same row stands in the step's input now.
//! Steps that ask no model are done again over all rows, since rows that came back may change what they say of others.
//! The folder put aside goes once the run is at its end, so that a kill at any time loses nothing.

use crate::config::Planned;
use crate::error::SynthError;
use crate::journal::{Fate, Head, Line, Lines, Rows, other_run};
use crate::run::{JOURNAL, Run, journal_path, sha256};
use crate::seeds;
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// The folder of the journals put aside, within `output_dir`.
pub(crate) const EARLIER: &str = "journal.earlier";

/// An earlier run's journals, as far as the steps have come.
pub(crate) struct Earlier {
    folder: PathBuf,
    /// Of what is before the next step, as that run had it.
    fingerprint: String,
    /// The next step's input in that run; `None` behind its last journal.
    rows: Option<Rows>,
}

/// Told of an earlier line, and of the place of its row now if the line holds.
type Found<'a> = &'a mut dyn FnMut(&Line, Option<usize>) -> Result<(), SynthError>;

/// A line of which only the fate matters.
#[derive(Deserialize)]
struct Ended {
    fate: Fate,
}

impl Earlier {
    /// Goes on with what was put aside; with `ask` puts aside the journals of a run in which a row failed. `seeds`: their hash.
    pub fn open(run: &Run<'_>, ask: bool, seeds: &str) -> Result<Option<Self>, SynthError> {
        let dir = &run.pipeline.output_dir;
        let (journal, aside) = (dir.join(JOURNAL), dir.join(EARLIER));
        if !aside.exists() {
            if !ask || !any_failed(run, &journal)? {
                return Ok(None);
            }
            // Settings that differ are refused while all is in its place.
            let mut earlier = Self::first(run, &journal, seeds)?;
            for (number, planned) in run.pipeline.steps.iter().enumerate() {
                earlier.next(run, number, planned)?;
            }
            std::fs::rename(&journal, &aside).map_err(|e| SynthError::io(&journal, e))?;
        }
        Self::first(run, &aside, seeds).map(Some)
    }

    fn first(run: &Run<'_>, folder: &Path, seeds: &str) -> Result<Self, SynthError> {
        let path = journal_path(folder, 0, "seeds");
        if seeds::hash_of(&path)? != seeds {
            return Err(seeds::others(&path));
        }
        Ok(Self { folder: folder.to_owned(), fingerprint: run.begin(seeds), rows: Some(Rows::open(&path)?) })
    }

    /// Moves behind a step. Gives its journal, head and input there, where the earlier run came to it.
    fn next(
        &mut self,
        run: &Run<'_>,
        number: usize,
        planned: &Planned,
    ) -> Result<Option<(PathBuf, Head, Rows)>, SynthError> {
        let path = journal_path(&self.folder, number + 1, &planned.label);
        let Some(input) = self.rows.take().filter(|_| path.exists()) else { return Ok(None) };
        let fingerprint = run.fingerprint(&self.fingerprint, planned);
        let expected = Head::new(&planned.label, &fingerprint);
        let mut lines = Lines::open(&path)?;
        let Some(text) = lines.text()? else { return Ok(None) };
        let head = Head::parse(&text).filter(|h| h.same(&expected));
        let head = head.ok_or_else(|| other_run(&path, &text, &expected))?;
        self.fingerprint = sha256(&format!("{fingerprint}\n{}", seeds::hash_of(&path)?));
        self.rows = Some(Rows::open(&path)?);
        Ok(Some((path, head, input)))
    }

    /// Begins a step's journal at `to` with the lines that hold for `rows`; one that is there stays.
    pub fn take_over(
        &mut self,
        run: &Run<'_>,
        number: usize,
        planned: &Planned,
        rows: &Rows,
        to: &Path,
        mut head: Head,
    ) -> Result<(), SynthError> {
        let Some((path, before, input)) = self.next(run, number, planned)? else { return Ok(()) };
        if to.exists() {
            return Ok(());
        }
        let asks = !planned.used.engines.is_empty();
        let now: HashMap<String, usize> = if asks {
            rows.iter().enumerate().map(|(i, row)| Ok((row?.id, i))).collect::<Result<_, SynthError>>()?
        } else {
            HashMap::new()
        };
        // Twice through the file: the head comes first, and says what was spent on the lines that are left.
        let each = |found: Found<'_>| {
            let mut lines = Lines::open(&path)?;
            lines.text()?;
            while let Some((_, line)) = lines.line::<Line>()? {
                let place = now.get(&line.id).filter(|_| line.fate != Fate::Failed).copied();
                let place = match place {
                    Some(at) if rows.get(at)? == input.get(line.i)? => Some(at),
                    _ => None,
                };
                found(&line, place)?;
            }
            Ok::<_, SynthError>(())
        };
        head.spent_before = before.spent_before;
        each(&mut |line, place| {
            if place.is_none() {
                head.spent_before.iter_mut().zip(line.usage).for_each(|(sum, part)| *sum += part);
            }
            Ok(())
        })?;
        let partial = to.with_extension("jsonl.partial");
        let io = |e| SynthError::io(&partial, e);
        let mut out = BufWriter::new(File::create(&partial).map_err(io)?);
        writeln!(out, "{}", head.text()).map_err(io)?;
        each(&mut |line, place| {
            let Some(i) = place else { return Ok(()) };
            let line = Line { i, ..line.clone() };
            writeln!(out, "{}", line.text(to)?).map_err(io)
        })?;
        let file = out.into_inner().map_err(|e| io(e.into_error()))?;
        file.sync_all().map_err(io)?;
        std::fs::rename(&partial, to).map_err(|e| SynthError::io(to, e))
    }

    /// The run whose journals lie in `journal` is at its end.
    pub fn remove(self, journal: &Path) -> Result<(), SynthError> {
        // Out of the way at once: a kill while files go must not leave half of an earlier run to go on with.
        let gone = journal.join("earlier");
        std::fs::rename(&self.folder, &gone).map_err(|e| SynthError::io(&self.folder, e))?;
        std::fs::remove_dir_all(&gone).map_err(|e| SynthError::io(&gone, e))
    }
}

/// Whether a row failed in any step.
fn any_failed(run: &Run<'_>, folder: &Path) -> Result<bool, SynthError> {
    for (number, planned) in run.pipeline.steps.iter().enumerate() {
        let path = journal_path(folder, number + 1, &planned.label);
        if !path.exists() {
            break;
        }
        let mut lines = Lines::open(&path)?;
        lines.text()?;
        while let Some((_, line)) = lines.line::<Ended>()? {
            if line.fate == Fate::Failed {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
