//! `galen quickstart`: the whole of galen on real input.

use crate::cli::Globals;
use crate::commands::eval::score_task;
use crate::config;
use crate::progress::{bytes, duration, say};
use crate::session::{self, Base, ModelScorer, Start, Trained, hub_bars, open_adapter};
use crate::signals::Stop;
use crate::stdout;
use anyhow::Context as _;
use galen_adapter::Adapter;
use galen_data::recipe::icd10cm::{Recipe, build};
use galen_eval::{EvalOptions, EvalReport, PromptOptions, RunMeta, Sample, Task, TaskResult};
use galen_hub::Options;
use galen_train::peak_rss_bytes;
use galen_train::report::{Compared, MeasuredRow, SampleRow};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The catalogue's names of what the quickstart works on.
const MODEL: &str = "smollm2-135m-instruct";
const DATA: &str = "icd10cm-2026";

/// Flags of `galen quickstart`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where everything goes; a second run reuses what is there
    #[arg(long, value_name = "DIR", default_value = "galen-quickstart")]
    pub out: PathBuf,
    /// A shorter version: two passes over the rows instead of three, fewer questions
    #[arg(long)]
    pub fast: bool,
}

/// How much of it.
struct Size {
    train_per_letter: usize,
    batch: usize,
    questions: Option<usize>,
    epochs: f64,
    learning_rate: f64,
    run: &'static str,
}

const FULL: Size =
    Size { train_per_letter: 100, batch: 8, questions: None, epochs: 3.0, learning_rate: 5e-4, run: "run" };
const FAST: Size = Size {
    train_per_letter: 100,
    batch: 8,
    questions: Some(120),
    epochs: 2.0,
    learning_rate: 5e-4,
    run: "run-fast",
};

/// Fetches the base model and the clinical data, fine-tunes, evaluates base and adapter, and reports.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<()> {
    let start = Instant::now();
    let stop = Stop::listen()?;
    let size = if args.fast { FAST } else { FULL };
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let data = args.out.join("data");
    make_data(&data, &size, globals.offline)?;
    let dir = args.out.join(size.run);
    let config_path = args.out.join(format!("{}.yaml", size.run));
    session::replace(&config_path, config_text(&data, &dir, &size).as_bytes())?;
    let (mut config, report) = config::load(&config_path, &[])?;
    globals.place(&mut config);
    // A finished run is taken as it is; a cut-off one goes on from its last checkpoint.
    let trained = session::train(&config, &report, Start::Resume, globals.offline, &stop)?;
    let Trained { base, model, template, mut summary, .. } = trained;
    let task = Task::load(&data.join("icd10_letter.yaml").display().to_string(), None)?;
    let options = EvalOptions {
        prompt: PromptOptions { apply_chat_template: true, ..PromptOptions::default() },
        limit: size.questions.map(galen_eval::Limit::Count),
        ..EvalOptions::default()
    };
    // The adapter is read back from its files: what is measured is what is shipped.
    let (adapter, _) = open_adapter(&dir.display().to_string(), &model, config.seed, globals.offline)?;
    let mut results = Vec::new();
    for (name, adapter) in [("base", None), ("adapter", Some(&adapter))] {
        let mut scorer = ModelScorer {
            model: &model,
            adapter,
            tokenizer: &base.tokenizer,
            template: template.as_ref(),
            fast: None,
        };
        let result = score_task(&task, &mut scorer, &options, name)?;
        let shown = adapter.map(|_: &Adapter| dir.display().to_string());
        results.push((RunMeta { name: name.into(), adapter: shown }, vec![result]));
    }
    let eval = EvalReport::new(MODEL, &results);
    let eval_path = dir.join("eval.json");
    eval.write(&eval_path)?;
    let samples = results.iter().map(|(m, r)| (m.name.as_str(), r.as_slice()));
    galen_eval::report::write_samples(
        &galen_eval::report::samples_path(&eval_path),
        samples,
        galen_eval::report::Docs::Full,
    )?;
    let examples = examples(&results);
    summary.evaluation = measured(&eval);
    // The quickstart's rows are public; a user's own appear only when `report_samples` asks.
    summary.samples = Some(examples.clone());
    session::write_reports(&dir, &summary, true)?;
    if globals.json {
        return stdout::print_json(&eval);
    }
    stdout::print(&text(&eval, &examples, &base, &dir, &data, &config_path))?;
    let peak = bytes(peak_rss_bytes());
    say(&format!("done in {}, peak memory {peak}", duration(start.elapsed())));
    Ok(())
}

/// Builds the data set where it is not there yet.
fn make_data(data: &Path, size: &Size, offline: bool) -> anyhow::Result<()> {
    if data.join("icd10_letter.yaml").exists() {
        say(&format!("data: {} is there", data.display()));
        return Ok(());
    }
    let source = galen_hub::resolve_data(DATA, &Options::from_env(offline, hub_bars()))?;
    let recipe = Recipe { train_per_letter: size.train_per_letter, ..Recipe::default() };
    let made = build(&source.path, &recipe, data)?;
    let rows: Vec<String> = made.files.iter().map(|(file, rows)| format!("{file} {rows}")).collect();
    say(&format!("data: {} diagnoses -> {}", made.diagnoses, rows.join(", ")));
    Ok(())
}

