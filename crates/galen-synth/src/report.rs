//! `synth_report.html`: one page, nothing loaded from anywhere.

use crate::figures::{Figures, Mean, Reason, StepFigures};
use minijinja::{AutoEscape, Environment, Error, Value, context};
use std::collections::BTreeMap;

/// The page. Every text is escaped; no script, no external resource (a content security policy says so too).
pub fn html(figures: &Figures) -> Result<String, Error> {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    let widest = figures.steps.iter().flat_map(|s| [s.input, s.output]).chain([figures.seeds, 1]).max();
    let widest = widest.unwrap_or(1) as f64;
    let steps: Vec<Value> = figures.steps.iter().map(|s| step(s, widest)).collect();
    let coverage: Vec<Value> = figures
        .coverage
        .iter()
        .map(|(value, [seeds, kept, rows])| {
            context! { value, seeds, kept, rows, width => width(*kept, *seeds as f64) }
        })
        .collect();
    let samples: Vec<Vec<(String, String)>> =
        figures.samples.iter().map(|row| row.iter().map(|(k, v)| (k.clone(), shown(v))).collect()).collect();
    env.render_named_str(
        "synth_report.html",
        include_str!("report.html.j2"),
        context! {
            seeds => figures.seeds,
            seeds_kept => figures.seeds_kept,
            seeds_filtered => figures.seeds_filtered,
            seeds_failed => figures.seeds_failed,
            rows => figures.rows,
            seeds_width => width(figures.seeds, widest),
            steps,
            engines => figures.engines,
            outputs => figures.outputs,
            diversity => figures.diversity,
            distinct => figures.diversity.distinct.map(|d| format!("{d:.3}")),
            diversity_field => figures.diversity_field,
            coverage,
            coverage_field => figures.coverage_field,
            samples,
        },
    )
}

fn width(part: usize, of: f64) -> String {
    format!("{:.2}", 100.0 * part as f64 / of.max(1.0))
}

fn step(s: &StepFigures, widest: f64) -> Value {
    let reasons = |map: &BTreeMap<String, Reason>| -> Vec<Value> {
        let mut list: Vec<_> = map.iter().collect();
        list.sort_by_key(|(_, r)| std::cmp::Reverse(r.rows));
        list.into_iter()
            .map(|(reason, r)| context! { reason, rows => r.rows, examples => r.examples })
            .collect()
    };
    let figures: Vec<(String, String)> =
        s.figures.iter().map(|(k, Mean { mean, n })| (k.clone(), format!("{mean:.3} ({n})"))).collect();
    context! {
        label => s.label,
        kind => s.kind,
        input => s.input,
        kept => s.kept,
        output => s.output,
        n_filtered => s.filtered.values().map(|r| r.rows).sum::<usize>(),
        n_failed => s.failed.values().map(|r| r.rows).sum::<usize>(),
        filtered => reasons(&s.filtered),
        failed => reasons(&s.failed),
        figures,
        usage => s.usage,
        width => width(s.output, widest),
    }
}

fn shown(value: &serde_json::Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut out: String = text.chars().take(1500).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}
