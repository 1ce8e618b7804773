//! A training run from its configuration to its run directory.

use super::base::Base;
use super::prepare::{Prepared, Preparer};
use super::record::{sha256_file, sha256_text};
use crate::config::{Config, Report};
use crate::error::UsageError;
use crate::progress::{Progress, Unit, bytes, say};
use crate::signals::Stop;
use anyhow::Context as _;
use galen_adapter::{Adapter, BaseRecord, load_peft};
use galen_data::template::ChatTemplate;
use galen_hub::Options;
use galen_model::{Model, Precision};
use galen_train::checkpoint;
use galen_train::report::{DataRow, EventWriter, Fact, ModelCard, RunSummary, model_card, report_html};
use galen_train::{Observer, Outcome, SftRun, StepPlan, Validation, module_shapes, peak_rss_bytes};
use galen_types::StepReport;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Keys that say where and how often to write, not what is learned: a resumed run may change them.
const FREE_KEYS: &[&str] = &[
    "output_dir",
    "logging_steps",
    "save_steps",
    "saves_per_epoch",
    "save_strategy",
    "save_total_limit",
    "resume_from_checkpoint",
    "auto_resume_from_checkpoints",
    "report_samples",
    "max_memory",
];

/// Where a run begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// In an empty directory.
    New,
    /// From the last checkpoint there is, or the beginning.
    Resume,
    /// From this checkpoint.
    From(PathBuf),
    /// Anew; what is there is deleted.
    Overwrite,
}

/// A finished run.
pub struct Trained {
    /// The base it was trained on.
    pub base: Base,
    /// With its weights.
    pub model: Model,
    /// Its template, where there is one.
    pub template: Option<ChatTemplate>,
    /// The result.
    pub outcome: Outcome,
    /// What its reports say.
    pub summary: RunSummary,
}

/// Trains by a sound configuration.
pub fn train(
    config: &Config,
    report: &Report,
    start: Start,
    offline: bool,
    stop: &Stop,
) -> anyhow::Result<Trained> {
    announce(config, report);
    let dir = PathBuf::from(&config.output_dir);
    prepare_dir(&dir, &start)?;
    let name = match &config.revision_of_model {
        Some(revision) => format!("{}@{revision}", config.base_model),
        None => config.base_model.clone(),
    };
    let base = Base::open(&name, offline)?;
    let date = date_of(&dir);
    let preparer = Preparer { base: &base, config, offline, date };
    let template = preparer.template()?;
    let prepared = preparer.prepare()?;
    tell_rows(&prepared);
    let model = base.model(config.base_precision())?;
    let (adapter, record) = adapter_of(config, &base, &model, offline)?;
    let lengths: Vec<usize> = prepared.train.iter().map(|r| r.ids().len()).collect();
    let plan = StepPlan::new(
        lengths,
        config.micro_batch_size as usize,
        config.accumulation() as usize,
        config.packing(),
        config.seed,
    );
    let recompute = config.recompute(|limit| needs_recompute(&model, &prepared, config, limit));
    let settings = config.train_settings(plan.steps_per_epoch(), recompute);
    say(&format!(
        "train: {} rows, {} steps, {} trainable values over {} frozen",
        prepared.train.len(),
        settings.total_steps,
        adapter.n_parameters(),
        bytes(model.nbytes() as u64),
    ));
    let hashes = hashes(config, &base, template.as_ref(), &prepared)?;
    let resume = checkpoint_of(config, &dir, &start);
    write_record(&dir, config, &base, &hashes, date, resume.as_deref())?;
    let flag = AtomicBool::new(false);
    let mut observer = Shown::new(&dir, settings.total_steps, resume.as_deref(), &flag, stop)?;
    observer.line_every = config.logging_steps;
    let run = SftRun {
        model: &model,
        adapter,
        base: record.clone(),
        train: &prepared.train,
        validation: &prepared.validation,
        settings,
        dir: dir.clone(),
        fingerprint: fingerprint(config, &hashes),
        stop: &flag,
    };
    let outcome = run.run(resume.as_deref(), &mut observer)?;
    let eval_losses = observer.finish(&outcome);
    if outcome.interrupted
        && let Some(signal) = stop.asked()
    {
        let at = outcome.state.step;
        say(&format!(
            "checkpoint-{at} is written; `galen train {} --resume` goes on",
            dir.join("config.yaml").display()
        ));
        return Err(signal.into());
    }
    let summary = summarise(config, &base, &prepared, &outcome, eval_losses, &hashes, &dir);
    galen_adapter::save_peft(&outcome.adapter, &record, &dir)?;
    base.tokenizer.save_to(&dir, template.as_ref().map(ChatTemplate::source))?;
    write_reports(&dir, &base, &summary, template.is_some())?;
    Ok(Trained { base, model, template, outcome, summary })
}