fn config_text(data: &Path, dir: &Path, size: &Size) -> String {
    let quoted = |p: PathBuf| serde_json::Value::from(p.display().to_string()).to_string();
    format!(
        "# The clinical example of `galen quickstart`.\n\
         base_model: {MODEL}\n\
         adapter: qlora\n\
         lora_r: 16\n\
         lora_alpha: 32\n\
         datasets:\n  - path: {}\n    type: chat_template\n\
         test_datasets:\n  - path: {}\n    type: chat_template\n\
         sequence_len: 256\n\
         micro_batch_size: {}\n\
         num_epochs: {}\n\
         learning_rate: {}\n\
         lr_scheduler: cosine\n\
         seed: 1\n\
         save_total_limit: 2\n\
         output_dir: {}\n",
        quoted(data.join("train.jsonl")),
        quoted(data.join("validation.jsonl")),
        size.batch,
        size.epochs,
        size.learning_rate,
        quoted(dir.to_owned()),
    )
}

/// Three questions the base gets wrong and the adapter right, of different letters; others where there are too few.
fn examples(results: &[(RunMeta, Vec<TaskResult>)]) -> Vec<SampleRow> {
    let samples = |i: usize| results.get(i).and_then(|(_, r)| r.first()).map_or(&[][..], |r| &r.samples);
    let pairs: Vec<(&Sample, &Sample)> = samples(0).iter().zip(samples(1)).collect();
    let mut chosen: Vec<(&Sample, &Sample)> = Vec::new();
    for better in [true, false] {
        for (base, adapter) in &pairs {
            let new = chosen.iter().all(|(c, _)| c.target != base.target);
            if chosen.len() < 3 && new && (!base.correct && adapter.correct) == better {
                chosen.push((base, adapter));
            }
        }
    }
    let row = |(base, adapter): (&Sample, &Sample)| {
        let field = |name: &str| {
            let value = base.doc.as_ref().and_then(|d| d.get(name)).and_then(|v| v.as_str());
            value.unwrap_or_default().to_owned()
        };
        let answer = |s: &Sample| {
            let index = s.pred.as_u64().unwrap_or(0) as usize;
            s.choices.as_ref().and_then(|c| c.get(index)).map_or_else(String::new, |c| c.trim().to_owned())
        };
        SampleRow {
            prompt: field("diagnosis"),
            expected: format!("{} ({})", field("letter"), field("code")),
            before: answer(base),
            after: answer(adapter),
        }
    };
    chosen.into_iter().map(row).collect()
}

fn measured(eval: &EvalReport) -> Vec<MeasuredRow> {
    let mut rows = Vec::new();
    for (task, value) in eval.runs.first().map(|r| &r.tasks).into_iter().flatten() {
        let of_run = |run: &galen_eval::report::RunReport| -> Option<galen_eval::report::TaskReport> {
            serde_json::from_value(run.tasks.get(task)?.clone()).ok()
        };
        let runs = eval.runs.iter().filter_map(|run| {
            let acc = of_run(run)?.metric("acc")?;
            Some(Compared { run: run.name.clone(), value: acc.value, ci95: acc.ci95 })
        });
        let compared = eval.comparisons.iter().find(|c| c.task == *task && c.metric == "acc");
        rows.push(MeasuredRow {
            task: task.clone(),
            metric: "acc".into(),
            n: value["n"].as_u64().unwrap_or(0),
            chance: value["chance"].as_f64(),
            runs: runs.collect(),
            difference: compared.map(|c| (c.delta, c.ci95)),
            p_mcnemar: compared.map(|c| c.p_mcnemar),
        });
    }
    rows
}

fn text(
    eval: &EvalReport,
    examples: &[SampleRow],
    base: &Base,
    dir: &Path,
    data: &Path,
    config: &Path,
) -> String {
    let mut out = format!("\n{}\n", galen_eval::report::table(eval).trim_end());
    out.push_str("\nquestions of sections that were not trained on (95 % intervals in brackets)\n\n");
    let width = examples.iter().map(|e| e.prompt.chars().count()).max().unwrap_or(0).min(64);
    let _ = writeln!(out, "{:width$}  {:<12} {:<6} {:<6}", "diagnosis", "right", "before", "after");
    for e in examples {
        let prompt: String = e.prompt.chars().take(width).collect();
        let _ = writeln!(out, "{prompt:width$}  {:<12} {:<6} {:<6}", e.expected, e.before, e.after);
    }
    let _ = writeln!(out, "\nbase model  {}", base.resolved.path.display());
    let _ = writeln!(out, "data        {}", data.display());
    let _ = writeln!(out, "config      {}", config.display());
    let _ =
        writeln!(out, "adapter     {} (adapter_model.safetensors, report.html, eval.json)", dir.display());
    out.push_str("\nYour own data:\n");
    let _ = writeln!(out, "  galen init --model {MODEL} --data FILE.jsonl -o my.yaml");
    out.push_str("  galen plan my.yaml\n  galen train my.yaml\n");
    out
}
