//! `galen plan CONFIG`.

use crate::cli::Globals;
use crate::config::{self, Config, Report};
use crate::error::{ConfigErrors, UsageError};
use crate::stdout;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Flags of `galen plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration (Axolotl's keys; `galen init` writes one); with `--check-config` also a folder of them
    #[arg(required_unless_present = "list_keys")]
    pub config: Option<PathBuf>,
    /// Only check the configuration: what becomes of each key. No model is looked up
    #[arg(long, alias = "check_config")]
    pub check_config: bool,
    /// Print every key there is, with its state, type and default
    #[arg(long, alias = "list_keys", exclusive = true)]
    pub list_keys: bool,
    /// Override a key, also inside one: `lora_r=8`, `datasets[0].path=x.jsonl`
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Checks a configuration; without `--check-config` also estimates memory and time.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<()> {
    if args.list_keys {
        return stdout::print(&config::docs::page());
    }
    let Some(path) = args.config else {
        return Err(UsageError::new("no configuration", "`galen plan config.yaml`").into());
    };
    if args.check_config && path.is_dir() {
        return super::check_folder::run(&path, &args.set, globals.json);
    }
    let (mut config, report) = config::check(&path, &args.set);
    globals.place(&mut config);
    let sound = report.errors.is_empty();
    // An estimate that cannot be made (the model is not here) must not hide what the check found.
    let plan = (sound && !args.check_config).then(|| super::estimate::of(&config, globals)).transpose();
    let shown = plan.as_ref().ok().and_then(Option::as_ref);
    if globals.json {
        let mut value = json(&config, &report);
        if let Some(plan) = shown {
            value["estimate"] = serde_json::to_value(plan)?;
        }
        stdout::print_json(&value)?;
    } else {
        stdout::print(&text(&report, if args.check_config || !sound { Detail::All } else { Detail::Notes }))?;
        if let Some(plan) = shown {
            stdout::print(&super::estimate::text(plan))?;
        }
    }
    if !sound {
        return Err(ConfigErrors(report.errors).into());
    }
    plan.map(|_| ())
}

/// How much of a report is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Every key.
    All,
    /// Only what a user of the peers should know: keys without effect, and notes.
    Notes,
}

/// What becomes of each key, as a page.
pub fn text(report: &Report, detail: Detail) -> String {
    let names = |state: &str| -> Vec<&str> {
        report.verdicts.iter().filter(|v| v.state == state).map(|v| v.key.as_str()).collect()
    };
    let mut out = String::new();
    if detail == Detail::All && !report.verdicts.is_empty() {
        let honoured = names("honoured");
        let _ = writeln!(out, "{}: {} keys honoured: {}", report.file, honoured.len(), honoured.join(" "));
    }
    for (reason, keys) in no_effect(report) {
        let _ = writeln!(out, "no effect: {}: {reason}", keys.join(" "));
    }
    for (key, note) in &report.notes {
        let _ = writeln!(out, "note: {key}: {note}");
    }
    if detail == Detail::Notes {
        return out;
    }
    let off = names("off");
    if !off.is_empty() {
        let _ = writeln!(out, "unset or off: {}", off.join(" "));
    }
    let _ = match report.errors.len() {
        0 => writeln!(out, "the configuration is sound"),
        n => writeln!(out, "{n} to mend:"),
    };
    out
}

/// Keys without effect, those with the same reason together.
pub fn no_effect(report: &Report) -> Vec<(&str, Vec<&str>)> {
    let mut lines: Vec<(&str, Vec<&str>)> = Vec::new();
    for verdict in report.verdicts.iter().filter(|v| v.state == "no effect") {
        match lines.iter_mut().find(|(reason, _)| *reason == verdict.text) {
            Some((_, keys)) => keys.push(&verdict.key),
            None => lines.push((&verdict.text, vec![&verdict.key])),
        }
    }
    lines
}

fn json(config: &Config, report: &Report) -> serde_json::Value {
    let errors: Vec<_> = report
        .errors
        .iter()
        .map(|e| serde_json::json!({"origin": e.origin, "message": e.message, "hint": e.hint}))
        .collect();
    let notes: Vec<_> = report.notes.iter().map(|(k, t)| serde_json::json!({"key": k, "text": t})).collect();
    let resolved = if errors.is_empty() { config.to_json() } else { serde_json::Value::Null };
    serde_json::json!({
        "file": report.file,
        "ok": errors.is_empty(),
        "keys": report.verdicts,
        "errors": errors,
        "notes": notes,
        "config": resolved,
    })
}
