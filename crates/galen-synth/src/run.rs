//! A pipeline from seeds to outputs.

use crate::config::{Pipeline, Planned};
use crate::context::Context;
use crate::engines::Teacher;
use crate::error::SynthError;
use crate::figures::{Figures, OutputFigures};
use crate::journal::{Fate, Head, Journal, Line, Rows};
use crate::retry::Earlier;
use crate::row::Row;
use crate::seeds;
use crate::stage::Stage;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// The folder of journals within `output_dir`.
pub(crate) const JOURNAL: &str = "journal";
/// Rows at a time of a step that asks no model.
const MAX_THREADS: usize = 8;

/// Who is told how far it is.
pub trait Show: Sync {
    /// A step begins: its label, the rows of its input, those that are done already.
    fn begin(&self, label: &str, rows: usize, done: usize);
    /// A row of it is done; tokens of its prompts and answers.
    fn row(&self, kept: bool, tokens: [u64; 2]);
    /// It is done; what it kept, filtered and failed, all together.
    fn end(&self, counts: [usize; 3]);
}

/// A pipeline with what it runs on.
pub struct Run<'a> {
    /// What is done.
    pub pipeline: &'a Pipeline,
    /// Its engines, opened, by name.
    pub teachers: &'a BTreeMap<String, Teacher>,
    /// Who is told.
    pub show: &'a dyn Show,
    /// Set to end the run; `--resume` goes on.
    pub stop: &'a AtomicBool,
    /// Whether rows that failed in an earlier run are done again.
    pub retry_failed: bool,
}

