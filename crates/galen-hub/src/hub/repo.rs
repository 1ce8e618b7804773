//! A repository at one commit, kept in Hugging Face's cache layout so that other tools share the files:
//! `models--ORG--REPO/{refs/REVISION, blobs/ETAG, snapshots/COMMIT/FILE -> blobs/ETAG}`.

use super::client::Client;
use super::download::{Blob, download};
use crate::disk;
use crate::error::{HubError, Result};
use crate::names;
use crate::options::Options;
use serde_json::Value;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Files listed of one repository at most.
const MAX_FILES: usize = 1_000_000;

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RepoKind {
    Model,
    Dataset,
}

/// A repository and the revision asked for, both checked.
#[derive(Debug, Clone)]
pub(crate) struct Repo {
    kind: RepoKind,
    id: String,
    revision: String,
}

impl Repo {
    pub(crate) fn new(kind: RepoKind, id: &str, revision: Option<&str>) -> Result<Self> {
        let revision = revision.unwrap_or("main");
        names::repo_id(id)?;
        names::revision(revision)?;
        Ok(Self { kind, id: id.into(), revision: revision.into() })
    }

    /// The same repository at another revision.
    pub(crate) fn at(&self, revision: &str) -> Self {
        Self { revision: revision.into(), ..self.clone() }
    }

    /// `ORG/REPO@REVISION`, without `@main`.
    pub(crate) fn shown(&self) -> String {
        if self.revision == "main" { self.id.clone() } else { format!("{}@{}", self.id, self.revision) }
    }

    fn folder(&self, options: &Options<'_>) -> PathBuf {
        let kind = if self.kind == RepoKind::Model { "models" } else { "datasets" };
        options.hub_cache.join(format!("{kind}--{}", self.id.replace('/', "--")))
    }

    fn list_url(&self, options: &Options<'_>) -> String {
        let kind = if self.kind == RepoKind::Model { "models" } else { "datasets" };
        format!(
            "{}/api/{kind}/{}/revision/{}",
            options.endpoint,
            self.id,
            names::encode(&self.revision, false)
        )
    }

    fn file_url(&self, commit: &str, file: &str, options: &Options<'_>) -> String {
        let prefix = if self.kind == RepoKind::Model { "" } else { "datasets/" };
        let file = names::encode(file, true);
        format!("{}/{prefix}{}/resolve/{}/{file}", options.endpoint, self.id, names::encode(commit, false))
    }
}

/// The files of a repository at one commit.
pub(crate) struct Snapshot<'a> {
    repo: Repo,
    /// 40 hex digits.
    pub(crate) commit: String,
    /// Every file's name; from the cache alone, those that are there.
    pub(crate) files: Vec<String>,
    client: Option<Client<'a>>,
    options: &'a Options<'a>,
}

impl<'a> Snapshot<'a> {
    /// Asks the hub which commit the revision is and what it holds; the cache stands in when the hub cannot be
    /// asked.
    pub(crate) fn open(repo: &Repo, options: &'a Options<'a>) -> Result<Self> {
        let client = match Client::new(options) {
            Ok(client) => client,
            Err(e) if e.is_unreachable() => {
                return Self::cached(repo, options)?.ok_or_else(|| offline(repo, options));
            }
            Err(e) => return Err(e),
        };
        options.progress.trying(&repo.id, &format!("hub {}", repo.shown()));
        match client.json(&repo.list_url(options), &format!("`{}`", repo.shown())) {
            Ok(answer) => {
                let (commit, files) = listing(&answer, &repo.shown())?;
                Ok(Self { repo: repo.clone(), commit, files, client: Some(client), options })
            }
            Err(e) if e.is_unreachable() => {
                options.progress.failed("hub", &e.headline());
                let Some(cached) = Self::cached(repo, options)? else { return Err(e) };
                options.progress.note(&format!("using the cached commit {}", cached.commit));
                Ok(cached)
            }
            Err(e) => Err(e),
        }
    }

    /// A file at a known commit, without asking for the listing.
    pub(crate) fn pinned(repo: &Repo, options: &'a Options<'a>) -> Result<Self> {
        let client = Client::new(options)?;
        let commit = repo.revision.clone();
        Ok(Self { repo: repo.clone(), commit, files: Vec::new(), client: Some(client), options })
    }

    /// What the cache has of the revision.
    fn cached(repo: &Repo, options: &'a Options<'a>) -> Result<Option<Self>> {
        let folder = repo.folder(options);
        let commit = if names::is_commit(&repo.revision) {
            repo.revision.clone()
        } else {
            match fs::read_to_string(folder.join("refs").join(&repo.revision)) {
                Ok(text) if names::is_commit(text.trim()) => text.trim().to_owned(),
                _ => return Ok(None),
            }
        };
        let dir = folder.join("snapshots").join(&commit);
        if !dir.is_dir() {
            return Ok(None);
        }
        let files = crate::select::list_dir(&dir, MAX_FILES)?;
        Ok(Some(Self { repo: repo.clone(), commit, files, client: None, options }))
    }

    /// `ORG/REPO@REVISION`.
    pub(crate) fn shown(&self) -> String {
        self.repo.shown()
    }

    /// Whether the files came from the hub's own listing.
    pub(crate) fn is_online(&self) -> bool {
        self.client.is_some()
    }

