//! `galen data dedup`.

use super::rows::{Kept, ReadRows, TextArgs, beginning, percent};
use crate::cli::Globals;
use crate::progress::counted;
use crate::stdout;
use galen_data::dedup::{Dedup as Finder, Duplicate, Options};
use galen_types::Origin;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Flags of `galen data dedup`.
#[derive(Debug, clap::Args)]
pub struct Dedup {
    /// Data files, folders or hub data sets; the first of rows that say the same is kept
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<String>,
    /// Which texts
    #[command(flatten)]
    pub text: TextArgs,
    /// Similarity of near duplicates: Jaccard, of sets of word n-grams; above 1 finds exact ones only
    #[arg(long, value_name = "X", default_value_t = 0.8, value_parser = threshold)]
    pub threshold: f64,
    /// Words of an n-gram
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub ngram: u16,
    /// Where the rows that are kept go, as JSON lines
    #[arg(long, short, value_name = "FILE.jsonl")]
    pub out: Option<PathBuf>,
    /// Exit with 1 where there are duplicates
    #[arg(long, alias = "fail-on-duplicates", alias = "fail_on_duplicates")]
    pub check: bool,
    /// Examples of each kind to show
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub examples: usize,
}

fn threshold(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        // Fewer in common than that MinHash does not find.
        Ok(x) if x >= 0.05 && x.is_finite() => Ok(x),
        _ => Err("takes 0.05 or more".into()),
    }
}

/// The remedy of `--check`, unless it was taken.
pub(super) fn without_them(written: bool) -> &'static str {
    if written { "" } else { "\nhint: `--out FILE` writes the rows without them" }
}

/// A row that was read: where it stands and how it begins.
struct Seen {
    origin: Origin,
    text: Box<str>,
}

/// A row that repeats another.
struct Found {
    row: usize,
    duplicate: Duplicate,
}

/// Finds duplicates; writes the rows without them.
pub fn run(args: &Dedup, globals: &Globals) -> anyhow::Result<()> {
    let mut kept = Kept::create(args.out.as_deref(), &args.files)?;
    let mut finder = Finder::new(Options { threshold: args.threshold, ngram: usize::from(args.ngram) });
    let mut seen: Vec<Seen> = Vec::new();
    let mut found: Vec<Found> = Vec::new();
    let read = args.text.each(&args.files, globals.offline, &mut |row| {
        let text = row.joined();
        match finder.add(&text) {
            None => kept.write(&row.row.fields)?,
            Some(duplicate) => found.push(Found { row: seen.len(), duplicate }),
        }
        seen.push(Seen { origin: row.row.origin, text: beginning(&text).into() });
        Ok(())
    })?;
    let n_kept = kept.finish()?;
    let report = Report { args, read: &read, seen: &seen, found: &found, n_kept, cut: finder.cut() };
    if globals.json {
        stdout::print_json(&report.json())?;
    } else {
        stdout::print(&report.text())?;
    }
    let n = found.len();
    anyhow::ensure!(
        !args.check || n == 0,
        "{} of {} repeat{} an earlier one{}",
        n,
        counted(read.rows, "row"),
        if n == 1 { "s" } else { "" },
        without_them(args.out.is_some())
    );
    Ok(())
}

struct Report<'a> {
    args: &'a Dedup,
    read: &'a ReadRows,
    seen: &'a [Seen],
    found: &'a [Found],
    n_kept: u64,
    /// Rows that were not compared with all that may be near.
    cut: usize,
}

