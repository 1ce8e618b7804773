//! Which files of a repository (or folder) make up a model, an adapter or a data set. Names only, no IO but
//! [`list_dir`].

mod dataset;

pub use dataset::DatasetQuery;
pub(crate) use dataset::dataset_files;

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

/// What a folder with an adapter holds, and its weights: PEFT's or mlx-lm's.
const ADAPTER_CONFIG: &str = "adapter_config.json";
const ADAPTER_WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapters.safetensors"];

/// A model's or an adapter's files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ModelFiles {
    /// Everything to fetch.
    pub(crate) files: Vec<String>,
    /// The GGUF to open (the first of a split one); `None`: the folder is the model or the adapter.
    pub(crate) gguf: Option<String>,
}

fn contents<T>(what: &str, why: impl Into<String>) -> Result<T> {
    Err(HubError::Contents { what: what.into(), why: why.into() })
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

pub(crate) fn has_extension(name: &str, extension: &str) -> bool {
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

/// An adapter's files: PEFT's or mlx-lm's two, or llama.cpp's GGUF where it is the only one.
pub(crate) fn adapter_files(names: &[String], what: &str) -> Result<ModelFiles> {
    let has = |needed: &str| names.iter().any(|n| n == needed);
    let in_folder = has(ADAPTER_CONFIG) && ADAPTER_WEIGHTS.iter().any(|w| has(w));
    let top = |n: &&String| !n.contains('/');
    let ggufs: Vec<&String> = names.iter().filter(top).filter(|n| has_extension(n, "gguf")).collect();
    match &ggufs[..] {
        [only] if !in_folder => {
            let gguf = Some((*only).clone());
            Ok(ModelFiles { files: vec![(*only).clone()], gguf })
        }
        [_, _, ..] if !in_folder => {
            let list: Vec<&str> = ggufs.iter().map(|g| g.as_str()).collect();
            contents(
                what,
                format!("it has several GGUF files\nhint: name the file of one: {}", list.join(", ")),
            )
        }
        _ if !in_folder => {
            let needed = if has(ADAPTER_CONFIG) { ADAPTER_WEIGHTS[0] } else { ADAPTER_CONFIG };
            let pickled = needed != ADAPTER_CONFIG && has("adapter_model.bin");
            let more = if pickled {
                "\nhint: it has pickled weights only (`adapter_model.bin`), which galen does not open"
            } else {
                "\nhint: an adapter is PEFT's or mlx-lm's folder, or llama.cpp's `.gguf`"
            };
            contents(what, format!("no adapter: `{needed}` is missing{more}"))
        }
        _ => {
            let wanted = |n: &&String| {
                n.starts_with("adapter_")
                    || ADAPTER_WEIGHTS.contains(&n.as_str())
                    || COMPANIONS.contains(&n.as_str())
            };
            let kept = |n: &&String| top(n) && !has_extension(n, "bin");
            Ok(ModelFiles { files: names.iter().filter(wanted).filter(kept).cloned().collect(), gguf: None })
        }
    }
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
        let found = |names: &[String]| adapter_files(names, "x").map(|a| (a.files, a.gguf));
        let folder = |files: &str| (list(files), None);
        assert_eq!(
            found(&names).unwrap(),
            folder("adapter_config.json adapter_model.safetensors tokenizer.json")
        );
        let mlx = list("0000100_adapters.safetensors adapter_config.json adapters.safetensors");
        assert_eq!(found(&mlx).unwrap(), folder("adapter_config.json adapters.safetensors"));
        let gguf = (list("lora-f16.gguf"), Some("lora-f16.gguf".to_owned()));
        assert_eq!(found(&list("README.md lora-f16.gguf other/b.gguf")).unwrap(), gguf);
        assert!(found(&list("a.gguf b.gguf")).unwrap_err().to_string().contains("several"));
        let e = found(&list("README.md")).unwrap_err().to_string();
        assert!(e.contains("`adapter_config.json` is missing"), "{e}");
        assert!(adapter_files(&list("adapter_config.json adapter_model.bin"), "x").is_err());
    }
}