impl Run<'_> {
    /// Everything, or what an earlier run left to do. Gives the figures, which are also in `synth_report.json`.
    pub fn run(&self) -> Result<Figures, SynthError> {
        let pipeline = self.pipeline;
        let folder = pipeline.output_dir.join(JOURNAL);
        std::fs::create_dir_all(&pipeline.output_dir).map_err(|e| SynthError::io(&pipeline.output_dir, e))?;
        let _lock = lock(&pipeline.output_dir)?;
        let first = journal_path(&folder, 0, "seeds");
        let seeds = || {
            std::fs::create_dir_all(&folder).map_err(|e| SynthError::io(&folder, e))?;
            seeds::write(&pipeline.seeds, &pipeline.prompts, &first, usize::MAX)
        };
        let (n_seeds, hash) = seeds()?;
        let mut earlier = Earlier::open(self, self.retry_failed, &hash)?;
        if earlier.is_some() {
            // The folder was put aside with them.
            seeds()?;
        }
        let mut fingerprint = self.begin(&hash);
        let mut rows = Rows::open(&first)?;
        let mut paths = Vec::new();
        for (number, planned) in pipeline.steps.iter().enumerate() {
            fingerprint = self.fingerprint(&fingerprint, planned);
            let head = Head::new(&planned.label, &fingerprint);
            let path = journal_path(&folder, number + 1, &planned.label);
            if let Some(earlier) = &mut earlier {
                earlier.take_over(self, number, planned, &rows, &path, head.clone())?;
            }
            let journal = Journal::open(&path, &head, rows.len())?;
            self.stage(number, planned, &rows, &journal)?;
            rows = journal.finish()?;
            // A complete journal stays as it is: where it was made anew, those behind it are of other rows.
            fingerprint = sha256(&format!("{fingerprint}\n{}", seeds::hash_of(&path)?));
            paths.push(path);
        }
        let outputs = self.outputs(&rows)?;
        let figures = Figures::gather(pipeline, self.teachers, n_seeds, &first, &paths, &rows, outputs)?;
        let text =
            serde_json::to_string_pretty(&figures).map_err(|e| SynthError::step("report", e.to_string()))?;
        replace(&pipeline.output_dir.join("synth_report.json"), (text + "\n").as_bytes())?;
        let page = crate::report::html(&figures).map_err(|e| SynthError::step("report", e.to_string()))?;
        replace(&pipeline.output_dir.join("synth_report.html"), page.as_bytes())?;
        earlier.map_or(Ok(()), |earlier| earlier.remove(&folder))?;
        Ok(figures)
    }

    /// The fingerprint that the first step's follows from; `hash`: of the seeds.
    pub(crate) fn begin(&self, hash: &str) -> String {
        sha256(&format!("{hash}\n{}", self.pipeline.seed))
    }

    /// What a step's rows depend on: those before it, its settings, its templates, its models.
    pub(crate) fn fingerprint(&self, before: &str, planned: &Planned) -> String {
        let used = &planned.used;
        let models: Vec<_> = used
            .engines
            .iter()
            .map(|name| self.teachers.get(name).map(|t| (name, t.kind, &t.model, &t.identity)))
            .collect();
        let templates: Vec<_> = used.templates.iter().map(|t| (&t.name, &t.sha256)).collect();
        let of = json!([
            before,
            planned.entry.name,
            planned.label,
            planned.when,
            planned.given,
            templates,
            used.files,
            models
        ]);
        sha256(&of.to_string())
    }

    fn context<'a>(&'a self, label: &'a str) -> Context<'a> {
        Context {
            prompts: &self.pipeline.prompts,
            teachers: self.teachers,
            seed: self.pipeline.seed,
            label,
            stop: self.stop,
        }
    }

    fn stage(
        &self,
        number: usize,
        planned: &Planned,
        rows: &Rows,
        journal: &Journal,
    ) -> Result<(), SynthError> {
        let pending = journal.pending().len();
        self.show.begin(&planned.label, rows.len(), rows.len() - pending);
        let counts = std::sync::Mutex::new([0_usize; 3]);
        let show = |line: &Line| {
            if let Ok(mut counts) = counts.lock() {
                counts[line.fate as usize] += 1;
            }
            self.show.row(line.fate == Fate::Kept, [line.usage[0], line.usage[1]]);
        };
        let of_engines =
            planned.used.engines.iter().filter_map(|e| self.teachers.get(e)).map(|t| t.concurrency);
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let stage = Stage {
            cx: self.context(&planned.label),
            planned,
            number,
            input: rows,
            journal,
            threads: of_engines.max().unwrap_or(cores),
            max_engine_failures: self.pipeline.max_engine_failures,
            show: &show,
        };
        stage.run()?;
        self.show.end(counts.into_inner().unwrap_or_default());
        Ok(())
    }

    /// Writes every output, each whole or not at all.
    fn outputs(&self, rows: &Rows) -> Result<Vec<OutputFigures>, SynthError> {
        let mut out = Vec::new();
        for output in &self.pipeline.outputs {
            let path = self.pipeline.output_dir.join(&output.path);
            let partial = path.with_extension("jsonl.partial");
            let io = |e| SynthError::io(&partial, e);
            let mut file = BufWriter::new(File::create(&partial).map_err(io)?);
            let cx = self.context(&output.path);
            let mut written = 0;
            for row in rows.iter() {
                let row = row?;
                let provenance = self.provenance(&row);
                if let Some(object) = output.of(&cx, &row, provenance)? {
                    writeln!(file, "{object}").map_err(io)?;
                    written += 1;
                }
            }
            let file = file.into_inner().map_err(|e| io(e.into_error()))?;
            file.sync_all().map_err(io)?;
            std::fs::rename(&partial, &path).map_err(|e| SynthError::io(&path, e))?;
            let sha256 = seeds::hash_of(&path)?;
            out.push(OutputFigures {
                path: output.path.clone(),
                kind: output.kind.name,
                rows: written,
                sha256,
            });
        }
        Ok(out)
    }

    /// Where a row comes from: its seeds, and every step that made something of it.
    fn provenance(&self, row: &Row) -> Value {
        let step = |trail: &crate::row::Trail| {
            let Some(planned) = self.pipeline.steps.get(trail.step) else { return Value::Null };
            let used = &planned.used;
            let mut step =
                json!({"step": planned.label, "kind": planned.entry.name, "seed": trail.seed, "k": trail.k});
            if !used.templates.is_empty() {
                step["templates"] =
                    used.templates.iter().map(|t| json!({"name": t.name, "sha256": t.sha256})).collect();
            }
            let engines: Vec<Value> = used
                .engines
                .iter()
                .filter_map(|name| Some((name, self.teachers.get(name)?)))
                .map(|(name, t)| json!({"engine": name, "type": t.kind, "model": t.model, "identity": t.identity}))
                .collect();
            if !engines.is_empty() {
                step["engines"] = engines.into();
                step["sampling"] = used.sampling.clone().unwrap_or_default();
            }
            step
        };
        json!({"id": row.id, "seeds": row.seeds, "steps": row.trail.iter().map(step).collect::<Vec<_>>()})
    }
}

/// Held while a run writes: a second one would append to the same journals.
fn lock(folder: &Path) -> Result<File, SynthError> {
    let path = folder.join(".lock");
    let file = File::create(&path).map_err(|e| SynthError::io(&path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SynthError::Journal {
            file: folder.display().to_string(),
            what: "another run is writing into it".into(),
            hint: "wait for it, or name another `output_dir`".into(),
        }),
        // A file system without locks: nobody can be told, and one run is the rule.
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(e)) => Err(SynthError::io(&path, e)),
    }
}

/// `journal/03-judge.jsonl`.
pub(crate) fn journal_path(folder: &Path, number: usize, label: &str) -> PathBuf {
    folder.join(format!("{number:02}-{label}.jsonl"))
}

pub(crate) fn sha256(text: &str) -> String {
    format!("{:x}", Sha256::digest(text))
}

/// Writes a file under a temporary name, syncs and renames.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), SynthError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let io = |e| SynthError::io(&partial, e);
    let mut file = File::create(&partial).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.sync_all().map_err(io)?;
    std::fs::rename(&partial, path).map_err(|e| SynthError::io(path, e))
}
