//! The rows of a task: local files named by split.

use super::read::Fields;
use crate::EvalError;
use galen_data::reader;
use galen_types::RawRow;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Rows of one split held in memory at most.
const MAX_ROWS: usize = 5_000_000;

/// Where a task's rows are.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// `dataset_path`: a file format's name.
    format: String,
    /// Split name to files, as written.
    splits: Vec<(String, Vec<String>)>,
    folder: PathBuf,
    pub(crate) test: Option<String>,
    pub(crate) validation: Option<String>,
    pub(crate) training: Option<String>,
}

impl Dataset {
    pub(super) fn read(fields: &Fields, folder: PathBuf) -> Result<Self, EvalError> {
        let missing = |what: &str| EvalError::task(&fields.origin, what);
        let format = fields.string("dataset_path")?.ok_or_else(|| missing("`dataset_path` is missing"))?;
        let known = reader::FORMATS.iter().any(|f| f.name.eq_ignore_ascii_case(&format)) || format == "json";
        if !known {
            let origin = fields.get("dataset_path").map_or(&fields.origin, |e| &e.origin);
            let what = format!(
                "`dataset_path: {format}` is not a local file format\nhint: download the rows once, then write \
                 `dataset_path: json` and `dataset_kwargs: {{data_files: {{test: rows.jsonl}}}}`"
            );
            return Err(EvalError::task(origin, what));
        }
        let kwargs = fields.map("dataset_kwargs")?;
        let files = |value: &Value| -> Option<Vec<String>> {
            match value {
                Value::String(file) => Some(vec![file.clone()]),
                Value::Array(list) => list.iter().map(|f| f.as_str().map(str::to_owned)).collect(),
                _ => None,
            }
        };
        let wrong =
            || fields.wrong("dataset_kwargs", "`data_files`: a file, a list of files, or those by split");
        let splits = match kwargs.get("data_files").ok_or_else(wrong)? {
            Value::Object(by_split) => by_split
                .iter()
                .map(|(split, value)| Some((split.clone(), files(value)?)))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(wrong)?,
            // What the `datasets` library calls files without a split.
            value => vec![("train".to_owned(), files(value).ok_or_else(wrong)?)],
        };
        let ignored = ["trust_remote_code", "data_dir"];
        if let Some(key) = kwargs.keys().find(|k| *k != "data_files" && !ignored.contains(&k.as_str())) {
            return Err(missing(&format!(
                "unknown key `dataset_kwargs.{key}`\nhint: only `data_files` is known"
            )));
        }
        let folder = match kwargs.get("data_dir").and_then(Value::as_str) {
            Some(dir) => folder.join(dir),
            None => folder,
        };
        let dataset = Self {
            format,
            splits,
            folder,
            test: fields.string("test_split")?,
            validation: fields.string("validation_split")?,
            training: fields.string("training_split")?,
        };
        for split in [&dataset.test, &dataset.validation, &dataset.training].into_iter().flatten() {
            dataset.files(split)?;
        }
        if dataset.test.is_none() && dataset.validation.is_none() {
            return Err(missing("neither `test_split` nor `validation_split`: nothing to evaluate on"));
        }
        Ok(dataset)
    }

    /// The split that is evaluated: test, else validation.
    pub fn evaluated_split(&self) -> &str {
        self.test.as_deref().or(self.validation.as_deref()).unwrap_or("test")
    }

    /// The split that examples come from when the task names none.
    pub(crate) fn default_fewshot_split(&self) -> &str {
        self.training.as_deref().or(self.validation.as_deref()).unwrap_or(self.evaluated_split())
    }

    /// The files of a split, found beside the task file, else in the working directory.
    pub fn files(&self, split: &str) -> Result<Vec<PathBuf>, EvalError> {
        let Some((_, files)) = self.splits.iter().find(|(name, _)| name == split) else {
            let known = self.splits.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("` `");
            return Err(EvalError::task(
                "dataset_kwargs.data_files",
                format!(
                    "no split `{split}`\nhint: its splits are `{known}` (files without a split are `train`)"
                ),
            ));
        };
        Ok(files
            .iter()
            .map(|file| {
                let beside = self.folder.join(file);
                if beside.exists() { beside } else { PathBuf::from(file) }
            })
            .collect())
    }

    /// All rows of a split, in order.
    pub fn rows(&self, split: &str) -> Result<Vec<RawRow>, EvalError> {
        let mut rows = Vec::new();
        for path in self.files(split)? {
            let format = match reader::format_by_extension(&path) {
                Some(_) => None,
                None => reader::format_by_name(&self.format),
            };
            let shown = path.display().to_string();
            if !Path::new(&path).exists() {
                let hint = format!("looked in `{}` and in the working directory", self.folder.display());
                return Err(EvalError::row(shown, format!("no such file\nhint: {hint}")));
            }
            let fail = |e: galen_data::DataError| EvalError::row(&self.format, e.to_string());
            for row in reader::open_file(&path, &shown, format, reader::Limits::default()).map_err(fail)? {
                rows.push(row.map_err(fail)?);
                if rows.len() > MAX_ROWS {
                    return Err(EvalError::row(shown, format!("more than {MAX_ROWS} rows")));
                }
            }
        }
        if rows.is_empty() {
            return Err(EvalError::task(split, "the split has no rows"));
        }
        Ok(rows)
    }
}