    /// The folder the files stand in.
    pub(crate) fn dir(&self) -> PathBuf {
        self.repo.folder(self.options).join("snapshots").join(&self.commit)
    }

    /// The path of `file`, downloaded when it is not there. `sha256`, where known beforehand, must also be what
    /// the hub announces, so that the wrong file is not even downloaded.
    pub(crate) fn fetch(&self, file: &str, sha256: Option<&str>) -> Result<PathBuf> {
        names::file(file)?;
        let pointer = self.dir().join(file);
        if pointer.exists() {
            return Ok(pointer);
        }
        let Some(client) = &self.client else { return Err(offline(&self.repo, self.options)) };
        let what = format!("{}: {file}", self.repo.shown());
        let url = self.repo.file_url(&self.commit, file, self.options);
        let info = client.file_info(&url, &what)?;
        if let Some(commit) = info.commit.filter(|c| names::is_commit(&self.commit) && *c != self.commit) {
            let why = format!("the server answers for commit `{commit}`");
            return Err(HubError::Format { what, why });
        }
        // Large files' etags are their sha256; small ones have git's blob id, which is not a digest of the bytes alone.
        let announced = Some(info.etag.as_str()).filter(|e| names::is_sha256(e));
        if let (Some(expected), Some(actual)) = (sha256, announced)
            && !expected.eq_ignore_ascii_case(actual)
        {
            return Err(HubError::Checksum { what, expected: expected.into(), actual: actual.into() });
        }
        let blob_name = blob_name(&info.etag);
        let folder = self.repo.folder(self.options);
        let blob_path = folder.join("blobs").join(&blob_name);
        let locks = self.options.hub_cache.join(".locks").join(folder.file_name().unwrap_or_default());
        let _lock = disk::lock(&locks.join(format!("{blob_name}.lock")), self.options.progress)?;
        if pointer.exists() {
            return Ok(pointer);
        }
        if !blob_path.exists() {
            let sha256 = sha256.or(announced);
            let blob = Blob { url, what, etag: &info.etag, size: info.size, sha256 };
            download(client, &blob, &blob_path)?;
        }
        link(&blob_path, &pointer, file)?;
        Ok(pointer)
    }

    /// Remembers which commit the revision was, once everything needed of it is there.
    pub(crate) fn keep(&self) -> Result<()> {
        if self.client.is_none() || names::is_commit(&self.repo.revision) {
            return Ok(());
        }
        let path = self.repo.folder(self.options).join("refs").join(&self.repo.revision);
        disk::write_small(&path, &self.commit)
    }
}

fn offline(repo: &Repo, options: &Options<'_>) -> HubError {
    let hint = format!(
        "run once without `--offline`, or put the files below `{}`",
        repo.folder(options).join("snapshots").display()
    );
    HubError::Offline { what: repo.shown(), hint }
}

/// Commit and file names of the API's answer.
pub(super) fn listing(answer: &Value, what: &str) -> Result<(String, Vec<String>)> {
    let format = |why: &str| HubError::Format { what: format!("`{what}`"), why: why.into() };
    let commit = answer.get("sha").and_then(Value::as_str).unwrap_or_default();
    if !names::is_commit(commit) {
        return Err(format("the hub's answer names no commit"));
    }
    let siblings = answer.get("siblings").and_then(Value::as_array);
    let siblings = siblings.ok_or_else(|| format("the hub's answer lists no files"))?;
    if siblings.len() > MAX_FILES {
        return Err(format("too many files"));
    }
    let names = siblings.iter().filter_map(|s| s.get("rfilename").and_then(Value::as_str));
    Ok((commit.to_owned(), names.map(str::to_owned).collect()))
}

/// The etag, where it can be a file name as it is; else its sha256.
pub(super) fn blob_name(etag: &str) -> String {
    use sha2::{Digest, Sha256};
    let plain = etag.len() <= 128 && etag.bytes().all(|b| b.is_ascii_alphanumeric());
    if plain { etag.to_owned() } else { disk::hex(&Sha256::digest(etag.as_bytes())) }
}

/// Makes `pointer` a relative link to the blob (a hard link or a copy where links are not to be had).
fn link(blob: &Path, pointer: &Path, file: &str) -> Result<()> {
    let parent = pointer.parent().unwrap_or(Path::new("."));
    disk::create_dir(parent)?;
    let depth = Path::new(file).components().filter(|c| matches!(c, Component::Normal(_))).count() + 1;
    let target: PathBuf = std::iter::repeat_n("..", depth)
        .chain(["blobs"])
        .map(Path::new)
        .chain([Path::new(blob.file_name().unwrap_or_default())])
        .collect();
    // Renamed into place: the name never lacks its file, and a dangling link is replaced.
    let temporary = disk::with_suffix(pointer, ".linking");
    let _ = fs::remove_file(&temporary);
    symlink(&target, &temporary)
        .or_else(|_| fs::hard_link(blob, &temporary))
        .or_else(|_| fs::copy(blob, &temporary).map(|_| ()))
        .and_then(|()| fs::rename(&temporary, pointer))
        .map_err(|e| HubError::io(pointer, e))
}

#[cfg(unix)]
fn symlink(target: &Path, pointer: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, pointer)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
