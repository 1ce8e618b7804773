//! The report for a terminal: aligned columns.

use super::EvalReport;
use super::json::TaskReport;
use serde_json::Value;

/// One line a task and metric: every run's value with its 95 % interval and, from the second run on, the difference
/// to the first with its interval and McNemar's p. Values are per cent. Ends in a line break.
pub fn table(report: &EvalReport) -> String {
    let mut rows = vec![vec!["task".to_owned(), "metric".into(), "n".into(), "chance".into()]];
    rows[0].extend(report.runs.iter().map(|r| r.name.clone()));
    if report.runs.len() > 1 {
        rows[0].extend(["difference".to_owned(), "McNemar p".into()]);
    }
    let Some(first) = report.runs.first() else { return String::new() };
    for (name, task) in &first.tasks {
        let Some(of_first) = task_of(Some(task)) else { continue };
        for metric in of_first.metrics.keys() {
            // With several runs beside the first, each gets its own line's difference.
            let others = report.runs.get(1..).unwrap_or_default();
            let lines = others.len().max(1);
            for line in 0..lines {
                let shown = line == 0;
                let mut row = vec![
                    if shown { name.clone() } else { String::new() },
                    if shown { metric.clone() } else { String::new() },
                    if shown { of_first.n.to_string() } else { String::new() },
                    if shown { of_first.chance.map_or("-".into(), percent) } else { String::new() },
                ];
                for (i, run) in report.runs.iter().enumerate() {
                    let value = task_of(run.tasks.get(name)).and_then(|t| t.metric(metric));
                    let mine = (i == 0 && shown) || i == line + 1;
                    row.push(
                        value
                            .filter(|_| mine)
                            .map_or_else(String::new, |v| with_interval(v.value, v.ci95, percent)),
                    );
                }
                if let Some(run) = others.get(line) {
                    let found = report.comparisons.iter().find(|c| {
                        c.task == *name && c.metric == *metric && c.b == run.name && c.a == first.name
                    });
                    row.push(found.map_or("-".into(), |c| with_interval(c.delta, c.ci95, signed)));
                    row.push(found.map_or("-".into(), |c| p_value(c.p_mcnemar)));
                }
                rows.push(row);
            }
        }
    }
    aligned(&rows)
}

fn task_of(value: Option<&Value>) -> Option<TaskReport> {
    serde_json::from_value(value?.clone()).ok()
}

fn percent(x: f64) -> String {
    format!("{:.1}", 100.0 * x)
}

fn signed(x: f64) -> String {
    format!("{:+.1}", 100.0 * x)
}

fn with_interval(x: f64, [lo, hi]: [f64; 2], format: impl Fn(f64) -> String) -> String {
    format!("{} [{}, {}]", format(x), format(lo), format(hi))
}

/// Three decimals, or a power of ten for what they would call 0.
pub(crate) fn p_value(p: f64) -> String {
    match p {
        p if p >= 0.001 => format!("{p:.3}"),
        // Below what an f64 can hold it is not 0 either.
        p if p < 1e-300 => "<1e-300".into(),
        p => format!("{p:.0e}"),
    }
}

/// Columns as wide as their widest cell, two spaces between; numbers to the right, names to the left.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(
                |(c, (cell, width))| {
                    if c < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}
