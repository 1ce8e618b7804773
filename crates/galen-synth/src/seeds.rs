//! The rows a pipeline begins with.

use crate::error::SynthError;
use crate::journal::{Fate, Line};
use crate::row::Row;
use galen_data::DataError;
use galen_data::reader::{Limits, data_files, documents, format_by_name, open_files};
use galen_data::template::prompt::Prompts;
use galen_reward::{Kind, Param};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// The keys of an entry of `seeds`.
pub(crate) const PARAMS: &[Param] = &[
    Param::required(
        "path",
        Kind::Text,
        "a file (`.jsonl .json .csv .parquet .txt`, also `.gz .zst`) or a folder of such files",
    ),
    Param::with(
        "documents",
        Kind::Flag,
        "false",
        "each `.md` or `.txt` file is one row with `path`, `title` and `text`",
    ),
    Param::optional("ds_type", Kind::Text, "the file format, where the ending does not tell"),
    Param::optional(
        "split",
        Kind::Text,
        "of a folder whose files are named by splits: which; default `train`",
    ),
    Param::optional(
        "id",
        Kind::Text,
        "the field that names a row; default: where it stands, `file:line` within `path`",
    ),
    Param::optional("where", Kind::Text, "an expression: only rows of which it holds"),
    Param::optional("limit", Kind::Count, "at most so many rows"),
];

/// An entry of `seeds`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SeedSpec {
    pub path: PathBuf,
    pub documents: bool,
    pub ds_type: Option<String>,
    pub split: Option<String>,
    pub id: Option<String>,
    pub filter: Option<String>,
    pub limit: Option<usize>,
}

/// Writes every seed, as a step that keeps all, to `path`; it is there whole or not at all. Where it is there already,
/// it must be the same. `most`: seeds of each entry at most. Gives the number of seeds and the file's hash.
pub(crate) fn write(
    specs: &[SeedSpec],
    prompts: &Prompts,
    path: &Path,
    most: usize,
) -> Result<(usize, String), SynthError> {
    let partial = path.with_extension("partial");
    let io = |e| SynthError::io(&partial, e);
    let mut out = BufWriter::new(File::create(&partial).map_err(io)?);
    let mut hasher = Sha256::new();
    let mut put = |text: String| {
        hasher.update(text.as_bytes());
        out.write_all(text.as_bytes()).map_err(io)
    };
    put(format!("{}\n", json!({"galen_synth": 1, "step": "seeds"})))?;
    let mut seen: HashSet<u64> = HashSet::new();
    let mut n = 0;
    for (entry, spec) in specs.iter().enumerate() {
        let shown = spec.path.display().to_string();
        let format = spec.ds_type.as_deref().and_then(format_by_name);
        let rows = if spec.documents {
            documents(&spec.path, Limits::default())?
        } else {
            let split = spec.split.as_deref().unwrap_or("train");
            open_files(data_files(&spec.path, split)?, format, Limits::default())
        };
        let mut of_this = 0;
        for row in rows {
            let row = row?;
            let origin = row.origin.to_string();
            let wrong = |what: String, hint: &str| {
                SynthError::Data(DataError::File { file: origin.clone(), what, hint: Some(hint.into()) })
            };
            if let Some(expression) = &spec.filter {
                let variables = Map::from_iter([("row".to_owned(), Value::Object(row.fields.clone()))]);
                let holds = prompts.holds(expression, &variables);
                if !holds.map_err(|e| wrong(format!("`where`: {e}"), "`row.x is defined` asks first"))? {
                    continue;
                }
            }
            if spec.limit.is_some_and(|most| of_this >= most) || of_this >= most {
                break;
            }
            let id = match &spec.id {
                None => {
                    let place = place(&spec.path, row.origin.file(), row.origin.line());
                    if specs.len() > 1 { format!("{}/{place}", entry + 1) } else { place }
                }
                Some(field) => match row.fields.get(field) {
                    Some(Value::String(text)) if !text.is_empty() => text.clone(),
                    Some(Value::Number(number)) => number.to_string(),
                    _ => {
                        return Err(wrong(
                            format!("has no text in `{field}`"),
                            "`id:` names the field of ids",
                        ));
                    }
                },
            };
            if !seen.insert(crate::row::seed_of(0, "seed", &id)) {
                return Err(wrong(
                    format!("another seed is called `{id}`"),
                    "leave `id:` out, or name a field of unique ids",
                ));
            }
            let line = Line {
                i: n,
                id: id.clone(),
                from: id.clone(),
                fate: Fate::Kept,
                rows: vec![Row { id: id.clone(), seeds: vec![id], fields: row.fields, trail: Vec::new() }],
                reason: String::new(),
                detail: String::new(),
                figures: Map::new(),
                usage: [0; 3],
            };
            let text =
                serde_json::to_string(&line).map_err(|e| wrong(e.to_string(), "please report this"))?;
            put(text + "\n")?;
            n += 1;
            of_this += 1;
        }
        if of_this == 0 {
            let what = "no seed comes from it".to_owned();
            return Err(DataError::File { file: shown, what, hint: None }.into());
        }
    }
    let hash = format!("{:x}", hasher.finalize());
    let file = out.into_inner().map_err(|e| io(e.into_error()))?;
    file.sync_all().map_err(io)?;
    drop(file);
    if path.exists() && hash_of(path)? != hash {
        let _ = std::fs::remove_file(&partial);
        return Err(others(path));
    }
    std::fs::rename(&partial, path).map_err(|e| SynthError::io(path, e))?;
    Ok((n, hash))
}

/// The error where a run's seeds at `path` are not these.
pub(crate) fn others(path: &Path) -> SynthError {
    SynthError::Journal {
        file: path.display().to_string(),
        what: "the seeds are others than this run began with".into(),
        hint: "`--overwrite` begins anew".into(),
    }
}

/// Where a row stands, by its file's path within the entry's: the same whatever lies above it.
fn place(root: &Path, file: &str, line: u64) -> String {
    let path = Path::new(file);
    let within = path.strip_prefix(root).ok().filter(|p| !p.as_os_str().is_empty());
    let within = within.or(path.file_name().map(Path::new)).unwrap_or(path);
    format!("{}:{line}", within.display())
}

/// SHA-256 of a file.
pub(crate) fn hash_of(path: &Path) -> Result<String, SynthError> {
    let mut file = File::open(path).map_err(|e| SynthError::io(path, e))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).map_err(|e| SynthError::io(path, e))?;
    Ok(format!("{:x}", hasher.finalize()))
}