impl<'a> Report<'a> {
    fn exact(&self) -> Vec<&'a Found> {
        self.found.iter().filter(|f| f.duplicate.exact).collect()
    }

    /// The least alike first: those are the ones to look at before the threshold is trusted.
    fn near(&self) -> Vec<&'a Found> {
        let mut near: Vec<_> = self.found.iter().filter(|f| !f.duplicate.exact).collect();
        near.sort_by(|a, b| a.duplicate.similarity.total_cmp(&b.duplicate.similarity));
        near
    }

    /// Rows that several others repeat, with how many do, most first.
    fn repeated(&self) -> Vec<(&'a Seen, usize)> {
        let mut times: BTreeMap<usize, usize> = BTreeMap::new();
        // A copy of a near duplicate repeats what that does.
        let of: BTreeMap<usize, usize> = self.found.iter().map(|f| (f.row, f.duplicate.of)).collect();
        let kept = |row: usize| of.get(&row).copied().unwrap_or(row);
        self.found.iter().for_each(|f| *times.entry(kept(f.duplicate.of)).or_default() += 1);
        let mut most: Vec<_> = times.into_iter().filter(|(_, n)| *n > 1).collect();
        most.sort_by_key(|(of, n)| (std::cmp::Reverse(*n), *of));
        most.truncate(self.args.examples);
        most.into_iter().map(|(of, n)| (&self.seen[of], n)).collect()
    }

    fn json(&self) -> Value {
        let example = |f: &&Found| {
            let (row, of) = (&self.seen[f.row], &self.seen[f.duplicate.of]);
            json!({
                "row": row.origin.to_string(), "of": of.origin.to_string(), "exact": f.duplicate.exact,
                "similarity": f.duplicate.similarity, "text": row.text, "of_text": of.text,
            })
        };
        let (exact, near) = (self.exact(), self.near());
        let shown = |list: &[&Found]| list.iter().take(self.args.examples).map(example).collect::<Vec<_>>();
        let repeated = self.repeated();
        let repeated = repeated
            .iter()
            .map(|(row, n)| json!({"row": row.origin.to_string(), "times": n, "text": row.text}));
        json!({
            "rows": self.read.rows,
            "left_out": self.read.left_out,
            "compared": self.read.about,
            "threshold": self.args.threshold,
            "ngram": self.args.ngram,
            "kept": self.n_kept,
            "exact_duplicates": exact.len(),
            "near_duplicates": near.len(),
            "not_compared_with_all": self.cut,
            "exact_examples": shown(&exact),
            "near_examples": shown(&near),
            "most_repeated": repeated.collect::<Vec<_>>(),
            "out": self.args.out,
        })
    }

    fn text(&self) -> String {
        let (exact, near, all) = (self.exact(), self.near(), self.read.rows);
        let line = |name: &str, n: u64| format!("{name:<20}{n:>8}  {}\n", percent(n, all));
        let mut out = line("exact duplicates", exact.len() as u64);
        out += &line("near duplicates", near.len() as u64);
        out += &line("rows kept", self.n_kept);
        if self.cut > 0 {
            let _ = writeln!(
                out,
                "note: {} compared with a part of the rows that are much like it: near duplicates may be missed",
                counted(self.cut as u64, "row")
            );
        }
        if let Some(path) = &self.args.out {
            let _ = writeln!(out, "written to {}", path.display());
        }
        let mut examples = |title: &str, list: &[&Found]| {
            if list.is_empty() || self.args.examples == 0 {
                return;
            }
            let _ = writeln!(out, "\n{title}");
            for f in list.iter().take(self.args.examples) {
                let (row, of, d) = (&self.seen[f.row], &self.seen[f.duplicate.of], f.duplicate);
                if d.exact {
                    let _ = writeln!(out, "  {} is {}\n      {}", row.origin, of.origin, row.text);
                } else {
                    let _ = writeln!(
                        out,
                        "  {:.2}  {} is like {}\n      {}\n      {}",
                        d.similarity, row.origin, of.origin, row.text, of.text
                    );
                }
            }
        };
        examples("exact duplicates", &exact);
        examples("near duplicates, the least alike first", &near);
        let repeated = self.repeated();
        if !repeated.is_empty() {
            out += "\nmost repeated\n";
            for (row, n) in repeated {
                let _ = writeln!(out, "  {n} times  {}\n      {}", row.origin, row.text);
            }
        }
        out
    }
}
