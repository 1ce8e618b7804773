//! `galen data contamination`.

use super::dedup::without_them;
use super::rows::{Kept, ReadRows, TextArgs, beginning, percent};
use crate::cli::Globals;
use crate::error::UsageError;
use crate::progress::counted;
use crate::session::{Sides, Texts};
use crate::stdout;
use galen_data::contamination::{Hit, Index, Kind, Options};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

/// Flags of `galen data contamination`.
#[derive(Debug, clap::Args)]
pub struct Contamination {
    /// Training data: files, folders or hub data sets
    #[arg(value_name = "TRAIN", required = true)]
    pub files: Vec<String>,
    /// Evaluation sets: data files or folders, or tasks of `galen eval` (a YAML, a built-in name)
    #[arg(long, short, value_name = "EVAL", required = true, num_args = 1..)]
    pub against: Vec<String>,
    /// Which texts of the training data
    #[command(flatten)]
    pub text: TextArgs,
    /// The field of the evaluation sets' rows to compare; may be repeated. Default: as their types, or the tasks, have it
    #[arg(long, alias = "against_field", value_name = "FIELD")]
    pub against_field: Vec<String>,
    /// Words in a row that must not be shared
    #[arg(long, value_name = "N", default_value_t = 13, value_parser = clap::value_parser!(u16).range(1..))]
    pub ngram: u16,
    /// Evaluation questions of fewer words than that, but so many at least, also count where they occur whole within a text;
    /// default: they count where a text is the same
    #[arg(long, alias = "whole_from", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub whole_from: Option<u16>,
    /// What more rows than this of an evaluation set have in common (an instruction before each question) does not count
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub common: u32,
    /// Where the clean rows go, as JSON lines
    #[arg(long, short, value_name = "FILE.jsonl")]
    pub out: Option<PathBuf>,
    /// Exit with 1 where a row repeats an evaluation set
    #[arg(long, alias = "fail-on-contamination", alias = "fail_on_contamination")]
    pub check: bool,
    /// Examples of each evaluation set to show
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub examples: usize,
}

/// An evaluation set and what became of it.
#[derive(Default)]
struct Set {
    name: String,
    about: String,
    split: Option<String>,
    /// Its rows that could not be read, or say nothing.
    left_out: u64,
    /// Its rows have numbers of the index from here on.
    first: usize,
    rows: usize,
    /// Those that are repeated.
    repeated: BTreeSet<usize>,
    /// Training rows that repeat one, by how.
    training: BTreeMap<&'static str, u64>,
    examples: Vec<Example>,
}

struct Example {
    row: String,
    text: String,
    hit: Hit,
}

