//! A training run from its configuration to its run directory.

use super::adapters::{open_any_adapter, refuse_scorer};
use super::base::Base;
use super::device;
use super::held_out::TaskHeldOut;
use super::objective::{Making, judge, objective};
use super::prepare::{Prepared, Preparer};
use super::reward_model::SharedBase;
use super::rows::Rows;
use super::run_dir::{
    Arithmetic, begin_dir, check_dir, checkpoint_of, date_of_start, fingerprint, hashes, holds_a_run,
    published_name, write_record,
};
use super::shown::Shown;
use super::summary::{samples, summarise, write_reports};
use crate::config::{Config, Report};
use crate::plan::{AdapterShape, Batches, Choice, Limit, Mode, ModelShape, PassShape, choose, largest_pass};
use crate::progress::{bytes, counted, say, verbosity};
use crate::signals::Stop;
use galen_adapter::{Adapter, BaseRecord};
use galen_data::pack::Sharing;
use galen_data::template::ChatTemplate;
use galen_model::Model;
use galen_ops::device::Group;
use galen_ops::profile::span;
use galen_train::report::RunSummary;
use galen_train::{HeldOut, Outcome, Run, StepPlan, checkpoint, module_shapes};
use galen_types::Tokenized;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

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

impl Start {
    /// As the configuration says where the command line does not.
    pub fn of(config: &Config) -> Self {
        let dir = Path::new(&config.output_dir);
        match &config.resume_from_checkpoint {
            Some(path) => Self::From(path.into()),
            None if config.auto_resume_from_checkpoints && holds_a_run(dir) => Self::Resume,
            None => Self::New,
        }
    }
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
    announce(report);
    // Before a directory is touched.
    let device = device::open(config)?;
    let dir = PathBuf::from(&config.output_dir);
    check_dir(&dir, config, &start)?;
    let name = match &config.revision_of_model {
        Some(revision) => format!("{}@{revision}", config.base_model),
        None => config.base_model.clone(),
    };
    let base = {
        let _span = span("open base");
        Base::open(&name, offline)?
    };
    if config.load_in_8bit && config.base_precision().over(&base.weights) == galen_model::Precision::Stored {
        say("note: load_in_8bit: the base is quantised already and stays in its own blocks");
    }
    let device = device::for_base(device, config, &base.weights)?;
    // What is planned with: as the configuration says, or as a card computes it.
    let planned = device.as_ref().map_or_else(|| config.clone(), |_| config.on_card());
    let date = date_of_start(&dir, &start);
    let preparer = Preparer { base: &base, config, offline, date };
    let template = preparer.template()?;
    // Where any data will fit, the weights need not wait for it; an error of the data comes first all the same.
    let limit = device.as_ref().map_or_else(|| Limit::of(config), |group| Limit::of_cards(config, group));
    let early = early_mode(&planned, &base, limit)?;
    let prepare = || {
        let _span = span("prepare data");
        preparer.prepare()
    };
    // On each device the whole model.
    let load = |mode: Mode| -> anyhow::Result<Vec<Model>> {
        let _span = span("load weights");
        let model = base.model(mode.load)?;
        Ok(match &device {
            None => vec![model],
            Some(group) => {
                let onto = |on| model.clone().onto(on);
                group.members().iter().map(onto).collect::<Result<_, _>>()?
            }
        })
    };
    let (prepared, loaded) = rayon::join(prepare, || early.map(load));
    let prepared = prepared?;
    tell_rows(&prepared);
    let hashes = {
        let _span = span("hash inputs");
        hashes(config, &base, template.as_ref(), &prepared, offline)?
    };
    let path = device.as_ref().map_or(galen_ops::isa().name().into(), Group::arithmetic);
    let arithmetic = Arithmetic { path: &path, compute: planned.compute() };
    let fingerprint = fingerprint(config, &hashes, arithmetic);
    let resume = checkpoint_of(&dir, &start);
    if let Some(path) = &resume {
        // Before anything is written: another configuration must leave no trace in the run it does not go on with.
        checkpoint::load_state_of(path, &fingerprint)?;
    }
    let mode = mode_of(&planned, &base, &prepared, limit)?;
    let mut others = loaded.unwrap_or_else(|| load(mode))?;
    let model = others.remove(0);
    let (adapter, record) = adapter_of(config, &base, &model, offline)?;
    let alignment = config.alignment()?;
    let making = Making {
        config,
        base: &base,
        model: &model,
        others: &others,
        adapter: &adapter,
        hashes: &hashes,
        fingerprint: &fingerprint,
    };
    let sha256 = hashes.get("model").map_or("", String::as_str);
    let judge = judge(config, SharedBase { base: &base, model: &model, sha256, offline }, &prepared.rows)?;
    let prompts = prepared.rows.prompts();
    let held_out = TaskHeldOut::open(config, &base, template.as_ref())?;
    // All that can be wrong with the inputs was found by now.
    begin_dir(&dir, &start)?;
    let mut objective = objective(&prepared.rows, &prompts, judge.as_ref(), alignment.as_ref(), &making)?;
    let (rows_per_pass, accumulation) = config.step_shape();
    let plan = StepPlan::new(objective.lengths(), rows_per_pass, accumulation, config.packing(), config.seed)
        .repeated(config.iterations());
    let settings = config.train_settings(plan.steps_per_epoch(), mode.recompute);
    let command = command_of(config);
    say(&format!(
        "{command}: {}, {}, {} trainable values over {} frozen",
        counted(prepared.rows.n_train() as u64, "row"),
        counted(settings.total_steps, "step"),
        adapter.n_parameters(),
        bytes(model.nbytes() as u64),
    ));
    write_record(&dir, config, &base, &hashes, date, resume.as_deref(), arithmetic)?;
    let flag = AtomicBool::new(false);
    let mut observer = Shown::new(command, &dir, settings.total_steps, resume.as_deref(), &flag, stop)?;
    observer.line_every = config.logging_steps.or((verbosity() > 0).then_some(1));
    let run = Run {
        model: &model,
        others: &others,
        group: device.as_ref().filter(|_| !others.is_empty()),
        adapter,
        base: record.clone(),
        objective: objective.as_mut(),
        held_out: held_out.as_ref().map(|h| h as &dyn HeldOut),
        settings,
        dir: dir.clone(),
        fingerprint,
        stop: &flag,
    };
    let outcome = run.run(resume.as_deref(), &mut observer).map_err(with_remedy)?;
    drop(objective);
    drop(judge);
    drop(held_out);
    let eval_losses = observer.finish(&outcome);
    if outcome.interrupted
        && let Some(signal) = stop.asked()
    {
        let at = outcome.state.step;
        say(&format!(
            "checkpoint-{at} is written; `galen {command} {} --resume` goes on",
            dir.join("config.yaml").display()
        ));
        return Err(signal.into());
    }
    let _span = span("write run");
    galen_adapter::save_peft(&outcome.adapter, &record, &dir)?;
    base.tokenizer.save_to(&dir, template.as_ref().map(ChatTemplate::source))?;
    let mut summary = summarise(config, &base, &prepared, &outcome, eval_losses, &hashes, &dir);
    if config.report_samples > 0 {
        let rows = match &prepared.rows {
            // A prompt alone has no answer to hold the two answers against.
            Rows::Prompts(_) => Vec::new(),
            rows => rows.samples(config.report_samples as usize),
        };
        let mut answering = outcome.adapter.clone();
        if let Some(on) = model.device() {
            answering.place_frozen(on)?;
        }
        // The run is trained and saved: what is written about it does without answers then.
        match samples(&rows, &model, &answering, &base.tokenizer) {
            Ok(answers) => summary.samples = Some(answers).filter(|a| !a.is_empty()),
            Err(e) => say(&format!("`report_samples`: no answers in the report: {e:#}")),
        }
    }
    write_reports(&dir, &summary, template.is_some())?;
    Ok(Trained { base, model, template, outcome, summary })
}

