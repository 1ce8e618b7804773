//! Which files of a data set answer a query.

use super::{base, contents, shards_complete};
use crate::error::{HubError, Result};

/// Extensions of data files, the preferred first where a repository holds several in equal numbers.
const DATA_EXTENSIONS: &[&str] = &["parquet", "jsonl", "ndjson", "json", "csv"];
/// JSON files of data-set repositories that hold no rows.
const NOT_DATA: &[&str] =
    &["dataset_infos.json", "dataset_info.json", "config.json", "package.json", "state.json"];
/// Words in a file's name that say which split it belongs to.
const SPLIT_WORDS: &[(&str, &[&str])] = &[
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// The extension that tells a data file's format, before `.gz` or `.zst`.
fn data_extension(name: &str) -> Option<&'static str> {
    let name = base(name).to_lowercase();
    if NOT_DATA.contains(&name.as_str()) || name.starts_with('.') {
        return None;
    }
    let plain = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    let extension = plain.rsplit_once('.')?.1;
    DATA_EXTENSIONS.iter().copied().find(|e| *e == extension)
}

/// Which rows of a data set are wanted.
#[derive(Debug, Clone, Default)]
pub struct DatasetQuery {
    /// Axolotl's `name`: the configuration (subset) of a hub data set.
    pub name: Option<String>,
    /// `train`, `validation`, `test` ... Absent: `train` where splits are told apart, else everything.
    pub split: Option<String>,
    /// Branch, tag or commit.
    pub revision: Option<String>,
    /// Files or patterns with `*`, relative to the folder or repository.
    pub data_files: Vec<String>,
}

/// `*` matches any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let pieces: Vec<_> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty())
}

fn split_of(name: &str) -> Option<&'static str> {
    let lower = name.to_lowercase();
    let by_word = |w: &str| SPLIT_WORDS.iter().find(|(_, all)| all.contains(&w)).map(|(split, _)| *split);
    words(&lower).filter_map(by_word).last()
}

/// The data files of `names` that answer `query`; empty when its configuration is not told by folder or name.
pub(crate) fn dataset_files(names: &[String], query: &DatasetQuery, what: &str) -> Result<Vec<String>> {
    if !query.data_files.is_empty() {
        let mut files = Vec::new();
        for pattern in &query.data_files {
            let before = files.len();
            files.extend(names.iter().filter(|n| matches(pattern, n)).cloned());
            if files.len() == before {
                return contents(what, format!("no file is named `{pattern}`"));
            }
        }
        return Ok(files);
    }
    let mut data: Vec<&String> = names.iter().filter(|n| data_extension(n).is_some()).collect();
    if let Some(name) = query.name.as_deref().filter(|n| *n != "default") {
        data.retain(|n| n.split(['/', '.']).any(|p| p == name));
    }
    let count = |e: &str| data.iter().filter(|n| data_extension(n) == Some(e)).count();
    let best = DATA_EXTENSIONS.iter().rev().copied().max_by_key(|e| count(e));
    data.retain(|n| data_extension(n) == best);
    // `train[:10%]` selects rows of `train`: rows are not this crate's business.
    let wanted = query.split.as_deref().map(|s| s.split('[').next().unwrap_or(s));
    let told = data.iter().any(|n| split_of(n).is_some());
    // A split may have a name of its own, as `train_sft-00000-of-00003.parquet` has.
    let called = |part: &str, split: &str| part.split(['-', '.']).next() == Some(split);
    let names_split = |n: &str, split: &str| {
        split_of(n) == Some(split)
            || words(n).any(|w| w == split)
            || n.split('/').any(|part| called(part, split))
    };
    match wanted {
        Some(split) if told || split != "train" => {
            let (mut there, any): (Vec<_>, _) =
                (data.iter().filter_map(|n| split_of(n)).collect(), !data.is_empty());
            data.retain(|n| names_split(n, split));
            if data.is_empty() && any {
                there.sort_unstable();
                there.dedup();
                return Err(HubError::NoSplit { what: what.into(), split: split.into(), there });
            }
        }
        None if data.iter().any(|n| split_of(n) == Some("train")) => {
            data.retain(|n| split_of(n) == Some("train"));
        }
        _ => {}
    }
    let mut files: Vec<String> = data.into_iter().cloned().collect();
    files.sort();
    shards_complete(&files, what)?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &str) -> Vec<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn data_files_are_chosen_by_format_split_and_name() {
        let check = |names: &str, name: Option<&str>, split: Option<&str>, expect: &str| {
            let query = DatasetQuery {
                name: name.map(Into::into),
                split: split.map(Into::into),
                ..Default::default()
            };
            assert_eq!(dataset_files(&list(names), &query, "d").unwrap(), list(expect), "{names} {split:?}");
        };
        check("a.jsonl README.md", None, None, "a.jsonl");
        check("a.jsonl", None, Some("train[:10%]"), "a.jsonl");
        check("data/train.jsonl.gz data/test.jsonl.gz", None, None, "data/train.jsonl.gz");
        check("train.json dev.json", None, Some("validation"), "dev.json");
        check("a/train.csv b/train.csv", Some("b"), Some("train"), "b/train.csv");
        check("dataset_infos.json x.parquet", None, None, "x.parquet");
        check("x.parquet a.csv b.csv", None, None, "a.csv b.csv");
        check("x.py", None, None, "");
        check("train_sft.parquet test_sft.parquet", None, Some("test"), "test_sft.parquet");
        check("train_sft-0.parquet train_gen-0.parquet", None, Some("train_sft"), "train_sft-0.parquet");
        let query = DatasetQuery { split: Some("test".into()), ..Default::default() };
        let text = dataset_files(&list("train.csv"), &query, "d").unwrap_err().to_string();
        assert!(text.contains("no split `test`\nhint: there are train"), "{text}");
        let e = dataset_files(&list("a.csv b.csv"), &query, "d").unwrap_err();
        assert!(matches!(&e, HubError::NoSplit { there, .. } if there.is_empty()), "{e}");
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expect) in [
            ("a.json", "a.json", true),
            ("a.json", "aa.json", false),
            ("data/*.json", "data/x.json", true),
            ("*x*y", "1x2y", true),
            ("*x*y", "1x2y3", false),
            ("a*a", "a", false),
            ("*", "q", true),
        ] {
            assert_eq!(matches(pattern, name), expect, "{pattern} {name}");
        }
    }
}
