//! `galen eval`, `galen eval ls`, `galen eval validate`.

use crate::cli::{Globals, Limit};
use crate::config::native_compute;
use crate::error::UsageError;
use crate::progress::{Progress, Unit, say};
use crate::session::{
    Base, FastDecoder, ModelScorer, TemplateChoice, fast_decode, is_adapter, open_adapter, resolve_run,
    saved_template,
};
use crate::stdout;
use galen_eval::report::Docs;
use galen_eval::{
    ChatMessage, ChoiceRequest, ChoiceScore, EvalError, EvalOptions, EvalReport, GenerateRequest, Generation,
    OutputType, PromptOptions, QuestionScore, RunMeta, ScoreError, Scorer, Task, TaskResult, evaluate,
};
use galen_model::{LoadOptions, Model};
use galen_ops::device::Accelerator;
use serde_json::json;
use std::path::PathBuf;

/// Flags of `galen eval`. Names are lm-evaluation-harness's, with dashes or underscores.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    /// Other things to do with tasks
    #[command(subcommand)]
    pub action: Option<Action>,
    /// The model: a folder, a `.gguf`, `ORG/REPO[@REV]`, a catalogue name; default: the adapter's recorded base
    #[arg(long, short = 'm', value_name = "M", required_unless_present = "adapter")]
    pub model: Option<String>,
    /// An adapter (a folder of PEFT's or mlx-lm's, a GGUF adapter, a run directory), compared with the base; may be repeated
    #[arg(long, alias = "peft", value_name = "A")]
    pub adapter: Vec<String>,
    /// Tasks, by name or YAML file, separated by commas
    #[arg(long, short = 't', alias = "task", value_name = "T[,T]", value_delimiter = ',', required = true)]
    pub tasks: Vec<String>,
    /// Examples before each question; default: the task's own number
    #[arg(long, short = 'f', alias = "num_fewshot", value_name = "N")]
    pub num_fewshot: Option<usize>,
    /// Put questions through the model's chat template
    #[arg(long, alias = "apply_chat_template")]
    pub apply_chat_template: bool,
    /// A chat template by name or file; default: the one saved with the first adapter, else the model's own
    #[arg(long, alias = "chat_template", value_name = "T")]
    pub chat_template: Option<String>,
    /// Only so many questions of each task, or such a share of them
    #[arg(long, short = 'L', value_name = "N|0.x")]
    pub limit: Option<Limit>,
    /// A folder with further task YAMLs; may be repeated
    #[arg(long, alias = "include_path", value_name = "DIR")]
    pub include_path: Vec<PathBuf>,
    /// A system message before each question
    #[arg(long, alias = "system_instruction", value_name = "TEXT")]
    pub system_instruction: Option<String>,
    /// Write every question with its scores beside the result, in one JSONL: `task` and `run` tell them apart
    #[arg(long, short = 's', alias = "log_samples")]
    pub log_samples: bool,
    /// Where the result goes as JSON
    #[arg(long, short = 'o', alias = "output_path", alias = "output-path", value_name = "FILE.json")]
    pub out: Option<PathBuf>,
    /// Seed of few-shot sampling (default 1234, as lm-evaluation-harness has it), of sampled answers and of intervals (default 42)
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Generate with integer dot products: faster, not to the bit what was trained; says how far off it is. Choices are
    /// scored exactly all the same
    #[arg(long, alias = "fast_decode")]
    pub fast_decode: bool,
}

/// Other things to do with tasks.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// List the tasks there are
    Ls {
        /// A folder with further task YAMLs; may be repeated
        #[arg(long, alias = "include_path", value_name = "DIR")]
        include_path: Vec<PathBuf>,
    },
    /// Check a task without a model: its fields, prompts and choices on its own rows
    Validate {
        /// A task by name or YAML file
        task: String,
        /// A folder with further task YAMLs; may be repeated
        #[arg(long, alias = "include_path", value_name = "DIR")]
        include_path: Vec<PathBuf>,
    },
}

/// Evaluates a model and adapters on tasks.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<()> {
    match args.action {
        Some(Action::Ls { include_path }) => ls(&include_path, globals),
        Some(Action::Validate { task, include_path }) => validate(&task, &include_path, globals),
        None => score(args, globals),
    }
}

