//! The second half of `galen plan`: memory and time, from the model's headers and the data's lengths.

use crate::cli::Globals;
use crate::config::types::OnBadRow;
use crate::config::{Config, Device};
use crate::plan::{
    AdapterShape, Batches, Choice, Limit, Memory, ModelShape, PassShape, Work, WorkShape, choose,
    largest_pass, work,
};
use crate::progress::{bytes, duration, say};
use crate::session::{Base, Preparer, Renderer, device};
use anyhow::Context as _;
use galen_data::pack::{MIN_SHARED_TOKENS, Sharing, pack, packed_tokens};
use galen_data::tokenize::{ExcessLength, tokenize};
use galen_hub::{Options, Silent};
use galen_model::weights::Weights;
use galen_model::{WeightCache, tokenizer::Tokenizer};
use galen_ops::ops::Compute;
use galen_train::StepPlan;
use galen_types::{Conversation, Tokenized};
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;

/// Rows tokenised to learn the data's lengths; the others are taken to be like them.
const SAMPLED_ROWS: usize = 512;
/// Useful work of a core, floating-point operations a second: a cautious figure of a processor with AVX2.
const CORE_FLOPS: f64 = 50e9;
/// Batches laid out to learn a pass's mean tokens.
const MEAN_OF: usize = 256;
/// A plan: what is assumed, and what comes of it.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// Sizes of the base.
    pub model: ModelShape,
    /// Rows to train on, and how many of them were looked at.
    pub rows: usize,
    /// Rows whose lengths were measured.
    pub sampled: usize,
    /// Mean tokens of a row.
    pub mean_tokens: f64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// What it trains.
    pub adapter: AdapterShape,
    /// The largest pass of a step, common beginnings once.
    pub pass: PassShape,
    /// What a step computes.
    pub run: WorkShape,
    /// Peak memory.
    pub memory: Memory,
    /// The arithmetic of products: `f32` or `bf16`.
    pub compute: &'static str,
    /// Where products read weights: `bf16` (packed) or `stream`.
    pub weight_cache: &'static str,
    /// What `auto` takes and why, where anything was left to it.
    pub auto: Option<String>,
    /// Where it does not fit: what helps.
    pub warning: Option<String>,
    /// What the figures are not of.
    pub note: Option<String>,
    /// Time.
    pub work: Work,
    /// What it may hold, bytes: `max_memory` of the processor, or a share of what is free.
    pub limit_bytes: u64,
}

/// Estimates a sound configuration. Opens no socket: the model must be here already.
pub fn of(config: &Config, globals: &Globals) -> anyhow::Result<Plan> {
    device::refuse(config)?;
    let options = Options::from_env(true, &Silent);
    let name = match &config.revision_of_model {
        Some(revision) => format!("{}@{revision}", config.base_model),
        None => config.base_model.clone(),
    };
    let hint =
        "`galen plan` reads files that are here; `galen train` fetches them, `--check-config` needs none";
    let found = galen_hub::resolve_model(&name, &options)
        .with_context(|| format!("the model `{name}` is needed for an estimate\nhint: {hint}"))?;
    let base = Base {
        name,
        weights: Weights::open(&found.path)?,
        tokenizer: Tokenizer::open(&found.path)?,
        resolved: found,
    };
    device::for_base(None, config, &base.weights)?;
    let sample = sample(config, &base)?;
    let threads = globals.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        |n| usize::from(n.get()),
    );
    plan(config, &base.weights, &sample, CORE_FLOPS * threads as f64)
}

/// Rows that were looked at, and which of them stands for each of the data's.
pub struct Sample {
    rows: Vec<Vec<Tokenized>>,
    stand_in: Vec<usize>,
}

