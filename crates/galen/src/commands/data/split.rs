//! `galen data split`.

use super::Split;
use crate::cli::{Globals, Limit};
use crate::error::UsageError;
use crate::progress::say;
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
        if let Err(e) = write_jsonl(&file(name), rows) {
            // All parts or none: the others would stand in the way of the next try.
            names.iter().take_while(|n| **n != name).for_each(|n| drop(std::fs::remove_file(file(n))));
            return Err(e.into());
        }
        let of = args.group_by.as_ref().map_or(String::new(), |f| format!(", {groups} groups by {f}"));
        table.push_str(&format!("{}: {} rows{of}\n", file(name).display(), rows.len()));
        files.push(json!({"part": name, "file": file(name), "rows": rows.len(), "groups": groups}));
    }
    let all = r.train_rows + r.test_rows + r.val_rows;
    for (name, asked, got) in [("test", Some(args.test), r.test_rows), ("val", args.val, r.val_rows)] {
        let Some(Limit::Share(share)) = asked else { continue };
        let got = got as f64 / all.max(1) as f64;
        if got > 2.0 * share || got < 0.5 * share {
            say(&format!(
                "note: {name} has {:.1} % of the rows, where {:.1} % were asked for: a share is of the groups, which are few or of very \
                 different sizes; a number of rows, or another `--seed`, comes nearer",
                100.0 * got,
                100.0 * share
            ));
        }
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
