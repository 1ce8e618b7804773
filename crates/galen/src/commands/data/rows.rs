//! What the commands that hold rows against each other share: which rows, which texts of them, which file takes what is kept.

use crate::commands::init::type_value;
use crate::error::UsageError;
use crate::progress::{Progress, Unit, counted, say};
use crate::session::{ReadTexts, Sides, Texts};
use crate::signals;
use anyhow::Context as _;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _};
use galen_data::OnBadRow;
use galen_data::reader::format_by_extension;
use galen_data::texts::TextRow;
use serde_json::{Map, Value};
use std::io::{BufWriter, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Characters of a text that are shown.
const SHOWN_CHARS: usize = 100;

/// Flags that say what of the rows is compared.
#[derive(Debug, clap::Args)]
pub struct TextArgs {
    /// Compare this field (`a.b`: a field of a field); may be repeated. Default: what the rows' type makes texts of, without
    /// system turns
    #[arg(long, value_name = "FIELD")]
    pub field: Vec<String>,
    /// The rows' type, by name or as a map in YAML; default: detected
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// What is done about a row that cannot be read or has no text: `skip` leaves it out and counts it
    #[arg(long, alias = "on_bad_row", value_name = "WHAT", default_value = "error", value_parser = on_bad_row())]
    pub on_bad_row: OnBadRow,
}

/// What a bad row does, by its name.
fn on_bad_row() -> impl clap::builder::TypedValueParser<Value = OnBadRow> {
    let names = [
        PossibleValue::new("error").help("Ends the command"),
        PossibleValue::new("skip").help("Is left out and counted"),
    ];
    PossibleValuesParser::new(names).map(|name| if name == "skip" { OnBadRow::Skip } else { OnBadRow::Error })
}

/// What was read.
#[derive(Debug, Default)]
pub struct ReadRows {
    /// Rows with text.
    pub rows: u64,
    /// Rows left out.
    pub left_out: u64,
    /// Which texts were compared, where all files agree.
    pub about: String,
    /// The split that was read, where one was chosen.
    pub split: Option<String>,
}

impl TextArgs {
    /// Gives each row of the files to `take`, in order.
    pub fn each(
        &self,
        files: &[String],
        offline: bool,
        take: &mut dyn FnMut(TextRow) -> anyhow::Result<()>,
    ) -> anyhow::Result<ReadRows> {
        let kind = self.kind.as_deref().map(type_value).transpose()?;
        let mut read = ReadRows::default();
        for file in files {
            let texts =
                Texts { path: file, kind: kind.clone(), fields: &self.field, side: Sides::Rows, offline };
            self.read(&texts, &mut read, take)?;
        }
        Ok(read)
    }

    /// The same for what rows are held against: data, or a task of `galen eval`.
    pub fn each_of_other(
        &self,
        texts: &Texts,
        take: &mut dyn FnMut(TextRow) -> anyhow::Result<()>,
    ) -> anyhow::Result<ReadRows> {
        let mut read = ReadRows::default();
        self.read(texts, &mut read, take)?;
        Ok(read)
    }

    fn read(
        &self,
        texts: &Texts,
        read: &mut ReadRows,
        take: &mut dyn FnMut(TextRow) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let bar = Progress::new(texts.path, 0, Unit::Items);
        let (mut rows, mut left_out) = (0, 0);
        let ReadTexts { about, split } = texts.each(&mut |row| {
            match row {
                Ok(row) => {
                    rows += 1;
                    bar.set(rows);
                    take(row)?;
                }
                Err(e) if e.fault().is_some() && self.on_bad_row == OnBadRow::Skip => {
                    left_out += 1;
                    if left_out <= 3 {
                        bar.line(&format!("left out: {e}"));
                    }
                }
                Err(e) if e.fault().is_some() => {
                    return Err(anyhow::anyhow!("{e}\nhint: `--on-bad-row skip` leaves such rows out"));
                }
                Err(e) => return Err(e.into()),
            }
            Ok(())
        })?;
        let mut said = format!("{}, compared by {about}", counted(rows, "row"));
        if left_out > 0 {
            said += &format!("; {left_out} left out");
        }
        bar.finish(&said);
        if rows == 0 {
            anyhow::bail!("{}: no row can be read", texts.path);
        }
        read.rows += rows;
        read.left_out += left_out;
        read.split = split;
        if read.about.is_empty() {
            read.about = about;
        } else if read.about != about {
            say(&format!("note: {} is compared by other texts than the files before it", texts.path));
        }
        Ok(())
    }
}

/// Takes the rows that are kept, where they are wanted; the file is there once it is whole.
pub struct Kept {
    file: Option<(PathBuf, BufWriter<NamedTempFile>)>,
    rows: u64,
}

impl Kept {
    /// Errors: the file is one of the inputs or is there already, or its name says another format. A signal leaves nothing of it.
    pub fn create(out: Option<&Path>, inputs: &[String]) -> anyhow::Result<Self> {
        let kept = Self::open(out, inputs)?;
        if let Some((_, file)) = &kept.file {
            let temporary = file.get_ref().path().to_owned();
            signals::exit_after(move || std::fs::remove_file(temporary))?;
        }
        Ok(kept)
    }

    fn open(out: Option<&Path>, inputs: &[String]) -> anyhow::Result<Self> {
        let Some(out) = out else { return Ok(Self { file: None, rows: 0 }) };
        let named = out.display();
        let same = |input: &String| {
            let (a, b) = (Path::new(input).canonicalize(), out.canonicalize());
            matches!((a, b), (Ok(a), Ok(b)) if a == b)
        };
        if let Some(input) = inputs.iter().find(|input| same(input)) {
            let hint = "name another file: what is read is never overwritten";
            return Err(UsageError::new(format!("`--out {named}` is the input `{input}`"), hint).into());
        }
        if out.exists() {
            let hint = "name another file with `--out`, or delete it first";
            return Err(UsageError::new(format!("{named}: exists already"), hint).into());
        }
        let packed =
            out.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz") || e.eq_ignore_ascii_case("zst"));
        if packed || format_by_extension(out).is_some_and(|f| !f.name.starts_with("json")) {
            let hint = "give it a name that ends with `.jsonl`";
            return Err(
                UsageError::new(format!("`--out {named}`: rows are written as JSON lines"), hint).into()
            );
        }
        let folder = galen_files::parent(out);
        if !folder.is_dir() {
            let what = format!("`--out {named}`: there is no folder `{}`", folder.display());
            return Err(UsageError::new(what, "make it first").into());
        }
        let file = galen_files::file_beside(out).with_context(|| format!("{named}: cannot be written"))?;
        Ok(Self { file: Some((out.to_owned(), BufWriter::new(file))), rows: 0 })
    }

    /// One more row.
    pub fn write(&mut self, fields: &Map<String, Value>) -> anyhow::Result<()> {
        self.rows += 1;
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_vec(fields)?;
        line.push(b'\n');
        file.write_all(&line).with_context(|| path.display().to_string())
    }

    /// Puts the file in its place; gives the rows written.
    pub fn finish(self) -> anyhow::Result<u64> {
        let Some((path, file)) = self.file else { return Ok(self.rows) };
        let put = || -> std::io::Result<()> {
            let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.as_file().sync_all()?;
            file.persist_noclobber(&path).map_err(|e| e.error)?;
            galen_files::sync_folder(&galen_files::parent(&path))
        };
        match put() {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let hint = "it appeared while rows were read; name another file with `--out`";
                Err(UsageError::new(format!("{}: exists already", path.display()), hint).into())
            }
            result => result.with_context(|| path.display().to_string()).map(|()| self.rows),
        }
    }
}

