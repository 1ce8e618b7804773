//! `galen data align`.

mod report;

use super::rows::{Kept, TextArgs};
use crate::cli::{Globals, Limit};
use crate::error::UsageError;
use crate::session::selection::{Inputs, METHODS, Method, Text, TextModel};
use crate::session::{Sides, Texts};
use crate::stdout;
use clap::builder::PossibleValue;
use galen_data::ngrams::Counts;
use galen_data::select::{draw, top};
use galen_data::texts::TextRow;
use galen_types::RawRow;
use report::{Distances, Report};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Examples before a row, where `--shots` does not say.
const SHOTS: u16 = 8;
/// Tokens of a text that are read, where `--max-tokens` does not say.
const MAX_TOKENS: u32 = 512;

/// Flags of `galen data align`.
#[derive(Debug, clap::Args)]
pub struct Align {
    /// Training data to choose from: files, folders or hub data sets
    #[arg(value_name = "TRAIN", required = true)]
    pub files: Vec<String>,
    /// What the rows are to be like: a data file (a few prompts will do), or a task of `galen eval`, whose examples' or
    /// training split is read; may be repeated
    #[arg(long, short, value_name = "TARGET", required = true)]
    pub target: Vec<String>,
    /// Which texts of the training data
    #[command(flatten)]
    pub text: TextArgs,
    /// The field of the target's rows to compare; may be repeated. Default: as their type, or the task, has it
    #[arg(long, alias = "target_field", value_name = "FIELD")]
    pub target_field: Vec<String>,
    /// How rows are scored
    #[arg(long, value_name = "METHOD", default_value = "ngrams", value_parser = Names)]
    pub method: &'static Method,
    /// The base model that `embedding` and `likelihood` ask
    #[arg(long, short = 'm', value_name = "M")]
    pub model: Option<String>,
    /// Rows to keep, or the share of them
    #[arg(long, short, value_name = "N|0.x")]
    pub budget: Option<Limit>,
    /// Where they go, as JSON lines; without `--budget` all rows, which `--weight-field` then adds the scores to
    #[arg(long, short, value_name = "FILE.jsonl")]
    pub out: Option<PathBuf>,
    /// A field to add to each row written, with its score
    #[arg(long, alias = "weight_field", value_name = "FIELD")]
    pub weight_field: Option<String>,
    /// Seed of what is drawn
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
    /// Examples of the target that `likelihood` puts before a row; default: 8
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub shots: Option<u16>,
    /// Tokens of a text that a model reads; default: 512
    #[arg(long, alias = "max_tokens", value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub max_tokens: Option<u32>,
    /// Best and worst rows to show
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub examples: usize,
}

/// A method by its name.
#[derive(Clone)]
struct Names;

impl clap::builder::TypedValueParser for Names {
    type Value = &'static Method;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Self::Value, clap::Error> {
        let names = clap::builder::PossibleValuesParser::new(METHODS.iter().map(|m| m.name));
        let name = names.parse_ref(command, arg, value)?;
        Method::named(&name).ok_or_else(|| clap::Error::new(clap::error::ErrorKind::InvalidValue))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(METHODS.iter().map(|m| PossibleValue::new(m.name).help(m.about))))
    }
}

impl Align {
    /// Flags that contradict each other, before anything is read.
    fn check(&self) -> Result<(), UsageError> {
        let Method { name, asks, .. } = *self.method;
        // Flags of other methods would do nothing.
        for (flag, given, read, readers) in [
            ("--model", self.model.is_some(), asks.a_model(), Method::that(|m| m.asks.a_model())),
            ("--max-tokens", self.max_tokens.is_some(), asks.a_model(), Method::that(|m| m.asks.a_model())),
            (
                "--shots",
                self.shots.is_some(),
                asks.behind_examples(),
                Method::that(|m| m.asks.behind_examples()),
            ),
        ] {
            if given && !read {
                let hint = format!("leave it out, or take `--method` {readers}, which reads it");
                return Err(UsageError::new(format!("`{flag}` with `--method {name}`"), hint));
            }
        }
        let (what, hint) = match &self.model {
            None if asks.a_model() => {
                (format!("`--method {name}` without a model"), "`--model M` names the base to ask")
            }
            _ if self.out.is_none() && self.weight_field.is_some() => (
                "`--weight-field` without `--out`".into(),
                "`--out FILE.jsonl` names the file that takes the rows",
            ),
            _ if self.out.is_some() && self.budget.is_none() && self.weight_field.is_none() => {
                let hint = "`--budget N` says how many rows to keep; `--weight-field NAME` keeps all, with their scores";
                ("`--out` would take every row as it is".into(), hint)
            }
            _ => return Ok(()),
        };
        Err(UsageError::new(what, hint))
    }