/// The command that trains by this configuration.
pub fn command_of(config: &Config) -> &'static str {
    if config.rl.is_some() { "align" } else { "train" }
}

/// How the base is held and activations are kept; what was chosen is said, and whether it will fit.
fn mode_of(config: &Config, base: &Base, prepared: &Prepared, limit: Limit) -> anyhow::Result<Mode> {
    let _span = span("plan memory");
    let rows: Vec<Vec<&Tokenized>> =
        (0..prepared.rows.n_train()).map(|row| prepared.rows.sequences(row)).collect();
    let (rows_per_pass, accumulation) = config.step_shape();
    let plan = StepPlan::new(
        prepared.rows.lengths(Sharing::WithinRow),
        rows_per_pass,
        accumulation,
        config.packing(),
        config.seed,
    );
    let choice = choice(config, base, largest_pass(config, &Batches { rows: &rows, plan: &plan }), limit)?;
    choice.why.iter().for_each(|why| say(why));
    choice.warning.iter().for_each(|warning| say(&format!("warning: {warning}")));
    Ok(choice.mode)
}

/// The mode where it is the same for any data: the fastest that the keys allow fits rows of `sequence_len` tokens.
fn early_mode(config: &Config, base: &Base, limit: Limit) -> anyhow::Result<Option<Mode>> {
    let answer = if config.samples_answers() { config.completion_limit() } else { 0 };
    let row = config.sequence_len.saturating_add(answer);
    let tokens = config.micro_batch_size.saturating_mul(row);
    let together = config.rollout_settings(Vec::new()).rollouts.together as u64;
    let cached = if config.samples_answers() { together.saturating_mul(row) } else { 0 };
    let choice = choice(config, base, PassShape { tokens, predicting: tokens, ids: tokens, cached }, limit)?;
    Ok((choice.fastest && choice.warning.is_none()).then_some(choice.mode))
}

