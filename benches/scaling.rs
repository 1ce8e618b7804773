//! How a training step scales: one quantity at a time, all else as in the dense step (4 rows of 256 tokens, rank 16,
//! all threads, SmolLM2's shape in Q4_1 with random weights). Tokens a second and peak memory of each point.
//!
//! `cargo run --release -p galen-bench --bin scaling -- OUT_DIR [STEPS [LAYERS]]`
//!
//! Writes OUT_DIR/scaling.jsonl and OUT_DIR/scaling.svg. Defaults: the median of 3 steps, 30 layers; each point is a
//! process of its own, so that its peak memory is its own.

use anyhow::Context as _;
use galen_bench::{StepShape, load_options, train};
use galen_model::{Model, Weights};
use galen_ops::quant::WeightDtype;
use galen_testkit::big_gguf::{LlamaShape, write_llama};
use galen_train::peak_rss_bytes;
use plotters::prelude::*;
use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// SmolLM2-135M but for its number of blocks.
const SHAPE: LlamaShape = LlamaShape {
    layers: 30,
    hidden: 576,
    ffn: 1536,
    heads: 9,
    kv_heads: 3,
    vocab: 49_152,
    dtype: WeightDtype::Q4_1,
};

/// One measured step.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Point {
    axis: String,
    layers: usize,
    rows: usize,
    tokens: usize,
    r: usize,
    threads: usize,
    checkpoint: bool,
    #[serde(default)]
    median_s: f64,
    #[serde(default)]
    tokens_per_second: f64,
    #[serde(default)]
    peak_rss_mb: u64,
}

/// Axis, its name in the plot, and what varies along it.
type Axis = (&'static str, &'static str, fn(&Point) -> usize);
/// Title, colour and what is measured.
type Measure = (&'static str, RGBColor, fn(&Point) -> f64);

const AXES: [Axis; 5] = [
    ("tokens", "tokens of a step (rows of 128)", |p| p.rows * p.tokens),
    ("segment", "tokens of a row (1,024 a step)", |p| p.tokens),
    ("layers", "blocks", |p| p.layers),
    ("rank", "rank", |p| p.r),
    ("threads", "threads", |p| p.threads),
];

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: usize| -> anyhow::Result<usize> {
        args.get(i).map_or(Ok(default), |a| a.parse().with_context(|| format!("`{a}` is no number")))
    };
    match &args[..] {
        [flag, point, path, steps] if flag == "--point" => measure(point, Path::new(path), steps.parse()?),
        [out, ..] if !out.starts_with("--") => run(Path::new(out), number(1, 3)?, number(2, 30)?),
        _ => anyhow::bail!("usage: scaling OUT_DIR [STEPS [LAYERS]]"),
    }
}

fn run(out: &Path, steps: usize, layers: usize) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let folder = tempfile::tempdir()?;
    let mut log = std::fs::File::create(out.join("scaling.jsonl"))?;
    let mut measured = Vec::new();
    for point in points(layers) {
        let path = folder.path().join(format!("{}.gguf", point.layers));
        if !path.exists() {
            write_llama(&path, LlamaShape { layers: point.layers as u64, ..SHAPE }, 1)?;
        }
        let said = Command::new(std::env::current_exe()?)
            .args(["--point", &serde_json::to_string(&point)?])
            .arg(&path)
            .arg(steps.to_string())
            .stderr(Stdio::inherit())
            .output()?;
        anyhow::ensure!(said.status.success(), "{point:?} failed");
        let point: Point = serde_json::from_slice(&said.stdout)?;
        let line = serde_json::to_string(&point)?;
        writeln!(log, "{line}")?;
        println!("{line}");
        measured.push(point);
    }
    let svg = draw(&measured).map_err(anyhow::Error::msg)?;
    std::fs::write(out.join("scaling.svg"), svg)?;
    eprintln!("{}", out.join("scaling.svg").display());
    Ok(())
}

