//! Rows as texts: of a data file, a folder, a hub data set, or of a task of `galen eval`.

use super::base::hub_bars;
use anyhow::Context as _;
use galen_data::reader::Limits;
use galen_data::texts::{RowText, TextRow, TextRows};
use galen_data::{DataError, DatasetSpec};
use galen_eval::Task;
use galen_hub::{DatasetQuery, Options};
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

type Take<'a> = dyn FnMut(Result<TextRow, DataError>) -> anyhow::Result<()> + 'a;

impl Texts<'_> {
    /// Gives every row to `take`; says which texts they are.
    pub fn each(&self, take: &mut Take) -> anyhow::Result<String> {
        if let Some(task) = self.task()? {
            return self.of_task(&task, take);
        }
        let resolve = |spec: &DatasetSpec| resolve_dataset(spec, self.offline);
        let open = |split: Option<&str>| {
            let spec: DatasetSpec =
                serde_json::from_value(json!({"path": self.path, "type": self.kind, "split": split}))?;
            anyhow::Ok(TextRows::open(&spec, self.fields, &resolve, Limits::default())?)
        };
        let rows = match self.side {
            // A folder's test files where names speak of splits.
            Sides::Evaluated if Path::new(self.path).is_dir() => {
                open(Some("test")).or_else(|_| open(None))?
            }
            _ => open(None)?,
        };
        let about = rows.about().to_owned();
        for row in rows {
            take(row)?;
        }
        Ok(about)
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

    fn of_task(&self, task: &Task, take: &mut Take) -> anyhow::Result<String> {
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
                row.questions.into_iter().map(question).chain(row.answers.into_iter().map(answer)).collect()
            } else {
                match galen_data::texts::of_fields(&row.row, self.fields) {
                    Ok(texts) => texts,
                    Err(e) => {
                        take(Err(e))?;
                        continue;
                    }
                }
            };
            take(Ok(TextRow { row: row.row, texts }))?;
        }
        let what = if self.fields.is_empty() { "questions and right answers" } else { "fields" };
        Ok(format!("the {what} of split `{split}` of task `{}`", task.name()))
    }
}

/// Where a dataset entry's files lie.
pub(super) fn resolve_dataset(spec: &DatasetSpec, offline: bool) -> Result<PathBuf, String> {
    let options = Options::from_env(offline, hub_bars());
    let query =
        DatasetQuery { name: spec.name.clone(), revision: spec.revision.clone(), ..DatasetQuery::default() };
    galen_hub::resolve_dataset(&spec.path, &query, &options).map(|r| r.path).map_err(|e| e.to_string())
}
