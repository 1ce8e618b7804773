//! `report.html`: one page, nothing loaded from anywhere.

use super::curves::{self, FAINT, Line, MAIN, SECOND};
use super::{ReportError, RunSummary, format};
use minijinja::{AutoEscape, Environment, Value, context};
use serde::Serialize;

/// One figure on the page.
#[derive(Serialize)]
struct Figure {
    title: &'static str,
    note: String,
    /// (class, name) of each line where there are several.
    legend: Vec<(&'static str, &'static str)>,
    svg: Value,
}

/// One run's value as the table shows it.
#[derive(Serialize)]
struct Cell {
    run: String,
    value: String,
    lo: String,
    hi: String,
    /// Place of value and interval on a bar of 100.
    at: f64,
    from: f64,
    width: f64,
}

#[derive(Serialize)]
struct Row {
    task: String,
    metric: String,
    n: String,
    chance: Option<String>,
    chance_at: Option<f64>,
    cells: Vec<Cell>,
    difference: Option<[String; 3]>,
    p: Option<String>,
}

/// The page. Every text is escaped; no script, no external resource (a content security policy says so too).
pub fn report_html(run: &RunSummary) -> Result<String, ReportError> {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    let rows: Vec<Row> = run.evaluation.iter().map(row).collect();
    let data: Vec<_> = run
        .data
        .iter()
        .map(|d| {
            context! { name => d.name, role => d.role, rows => format::count(d.rows), sha256 => d.sha256,
            tokens => d.supervised_tokens.map(format::count) }
        })
        .collect();
    let page = env.render_named_str(
        "report.html",
        include_str!("report.html.j2"),
        context! {
            title => run.title,
            base_model => run.base_model,
            finished => run.finished,
            tiles => tiles(run),
            figures => figures(run)?,
            rows,
            data,
            settings => run.settings,
            hashes => run.hashes,
            versions => run.versions,
            config => run.config_yaml,
            samples => run.samples,
        },
    )?;
    Ok(page)
}

/// The figures a reader looks for first: (name, value, note).
fn tiles(run: &RunSummary) -> Vec<(&'static str, String, String)> {
    let mut tiles = Vec::new();
    if let Some(row) = run.evaluation.first()
        && let (Some(first), Some(last)) = (row.runs.first(), row.runs.last())
    {
        let value = if row.runs.len() > 1 {
            format!("{} → {} %", format::percent(first.value), format::percent(last.value))
        } else {
            format!("{} %", format::percent(first.value))
        };
        tiles.push(("Accuracy", value, format!("{} on {}", row.metric, row.task)));
    }
    if let Some((step, loss)) = run.best_eval_loss() {
        tiles.push(("Best validation loss", format::short(loss), format!("at step {}", format::count(step))));
    }
    if let (Some(first), Some(last)) = (run.steps.first(), run.steps.last()) {
        tiles.push((
            "Training loss",
            format::short(last.loss),
            format!("from {} at the first step", format::short(first.loss)),
        ));
        let tokens =
            format!("{} tokens in {} steps", format::count(last.num_tokens), format::count(last.step));
        tiles.push(("Time in steps", format::seconds(run.seconds()), tokens));
        let peak = run.steps.iter().map(|s| s.peak_rss_bytes).max().unwrap_or(0);
        tiles.push(("Peak memory", format::bytes(peak), format!("on {}", last.device)));
    }
    tiles
}

/// What alignment measures that is worth a figure: name, title, note. Figures without points are left out.
const MEASURED: [(&str, &str, &str); 5] = [
    ("reward", "Reward", "mean of the sampled answers"),
    ("completions/mean_length", "Answer length", "tokens of the sampled answers, mean"),
    ("rewards/margins", "Reward margin", "reward of the better answer less that of the worse"),
    ("logps/chosen", "Likelihood of the better answers", "sum of log-probabilities, nats"),
    ("margin", "Reward margin", "score of the better answer less that of the worse"),
];