fn ls(include_path: &[PathBuf], globals: &Globals) -> anyhow::Result<()> {
    let mut entries = galen_eval::task::list(None)?;
    for folder in include_path {
        entries.extend(galen_eval::task::list(Some(folder))?.into_iter().filter(|e| e.origin != "built-in"));
    }
    if globals.json {
        let rows: Vec<_> = entries.iter().map(|e| json!({"task": e.name, "origin": e.origin})).collect();
        return stdout::print_json(&rows);
    }
    let width = entries.iter().map(|e| e.name.len()).max().unwrap_or(0);
    stdout::print(&entries.iter().map(|e| format!("{:width$}  {}\n", e.name, e.origin)).collect::<String>())
}

impl Args {
    fn seed(&self) -> u64 {
        self.seed.unwrap_or(42)
    }
}

/// By YAML file, then from the folders in turn, then built in.
fn load_task(name: &str, include_path: &[PathBuf]) -> anyhow::Result<Task> {
    for folder in include_path {
        match Task::load(name, Some(folder)) {
            Err(EvalError::UnknownTask { .. }) => {}
            found => return Ok(found?),
        }
    }
    Ok(Task::load(name, include_path.first().map(PathBuf::as_path))?)
}

/// A scorer that gives every choice the same score: builds all prompts without a model.
struct NoModel;

impl Scorer for NoModel {
    fn score_choices(&mut self, requests: &[ChoiceRequest]) -> Result<Vec<QuestionScore>, ScoreError> {
        let score = ChoiceScore { logprob: 0.0, n_tokens: 1, is_greedy: false };
        let of = |r: &ChoiceRequest| QuestionScore { choices: vec![score; r.choices.len()], tokens: None };
        Ok(requests.iter().map(of).collect())
    }

    fn generate_until(&mut self, requests: &[GenerateRequest]) -> Result<Vec<Generation>, ScoreError> {
        Ok(vec![Generation::default(); requests.len()])
    }

    fn apply_chat_template(&mut self, messages: &[ChatMessage], _: bool) -> Result<String, ScoreError> {
        Ok(messages.iter().map(|m| format!("{}: {}\n", m.role, m.content)).collect())
    }
}

fn validate(name: &str, include_path: &[PathBuf], globals: &Globals) -> anyhow::Result<()> {
    let task = load_task(name, include_path)?;
    let result = evaluate(&task, &mut NoModel, &EvalOptions::default(), &mut |_| ())?;
    let first = result.samples.first();
    if globals.json {
        return stdout::print_json(&json!({
            "task": task.name(),
            "origin": task.origin(),
            "n": result.n(),
            "chance": result.chance,
            "notes": task.notes(),
            "first": first.map(|s| json!({"prompt": s.prompt, "choices": s.choices, "target": s.target})),
        }));
    }
    let mut out = format!("{} ({}): {} items are sound\n", task.name(), task.origin(), result.n());
    for note in task.notes() {
        out.push_str(&format!("note: {note}\n"));
    }
    if let Some(sample) = first {
        let prompt = sample.prompt.as_deref().unwrap_or_default();
        let choice = sample
            .target
            .as_str()
            .and_then(|t| t.parse().ok())
            .or(sample.target.as_u64().map(|t| t as usize));
        let choices = sample.choices.as_deref().unwrap_or_default();
        let right =
            choice.and_then(|i: usize| choices.get(i)).cloned().unwrap_or_else(|| sample.target.to_string());
        out.push_str(&format!("--- the first prompt\n{prompt}\n--- the right answer: {right}\n"));
    }
    stdout::print(&out)
}