/// Writes `report.html` and `README.md` from what is known of the run.
pub(crate) fn write_reports(dir: &Path, base: &Base, summary: &RunSummary, chat: bool) -> anyhow::Result<()> {
    replace(&dir.join("report.html"), report_html(summary)?.as_bytes())?;
    let hub_name = base.resolved.hf_id.clone().unwrap_or_else(|| base.name.clone());
    let card = ModelCard { base_model: &hub_name, chat, ..ModelCard::default() };
    replace(&dir.join("README.md"), model_card(&card, summary)?.as_bytes())
}

/// Keys without effect and notes, a line each.
fn announce(config: &Config, report: &Report) {
    for (reason, keys) in crate::commands::plan::no_effect(report) {
        say(&format!("no effect: {}: {reason}", keys.join(" ")));
    }
    for (key, note) in &report.notes {
        say(&format!("note: {key}: {note}"));
    }
    if config.precision() == crate::config::Precision::Bf16 {
        say("note: bf16: the CPU kernels compute in f32 so far: the same or a wider range");
    }
}

fn prepare_dir(dir: &Path, start: &Start) -> anyhow::Result<()> {
    let occupied = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && *start == Start::New {
        let message = format!("`output_dir` {} is not empty", dir.display());
        let hint = "`--resume` goes on with the run in it, `--overwrite` deletes it first";
        return Err(UsageError::new(message, hint).into());
    }
    if occupied && *start == Start::Overwrite {
        // Only what a run writes: a mistyped `output_dir` must not cost anybody their files.
        anyhow::ensure!(
            dir.join("run.json").exists() || dir.join("log.jsonl").exists(),
            "{} holds no run: not deleting it\nhint: choose another `output_dir`, or empty it yourself",
            dir.display()
        );
        std::fs::remove_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())
}

fn tell_rows(prepared: &Prepared) {
    for (path, r) in &prepared.reports {
        let mut line =
            format!("{path}: {} rows, {} tokens, {} supervised", r.kept, r.tokens, r.supervised_tokens);
        for (n, what) in [
            (r.truncated, "truncated"),
            (r.dropped_too_long, "dropped as too long"),
            (r.dropped_by_truncation, "dropped: truncation left no supervision"),
            (r.dropped_unsupervised, "dropped: nothing supervised"),
        ] {
            if n > 0 {
                line.push_str(&format!(", {n} {what}"));
            }
        }
        say(&line);
        r.dropped_rows.iter().take(3).for_each(|row| say(&format!("  {row}")));
    }
    if !prepared.bad_rows.is_empty() {
        say(&format!("{} bad rows skipped, the first: {}", prepared.bad_rows.len(), prepared.bad_rows[0]));
    }
}

fn adapter_of(
    config: &Config,
    base: &Base,
    model: &Model,
    offline: bool,
) -> anyhow::Result<(Adapter, BaseRecord)> {
    let shapes = module_shapes(model);
    let adapter = match &config.lora_model_dir {
        Some(name) => {
            let mut adapter = open_adapter(name, model, config.seed, offline)?.0;
            adapter.config.dropout = config.lora_dropout as f32;
            adapter.config.seed = config.seed;
            adapter
        }
        None => Adapter::new(config.adapter_config(), &shapes)?,
    };
    let name = config.base_model_name_or_path.clone().or_else(|| base.resolved.hf_id.clone());
    if name.is_none() {
        say(
            "note: the Hugging Face name of the base is not known, so `adapter_config.json` names the file: \
             set `base_model_name_or_path` for PEFT and vLLM",
        );
    }
    let record = BaseRecord {
        name: Some(name.unwrap_or_else(|| config.base_model.clone())),
        revision: base.resolved.revision.clone().filter(|_| base.resolved.hf_id.is_some()),
    };
    Ok((adapter, record))
}

