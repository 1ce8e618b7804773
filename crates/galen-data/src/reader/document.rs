//! Documents: each text or Markdown file is one row.

use super::{Limits, RowIter};
use crate::{DataError, Fault};
use galen_types::{Origin, RawRow};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Endings of documents.
const ENDINGS: &[&str] = &["md", "markdown", "txt"];
/// Folders within folders that are looked into.
const MAX_DEPTH: usize = 8;
/// Files of a folder that are looked at.
const MAX_FILES: usize = 100_000;

/// One row for every `.md`, `.markdown` or `.txt` file of a folder, subfolders included, hidden ones left out, in order of
/// their paths; or for the one file at `path`. Its fields: `path` (within the folder), `title` (the first Markdown heading,
/// else the file's name) and `text`. Files are read when their turn comes.
pub fn documents(path: &Path, limits: Limits) -> Result<RowIter, DataError> {
    let shown = path.display().to_string();
    let mut files = Vec::new();
    if std::fs::metadata(path).map_err(|e| DataError::io(&shown, e))?.is_file() {
        files.push(path.to_owned());
    } else {
        walk(path, 0, &mut files)?;
    }
    files.sort();
    if files.is_empty() {
        return Err(
            DataError::file(shown, "the folder holds no documents").with_hint("they end with .md or .txt")
        );
    }
    let root = path.to_owned();
    Ok(Box::new(files.into_iter().map(move |file| read(&root, &file, limits))))
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let shown = folder.display().to_string();
    for entry in std::fs::read_dir(folder).map_err(|e| DataError::io(&shown, e))? {
        let path = entry.map_err(|e| DataError::io(&shown, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        if name.starts_with('.') {
            continue;
        }
        if meta.is_dir() && depth < MAX_DEPTH {
            walk(&path, depth + 1, files)?;
        } else if meta.is_file()
            && name.rsplit_once('.').is_some_and(|(_, e)| ENDINGS.contains(&e.to_ascii_lowercase().as_str()))
        {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(DataError::file(shown, format!("more than `{MAX_FILES}` documents")));
        }
    }
    Ok(())
}

fn read(root: &Path, file: &Path, limits: Limits) -> Result<RawRow, DataError> {
    let shown = file.display().to_string();
    let origin = Origin::new(shown.as_str(), 1);
    let bytes = std::fs::metadata(file).map_err(|e| DataError::io(&shown, e))?.len();
    if bytes > limits.max_row_bytes {
        let what = format!("a document of {bytes} bytes, more than `{}`", limits.max_row_bytes);
        return Err(DataError::row(&origin, Fault::Syntax, what));
    }
    let text = std::fs::read(file).map_err(|e| DataError::io(&shown, e))?;
    let text = String::from_utf8(text)
        .map_err(|_| DataError::row(&origin, Fault::Syntax, "not valid UTF-8"))?
        .replace("\r\n", "\n");
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let heading = text.lines().find_map(|l| l.strip_prefix('#').map(|l| l.trim_start_matches('#').trim()));
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let title = heading.filter(|h| !h.is_empty()).unwrap_or(&name).to_owned();
    let path = file.strip_prefix(root).ok().filter(|p| !p.as_os_str().is_empty()).unwrap_or(file);
    let fields = [("path", path.display().to_string()), ("title", title), ("text", text.to_owned())];
    let fields: Map<String, Value> = fields.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
    Ok(RawRow { origin, fields })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("b/guide.md", b"intro\n\n## Fever\ntext\n");
        write("a.txt", b"\xef\xbb\xbfplain\r\n");
        write("skip.json", b"{}");
        write(".hidden.md", b"x");
        write("z.md", b"\xff");
        let mut rows = documents(dir.path(), Limits::default()).unwrap();
        let of = |row: &RawRow| -> Vec<String> {
            ["path", "title", "text"].iter().map(|f| row.fields[*f].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(of(&rows.next().unwrap().unwrap()), ["a.txt", "a", "plain\n"]);
        assert_eq!(of(&rows.next().unwrap().unwrap()), ["b/guide.md", "Fever", "intro\n\n## Fever\ntext\n"]);
        assert!(rows.next().unwrap().unwrap_err().to_string().contains("z.md:1: not valid UTF-8"));
        assert!(rows.next().is_none());
        assert_eq!(documents(&dir.path().join("a.txt"), Limits::default()).unwrap().count(), 1);
        assert!(documents(&dir.path().join("none"), Limits::default()).is_err());
    }
}
