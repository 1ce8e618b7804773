//! The data files of a path: a file itself, or a folder's, in sorted order.

use super::format_by_extension;
use crate::DataError;
use std::path::{Path, PathBuf};

/// Folders within folders that are looked into.
const MAX_DEPTH: usize = 8;
/// Files of a folder that are looked at.
const MAX_FILES: usize = 100_000;

/// Files beside the data in published data sets that are not data.
const NOT_DATA: &[&str] =
    &["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "requirements.txt"];

/// Words in file or folder names that say which split the file belongs to, as the hub reads them.
const SPLIT_WORDS: &[(&str, &[&str])] = &[
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// The files to read for `path`, sorted by name. Of a folder: every file of a known format, subfolders included,
/// hidden ones left out; where names speak of splits (`train-00000.parquet`, `test/a.jsonl`), those of `split`.
pub fn data_files(path: &Path, split: &str) -> Result<Vec<PathBuf>, DataError> {
    let shown = path.display().to_string();
    let meta = std::fs::metadata(path).map_err(|e| DataError::io(&shown, e))?;
    if meta.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let files = listed(path)?;
    let exact: Vec<_> =
        files.iter().filter(|f| names_split(f.strip_prefix(path).unwrap_or(f), split)).cloned().collect();
    if !exact.is_empty() {
        return Ok(exact);
    }
    let split_of = |file: &PathBuf| split_word(file.strip_prefix(path).unwrap_or(file));
    if files.iter().all(|f| split_of(f).is_none()) {
        return if split == "train" {
            Ok(files)
        } else {
            Err(DataError::file(shown, format!("no file's name speaks of the split `{split}`"))
                .with_hint("name the files with `data_files:`"))
        };
    }
    let chosen: Vec<_> = files.iter().filter(|f| split_of(f) == Some(split)).cloned().collect();
    if chosen.is_empty() {
        let mut there: Vec<_> = files.iter().filter_map(split_of).collect();
        there.dedup();
        return Err(DataError::file(shown, format!("no file of the split `{split}`"))
            .with_hint(format!("there is `{}`", there.join("`, `"))));
    }
    Ok(chosen)
}

/// Splits that are examined on, the preferred first.
pub const EVALUATION_SPLITS: [&str; 2] = ["test", "validation"];

/// The files of an evaluation set, and the split that they are of: a file as it is; of a folder the first of
/// [`EVALUATION_SPLITS`] that there is, and all files only where no name speaks of splits.
pub fn evaluation_files(path: &Path) -> Result<(Vec<PathBuf>, Option<&'static str>), DataError> {
    if std::fs::metadata(path).is_ok_and(|meta| meta.is_file()) {
        return Ok((vec![path.to_owned()], None));
    }
    // Of an evaluation set without splits this is all there is; with them, it is not looked at.
    let files = listed(path)?;
    let inside = |file: &PathBuf| file.strip_prefix(path).unwrap_or(file).to_owned();
    for split in EVALUATION_SPLITS {
        if files.iter().any(|f| names_split(&inside(f), split) || split_word(&inside(f)) == Some(split)) {
            return Ok((data_files(path, split)?, Some(split)));
        }
    }
    if files.iter().any(|f| split_word(&inside(f)).is_some()) {
        return Err(DataError::file(path.display().to_string(), NO_EVALUATION)
            .with_hint("name the file itself, if what it holds is what is examined on"));
    }
    Ok((files, None))
}

/// What is wrong with a data set of training rows alone where an evaluation set is wanted.
pub const NO_EVALUATION: &str =
    "an evaluation set without a split `test` or `validation`: there is `train` alone";

fn listed(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let shown = path.display().to_string();
    let mut files = Vec::new();
    walk(path, 0, &mut files)?;
    files.sort();
    if files.is_empty() {
        return Err(DataError::file(shown, "the folder holds no data files"));
    }
    Ok(files)
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let shown = folder.display().to_string();
    for entry in std::fs::read_dir(folder).map_err(|e| DataError::io(&shown, e))? {
        let entry = entry.map_err(|e| DataError::io(&shown, e))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') {
            continue;
        }
        // Follows links: the hub cache is made of them.
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        if meta.is_dir() && depth < MAX_DEPTH {
            walk(&path, depth + 1, files)?;
        } else if meta.is_file() && format_by_extension(&path).is_some() && !NOT_DATA.contains(&name.as_str())
        {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(DataError::file(shown, format!("more than `{MAX_FILES}` data files")));
        }
    }
    Ok(())
}

/// Whether a part of the path is called like the split, up to a dash or dot: `train_sft-00000-of-00003.parquet`.
fn names_split(path: &Path, split: &str) -> bool {
    let text = path.to_string_lossy();
    text.split(['/', '\\']).any(|part| part.split(['-', '.']).next() == Some(split))
}

/// The split a path speaks of: the last of its words that is one.
fn split_word(path: &Path) -> Option<&'static str> {
    let text = path.to_string_lossy().to_ascii_lowercase();
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter_map(|w| SPLIT_WORDS.iter().find(|(_, words)| words.contains(&w)).map(|(split, _)| *split))
        .next_back()
}