/// Opens an adapter for a model: a PEFT folder, a run directory or a hub name. Also returns its folder.
pub fn open_adapter(
    name: &str,
    model: &Model,
    seed: u64,
    offline: bool,
) -> anyhow::Result<(Adapter, PathBuf)> {
    let resolved = galen_hub::resolve_adapter(name, &Options::from_env(offline, super::base::hub_bars()))?;
    let (adapter, _) = load_peft(&resolved.path, &module_shapes(model), seed)?;
    Ok((adapter, resolved.path))
}

/// The base that an adapter or run directory records, and how it was held: what is measured is what was trained.
pub fn resolve_run(adapter: &str, offline: bool) -> anyhow::Result<(String, Precision)> {
    let resolved = galen_hub::resolve_adapter(adapter, &Options::from_env(offline, super::base::hub_bars()))?;
    for (file, key) in [("run.json", "base_model"), ("adapter_config.json", "base_model_name_or_path")] {
        let path = resolved.path.join(file);
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let value: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        if let Some(name) = value[key].as_str() {
            let nf4 = value["base_precision"].as_str() == Some("nf4");
            return Ok((name.to_owned(), if nf4 { Precision::Nf4 } else { Precision::Stored }));
        }
    }
    anyhow::bail!("{adapter}: it names no base model\nhint: name it with `--model`")
}

/// Activations of a micro-batch against `max_memory`.
fn needs_recompute(model: &Model, prepared: &Prepared, config: &Config, limit: Option<u64>) -> bool {
    let Some(limit) = limit else { return false };
    let c = &model.config;
    let longest = prepared.train.iter().map(|r| r.ids().len()).max().unwrap_or(0);
    let tokens = if config.sample_packing { config.sequence_len as usize } else { longest };
    let tokens = tokens * config.micro_batch_size as usize;
    let per_token = 8 * c.hidden_size + 3 * c.intermediate_size + 4 * c.n_heads * c.head_dim;
    let activations = (tokens * per_token * 4 * c.n_layers) as u64;
    activations + model.nbytes() as u64 > limit * 9 / 10
}

/// SHA-256 of configuration, data, model and template.
fn hashes(
    config: &Config,
    base: &Base,
    template: Option<&ChatTemplate>,
    prepared: &Prepared,
) -> anyhow::Result<BTreeMap<String, String>> {
    let model = match &base.resolved.sha256 {
        Some(known) => known.clone(),
        None => sha256_file(&base.resolved.path)?,
    };
    let mut hashes = BTreeMap::from([
        ("config".to_owned(), sha256_text(&config.to_yaml())),
        ("data".to_owned(), prepared.sha256.clone()),
        ("model".to_owned(), model),
    ]);
    if let Some(template) = template {
        hashes.insert("template".into(), sha256_text(template.source()));
    }
    Ok(hashes)
}

fn fingerprint(config: &Config, hashes: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let free = |key: &str| FREE_KEYS.contains(&key);
    let mut map: BTreeMap<String, String> = config
        .values()
        .filter(|(k, _)| !free(k.name))
        .map(|(k, v)| (k.name.to_owned(), v.to_string()))
        .collect();
    for (name, hash) in hashes.iter().filter(|(name, _)| *name != "config") {
        map.insert(format!("sha256 of the {name}"), hash.clone());
    }
    map.insert("kernel path".into(), galen_ops::isa().name().into());
    map
}

