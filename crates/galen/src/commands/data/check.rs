//! `galen data check`.

use super::{Check, source};
use crate::cli::Globals;
use crate::session::Preparer;
use crate::stdout;
use galen_data::OnBadRow;
use galen_data::check::{CheckReport, check};
use galen_types::{Conversation, Rendered};
use serde::Serialize;
use serde_json::json;
use std::fmt::Write as _;

#[derive(Serialize)]
struct Entry<'a> {
    path: &'a str,
    /// `train` or `validation`.
    role: &'static str,
    clean: bool,
    #[serde(flatten)]
    report: CheckReport,
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
        let loaded = preparer.load(spec, OnBadRow::Skip)?;
        let renderer = preparer.renderer(spec, &loaded.rows)?;
        let render = |row: &Conversation| -> Result<Rendered, String> {
            renderer.render(row).map_err(|e| fault(row, &e))
        };
        let report = check(&loaded, &render, &base.tokenizer, config.sequence_len as usize);
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

/// The error's text without the origin, which the report puts before it.
fn fault(row: &Conversation, error: &anyhow::Error) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", row.origin())).map_or(text.clone(), str::to_owned)
}

fn complaint(entries: &[Entry], sequence_len: u64) -> String {
    let mut out = String::new();
    for Entry { path, report: r, .. } in entries.iter().filter(|e| !e.clean) {
        let bad = r.bad_rows.values().sum::<u64>();
        let counts = [
            (bad, "cannot be used".to_owned()),
            (r.without_supervision, "have nothing to train on".into()),
            (r.too_long, format!("are longer than {sequence_len} tokens")),
        ];
        let said: Vec<String> =
            counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        let separator = if out.is_empty() { "" } else { "; " };
        let _ = write!(out, "{separator}{path}: of {} rows {}", r.rows, said.join(", "));
    }
    out.push_str("\nhint: the report names them; `on_bad_row: skip` and `excess_length_strategy:` decide what training does");
    out
}
