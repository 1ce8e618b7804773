//! Rows as texts: of a data file, a folder, a hub data set, or of a task of `galen eval`.

use super::base::hub_bars;
use anyhow::Context as _;
use galen_data::reader::{EVALUATION_SPLITS, Limits, NO_EVALUATION, RowIter, evaluation_files};
use galen_data::texts::{RowText, TextRow, TextRows};
use galen_data::{DataError, DatasetSpec, dataset};
use galen_eval::Task;
use galen_hub::{DatasetQuery, HubError, Options};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// What texts are wanted for, where a task or a folder has several splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sides {
    /// To be chosen from: training rows. Tasks are not meant.
    Rows,
    /// To be examined on: what is evaluated.
    Evaluated,
    /// To be like: rows of an evaluation that are not evaluated themselves.
    Target,
}

/// Which rows, and which texts of them.
pub struct Texts<'a> {
    /// As the user named it.
    pub path: &'a str,
    /// The rows' type, where it was said.
    pub kind: Option<Value>,
    /// The fields that are meant; none: as the type has it, or as the task asks.
    pub fields: &'a [String],
    /// What they are wanted for.
    pub side: Sides,
    /// Open no socket.
    pub offline: bool,
}

/// Which texts were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// In words.
    pub about: String,
    /// The split they are of, where there are several to choose from.
    pub split: Option<String>,
}

type Take<'a> = dyn FnMut(Result<TextRow, DataError>) -> anyhow::Result<()> + 'a;

impl Texts<'_> {
    /// Gives every row to `take`; says which texts they are.
    pub fn each(&self, take: &mut Take) -> anyhow::Result<Read> {
        if let Some(task) = self.task()? {
            return self.of_task(&task, take);
        }
        let split = if self.side == Sides::Evaluated { self.evaluated_split()? } else { None };
        let spec: DatasetSpec =
            serde_json::from_value(json!({"path": self.path, "type": self.kind, "split": split}))?;
        let resolve = |spec: &DatasetSpec| resolve_dataset(spec, self.offline);
        let rows = TextRows::open(&spec, self.fields, &resolve, Limits::default())?;
        let about = match split {
            Some(split) => format!("{}; split `{split}`", rows.about()),
            None => rows.about().to_owned(),
        };
        for row in rows {
            take(row)?;
        }
        Ok(Read { about, split: split.map(str::to_owned) })
    }

    /// The split of an evaluation set that is examined on; none where names do not speak of splits.
    ///
    /// Errors: there are splits, but for training alone; what else stands in the way of looking.
    fn evaluated_split(&self) -> anyhow::Result<Option<&'static str>> {
        if Path::new(self.path).exists() {
            return Ok(evaluation_files(Path::new(self.path))?.1);
        }
        let options = Options::from_env(self.offline, hub_bars());
        let mut told = false;
        for split in EVALUATION_SPLITS {
            let query = DatasetQuery { split: Some(split.to_owned()), ..DatasetQuery::default() };
            match galen_hub::resolve_dataset(self.path, &query, &options) {
                // A file of the catalogue.
                Ok(found) if found.path.is_file() => return Ok(None),
                Ok(_) => return Ok(Some(split)),
                Err(HubError::NoSplit { there, .. }) => told |= !there.is_empty(),
                Err(e) => return Err(e.into()),
            }
        }
        anyhow::ensure!(
            !told,
            "{}: {NO_EVALUATION}\nhint: name a file of it, if what that holds is what is examined on",
            self.path
        );
        Ok(None)
    }

    /// The task of that name, where it names one rather than data.
    fn task(&self) -> anyhow::Result<Option<Task>> {
        let path = Path::new(self.path);
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        let built_in = !path.exists() && galen_eval::task::list(None)?.iter().any(|t| t.name == self.path);
        if self.side == Sides::Rows || !(yaml || built_in) {
            return Ok(None);
        }
        Ok(Some(Task::load(self.path, None)?))
    }

    fn of_task(&self, task: &Task, take: &mut Take) -> anyhow::Result<Read> {
        let split = match self.side {
            Sides::Target => task.example_split().with_context(|| {
                let evaluated = task.dataset().evaluated_split();
                let what = format!("{}: the task has no split beside `{evaluated}`, which it evaluates", task.origin());
                let hint = "rows chosen by the questions of an evaluation make it worthless: name a file of other examples, or \
                            a `training_split` in the task";
                format!("{what}\nhint: {hint}")
            })?,
            _ => task.dataset().evaluated_split(),
        };
        let asked = task.questions(split)?;
        for row in asked {
            let question = |text| RowText { text, answer: false };
            let answer = |text| RowText { text, answer: true };
            let texts = if self.fields.is_empty() {
                Ok(row
                    .questions
                    .into_iter()
                    .map(question)
                    .chain(row.answers.into_iter().map(answer))
                    .collect())
            } else {
                galen_data::texts::of_fields(&row.row, self.fields)
            };
            take(texts.and_then(|texts| TextRow::checked(row.row, texts)))?;
        }
        let what = if self.fields.is_empty() { "questions and right answers" } else { "fields" };
        let about = format!("the {what} of split `{split}` of task `{}`", task.name());
        Ok(Read { about, split: Some(split.to_owned()) })
    }
}

/// The raw rows of a data file, a folder or a hub data set.
pub fn raw_rows(path: &str, offline: bool) -> anyhow::Result<RowIter> {
    let spec = DatasetSpec { path: path.to_owned(), ..DatasetSpec::default() };
    Ok(dataset::open_raw(&spec, &|spec| resolve_dataset(spec, offline), Limits::default())?)
}

/// Where a dataset entry's files lie.
pub(super) fn resolve_dataset(spec: &DatasetSpec, offline: bool) -> Result<PathBuf, String> {
    let options = Options::from_env(offline, hub_bars());
    // Of what is fetched only the wanted split is; what is here already is chosen from when it is opened.
    let fetched = !Path::new(&spec.path).exists() && spec.data_files.is_none();
    let query = DatasetQuery {
        name: spec.name.clone(),
        split: spec.split.clone().filter(|_| fetched),
        revision: spec.revision.clone(),
        ..DatasetQuery::default()
    };
    galen_hub::resolve_dataset(&spec.path, &query, &options).map(|r| r.path).map_err(|e| e.to_string())
}
