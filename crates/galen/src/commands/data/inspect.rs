//! `galen data inspect`.

mod preference;

use super::{Inspect, Stage, source};
use crate::cli::Globals;
use crate::config::Config;
use crate::progress::say;
use crate::session::{Base, Preparer};
use crate::stdout;
use galen_data::inspect;
use galen_data::pack::{Sharing, pack_sequences};
use galen_data::tokenize::tokenize;
use galen_train::StepPlan;
use galen_types::{Rendered, Segment, Target, Tokenized};
use serde_json::json;
use std::io::IsTerminal as _;

/// Shows rows as the model sees them.
pub fn run(args: &Inspect, globals: &Globals) -> anyhow::Result<()> {
    let config = args.source.config()?;
    let base = source::base(&config, globals.offline)?;
    let preparer = Preparer {
        base: &base,
        config: &config,
        offline: globals.offline,
        date: chrono::Utc::now().date_naive(),
    };
    let color = match args.color {
        clap::ColorChoice::Always => true,
        clap::ColorChoice::Never => false,
        // https://no-color.org
        clap::ColorChoice::Auto => {
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        }
    };
    let style = if globals.json { Style::Json } else { Style::Text { color } };
    let shown = match args.stage {
        Stage::Packed => packed(args, &preparer, style)?,
        _ if config.rl.is_some() => preference::shown(args, &preparer, style)?,
        Stage::Rendered => rows(args, &preparer)?.iter().map(|(n, row)| rendered(*n, row, style)).collect(),
        Stage::Tokenized => tokenized(args, &preparer, style)?,
    };
    if shown.is_empty() {
        say(&format!("nothing to show: fewer than {} rows or batches", args.skip.saturating_add(1)));
    }
    stdout::print(&shown.join(if globals.json { "" } else { "\n" }))
}

/// How rows are shown.
#[derive(Clone, Copy)]
enum Style {
    /// For eyes.
    Text {
        /// Whether the terminal's colours mark what is trained.
        color: bool,
    },
    /// One object a line.
    Json,
}

fn rendered(number: u64, row: &Rendered, style: Style) -> String {
    let Style::Text { color } = style else {
        let spans: Vec<_> = row.spans().iter().map(|s| [s.start, s.end]).collect();
        let (origin, text) = (row.origin().to_string(), row.text());
        return line(&json!({"origin": origin, "row": number, "text": text, "supervised_bytes": spans}));
    };
    inspect::rendered(row, color)
}

fn line(value: &serde_json::Value) -> String {
    format!("{value}\n")
}

/// The asked rows with their numbers, counted through all entries.
fn rows(args: &Inspect, preparer: &Preparer) -> anyhow::Result<Vec<(u64, Rendered)>> {
    let (train, test) = preparer.config.dataset_specs()?;
    let (mut out, mut before) = (Vec::new(), 0);
    for spec in train.iter().chain(&test) {
        if out.len() >= args.rows {
            break;
        }
        let loaded = preparer.load(spec, preparer.config.bad_rows())?;
        loaded.bad_rows.iter().take(3).for_each(|bad| say(&format!("skipped: {}", bad.text)));
        let n = loaded.rows.len();
        let from = args.skip.saturating_sub(before).min(n);
        let to = from.saturating_add(args.rows - out.len()).min(n);
        let rendered = preparer.render(spec, &loaded.rows[from..to])?;
        out.extend(rendered.into_iter().enumerate().map(|(i, row)| ((before + from + i) as u64, row)));
        before += n;
    }
    Ok(out)
}

fn tokenized(args: &Inspect, preparer: &Preparer, style: Style) -> anyhow::Result<Vec<String>> {
    let encoder = &preparer.base.tokenizer;
    let mut out = Vec::new();
    for (number, rendered) in rows(args, preparer)? {
        // One at a time, so that a row that is left out does not change the numbers of those behind it.
        let one = [rendered];
        let (rows, report) = tokenize(&one, encoder, preparer.tokenize_options())?;
        report.dropped_rows.iter().for_each(|row| say(&format!("left out: {row}")));
        for row in rows {
            let row = Tokenized::new(row.origin().clone(), number, row.ids().to_vec(), row.mask().to_vec())?;
            out.push(match style {
                Style::Text { color } => inspect::tokenized(&row, encoder, color),
                Style::Json => line(&json!({
                    "origin": row.origin().to_string(),
                    "row": number,
                    "ids": row.ids(),
                    "supervised": row.mask(),
                })),
            });
        }
    }
    Ok(out)
}

/// Micro-batches in the order of the first epoch.
fn packed(args: &Inspect, preparer: &Preparer, style: Style) -> anyhow::Result<Vec<String>> {
    let (config, base): (&Config, &Base) = (preparer.config, preparer.base);
    let prepared = preparer.prepare()?;
    let sharing = if config.shares_prefixes() { Sharing::AcrossRows } else { Sharing::WithinRow };
    let (rows_per_pass, accumulation) = config.step_shape();
    let plan = StepPlan::new(
        prepared.rows.lengths(sharing),
        rows_per_pass,
        accumulation,
        config.packing(),
        config.seed,
    );
    let batches = plan.epoch(0).into_iter().flatten().skip(args.skip).take(args.rows);
    let shown = batches.map(|numbers| -> anyhow::Result<String> {
        let rows: Vec<&Tokenized> = numbers.iter().flat_map(|i| prepared.rows.sequences(*i)).collect();
        let packed = pack_sequences(&rows, sharing)?;
        let batch = packed.batch();
        let Style::Text { color } = style else {
            let segment = |s: &Segment| json!({"start": s.start, "len": s.len, "parent": s.parent, "position": s.position});
            let segments: Vec<_> = batch.segments().iter().map(segment).collect();
            let target = |t: &Target| json!({"index": t.index, "token": t.token, "row": t.row});
            let targets: Vec<_> = batch.targets().iter().map(target).collect();
            return Ok(line(&json!({"ids": batch.ids(), "segments": segments, "targets": targets})));
        };
        Ok(inspect::packed(batch, &base.tokenizer, color))
    });
    shown.collect()
}