fn points(layers: usize) -> Vec<Point> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let base = |axis: &str| Point {
        axis: axis.to_owned(),
        layers,
        rows: 4,
        tokens: 256,
        r: 16,
        threads,
        checkpoint: false,
        median_s: 0.0,
        tokens_per_second: 0.0,
        peak_rss_mb: 0,
    };
    let mut all = Vec::new();
    all.extend([1, 2, 4, 8, 16].map(|rows| Point { rows, tokens: 128, ..base("tokens") }));
    all.extend([32, 64, 128, 256, 512, 1024].map(|tokens| Point {
        rows: 1024 / tokens,
        tokens,
        ..base("segment")
    }));
    let mut parts: Vec<usize> = (1..=6).map(|i| (layers * i).div_ceil(6)).collect();
    parts.dedup();
    all.extend(parts.into_iter().map(|layers| Point { layers, ..base("layers") }));
    all.extend([4, 8, 16, 32, 64, 128].map(|r| Point { r, ..base("rank") }));
    all.extend((1..=threads).map(|threads| Point { threads, ..base("threads") }));
    all
}

fn measure(point: &str, path: &Path, steps: usize) -> anyhow::Result<()> {
    let mut point: Point = serde_json::from_str(point)?;
    galen_ops::check_isa()?;
    rayon::ThreadPoolBuilder::new().num_threads(point.threads).build_global()?;
    let model = Model::load(&Weights::open(path)?, load_options("bf16")?)?;
    let shape =
        StepShape { rows: point.rows, tokens: point.tokens, r: point.r, checkpointing: point.checkpoint };
    point.median_s = train(&model, shape, steps)?.median()?;
    point.tokens_per_second = (point.rows * point.tokens) as f64 / point.median_s;
    point.peak_rss_mb = peak_rss_bytes() / (1 << 20);
    println!("{}", serde_json::to_string(&point)?);
    Ok(())
}

/// Tokens a second above, peak memory below; one column an axis.
fn draw(points: &[Point]) -> Result<String, String> {
    const INK: RGBColor = RGBColor(60, 60, 60);
    let text = |e: plotters::drawing::DrawingAreaErrorKind<_>| format!("{e:?}");
    let mut out = String::new();
    let root = SVGBackend::with_string(&mut out, (1500, 560)).into_drawing_area();
    root.fill(&WHITE).map_err(text)?;
    let values: [Measure; 2] = [
        ("tokens/s", RGBColor(31, 97, 172), |p| p.tokens_per_second),
        ("peak memory, MB", RGBColor(176, 70, 27), |p| p.peak_rss_mb as f64),
    ];
    let panels = root.split_evenly((values.len(), AXES.len()));
    let cells = values.iter().flat_map(|v| AXES.iter().map(move |a| (v, a)));
    for (area, ((title, colour, value), (axis, label, at))) in panels.iter().zip(cells) {
        let mut series: Vec<(f64, f64)> =
            points.iter().filter(|p| p.axis == *axis).map(|p| (at(p) as f64, value(p))).collect();
        series.sort_by(|a, b| a.0.total_cmp(&b.0));
        let last = series.iter().fold(1f64, |m, p| m.max(p.0));
        let highest = series.iter().fold(1f64, |m, p| m.max(p.1));
        let mut chart = ChartBuilder::on(area)
            .caption(*title, ("sans-serif", 13).into_font().color(&INK))
            .margin(8)
            .x_label_area_size(34)
            .y_label_area_size(48)
            .build_cartesian_2d(0.0..last * 1.05, 0.0..highest * 1.1)
            .map_err(text)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RGBColor(225, 225, 225))
            .axis_style(RGBColor(150, 150, 150))
            .x_labels(5)
            .y_labels(5)
            .x_desc(*label)
            .label_style(("sans-serif", 11).into_font().color(&INK))
            .x_label_formatter(&|x| if x.fract() == 0.0 { format!("{x:.0}") } else { String::new() })
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()
            .map_err(text)?;
        chart.draw_series(LineSeries::new(series.iter().copied(), colour.stroke_width(2))).map_err(text)?;
        chart.draw_series(series.iter().map(|p| Circle::new(*p, 3, colour.filled()))).map_err(text)?;
    }
    root.present().map_err(text)?;
    drop(panels);
    drop(root);
    Ok(out)
}
