//! Which files of a repository (or folder) make up a model, an adapter or a data set. Names only, no IO but
//! [`list_dir`].

use crate::error::{HubError, Result};
use std::fs;
use std::path::Path;

/// What stands beside the weights, where it is there.
const COMPANIONS: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
];

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

/// A model's files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ModelFiles {
    /// Everything to fetch.
    pub(crate) files: Vec<String>,
    /// The GGUF to open (the first of a split one); `None`: the folder is the model.
    pub(crate) gguf: Option<String>,
}

fn contents<T>(what: &str, why: impl Into<String>) -> Result<T> {
    Err(HubError::Contents { what: what.into(), why: why.into() })
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn has_extension(name: &str, extension: &str) -> bool {
    base(name).rsplit_once('.').is_some_and(|(_, e)| e.eq_ignore_ascii_case(extension))
}

/// `x-00002-of-00003.gguf` is part 2 of 3 of `x`.
fn shard(name: &str) -> Option<(&str, u32, u32)> {
    let stem = name.rsplit_once('.')?.0;
    let (head, count) = stem.rsplit_once("-of-")?;
    let (head, index) = head.rsplit_once('-')?;
    let number = |t: &str| if t.len() == 5 { t.parse().ok() } else { None };
    Some((head, number(index)?, number(count)?))
}

/// Errors when some part of a sharded file is not listed.
fn shards_complete(files: &[String], what: &str) -> Result<()> {
    for name in files {
        let Some((head, _, count)) = shard(name) else { continue };
        let there =
            files.iter().filter(|f| shard(f).is_some_and(|(h, _, c)| h == head && c == count)).count();
        if there as u64 != u64::from(count) {
            return contents(what, format!("{there} of the {count} parts of `{head}` are there"));
        }
    }
    Ok(())
}

/// The files of the model in `names`: safetensors at the top with their companions, else one GGUF; with
/// `quant`, the GGUF whose name says so.
pub(crate) fn model_files(names: &[String], quant: Option<&str>, what: &str) -> Result<ModelFiles> {
    let top = |n: &&String| !n.contains('/');
    let weights: Vec<_> =
        names.iter().filter(top).filter(|n| has_extension(n, "safetensors")).cloned().collect();
    // Some repositories carry a second copy in another layout (`consolidated.safetensors`).
    let usual: Vec<_> = weights.iter().filter(|n| n.starts_with("model")).cloned().collect();
    let weights = if usual.is_empty() { weights } else { usual };
    let adapter_only = weights.iter().all(|w| w.starts_with("adapter_model"));
    if quant.is_none() && !weights.is_empty() && !adapter_only {
        shards_complete(&weights, what)?;
        if !names.iter().any(|n| n == "config.json") {
            return contents(what, "holds safetensors but no `config.json`");
        }
        let beside = names.iter().filter(top).filter(|n| {
            COMPANIONS.contains(&n.as_str())
                || (n.starts_with("model") && n.ends_with(".safetensors.index.json"))
        });
        let files = beside.cloned().chain(weights).collect();
        return Ok(ModelFiles { files, gguf: None });
    }
    if quant.is_none() && !weights.is_empty() && !names.iter().any(|n| has_extension(n, "gguf")) {
        return contents(
            what,
            "holds an adapter, not a model\nhint: give it as `--adapter`, its base as `--model`",
        );
    }
    gguf_files(names, quant, what)
}

fn gguf_files(names: &[String], quant: Option<&str>, what: &str) -> Result<ModelFiles> {
    let all: Vec<&String> = names
        .iter()
        .filter(|n| has_extension(n, "gguf") && !base(n).to_lowercase().contains("mmproj"))
        .collect();
    if all.is_empty() {
        let bin = names.iter().any(|n| has_extension(n, "bin") || has_extension(n, "pt"));
        let more = if bin { ": only pickled weights, which galen does not open" } else { "" };
        return contents(what, format!("holds neither safetensors nor GGUF weights{more}"));
    }
    let chosen: Vec<&String> = match quant {
        None => all.clone(),
        Some(quant) => {
            let quant = quant.to_lowercase();
            let words = |n: &str| n.to_lowercase().split(['-', '.', '/']).any(|w| w == quant);
            let exact: Vec<_> = all.iter().copied().filter(|n| words(n)).collect();
            if exact.is_empty() {
                all.iter().copied().filter(|n| n.to_lowercase().contains(&quant)).collect()
            } else {
                exact
            }
        }
    };
    let head = |n: &str| shard(n).map_or_else(|| n.to_owned(), |(head, ..)| head.to_owned());
    let mut heads: Vec<_> = chosen.iter().map(|n| head(n)).collect();
    heads.sort();
    heads.dedup();
    let id = what.split('@').next().unwrap_or(what);
    match (heads.len(), quant) {
        (1, _) => {}
        (0, Some(quant)) => {
            let there = all.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
            return contents(what, format!("no GGUF is named `{quant}`\nhint: there are {there}"));
        }
        _ => {
            let there = chosen.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
            return contents(
                what,
                format!("several GGUF files fit: {there}\nhint: name one, as in `{id}:Q4_K_M`"),
            );
        }
    }
    let mut files: Vec<String> = chosen.into_iter().cloned().collect();
    files.sort();
    shards_complete(&files, what)?;
    let gguf = files.first().cloned();
    Ok(ModelFiles { files, gguf })
}

/// A PEFT adapter's files.
pub(crate) fn adapter_files(names: &[String], what: &str) -> Result<Vec<String>> {
    for needed in ["adapter_config.json", "adapter_model.safetensors"] {
        if !names.iter().any(|n| n == needed) {
            let pickled = names.iter().any(|n| n == "adapter_model.bin");
            let more = if pickled && needed.ends_with("safetensors") {
                "\nhint: it has pickled weights only (`adapter_model.bin`), which galen does not open"
            } else {
                ""
            };
            return contents(what, format!("no PEFT adapter: `{needed}` is missing{more}"));
        }
    }
    let wanted = |n: &&String| n.starts_with("adapter_") || COMPANIONS.contains(&n.as_str());
    let kept = |n: &&String| !n.contains('/') && !has_extension(n, "bin");
    Ok(names.iter().filter(wanted).filter(kept).cloned().collect())
}

/// The extension that tells a data file's format, before `.gz` or `.zst`.
pub(crate) fn data_extension(name: &str) -> Option<&'static str> {
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
    let names_split = |n: &str, split: &str| split_of(n) == Some(split) || words(n).any(|w| w == split);
    match wanted {
        Some(split) if told || split != "train" => {
            let mut splits: Vec<_> = data.iter().filter_map(|n| split_of(n)).collect();
            data.retain(|n| names_split(n, split));
            if data.is_empty() && !splits.is_empty() {
                splits.sort_unstable();
                splits.dedup();
                return contents(what, format!("no split `{split}`\nhint: there are {}", splits.join(", ")));
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

/// Names of the files below `dir`, `/` between folders, sorted; hidden ones left out. Links to files count,
/// links to folders are not followed.
pub(crate) fn list_dir(dir: &Path, max_files: usize) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut folders = vec![(dir.to_path_buf(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        let io = |e| HubError::io(&folder, e);
        for entry in fs::read_dir(&folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let kind = entry.file_type().map_err(io)?;
            if name.starts_with('.') {
                continue;
            }
            if kind.is_dir() && depth < 15 {
                folders.push((entry.path(), format!("{prefix}{name}/"), depth + 1));
            } else if fs::metadata(entry.path()).is_ok_and(|m| m.is_file()) {
                names.push(format!("{prefix}{name}"));
            }
            if names.len() > max_files {
                return contents(&dir.display().to_string(), format!("more than {max_files} files"));
            }
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &str) -> Vec<String> {
        names.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_safetensors_model_comes_with_its_companions() {
        let names = list(
            "README.md config.json tokenizer.json consolidated.safetensors model-00001-of-00002.safetensors \
             model-00002-of-00002.safetensors model.safetensors.index.json onnx/model.onnx x.gguf",
        );
        let got = model_files(&names, None, "a/b").unwrap();
        assert_eq!(
            got.files,
            list(
                "config.json tokenizer.json model.safetensors.index.json model-00001-of-00002.safetensors \
                 model-00002-of-00002.safetensors"
            )
        );
        assert_eq!(got.gguf, None);
    }

    #[test]
    fn a_gguf_is_picked_by_its_quantisation() {
        let names = list(
            "m-Q4_K_M.gguf m-Q4_K_S.gguf m-Q8_0.gguf mmproj-f16.gguf big/m-BF16-00001-of-00002.gguf \
             big/m-BF16-00002-of-00002.gguf",
        );
        let got = |quant: &str| model_files(&names, Some(quant), "a/b").map(|m| m.gguf.unwrap());
        assert_eq!(got("q4_k_m").unwrap(), "m-Q4_K_M.gguf");
        assert_eq!(got("Q8").unwrap(), "m-Q8_0.gguf");
        assert_eq!(got("BF16").unwrap(), "big/m-BF16-00001-of-00002.gguf");
        assert!(got("Q4_K").unwrap_err().to_string().contains("several"));
        assert!(got("Q2_K").unwrap_err().to_string().contains("`m-Q8_0.gguf`"));
        let text = model_files(&names, None, "a/b@v1").unwrap_err().to_string();
        assert!(text.contains("hint: name one, as in `a/b:Q4_K_M`"), "{text}");
    }

    #[test]
    fn what_is_no_model_is_named() {
        let check = |names: &str, expect: &str| {
            let text = model_files(&list(names), None, "a/b").unwrap_err().to_string();
            assert!(text.contains(expect), "{text}");
        };
        check("config.json pytorch_model.bin", "pickled");
        check("README.md", "neither safetensors nor GGUF");
        check("model-00001-of-00003.safetensors config.json", "1 of the 3 parts");
        check("model.safetensors", "no `config.json`");
        check("adapter_config.json adapter_model.safetensors", "--adapter");
        check("x-00001-of-00002.gguf", "1 of the 2 parts");
    }

    #[test]
    fn adapters_need_both_files() {
        let names = list(
            "adapter_config.json adapter_model.safetensors README.md tokenizer.json checkpoint-1/adapter_config.json",
        );
        assert_eq!(
            adapter_files(&names, "x").unwrap(),
            list("adapter_config.json adapter_model.safetensors tokenizer.json")
        );
        assert!(adapter_files(&list("adapter_config.json adapter_model.bin"), "x").is_err());
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
        let query = DatasetQuery { split: Some("test".into()), ..Default::default() };
        let text = dataset_files(&list("train.csv"), &query, "d").unwrap_err().to_string();
        assert!(text.contains("no split `test`") && text.contains("train"), "{text}");
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