/// The plan from a sample of the data.
pub fn plan(config: &Config, weights: &Weights, sample: &Sample, flops: f64) -> anyhow::Result<Plan> {
    let model = ModelShape::from(weights.config());
    let wanted = config.adapter_config();
    let covered = wanted.targets.select(&model.modules(), wanted.layers.as_deref())?;
    let mut adapter = AdapterShape::new(&covered, &wanted, model.layers);
    if config.trains_reward() {
        adapter.params += model.hidden;
    }

    let read = sample.stand_in.len();
    let held_out = match config.val_set_size {
        share if share < 1.0 => (read as f64 * share).ceil() as usize,
        count => count as usize,
    };
    let rows: Vec<Vec<&Tokenized>> = sample
        .stand_in
        .iter()
        .skip(held_out)
        .filter_map(|i| sample.rows.get(*i))
        .map(|sequences| sequences.iter().collect())
        .collect();
    let trained = rows.len();
    anyhow::ensure!(
        trained > 0,
        "no row is left to train on: {read} read, {held_out} set aside (`val_set_size`)"
    );
    let all: usize = rows.iter().flatten().map(|r| r.ids().len()).sum();
    // A reward model predicts no token.
    let predicted = |r: &&Tokenized| if config.trains_reward() { 0 } else { r.supervised_tokens() };
    let supervised: usize = rows.iter().flatten().map(predicted).sum();
    let (rows_per_pass, accumulation) = config.step_shape();
    let steps = StepPlan::new(
        rows.iter().map(|row| packed_tokens(row, Sharing::WithinRow)).collect(),
        rows_per_pass,
        accumulation,
        config.packing(),
        config.seed,
    )
    .repeated(config.iterations());
    let batches = Batches { rows: &rows, plan: &steps };
    // The largest pass sets the memory, the mean pass the time.
    let pass = largest_pass(config, &batches);
    let held = weights.held_bytes(config.base_precision());
    let limit = Limit::of(config);
    let Choice { mode, memory, why, warning, .. } = choose(config, &model, held, adapter, pass, limit);
    let share = config.shares_prefixes().then_some(MIN_SHARED_TOKENS);
    let laid_out: Vec<usize> = batches
        .epoch(0)
        .iter()
        .take(MEAN_OF)
        .filter_map(|batch| pack(batch, share).ok())
        .map(|batch| batch.ids().len())
        .collect();
    let passes = steps.epoch(0).iter().flatten().count().max(1);
    let steps_per_epoch = steps.steps_per_epoch().max(1);
    let supervised_run = WorkShape {
        adapter_params: adapter.params,
        tokens_per_pass: (laid_out.iter().sum::<usize>() as f64 / laid_out.len().max(1) as f64).ceil() as u64,
        row_tokens: (all / trained) as u64,
        supervised_per_pass: supervised.div_ceil(passes) as u64,
        accumulation: accumulation as u64,
        steps: config.total_steps(steps_per_epoch),
        recompute: mode.recompute,
        flops_per_second: flops,
    };
    // Of sampled answers only the most is known: all as long as they may be.
    let run = if config.samples_answers() {
        WorkShape {
            tokens_per_pass: pass.tokens,
            row_tokens: (all / trained) as u64 + config.completion_limit(),
            supervised_per_pass: pass.predicting,
            accumulation: config.accumulation(),
            ..supervised_run
        }
    } else {
        supervised_run
    };
    // A pass forward is half the work of one there and back.
    let beside = 1.0 + 0.5 * config.forwards_beside();
    let time = work(&model, &run);
    Ok(Plan {
        model,
        rows: read,
        sampled: sample.rows.len(),
        mean_tokens: all as f64 / trained as f64,
        steps_per_epoch,
        adapter,
        pass,
        run,
        memory,
        compute: if mode.load.compute == Compute::F32 { "f32" } else { "bf16" },
        weight_cache: if mode.load.weight_cache == WeightCache::Packed { "bf16" } else { "stream" },
        auto: why,
        warning,
        note: on_cards(config).or_else(|| sampling(config)),
        work: Work {
            step_flops: time.step_flops * beside,
            step_seconds: time.step_seconds * beside,
            total_seconds: time.total_seconds * beside,
        },
        limit_bytes: limit.bytes,
    })
}

/// What is to be said where cards are to compute.
fn on_cards(config: &Config) -> Option<String> {
    let asked = matches!(config.device, Device::Cuda(_)) || config.gpus > 1;
    asked.then(|| {
        "time, memory and what `auto` takes are the processor's: a card's are not estimated".to_owned()
    })
}

/// What is to be said where answers are sampled.
fn sampling(config: &Config) -> Option<String> {
    config.samples_answers().then(|| {
        let answers = config.step_shape().0 as u64 * config.num_generations();
        let longest = config.completion_limit();
        format!("these times are learning's: sampling {answers} answers a step, of at most {longest} tokens, and their rewards come on top")
    })
}

/// Every row of preference data.
fn preferences(config: &Config, base: &Base) -> anyhow::Result<Sample> {
    let date = chrono::Utc::now().date_naive();
    // What is set aside is reckoned with afterwards; bad rows are for others to complain of.
    let all = Config { val_set_size: 0.0, on_bad_row: OnBadRow::Skip, ..config.clone() };
    let prepared = Preparer { base, config: &all, offline: true, date }.prepare()?;
    let (rows, bad) = (prepared.rows, prepared.read.bad_rows);
    tell_bad(config, rows.n_train(), bad.len(), bad.first().map(String::as_str))?;
    let sequences = |row: usize| rows.sequences(row).into_iter().cloned().collect();
    let rows: Vec<Vec<Tokenized>> = (0..rows.n_train()).map(sequences).collect();
    Ok(Sample { stand_in: (0..rows.len()).collect(), rows })
}