fn checkpoint_of(config: &Config, dir: &Path, start: &Start) -> Option<PathBuf> {
    let newest = || checkpoint::list(dir).pop().map(|(_, path)| path);
    match start {
        Start::From(path) => Some(path.clone()),
        Start::Resume => newest(),
        Start::New | Start::Overwrite => match &config.resume_from_checkpoint {
            Some(path) => Some(PathBuf::from(path)),
            None => newest().filter(|_| config.auto_resume_from_checkpoints),
        },
    }
}

/// The date the run's templates write: that of its first session.
fn date_of(dir: &Path) -> chrono::NaiveDate {
    let text = std::fs::read_to_string(dir.join("run.json")).unwrap_or_default();
    let record: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let known = record["template_date"].as_str().and_then(|d| d.parse().ok());
    known.unwrap_or_else(|| chrono::Utc::now().date_naive())
}

/// `config.yaml` and `run.json`; each session of a run names the hash of the record before it.
fn write_record(
    dir: &Path,
    config: &Config,
    base: &Base,
    hashes: &BTreeMap<String, String>,
    date: chrono::NaiveDate,
    resume: Option<&Path>,
) -> anyhow::Result<()> {
    replace(&dir.join("config.yaml"), config.to_yaml().as_bytes())?;
    let path = dir.join("run.json");
    let before = std::fs::read_to_string(&path).ok();
    let old: Value = before.as_deref().and_then(|t| serde_json::from_str(t).ok()).unwrap_or(Value::Null);
    let mut sessions = old["sessions"].as_array().cloned().unwrap_or_default();
    sessions.push(json!({
        "started": chrono::Utc::now().to_rfc3339(),
        "resumed_from": resume.map(|p| p.display().to_string()),
        "previous_record_sha256": before.as_deref().map(sha256_text),
        "threads": rayon::current_num_threads(),
        "host": std::fs::read_to_string("/proc/sys/kernel/hostname").map(|h| h.trim().to_owned()).ok(),
    }));
    let record = json!({
        "galen": env!("CARGO_PKG_VERSION"),
        "kernel_path": galen_ops::isa().name(),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "base_model": base.name,
        "base_precision": if config.base_precision() == Precision::Nf4 { "nf4" } else { "stored" },
        "base_model_name_or_path": base.resolved.hf_id,
        "base_source": base.resolved.source,
        "template_date": date.to_string(),
        "sha256": hashes,
        "sessions": sessions,
    });
    let mut text = serde_json::to_string_pretty(&record)?;
    text.push('\n');
    replace(&path, text.as_bytes())
}

/// Writes under a temporary name, syncs, renames.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
        let temporary = path.with_file_name(format!(".tmp-{name}"));
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| path.display().to_string())
}

