//! One step over all rows: several at a time, each one's fate written down as it is known.

use crate::ask::ENGINE_FAILED;
use crate::config::Planned;
use crate::context::{Context, Tally};
use crate::error::{Stop, SynthError};
use crate::journal::{Fate, Journal, Line, Rows};
use crate::row::{Row, Trail};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A step on its way through its input.
pub(crate) struct Stage<'a> {
    pub cx: Context<'a>,
    pub planned: &'a Planned,
    /// Its place among the steps.
    pub number: usize,
    pub input: &'a Rows,
    pub journal: &'a Journal,
    /// Rows at a time.
    pub threads: usize,
    /// Rows without an answer, one after the other, that end the run.
    pub max_engine_failures: usize,
    /// Told of every line.
    pub show: &'a (dyn Fn(&Line) + Sync),
}

/// Rows that the engine did not answer, not yet written: they are the rows' own fate only if another one is answered.
#[derive(Default)]
struct Held(Vec<Line>);

impl Stage<'_> {
    /// Does what is not done yet. Errors: the first that ends the run; what is in the journal stays.
    pub fn run(&self) -> Result<(), SynthError> {
        let pending = self.journal.pending();
        if pending.is_empty() {
            return Ok(());
        }
        let each = self.planned.step.start(&self.cx, self.input)?;
        let next = AtomicUsize::new(0);
        let (failure, held) = (Mutex::new(None), Mutex::new(Held::default()));
        let work = || {
            while !self.cx.stopped() && failure.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                let Some(at) = pending.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                let done = self.one(&each, *at).and_then(|line| self.put(line, &held));
                if let Err(e) = done {
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                }
            }
        };
        let threads = self.threads.min(pending.len()).max(1);
        let spawned = std::thread::scope(|scope| {
            for _ in 0..threads {
                std::thread::Builder::new().name("galen-synth".into()).spawn_scoped(scope, work)?;
            }
            Ok(())
        });
        spawned.map_err(|e: std::io::Error| SynthError::step(&self.planned.label, e.to_string()))?;
        if let Some(e) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(e);
        }
        if self.cx.stopped() {
            return Err(SynthError::Stopped);
        }
        for line in held.into_inner().unwrap_or_else(PoisonError::into_inner).0 {
            self.write(&line)?;
        }
        Ok(())
    }

    fn put(&self, line: Line, held: &Mutex<Held>) -> Result<(), SynthError> {
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if line.fate == Fate::Failed && line.reason == ENGINE_FAILED {
            held.0.push(line);
            if held.0.len() >= self.max_engine_failures {
                let what = held.0.last().map_or("", |l| l.detail.as_str());
                let n = held.0.len();
                let text = format!("{n} rows in a row had no answer, the last: {what}");
                return Err(SynthError::step(&self.planned.label, text));
            }
            return Ok(());
        }
        for line in std::mem::take(&mut held.0) {
            self.write(&line)?;
        }
        drop(held);
        self.write(&line)
    }

    fn write(&self, line: &Line) -> Result<(), SynthError> {
        self.journal.add(line)?;
        (self.show)(line);
        Ok(())
    }

    fn one(&self, each: &crate::registry::EachRow<'_>, at: usize) -> Result<Line, SynthError> {
        let row = self.input.get(at)?;
        let mut tally = Tally::default();
        let before = row.clone();
        let seed = self.cx.seed_of(&row);
        let passes = match &self.planned.when {
            None => Ok(true),
            Some(when) => self.cx.holds(when, &row),
        };
        let touched = matches!(passes, Ok(true));
        let made = passes.and_then(|takes| if takes { each(&mut tally, at, row) } else { Ok(vec![row]) });
        let mut line = Line {
            i: at,
            id: before.id.clone(),
            from: before.seeds.first().cloned().unwrap_or_default(),
            fate: Fate::Kept,
            rows: Vec::new(),
            reason: String::new(),
            detail: String::new(),
            figures: tally.figures,
            usage: tally.usage,
        };
        match made {
            Ok(rows) if rows.is_empty() => {
                (line.fate, line.reason) = (Fate::Filtered, "nothing came of it".into());
            }
            Ok(rows) => line.rows = self.finished(rows, &before, seed, touched),
            Err(Stop::Filtered { reason, detail }) => {
                (line.fate, line.reason, line.detail) = (Fate::Filtered, reason, detail);
            }
            Err(Stop::Failed { reason, detail }) => {
                (line.fate, line.reason, line.detail) = (Fate::Failed, reason.into(), detail);
            }
            Err(Stop::Run(e)) => return Err(e),
        }
        Ok(line)
    }

    /// Rows with ids of their own and the step in their trail.
    fn finished(&self, mut rows: Vec<Row>, before: &Row, seed: u64, touched: bool) -> Vec<Row> {
        let several = rows.len() > 1;
        let used = &self.planned.used;
        // What a template or a model gave may be what was there before.
        let makes = touched && !(used.templates.is_empty() && used.engines.is_empty());
        for (k, row) in rows.iter_mut().enumerate() {
            if several {
                row.id = format!("{}/{}.{k}", before.id, self.planned.label);
            }
            if makes || row.fields != before.fields {
                row.trail.push(Trail { step: self.number, seed, k });
            }
        }
        rows
    }
}