/// The beginning of a text, on one line.
pub fn beginning(text: &str) -> String {
    galen_data::beginning(text, SHOWN_CHARS)
}

/// `3.3 %`; nothing of nothing is 0.
pub fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 / whole.max(1) as f64 * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percents() {
        assert_eq!((percent(1, 3), percent(0, 0)), ("33.3 %".into(), "0.0 %".into()));
    }

    #[test]
    fn what_is_there_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("in.jsonl"), "{}\n").unwrap();
        let inputs = [path("in.jsonl").display().to_string()];
        for (name, expect) in [
            ("in.jsonl", "is the input"),
            ("./in.jsonl", "is the input"),
            ("out.csv", "written as JSON lines"),
            ("out.jsonl.gz", "written as JSON lines"),
            ("nowhere/out.jsonl", "there is no folder"),
        ] {
            let e = Kept::open(Some(&path(name)), &inputs).err().unwrap().to_string();
            assert!(e.contains(expect), "{e}");
        }
        let mut kept = Kept::open(Some(&path("out.jsonl")), &inputs).unwrap();
        let Value::Object(fields) = serde_json::json!({"b": 1, "a": [0.1]}) else { unreachable!() };
        kept.write(&fields).unwrap();
        assert!(!path("out.jsonl").exists());
        assert_eq!(kept.finish().unwrap(), 1);
        assert_eq!(std::fs::read_to_string(path("out.jsonl")).unwrap(), "{\"b\":1,\"a\":[0.1]}\n");
        // A file that appeared meanwhile stays.
        let kept = Kept::open(Some(&path("late.jsonl")), &inputs).unwrap();
        std::fs::write(path("late.jsonl"), "mine").unwrap();
        assert!(kept.finish().is_err());
        assert_eq!(std::fs::read_to_string(path("late.jsonl")).unwrap(), "mine");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
