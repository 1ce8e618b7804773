//! From a name to files.

use crate::catalogue::{self, Entry, Kind, catalogue};
use crate::error::{HubError, Result};
use crate::hub::{Repo, RepoKind, Snapshot};
use crate::options::{Options, Silent};
use crate::reference::Reference;
use crate::select::{self, DatasetQuery};
use crate::sources;
use std::path::{Path, PathBuf};

/// Files listed in a local folder at most.
const MAX_LOCAL_FILES: usize = 100_000;
/// The branch on which the hub keeps its own Parquet rendering of a data set.
const PARQUET_BRANCH: &str = "refs/convert/parquet";

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolved {
    /// What to open: a folder, or a file (the first part of a split GGUF).
    pub path: PathBuf,
    /// The files that make it up, absolute or relative as `path` is. Empty for a local model, which is not listed.
    pub files: Vec<PathBuf>,
    /// The Hugging Face id of a model: what `adapter_config.json` records as its base. Unknown for local files
    /// and for GGUF repositories, whose own id is not the base's.
    pub hf_id: Option<String>,
    /// The commit, for what came from a repository.
    pub revision: Option<String>,
    /// The checked digest, for a catalogued file.
    pub sha256: Option<String>,
    /// `local`, or the source that delivered: `cache`, `hub`, `wheel`.
    pub source: &'static str,
}

impl Resolved {
    fn local(path: PathBuf, files: Vec<PathBuf>) -> Self {
        Self { path, files, hf_id: None, revision: None, sha256: None, source: "local" }
    }

    fn snapshot(snapshot: &Snapshot<'_>, path: PathBuf, files: Vec<PathBuf>) -> Self {
        let source = if snapshot.is_online() { "hub" } else { "cache" };
        let revision = Some(snapshot.commit.clone());
        Self { path, files, hf_id: None, revision, sha256: None, source }
    }
}

fn entry(entry: &Entry, options: &Options<'_>) -> Result<Resolved> {
    let (path, source) = sources::resolve(entry, options)?;
    let sha256 = Some(entry.sha256.clone());
    Ok(Resolved {
        files: vec![path.clone()],
        path,
        hf_id: entry.hf_id.clone(),
        revision: None,
        sha256,
        source,
    })
}

fn fetch_all(snapshot: &Snapshot<'_>, files: &[String]) -> Result<Vec<PathBuf>> {
    let paths = files.iter().map(|f| snapshot.fetch(f, None)).collect::<Result<_>>()?;
    snapshot.keep()?;
    Ok(paths)
}

/// A model: a local folder or `.gguf`, a catalogue name, `ORG/REPO[@REV]`, `ORG/REPO[@REV]:QUANT`.
pub fn resolve_model(name: &str, options: &Options<'_>) -> Result<Resolved> {
    match Reference::parse(name, Some(Kind::Model))? {
        Reference::Local(path) => Ok(Resolved::local(path, Vec::new())),
        Reference::Catalogue(e) => entry(e, options),
        Reference::Hub { id, revision, quant } => {
            let repo = Repo::new(RepoKind::Model, &id, revision.as_deref())?;
            let snapshot = Snapshot::open(&repo, options)?;
            let model = select::model_files(&snapshot.files, quant.as_deref(), &snapshot.shown())?;
            let files = fetch_all(&snapshot, &model.files)?;
            let path = model.gguf.as_ref().map_or_else(|| snapshot.dir(), |g| snapshot.dir().join(g));
            let hf_id = model.gguf.is_none().then_some(id);
            Ok(Resolved { hf_id, ..Resolved::snapshot(&snapshot, path, files) })
        }
    }
}

/// An adapter: a local folder of PEFT's or mlx-lm's, a `.gguf`, or `ORG/REPO[@REV]` with one of them. `path` is the folder, or the
/// GGUF file.
pub fn resolve_adapter(name: &str, options: &Options<'_>) -> Result<Resolved> {
    match Reference::parse(name, None)? {
        Reference::Local(path) => {
            if path.is_file() && select::has_extension(name, "gguf") {
                return Ok(Resolved::local(path.clone(), vec![path]));
            }
            let names = if path.is_dir() { select::list_dir(&path, MAX_LOCAL_FILES)? } else { Vec::new() };
            let adapter = select::adapter_files(&names, name)?;
            let files = adapter.files.iter().map(|f| path.join(f)).collect();
            Ok(Resolved::local(adapter.gguf.map_or(path.clone(), |gguf| path.join(gguf)), files))
        }
        Reference::Hub { quant: Some(_), .. } => {
            Err(HubError::BadName { name: name.into(), why: "an adapter has no `:QUANT`" })
        }
        Reference::Hub { id, revision, .. } => {
            let repo = Repo::new(RepoKind::Model, &id, revision.as_deref())?;
            let snapshot = Snapshot::open(&repo, options)?;
            let adapter = select::adapter_files(&snapshot.files, &snapshot.shown())?;
            let files = fetch_all(&snapshot, &adapter.files)?;
            let path = adapter.gguf.map_or_else(|| snapshot.dir(), |gguf| snapshot.dir().join(gguf));
            Ok(Resolved { hf_id: Some(id), ..Resolved::snapshot(&snapshot, path, files) })
        }
        Reference::Catalogue(_) => Err(HubError::NoSuchPath(name.into())),
    }
}