fn figures(run: &RunSummary) -> Result<Vec<Figure>, ReportError> {
    let of = |value: fn(&galen_types::StepReport) -> f64| -> Vec<(f64, f64)> {
        run.steps.iter().map(|s| (s.step as f64, value(s))).collect()
    };
    let loss = of(|s| s.loss);
    let known = |s: &galen_types::StepReport| Some((s.step as f64, s.mean_token_accuracy?));
    let accuracy: Vec<(f64, f64)> = run.steps.iter().filter_map(known).collect();
    let evals = run.eval_losses.iter().map(|(step, loss)| (*step as f64, *loss));
    let mut legend = vec![("faint", "each step"), ("main", "training, smoothed")];
    if !run.eval_losses.is_empty() {
        legend.push(("second", "validation"));
    }
    let aligned = run.steps.iter().any(|s| MEASURED.iter().any(|m| s.metrics.contains_key(m.0)));
    let unit = if aligned { "the objective's loss" } else { "nats a supervised token" };
    let mut drawn = vec![
        (
            "Loss",
            unit.to_owned(),
            legend,
            vec![
                Line::new(FAINT, loss.clone()),
                Line::new(MAIN, curves::smoothed(&loss)),
                Line::new(SECOND, evals).with_dots(),
            ],
        ),
        ("Learning rate", String::new(), Vec::new(), vec![Line::new(MAIN, of(|s| s.learning_rate))]),
        (
            "Gradient norm",
            "global L2 norm before clipping".to_owned(),
            vec![("faint", "each step"), ("main", "smoothed")],
            vec![
                Line::new(FAINT, of(|s| s.grad_norm)),
                Line::new(MAIN, curves::smoothed(&of(|s| s.grad_norm))),
            ],
        ),
        (
            "Token accuracy",
            "share of supervised tokens predicted right".to_owned(),
            vec![("faint", "each step"), ("main", "smoothed")],
            vec![Line::new(FAINT, accuracy.clone()), Line::new(MAIN, curves::smoothed(&accuracy))],
        ),
    ];
    for (place, (name, title, note)) in MEASURED.iter().enumerate() {
        let value = |s: &galen_types::StepReport| Some((s.step as f64, *s.metrics.get(*name)?));
        let points: Vec<(f64, f64)> = run.steps.iter().filter_map(value).collect();
        let lines = vec![Line::new(FAINT, points.clone()), Line::new(MAIN, curves::smoothed(&points))];
        let legend = vec![("faint", "each step"), ("main", "smoothed")];
        // Behind the loss: what alignment is for.
        drawn.insert((1 + place).min(drawn.len()), (*title, (*note).to_owned(), legend, lines));
    }
    let mut figures = Vec::new();
    for (title, note, legend, lines) in drawn {
        if let Some(svg) = curves::svg(title, &lines)? {
            figures.push(Figure { title, note, legend, svg: Value::from_safe_string(svg) });
        }
    }
    Ok(figures)
}

fn row(row: &super::MeasuredRow) -> Row {
    let place = |x: f64| 100.0 * x.clamp(0.0, 1.0);
    Row {
        task: row.task.clone(),
        metric: row.metric.clone(),
        n: format::count(row.n),
        chance: row.chance.map(format::percent),
        chance_at: row.chance.map(place),
        cells: row
            .runs
            .iter()
            .map(|run| {
                let [lo, hi] = run.ci95;
                Cell {
                    run: run.run.clone(),
                    value: format::percent(run.value),
                    lo: format::percent(lo),
                    hi: format::percent(hi),
                    at: place(run.value),
                    from: place(lo),
                    width: (place(hi) - place(lo)).max(0.4),
                }
            })
            .collect(),
        difference: row
            .difference
            .map(|(d, [lo, hi])| [format::points(d), format::points(lo), format::points(hi)]),
        p: row.p_mcnemar.map(format::p_value),
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::sample_run;
    use super::*;
    use crate::report::SampleRow;

    #[test]
    fn an_alignment_shows_what_it_is_for() {
        let mut run = sample_run();
        assert!(!report_html(&run).unwrap().contains("Reward"));
        for (i, step) in run.steps.iter_mut().enumerate() {
            step.metrics.insert("reward".into(), i as f64);
            step.metrics.insert("completions/mean_length".into(), 7.0);
        }
        let html = report_html(&run).unwrap();
        for part in ["Reward", "Answer length", "the objective&#x27;s loss"] {
            assert!(html.contains(part), "{part} is missing");
        }
        assert!(!html.contains("Reward margin") && !html.contains("nats a supervised token"));
    }

    #[test]
    fn the_page_is_whole_and_loads_nothing() {
        let html = report_html(&sample_run()).unwrap();
        for part in [
            "<svg",
            "6.9",
            "70.0",
            "+63.1",
            "3 · 10⁻⁶⁴",
            "Learning rate",
            "Gradient norm",
            "3f5a",
            "x86-64-v4",
        ] {
            assert!(html.contains(part), "{part} is missing");
        }
        // Namespaces name no resource.
        let links = html.replace("http://www.w3.org/2000/svg", "");
        for part in ["http://", "https://", "<script", "src=", "@import", "url(", "<link"] {
            assert!(!links.contains(part), "{part}");
        }
        assert!(!html.contains("NaN"));
    }

    #[test]
    fn user_rows_only_on_request_and_escaped() {
        let mut run = sample_run();
        assert!(!report_html(&run).unwrap().contains("Examples"));
        let hostile = "<script>alert(1)</script>";
        run.title = hostile.into();
        run.samples = Some(vec![SampleRow {
            prompt: hostile.into(),
            expected: "J".into(),
            before: "A".into(),
            after: "J".into(),
        }]);
        let html = report_html(&run).unwrap();
        assert!(html.contains("Examples") && html.contains("&lt;script&gt;") && !html.contains("<script"));
    }

    #[test]
    fn a_run_of_nothing_still_has_a_page() {
        assert!(report_html(&RunSummary::default()).unwrap().contains("</html>"));
    }
}
