//! A name as users write it, understood. What exists on disk wins.

use crate::catalogue::{self, Entry, Kind, catalogue};
use crate::error::{HubError, Result};
use std::path::{Path, PathBuf};

/// What a name refers to.
#[derive(Debug)]
pub(crate) enum Reference {
    Local(PathBuf),
    Catalogue(&'static Entry),
    Hub { id: String, revision: Option<String>, quant: Option<String> },
}

impl Reference {
    /// Reads `name`; `kind` says which catalogue entries are meant (`None`: none, as for adapters).
    pub(crate) fn parse(name: &str, kind: Option<Kind>) -> Result<Self> {
        if name.is_empty() {
            return Err(unknown(name, kind));
        }
        if Path::new(name).exists() {
            return Ok(Self::Local(name.into()));
        }
        if let Some(kind) = kind
            && let Some(entry) = catalogue::find(name, kind)?
        {
            return Ok(Self::Catalogue(entry));
        }
        let id = name.split(['@', ':']).next().unwrap_or_default();
        if looks_like_path(name) || id.matches('/').count() > 1 {
            return Err(HubError::NoSuchPath(name.into()));
        }
        if !id.contains('/') {
            return Err(unknown(name, kind));
        }
        let (rest, quant) = match name.split_once(':') {
            Some((rest, quant)) => (rest, Some(quant)),
            None => (name, None),
        };
        let (id, revision) = match rest.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (rest, None),
        };
        if quant.is_some_and(|q| q.is_empty() || q.contains('@')) || revision.is_some_and(str::is_empty) {
            let why = "the form is `ORG/REPO`, `ORG/REPO@REVISION` or `ORG/REPO:QUANT`";
            return Err(HubError::BadName { name: name.into(), why });
        }
        let owned = |t: Option<&str>| t.map(str::to_owned);
        Ok(Self::Hub { id: id.into(), revision: owned(revision), quant: owned(quant) })
    }
}

fn looks_like_path(name: &str) -> bool {
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let extension = file.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase());
    name.starts_with(['/', '.', '~', '\\'])
        || name.ends_with('/')
        || name.contains('\\')
        || extension.is_some_and(|e| {
            ["gguf", "safetensors", "json", "jsonl", "ndjson", "csv", "parquet", "gz", "zst", "yaml", "txt"]
                .contains(&e.as_str())
        })
}

fn unknown(name: &str, kind: Option<Kind>) -> HubError {
    let entries = catalogue().unwrap_or_default().iter().filter(|e| Some(e.kind) == kind);
    let known: Vec<_> = entries.map(|e| format!("`{}`", e.name)).collect();
    let nearest =
        if known.is_empty() { String::new() } else { format!("; the catalogue has {}", known.join(", ")) };
    HubError::UnknownName { name: name.into(), hint: format!("a hub id has the form `ORG/REPO`{nearest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(name: &str) -> (String, Option<String>, Option<String>) {
        match Reference::parse(name, Some(Kind::Model)).unwrap() {
            Reference::Hub { id, revision, quant } => (id, revision, quant),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_forms_of_a_model_are_told_apart() {
        let some = |t: &str| Some(t.to_owned());
        assert_eq!(hub("o/r"), ("o/r".into(), None, None));
        assert_eq!(hub("o/r@v1"), ("o/r".into(), some("v1"), None));
        assert_eq!(hub("o/r@refs/pr/1"), ("o/r".into(), some("refs/pr/1"), None));
        assert_eq!(hub("o/r:Q4_K_M"), ("o/r".into(), None, some("Q4_K_M")));
        assert_eq!(hub("o/r@v1:Q8_0"), ("o/r".into(), some("v1"), some("Q8_0")));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        assert!(matches!(Reference::parse(path, None).unwrap(), Reference::Local(p) if p == dir.path()));
        let entry = Reference::parse("smollm2-135m-instruct", Some(Kind::Model)).unwrap();
        assert!(matches!(entry, Reference::Catalogue(e) if e.hf_id.is_some()));
    }

    #[test]
    fn what_is_neither_says_why() {
        let check = |name: &str, expect: &str| {
            let text = Reference::parse(name, Some(Kind::Model)).unwrap_err().to_string();
            assert!(text.contains(expect), "{name}: {text}");
        };
        check("/no/such/model.gguf", "no such file or folder");
        check("models/x.gguf", "no such file or folder");
        check("./x", "no such file or folder");
        check("a/b/c", "no such file or folder");
        check("smollm", "the catalogue has `smollm2-135m-instruct`");
        check("icd10cm-2026", "the catalogue has");
        check("", "the catalogue has");
        check("o/r:", "the form is");
        check("o/r@", "the form is");
    }
}