fn choice(config: &Config, base: &Base, pass: PassShape, limit: Limit) -> anyhow::Result<Choice> {
    let model = ModelShape::from(base.weights.config());
    let wanted = config.adapter_config();
    let covered = wanted.targets.select(&model.modules(), wanted.layers.as_deref())?;
    let adapter = AdapterShape::new(&covered, &wanted, model.layers);
    let held = base.weights.held_bytes(config.base_precision());
    Ok(choose(config, &model, held, adapter, pass, limit))
}

/// A full disk stops a run that can go on once there is space.
fn with_remedy(error: galen_train::Error) -> anyhow::Error {
    let text = error.to_string();
    let full = std::io::Error::from_raw_os_error(28).to_string();
    if text.contains(&full) && !text.contains("\nhint: ") {
        return anyhow::anyhow!("{text}\nhint: free some space; `--resume` goes on from the last checkpoint");
    }
    error.into()
}

/// Keys without effect and notes, a line each.
fn announce(report: &Report) {
    for (reason, keys) in crate::commands::plan::no_effect(report) {
        say(&format!("no effect: {}: {reason}", keys.join(" ")));
    }
    for (key, note) in &report.notes {
        say(&format!("note: {key}: {note}"));
    }
}

fn tell_rows(prepared: &Prepared) {
    for r in &prepared.read.reports {
        let mut line = format!(
            "{}: {}, {} tokens, {} supervised",
            r.path,
            counted(r.kept, "row"),
            r.tokens,
            r.supervised_tokens
        );
        for (n, what) in r.counts.iter().filter(|(n, _)| *n > 0) {
            line.push_str(&format!(", {n} {what}"));
        }
        say(&line);
        let named = if verbosity() > 0 { usize::MAX } else { 3 };
        r.dropped_rows.iter().take(named).for_each(|row| say(&format!("  {row}")));
    }
    let bad_rows = &prepared.read.bad_rows;
    if let Some(first) = bad_rows.first() {
        say(&format!("{} skipped, the first: {first}", counted(bad_rows.len() as u64, "bad row")));
        let others = bad_rows.iter().skip(1).take(if verbosity() > 0 { usize::MAX } else { 0 });
        others.for_each(|row| say(&format!("  {row}")));
    }
    if let Some(bias) = prepared.rows.length_bias() {
        say(&format!(
            "answers: chosen {:.1} tokens, rejected {:.1}, the chosen one longer in {:.0} % of pairs",
            bias.chosen_tokens,
            bias.rejected_tokens,
            bias.chosen_longer * 100.0
        ));
        bias.warning().iter().for_each(|warning| say(&format!("warning: {warning}")));
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
            let (mut adapter, path) = open_any_adapter(name, model, config.seed, offline)?;
            if !config.trains_reward() {
                refuse_scorer(&adapter, &path, "training goes on from a policy's adapter")?;
            }
            if config.peft_use_dora && adapter.method().name() != "dora" {
                anyhow::bail!(
                    "{}: the adapter has no magnitudes, and `peft_use_dora` asks for them\nhint: leave `peft_use_dora` out: training \
                     goes on with the adapter as it is",
                    path.display()
                );
            }
            adapter.config.dropout = config.dropout();
            adapter.config.seed = config.seed;
            adapter
        }
        None => Adapter::over(config.adapter_config(), &shapes, model)?,
    };
    let adapter = if config.trains_reward() {
        adapter.with_score_head(model.config.hidden_size, model.config.initializer_range)
    } else {
        adapter
    };
    let name = published_name(config, base);
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