/// Rows that training stops at, or would skip. Error: there is no other.
fn tell_bad(config: &Config, good: usize, bad: usize, first: Option<&str>) -> anyhow::Result<()> {
    let Some(first) = first else { return Ok(()) };
    anyhow::ensure!(
        good > 0,
        "{first}\nhint: no row of the data set can be used; `galen data check` lists why"
    );
    let then = match config.bad_rows() {
        galen_data::OnBadRow::Skip => "they are skipped",
        galen_data::OnBadRow::Error => "training stops there (`on_bad_row: skip` leaves them out)",
    };
    say(&format!(
        "warning: {bad} of {} rows cannot be used: {then}; first: {}",
        good + bad,
        first.replace('\n', "; ")
    ));
    Ok(())
}

/// Some rows as training will see them, evenly from all entries.
fn sample(config: &Config, base: &Base) -> anyhow::Result<Sample> {
    if config.rl.is_some() {
        return preferences(config, base);
    }
    let date = chrono::Utc::now().date_naive();
    let preparer = Preparer { base, config, offline: true, date };
    let mut loaded = Vec::new();
    for spec in config.dataset_specs()?.0 {
        // Bad rows are `galen data check`'s and `galen train`'s to complain of.
        let galen_data::Loaded { rows, bad_rows, .. } = preparer.load(&spec, galen_data::OnBadRow::Skip)?;
        tell_bad(config, rows.len(), bad_rows.len(), bad_rows.first().map(|b| b.text.as_str()))?;
        loaded.push((preparer.renderer(&spec, &rows)?, rows));
    }
    let all: Vec<_> =
        loaded.iter().flat_map(|(renderer, rows)| rows.iter().map(move |r| (renderer, r))).collect();
    let stride = all.len().div_ceil(SAMPLED_ROWS).max(1);
    let mut options = preparer.tokenize_options();
    if options.excess == ExcessLength::Raise {
        options.excess = ExcessLength::Drop;
    }
    let measure = |(renderer, row): &(&Renderer, &Conversation)| {
        let rendered = [renderer.render(row).ok()?];
        Some(tokenize(&rendered, &base.tokenizer, options).ok()?.0)
    };
    let mut out = Sample { rows: Vec::new(), stand_in: Vec::new() };
    for (i, row) in all.iter().step_by(stride).enumerate() {
        // A long text becomes several rows.
        let pieces = measure(row).unwrap_or_default();
        for _ in 0..stride.min(all.len() - i * stride) {
            out.stand_in.extend(out.rows.len()..out.rows.len() + pieces.len());
        }
        out.rows.extend(pieces.into_iter().map(|piece| vec![piece]));
    }
    Ok(out)
}

/// The plan as a small table.
pub fn text(plan: &Plan) -> String {
    let m = &plan.memory;
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "  {name:<30}{value:>14}");
    };
    line("rows", plan.rows.to_string());
    line("tokens a row, about", format!("{:.0}", plan.mean_tokens));
    line("tokens of the largest pass", plan.pass.tokens.to_string());
    line("of which predict", plan.pass.predicting.to_string());
    line("trained parameters", plan.adapter.params.to_string());
    line("steps", plan.run.steps.to_string());
    line("arithmetic", plan.compute.into());
    line("weights", bytes(m.weights_bytes));
    if m.packed_bytes > 0 {
        line("weights packed for products", bytes(m.packed_bytes));
    }
    line("adapter, gradient, moments", bytes(m.adapter_bytes));
    let how = if plan.run.recompute { "activations, recomputed" } else { "activations" };
    line(how, bytes(m.activations_bytes));
    line("work space", bytes(m.workspace_bytes));
    line("program, allocator", bytes(m.process_bytes));
    line("memory together, about", bytes(m.total_bytes));
    let seconds = |s: f64| {
        if s.is_finite() { duration(Duration::from_secs_f64(s.clamp(0.0, 1e9))) } else { "unknown".into() }
    };
    line("a step, about", seconds(plan.work.step_seconds));
    line("all steps, about", seconds(plan.work.total_seconds));
    for (name, text) in [("", &plan.auto), ("warning: ", &plan.warning), ("note: ", &plan.note)] {
        if let Some(text) = text {
            let _ = writeln!(out, "{name}{text}");
        }
    }
    out
}