fn score(mut args: Args, globals: &Globals) -> anyhow::Result<()> {
    if args.model.as_deref().is_some_and(is_adapter) {
        args.adapter.splice(..0, args.model.take());
        args.adapter.dedup();
    }
    let (name, load) = match (&args.model, args.adapter.first()) {
        (Some(model), _) => {
            (model.clone(), LoadOptions { compute: native_compute(), ..LoadOptions::default() })
        }
        (None, Some(adapter)) => resolve_run(adapter, globals.offline)?,
        (None, None) => return Err(UsageError::new("no model", "`--model M`").into()),
    };
    let tasks: Vec<Task> =
        args.tasks.iter().map(|t| load_task(t, &args.include_path)).collect::<anyhow::Result<_>>()?;
    let base = Base::open(&name, globals.offline)?;
    let saved = match (&args.chat_template, args.adapter.first()) {
        (None, Some(adapter)) => saved_template(adapter, globals.offline)?,
        _ => None,
    };
    let choice = TemplateChoice { name: args.chat_template.as_deref(), jinja: saved.as_deref(), eot: &[] };
    let template = args.apply_chat_template.then(|| base.required_template(choice)).transpose()?;
    let generates = tasks.iter().any(|t| t.output_type() == OutputType::GenerateUntil);
    let device = fast_decode::device(args.fast_decode && generates, globals.device)?;
    let model = base.answering(device, load, Base::model_for_passes)?;
    if args.fast_decode && !generates {
        say("note: `--fast-decode` has no effect here: no task generates, choices are scored exactly");
    }
    let fast = (args.fast_decode && generates).then(|| base.model(fast_decode::options(load))).transpose()?;
    let options = EvalOptions {
        prompt: PromptOptions {
            num_fewshot: args.num_fewshot,
            apply_chat_template: args.apply_chat_template,
            system_instruction: args.system_instruction.clone(),
            fewshot_seed: args.seed.map_or(PromptOptions::default().fewshot_seed, |seed| seed as u32),
            ..PromptOptions::default()
        },
        limit: args.limit.map(|limit| match limit {
            Limit::Count(n) => galen_eval::Limit::Count(n as usize),
            Limit::Share(share) => galen_eval::Limit::Share(share),
        }),
        seed: args.seed(),
        ..EvalOptions::default()
    };
    let mut runs = vec![(RunMeta { name: "base".into(), adapter: None }, None)];
    for a in &args.adapter {
        let (adapter, _) = open_adapter(a, &model, 0, globals.offline)?;
        let name = if args.adapter.len() == 1 { "adapter".to_owned() } else { a.clone() };
        runs.push((RunMeta { name, adapter: Some(a.clone()) }, Some(adapter)));
    }
    for (i, task) in tasks.iter().enumerate() {
        if let Some(other) = tasks[..i].iter().find(|t| t.name() == task.name()) {
            let message = format!(
                "`{}` and `{}` are both tasks named `{}`",
                other.origin(),
                task.origin(),
                task.name()
            );
            return Err(UsageError::new(message, "give one of them another `task:`").into());
        }
    }
    let mut results = Vec::new();
    for (meta, adapter) in &runs {
        let mut scorer = ModelScorer {
            model: &model,
            adapter: adapter.as_ref(),
            tokenizer: &base.tokenizer,
            template: template.as_ref(),
            fast: fast.as_ref().map(|model| FastDecoder { model, told: false }),
        };
        let scored: Vec<TaskResult> = tasks
            .iter()
            .map(|t| score_task(t, &mut scorer, &options, &meta.name))
            .collect::<anyhow::Result<_>>()?;
        results.push((meta.clone(), scored));
    }
    let mut report = EvalReport::new(&name, &results);
    report.config = config_of(&args, &base, &model);
    if let Some(out) = &args.out {
        report.write(out)?;
    }
    if args.log_samples {
        let out = args.out.clone().unwrap_or_else(|| PathBuf::from("eval.json"));
        let runs = results.iter().map(|(m, r)| (m.name.as_str(), r.as_slice()));
        galen_eval::report::write_samples(&galen_eval::report::samples_path(&out), runs, Docs::Full)?;
    }
    if globals.json {
        stdout::print_json(&report)
    } else {
        stdout::print(&galen_eval::report::table(&report))
    }
}

/// Scores one task with a progress bar.
pub fn score_task(
    task: &Task,
    scorer: &mut dyn Scorer,
    options: &EvalOptions,
    run: &str,
) -> anyhow::Result<TaskResult> {
    let mut bar: Option<Progress> = None;
    let result = evaluate(task, scorer, options, &mut |p| {
        let bar = bar.get_or_insert_with(|| {
            Progress::new(format!("evaluate {run} on {}", p.task), p.total as u64, Unit::Items)
        });
        bar.set(p.done as u64);
    })?;
    if let (Some(bar), Some(metric)) = (bar, result.metrics.first()) {
        bar.finish(&format!("{} {:.1} % of {} questions", metric.metric, metric.value * 100.0, result.n()));
    }
    Ok(result)
}

fn config_of(args: &Args, base: &Base, model: &Model) -> serde_json::Map<String, serde_json::Value> {
    let value = json!({
        "galen": env!("CARGO_PKG_VERSION"),
        "kernel_path": model.device().map_or(galen_ops::isa().name(), Accelerator::arithmetic),
        "model_sha256": base.resolved.sha256,
        "apply_chat_template": args.apply_chat_template,
        "system_instruction": args.system_instruction,
        "seed": args.seed(),
        "fast_decode": args.fast_decode,
    });
    value.as_object().cloned().unwrap_or_default()
}
