//! `galen data check`.

use super::{Check, source};
use crate::cli::Globals;
use crate::session::Preparer;
use crate::stdout;
use galen_data::check::{CheckReport, PreferenceCheck, check, check_preferences};
use galen_data::{DatasetSpec, OnBadRow};
use galen_types::{Answer, Conversation, Origin, Prompt, Rendered};
use serde::Serialize;
use serde_json::json;
use std::fmt::{self, Write as _};

#[derive(Serialize)]
struct Entry<'a> {
    path: &'a str,
    /// `train` or `validation`.
    role: &'static str,
    clean: bool,
    #[serde(flatten)]
    report: Report,
}

/// What was found, by the kind of data.
#[derive(Serialize)]
#[serde(untagged)]
enum Report {
    Supervised(CheckReport),
    Preference(PreferenceCheck),
}

impl Report {
    fn is_clean(&self) -> bool {
        match self {
            Self::Supervised(r) => r.is_clean(),
            Self::Preference(r) => r.is_clean(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Supervised(r) => r.fmt(f),
            Self::Preference(r) => r.fmt(f),
        }
    }
}

/// Reports on every entry. An error (exit code 1) where training would stop at a row or leave one out.
pub fn run(args: &Check, globals: &Globals) -> anyhow::Result<()> {
    let config = args.source.config()?;
    let base = source::base(&config, globals.offline)?;
    let preparer = Preparer {
        base: &base,
        config: &config,
        offline: globals.offline,
        date: chrono::Utc::now().date_naive(),
    };
    let (train, test) = config.dataset_specs()?;
    let mut entries = Vec::new();
    let roles = train.iter().map(|s| (s, "train")).chain(test.iter().map(|s| (s, "validation")));
    for (spec, role) in roles {
        let report = if config.rl.is_some() {
            Report::Preference(preference(&preparer, spec)?)
        } else {
            Report::Supervised(supervised(&preparer, spec)?)
        };
        entries.push(Entry { path: &spec.path, role, clean: report.is_clean(), report });
    }
    let clean = entries.iter().all(|e| e.clean);
    if globals.json {
        stdout::print_json(&json!({"clean": clean, "entries": entries}))?;
    } else {
        let texts = entries.iter().map(|e| format!("{} ({})\n{}", e.path, e.role, e.report));
        stdout::print(&texts.collect::<Vec<_>>().join("\n"))?;
    }
    anyhow::ensure!(clean, "{}", complaint(&entries, config.sequence_len));
    Ok(())
}

fn supervised(preparer: &Preparer, spec: &DatasetSpec) -> anyhow::Result<CheckReport> {
    let loaded = preparer.load(spec, OnBadRow::Skip)?;
    let renderer = preparer.renderer(spec, &loaded.rows)?;
    let render = |row: &Conversation| -> Result<Rendered, String> {
        renderer.render(row).map_err(|e| fault(row.origin(), &e))
    };
    Ok(check(&loaded, &render, &preparer.base.tokenizer, preparer.tokenize_options()))
}

fn preference(preparer: &Preparer, spec: &DatasetSpec) -> anyhow::Result<PreferenceCheck> {
    let loaded = preparer.load_preferences(spec, OnBadRow::Skip)?;
    let renderer = preparer.answer_renderer(spec, &loaded.rows)?;
    let render = |origin: &Origin, prompt: &Prompt, answer: &Answer| {
        renderer.render(origin, prompt, answer).map_err(|e| fault(origin, &e))
    };
    let sequence_len = preparer.config.sequence_len as usize;
    Ok(check_preferences(&loaded, &render, &preparer.base.tokenizer, sequence_len))
}

/// The error's text without the origin, which the report puts before it.
fn fault(origin: &Origin, error: &anyhow::Error) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{origin}: ")).map_or(text.clone(), str::to_owned)
}

fn complaint(entries: &[Entry], sequence_len: u64) -> String {
    let mut out = String::new();
    for Entry { path, report, .. } in entries.iter().filter(|e| !e.clean) {
        let (rows, bad_rows, unsupervised, too_long) = match report {
            Report::Supervised(r) => (r.rows, &r.bad_rows, r.without_supervision, r.too_long),
            Report::Preference(r) => (r.rows, &r.bad_rows, 0, r.too_long),
        };
        let counts = [
            (bad_rows.values().sum::<u64>(), "cannot be used".to_owned()),
            (unsupervised, "have nothing to train on".into()),
            (too_long, format!("are longer than {sequence_len} tokens")),
        ];
        let said: Vec<String> =
            counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        let separator = if out.is_empty() { "" } else { "; " };
        let _ = write!(out, "{separator}{path}: of {rows} rows {}", said.join(", "));
    }
    out.push_str("\nhint: the report names them; `on_bad_row: skip` and `excess_length_strategy:` decide what training does");
    out
}