fn summarise(
    config: &Config,
    base: &Base,
    prepared: &Prepared,
    outcome: &Outcome,
    eval_losses: Vec<(u64, f64)>,
    hashes: &BTreeMap<String, String>,
    dir: &Path,
) -> RunSummary {
    let (steps, earlier_validations) = read_log(&dir.join("log.jsonl"));
    let data = prepared.reports.iter().map(|(path, r)| DataRow {
        name: path.clone(),
        role: if config.test_datasets.0.iter().any(|d| d.path == *path) { "validation" } else { "train" }
            .into(),
        rows: r.kept,
        supervised_tokens: Some(r.supervised_tokens),
        sha256: sha256_file(Path::new(path)).unwrap_or_else(|_| prepared.sha256.clone()),
    });
    let shown = [
        "adapter",
        "lora_r",
        "lora_alpha",
        "learning_rate",
        "lr_scheduler",
        "num_epochs",
        "micro_batch_size",
    ];
    let setting =
        |key: &&str| config.values().find(|(k, _)| k.name == *key).map(|(_, v)| Fact::new(*key, plain(&v)));
    let title = dir.file_name().map_or_else(|| "galen run".into(), |n| n.to_string_lossy().into_owned());
    RunSummary {
        title,
        base_model: base.resolved.hf_id.clone().unwrap_or_else(|| base.name.clone()),
        finished: chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string(),
        steps: if steps.is_empty() { outcome.reports.clone() } else { steps },
        eval_losses: if earlier_validations.is_empty() { eval_losses } else { earlier_validations },
        evaluation: Vec::new(),
        data: data.collect(),
        settings: shown.iter().filter_map(setting).collect(),
        hashes: hashes.iter().map(|(k, v)| Fact::new(k.clone(), v)).collect(),
        versions: vec![
            Fact::new("galen", env!("CARGO_PKG_VERSION")),
            Fact::new("kernel path", galen_ops::isa().name()),
        ],
        config_yaml: config.to_yaml(),
        samples: None,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Steps and validations of all sessions of a run.
fn read_log(path: &Path) -> (Vec<StepReport>, Vec<(u64, f64)>) {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let rows = || text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let validation = |row: Value| Some((row["step"].as_u64()?, row["eval_loss"].as_f64()?));
    (rows().filter_map(|r| serde_json::from_value(r).ok()).collect(), rows().filter_map(validation).collect())
}

/// Progress on the terminal and in TensorBoard's file.
struct Shown<'a> {
    bar: Progress,
    events: EventWriter,
    flag: &'a AtomicBool,
    stop: &'a Stop,
    validations: Vec<(u64, f64)>,
    /// Steps between lines that stay on the terminal.
    line_every: Option<u64>,
}

impl<'a> Shown<'a> {
    fn new(
        dir: &Path,
        total: u64,
        resume: Option<&Path>,
        flag: &'a AtomicBool,
        stop: &'a Stop,
    ) -> anyhow::Result<Self> {
        let done = resume.map(checkpoint::load_state).transpose()?.map_or(0, |s| s.step);
        let events = EventWriter::create(dir, now().as_secs(), done + 1)?;
        let bar = Progress::new("train", total, Unit::Items);
        bar.set(done);
        Ok(Self { bar, events, flag, stop, validations: Vec::new(), line_every: None })
    }

    fn finish(self, outcome: &Outcome) -> Vec<(u64, f64)> {
        let step = outcome.state.step;
        match outcome.reports.last() {
            Some(last) => {
                let peak = bytes(peak_rss_bytes());
                self.bar.finish(&format!("{step} steps, loss {:.4}, peak memory {peak}", last.loss));
            }
            None => self.bar.finish(&format!("all {step} steps were done before; the run is taken as it is")),
        }
        self.validations
    }

    fn log(&mut self, step: u64, values: &[(&str, f64)]) {
        if let Err(e) =
            self.events.scalars(step, now().as_secs_f64(), values).and_then(|()| self.events.flush())
        {
            self.bar.line(&format!("note: TensorBoard's file: {e}"));
        }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Observer for Shown<'_> {
    fn step(&mut self, r: &StepReport, _total_steps: u64) {
        self.bar.message(format!("loss {:.4}, {:.0} tokens/s", r.loss, r.tokens_per_second));
        self.bar.set(r.step);
        if self.line_every.is_some_and(|n| r.step.is_multiple_of(n.max(1))) {
            let (loss, rate, norm) = (r.loss, r.learning_rate, r.grad_norm);
            self.bar.line(&format!(
                "step {}: loss {loss:.4}, learning rate {rate:.2e}, gradient norm {norm:.3}",
                r.step
            ));
        }
        self.log(
            r.step,
            &[
                ("train/loss", r.loss),
                ("train/learning_rate", r.learning_rate),
                ("train/grad_norm", r.grad_norm),
                ("train/mean_token_accuracy", r.mean_token_accuracy),
                ("train/tokens_per_second", r.tokens_per_second),
            ],
        );
        if self.stop.asked().is_some() {
            self.flag.store(true, Ordering::Relaxed);
        }
    }

    fn validation(&mut self, step: u64, v: &Validation) {
        self.validations.push((step, v.eval_loss));
        let share = v.eval_mean_token_accuracy * 100.0;
        self.bar.line(&format!(
            "step {step}: eval_loss {:.4}, {share:.1} % of supervised tokens right",
            v.eval_loss
        ));
        self.log(
            step,
            &[("eval/loss", v.eval_loss), ("eval/mean_token_accuracy", v.eval_mean_token_accuracy)],
        );
    }

    fn note(&mut self, text: &str) {
        self.bar.line(text);
    }
}
