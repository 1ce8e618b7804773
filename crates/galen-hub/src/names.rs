//! Names that become paths or addresses are checked here, once.

use crate::error::{HubError, Result};

fn bad<T>(name: &str, why: &'static str) -> Result<T> {
    Err(HubError::BadName { name: name.chars().take(200).collect(), why })
}

fn plain(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= 96
        && !part.starts_with(['.', '-'])
        && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// `ORG/REPO` in the hub's alphabet.
pub(crate) fn repo_id(id: &str) -> Result<()> {
    match id.split_once('/') {
        Some((org, repo)) if plain(org) && plain(repo) && !id.contains("..") && !id.contains("--") => Ok(()),
        _ => bad(id, "a hub id is `ORG/REPO` of letters, digits, `.`, `_` and `-`"),
    }
}

/// A branch, tag or commit: becomes a path below `refs/` and a piece of an address.
pub(crate) fn revision(revision: &str) -> Result<()> {
    let sound = revision.len() <= 200 && revision.split('/').all(|p| plain(p) && !p.contains(".."));
    if sound { Ok(()) } else { bad(revision, "not a revision: a branch, tag or commit is expected") }
}

/// 40 hex digits.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// 64 hex digits.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A file's name inside a repository, relative, with `/` between folders; can never leave the folder it is
/// joined to, on any operating system.
pub(crate) fn file(name: &str) -> Result<()> {
    let part_ok = |p: &str| {
        !p.is_empty() && p != "." && p != ".." && !p.chars().any(|c| c.is_control() || "\\:".contains(c))
    };
    let sound = name.len() <= 1024 && name.split('/').count() <= 16 && name.split('/').all(part_ok);
    if sound { Ok(()) } else { bad(name, "not an acceptable file name: it must stay inside its folder") }
}

/// Percent-encodes everything but unreserved characters; `/` is kept where `keep_slash`.
pub(crate) fn encode(text: &str, keep_slash: bool) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) || (keep_slash && b == b'/') {
            out.push(b as char);
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_stay_inside() {
        for good in ["config.json", "data/train-00000-of-00001.parquet", "ä b.jsonl", ".gitattributes"] {
            assert!(file(good).is_ok(), "{good}");
        }
        let long = "a/".repeat(40) + "b";
        for evil in ["", "../x", "a/../b", "/etc/passwd", "a//b", "C:x", "a\\..\\b", "a\0b", ".", "a/", &long]
        {
            assert!(file(evil).is_err(), "{evil:?}");
        }
    }

    #[test]
    fn ids_and_revisions_are_checked() {
        assert!(repo_id("Org-1/model_x.v2").is_ok());
        for evil in ["x", "a/b/c", "../b", "a/..", "a/.b", "a b/c", "a/b?x", "a--b/c", "/a"] {
            assert!(repo_id(evil).is_err(), "{evil:?}");
        }
        assert!(revision("refs/convert/parquet").is_ok() && revision("v1.0").is_ok());
        for evil in ["", "../main", "a/../b", "a b", "-x", "a//b"] {
            assert!(revision(evil).is_err(), "{evil:?}");
        }
        assert_eq!(encode("refs/convert", false), "refs%2Fconvert");
        assert_eq!(encode("a b/ü?", true), "a%20b/%C3%BC%3F");
    }
}