impl Contamination {
    /// Flags that contradict each other, before anything is read.
    fn check(&self) -> Result<(), UsageError> {
        match self.whole_from {
            Some(from) if from > self.ngram => {
                let what = format!("`--whole-from {from}` is above `--ngram {}`", self.ngram);
                Err(UsageError::new(
                    what,
                    "it speaks of questions with fewer words than that: give a smaller number",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Looks for evaluation texts in training rows; writes the rows without them.
pub fn run(args: &Contamination, globals: &Globals) -> anyhow::Result<()> {
    args.check()?;
    let mut kept = Kept::create(args.out.as_deref(), &[&args.files[..], &args.against].concat())?;
    let (index, mut sets) = index(args, globals.offline)?;
    let mut contaminated = 0;
    let read = args.text.each(&args.files, globals.offline, &mut |row| {
        // By set: each evaluation row once, however many texts of this one repeat it.
        let mut hits: BTreeMap<usize, Vec<(usize, Hit, &str)>> = BTreeMap::new();
        for text in &row.texts {
            for (number, hit) in index.find_all(&text.text) {
                let set = sets.partition_point(|s| s.first <= number) - 1;
                hits.entry(set).or_default().push((number, hit, &text.text));
            }
        }
        if hits.is_empty() {
            return kept.write(&row.row.fields);
        }
        contaminated += 1;
        for (set, hits) in hits {
            sets[set].note(&row.row.origin.to_string(), hits, args.examples);
        }
        Ok(())
    })?;
    let clean = kept.finish()?;
    if globals.json {
        stdout::print_json(&as_json(args, &read, &sets, contaminated, clean))?;
    } else {
        stdout::print(&as_text(args, &read, &sets, contaminated))?;
    }
    anyhow::ensure!(
        !args.check || contaminated == 0,
        "{contaminated} of {} repeat evaluation questions{}",
        counted(read.rows, "row"),
        without_them(args.out.is_some())
    );
    Ok(())
}

/// Every evaluation set's texts.
fn index(args: &Contamination, offline: bool) -> anyhow::Result<(Index, Vec<Set>)> {
    let ngram = usize::from(args.ngram);
    let whole_from = args.whole_from.map_or(ngram, usize::from);
    let mut index = Index::new(Options { ngram, whole_from, common: args.common as usize });
    let mut sets: Vec<Set> = Vec::new();
    for name in &args.against {
        if sets.iter().any(|s| s.name == *name) {
            return Err(UsageError::new(format!("`--against {name}` is named twice"), "name it once").into());
        }
        let first = index.rows();
        let texts =
            Texts { path: name, kind: None, fields: &args.against_field, side: Sides::Evaluated, offline };
        let read = args.text.each_of_other(&texts, &mut |row| {
            let origin = row.row.origin.to_string();
            for text in &row.texts {
                if text.answer {
                    index.add_answer(name, &origin, &text.text);
                } else {
                    index.add(name, &origin, &text.text);
                }
            }
            Ok(())
        })?;
        let rows = index.rows() - first;
        let ReadRows { about, split, left_out, .. } = read;
        sets.push(Set { name: name.clone(), about, split, left_out, first, rows, ..Set::default() });
    }
    Ok((index, sets))
}

impl Set {
    /// A training row that repeats rows of this set; it is counted by the strongest of its hits.
    fn note(&mut self, row: &str, hits: Vec<(usize, Hit, &str)>, examples: usize) {
        self.repeated.extend(hits.iter().map(|(number, ..)| *number));
        let rank = |kind: Kind| match kind {
            Kind::Exact => 0,
            Kind::Ngram => 1,
            Kind::Whole => 2,
        };
        let Some((_, hit, text)) = hits.into_iter().min_by_key(|(_, hit, _)| rank(hit.kind)) else { return };
        *self.training.entry(hit.kind.words()).or_default() += 1;
        if self.examples.len() < examples {
            self.examples.push(Example { row: row.to_owned(), text: beginning(text), hit });
        }
    }

    /// Its name with the split that was read.
    fn title(&self) -> String {
        self.split.as_ref().map_or_else(|| self.name.clone(), |split| format!("{} ({split})", self.name))
    }

    fn training_rows(&self) -> u64 {
        self.training.values().sum()
    }
}

fn as_json(args: &Contamination, read: &ReadRows, sets: &[Set], contaminated: u64, clean: u64) -> Value {
    let set = |s: &Set| {
        let example = |e: &Example| json!({"row": e.row, "text": e.text, "hit": e.hit});
        json!({
            "set": s.name,
            "compared": s.about,
            "split": s.split,
            "rows": s.rows,
            "left_out": s.left_out,
            "repeated": s.repeated.len(),
            "training_rows": s.training_rows(),
            "training_rows_by_kind": s.training,
            "examples": s.examples.iter().map(example).collect::<Vec<_>>(),
        })
    };
    json!({
        "rows": read.rows,
        "left_out": read.left_out,
        "compared": read.about,
        "ngram": args.ngram,
        "whole_from": args.whole_from.unwrap_or(args.ngram),
        "common": args.common,
        "contaminated": contaminated,
        "clean": clean,
        "sets": sets.iter().map(set).collect::<Vec<_>>(),
        "out": args.out,
    })
}

fn as_text(args: &Contamination, read: &ReadRows, sets: &[Set], contaminated: u64) -> String {
    let width = sets.iter().map(|s| s.title().chars().count()).max().unwrap_or(0).max(14);
    let mut out = format!(
        "{:width$}  {:>7}  {:>16}  training rows that repeat it\n",
        "evaluation set", "rows", "repeated"
    );
    for s in sets {
        let (n, repeated) = (s.training_rows(), s.repeated.len() as u64);
        let repeated = format!("{repeated} ({})", percent(repeated, s.rows as u64));
        let (title, share) = (s.title(), percent(n, read.rows));
        let _ = write!(out, "{title:width$}  {:>7}  {repeated:>16}  {n} ({share})", s.rows);
        let kinds: Vec<_> = s.training.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        let _ = writeln!(out, "{}{}", if kinds.is_empty() { "" } else { ": " }, kinds.join(", "));
        if s.left_out > 0 {
            let _ = writeln!(out, "{:width$}  and {} of it left out", "", counted(s.left_out, "row"));
        }
    }
    let _ = writeln!(out, "{contaminated} of {} repeat one or more", counted(read.rows, "training row"));
    if let Some(path) = &args.out {
        let _ = writeln!(out, "the others are written to {}", path.display());
    }
    for s in sets.iter().filter(|s| !s.examples.is_empty()) {
        let _ = writeln!(out, "\n{}", s.title());
        for Example { row, text, hit } in &s.examples {
            let shared = if hit.kind == Kind::Exact { String::new() } else { format!(": `{}`", hit.shared) };
            let does = match hit.kind {
                Kind::Exact => "says what is at",
                Kind::Ngram => "shares words with",
                Kind::Whole => "contains",
            };
            let said = beginning(&hit.text);
            let _ = writeln!(out, "  {row}  {does} {}{shared}\n      {text}\n      {said}", hit.origin);
        }
    }
    out
}