/// A data set: a local file or folder, a catalogue name, or a hub data set `ORG/NAME[@REV]`. `files` are the data
/// files (`.parquet .jsonl .ndjson .json .csv`, also `.gz .zst`) that `query` selects, sorted.
pub fn resolve_dataset(name: &str, query: &DatasetQuery, options: &Options<'_>) -> Result<Resolved> {
    match Reference::parse(name, Some(Kind::Data))? {
        Reference::Local(path) => local_dataset(name, path, query),
        Reference::Catalogue(e) => entry(e, options),
        Reference::Hub { quant: Some(_), .. } => {
            Err(HubError::BadName { name: name.into(), why: "a data set has no `:QUANT`" })
        }
        Reference::Hub { id, revision, .. } => {
            let revision = query.revision.as_deref().or(revision.as_deref());
            let repo = Repo::new(RepoKind::Dataset, &id, revision)?;
            let mut snapshot = Snapshot::open(&repo, options)?;
            let mut names = select::dataset_files(&snapshot.files, query, &snapshot.shown());
            if matches!(&names, Ok(n) if n.is_empty()) && revision.is_none() {
                options.progress.note("no plain data files: looking at the hub's Parquet rendering");
                snapshot = Snapshot::open(&repo.at(PARQUET_BRANCH), options)?;
                names = select::dataset_files(&snapshot.files, query, &snapshot.shown());
            } else if untold(&names) && revision.is_none() {
                // The hub may know of splits by the data set's card, and then renders them under their names.
                options.progress.note("no file speaks of splits: looking at the hub's Parquet rendering");
                match Snapshot::open(&repo.at(PARQUET_BRANCH), options) {
                    Ok(rendered) => {
                        let found = select::dataset_files(&rendered.files, query, &rendered.shown());
                        if !matches!(found, Err(HubError::NoSplit { .. })) {
                            (snapshot, names) = (rendered, found);
                        }
                    }
                    Err(HubError::NotOnHub { .. } | HubError::Offline { .. }) => {}
                    Err(e) => return Err(e),
                }
            }
            let names = nonempty(names?, &snapshot.shown())?;
            let files = fetch_all(&snapshot, &names)?;
            Ok(Resolved::snapshot(&snapshot, snapshot.dir(), files))
        }
    }
}

/// Whether a split was wanted of files whose names do not speak of any.
fn untold(names: &Result<Vec<String>>) -> bool {
    matches!(names, Err(HubError::NoSplit { there, .. }) if there.is_empty())
}

fn nonempty(files: Vec<String>, what: &str) -> Result<Vec<String>> {
    if files.is_empty() {
        let why = "no data files fit\nhint: galen reads .jsonl .ndjson .json .csv .parquet, also .gz and .zst; \
                   `data_files:` names them, `name:` the configuration";
        return Err(HubError::Contents { what: what.into(), why: why.into() });
    }
    Ok(files)
}

fn local_dataset(name: &str, path: PathBuf, query: &DatasetQuery) -> Result<Resolved> {
    if path.is_file() {
        let files = vec![path.clone()];
        return Ok(Resolved::local(path, files));
    }
    let names = select::list_dir(&path, MAX_LOCAL_FILES)?;
    let files = nonempty(select::dataset_files(&names, query, name)?, name)?;
    let files = files.iter().map(|f| path.join(f)).collect();
    Ok(Resolved::local(path, files))
}

/// A catalogued data file, by name.
pub fn resolve_data(name: &str, options: &Options<'_>) -> Result<Resolved> {
    match catalogue::find(name, Kind::Data)? {
        Some(e) => entry(e, options),
        None => {
            Err(HubError::UnknownName { name: name.into(), hint: "the catalogue lists data files".into() })
        }
    }
}

/// The catalogued file `name` where a cache has it, without any network: for tests and listings.
pub fn cached(name: &str) -> Option<Resolved> {
    let options = Options::from_env(true, &Silent);
    let found = catalogue().ok()?.iter().find(|e| e.name == name)?;
    entry(found, &options).ok().filter(|r| Path::new(&r.path).exists())
}
