//! `galen data split`.

use super::Split;
use crate::cli::{Globals, Limit};
use crate::error::UsageError;
use crate::session::raw_rows;
use crate::stdout;
use anyhow::Context as _;
use galen_data::split::{Size, SplitOptions, split, write_jsonl};
use serde_json::json;
use std::path::PathBuf;

/// Writes the parts of a file; overwrites nothing.
pub fn run(args: &Split, globals: &Globals) -> anyhow::Result<()> {
    let file = |name: &str| -> PathBuf { args.out.join(format!("{name}.jsonl")) };
    let names: &[&str] = if args.val.is_some() { &["train", "test", "val"] } else { &["train", "test"] };
    if let Some(there) = names.iter().map(|n| file(n)).find(|f| f.exists()) {
        let hint = "name another folder with `--out`, or delete it first";
        return Err(UsageError::new(format!("{}: exists already", there.display()), hint).into());
    }
    let rows = raw_rows(&args.input, globals.offline)?;
    let options = SplitOptions {
        group_by: args.group_by.as_deref(),
        test: size(args.test),
        val: args.val.map(size),
        seed: args.seed,
    };
    let parts = split(rows, options)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let r = &parts.report;
    let (mut table, mut files) = (String::new(), Vec::new());
    for (name, rows, groups) in [
        ("train", &parts.train, r.train_groups),
        ("test", &parts.test, r.test_groups),
        ("val", &parts.val, r.val_groups),
    ] {
        if !names.contains(&name) {
            continue;
        }
        write_jsonl(&file(name), rows)?;
        let of = args.group_by.as_ref().map_or(String::new(), |f| format!(", {groups} groups by {f}"));
        table.push_str(&format!("{}: {} rows{of}\n", file(name).display(), rows.len()));
        files.push(json!({"part": name, "file": file(name), "rows": rows.len(), "groups": groups}));
    }
    if globals.json {
        return stdout::print_json(&json!({"seed": args.seed, "group_by": args.group_by, "parts": files}));
    }
    stdout::print(&table)
}

fn size(limit: Limit) -> Size {
    match limit {
        Limit::Count(n) => Size::Rows(usize::try_from(n).unwrap_or(usize::MAX)),
        Limit::Share(share) => Size::Share(share),
    }
}