    /// The target's texts, by target.
    fn targets(&self, offline: bool) -> anyhow::Result<Vec<Vec<Text>>> {
        let one = |path: &String| {
            let fields = &self.target_field;
            let texts = Texts { path, kind: None, fields, side: Sides::Target, offline };
            let mut target = Vec::new();
            self.text.each_of_other(&texts, &mut |row| {
                target.push(Text::new(row.joined()));
                Ok(())
            })?;
            Ok(target)
        };
        self.target.iter().map(one).collect()
    }
}

/// Scores rows; keeps or weighs them.
pub fn run(args: &Align, globals: &Globals) -> anyhow::Result<()> {
    args.check()?;
    let mut out = Kept::create(args.out.as_deref(), &[&args.files[..], &args.target].concat())?;
    let targets = args.targets(globals.offline)?;
    let (mut rows, mut texts): (Vec<RawRow>, Vec<Text>) = (Vec::new(), Vec::new());
    let read = args.text.each(&args.files, globals.offline, &mut |row: TextRow| {
        if let Some(name) = args.weight_field.as_ref().filter(|name| row.row.fields.contains_key(*name)) {
            let hint = "name another with `--weight-field`";
            let what = format!("{}: there is a field `{name}` already", row.row.origin);
            return Err(UsageError::new(what, hint).into());
        }
        texts.push(Text::new(row.joined()));
        rows.push(row.row);
        Ok(())
    })?;
    let open = |name: &String| {
        let max_tokens = args.max_tokens.unwrap_or(MAX_TOKENS);
        TextModel::open(name, max_tokens as usize, globals.offline)
    };
    let model = args.model.as_ref().map(open).transpose()?;
    let inputs = Inputs {
        rows: &texts,
        targets: &targets,
        model: model.as_ref(),
        shots: usize::from(args.shots.unwrap_or(SHOTS)),
        seed: args.seed,
    };
    let scores = args.method.scores(&inputs)?;
    let chosen = args.budget.map(|budget| {
        let n = budget.of(rows.len());
        if args.method.draws { draw(&scores, n, args.seed) } else { top(&scores, n) }
    });
    let all: Vec<usize> = (0..rows.len()).collect();
    for i in chosen.as_ref().unwrap_or(&all) {
        out.write(&weighed(&rows[*i], args.weight_field.as_deref(), scores[*i]))?;
    }
    out.finish()?;
    let report = Report {
        args,
        read: &read,
        target_rows: targets.iter().map(Vec::len).sum(),
        distances: distances(&targets, &texts, chosen.as_deref(), args.seed),
        rows: &rows,
        texts: &texts,
        scores: &scores,
        chosen: chosen.as_deref(),
    };
    if globals.json { stdout::print_json(&report.json()) } else { stdout::print(&report.text()) }
}

/// A row's fields, its score among them where that is wanted.
fn weighed(row: &RawRow, name: Option<&str>, score: f64) -> Map<String, Value> {
    let mut fields = row.fields.clone();
    if let Some(name) = name {
        fields.insert(name.to_owned(), score.into());
    }
    fields
}

/// How far the rows are from the target before and after, and as many drawn without regard to it: fewer rows have fewer
/// n-grams, which is a distance by itself.
fn distances(targets: &[Vec<Text>], rows: &[Text], chosen: Option<&[usize]>, seed: u64) -> Distances {
    let target = Counts::of(targets.iter().flatten().map(|t| &t.buckets[..]));
    let of = |chosen: &[usize]| {
        let counts = Counts::of(chosen.iter().map(|i| &rows[*i].buckets[..]));
        target.divergence(&counts)
    };
    let all: Vec<usize> = (0..rows.len()).collect();
    let random = |n: usize| draw(&vec![0.0; rows.len()], n, seed);
    Distances { all: of(&all), random: chosen.map(|chosen| of(&random(chosen.len()))), kept: chosen.map(of) }
}
