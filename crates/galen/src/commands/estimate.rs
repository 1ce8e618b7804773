//! The second half of `galen plan`: memory and time, from the model's headers and the data's lengths.

use crate::cli::Globals;
use crate::config::Config;
use crate::config::types::OnBadRow;
use crate::plan::{Estimate, ModelShape, RunShape, estimate};
use crate::progress::{bytes, duration};
use crate::session::{Base, Preparer, Renderer};
use anyhow::Context as _;
use galen_adapter::ModuleShape;
use galen_data::pack::Sharing;
use galen_data::tokenize::{TokenizeOptions, tokenize};
use galen_hub::{Options, Silent};
use galen_model::weights::Weights;
use galen_model::{MODULES, Precision, tokenizer::Tokenizer};
use galen_train::StepPlan;
use galen_types::Conversation;
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;

/// Rows tokenised to learn the data's lengths; the others are taken to be like them.
const SAMPLED_ROWS: usize = 512;
/// Useful work of a core, floating-point operations a second: a cautious figure of a processor with AVX2.
const CORE_FLOPS: f64 = 50e9;
/// Bits of a weight in NF4 with double quantisation: 4, and a scale of 8 bits each 64, and one of 32 each 16,384.
const NF4_BITS: f64 = 4.127;
/// Tokens whose logits are held at once.
const HEAD_CHUNK_TOKENS: u64 = 256;

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
    /// What the run does.
    pub run: RunShape,
    /// Memory and time.
    pub estimate: Estimate,
    /// `max_memory` of the processor, bytes.
    pub limit_bytes: Option<u64>,
}

/// Estimates a sound configuration. Opens no socket: the model must be here already.
pub fn of(config: &Config, globals: &Globals) -> anyhow::Result<Plan> {
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
    let (lengths, sampled) = lengths(config, &base)?;
    let threads = globals.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        |n| usize::from(n.get()),
    );
    Ok(Plan { sampled, ..plan(config, &base.weights, &lengths, CORE_FLOPS * threads as f64)? })
}

/// The plan from lengths: (tokens, supervised tokens) a row.
pub fn plan(
    config: &Config,
    weights: &Weights,
    lengths: &[(usize, usize)],
    flops: f64,
) -> anyhow::Result<Plan> {
    let model = ModelShape::from(weights.config());
    let modules = modules(&model);
    let adapter = config.adapter_config();
    let covered = adapter.targets.select(&modules, adapter.layers.as_deref())?;
    let adapter_params: u64 = covered.iter().map(|m| adapter.r as u64 * (m.inputs + m.outputs) as u64).sum();

    let rows = lengths.len();
    let held_out = match config.val_set_size {
        share if share < 1.0 => (rows as f64 * share).ceil() as usize,
        count => count as usize,
    };
    let tokens: Vec<usize> = lengths.iter().skip(held_out.min(rows)).map(|l| l.0).collect();
    let trained = tokens.len();
    anyhow::ensure!(
        trained > 0,
        "no row is left to train on: {rows} read, {held_out} set aside (`val_set_size`)"
    );
    let all: usize = tokens.iter().sum();
    let supervised: usize = lengths.iter().skip(held_out).map(|l| l.1).sum();
    let micro = config.micro_batch_size as usize;
    let steps =
        StepPlan::new(tokens.clone(), micro, config.accumulation() as usize, config.packing(), config.seed);
    // The largest pass sets the memory, the mean pass the time.
    let passes: Vec<usize> = steps
        .epoch(0)
        .iter()
        .flatten()
        .map(|batch| batch.iter().map(|row| tokens.get(*row).copied().unwrap_or(0)).sum())
        .collect();
    let largest = passes.iter().copied().max().unwrap_or(0) as u64;
    let steps_per_epoch = steps.steps_per_epoch().max(1);
    let run = |checkpointing: bool, tokens_per_pass: u64| RunShape {
        weight_bytes: weight_bytes(config, weights, &model),
        adapter_params,
        tokens_per_pass,
        row_tokens: (all / trained) as u64,
        supervised_per_pass: (tokens_per_pass as f64 * supervised as f64 / all.max(1) as f64).ceil() as u64,
        accumulation: config.accumulation(),
        steps: config.total_steps(steps_per_epoch),
        activation_bytes: 4,
        checkpointing,
        head_chunk_tokens: HEAD_CHUNK_TOKENS,
        flops_per_second: flops,
    };
    let checkpointing = config.recompute(|limit| {
        limit.is_some_and(|limit| estimate(&model, &run(false, largest)).total_bytes > limit)
    });
    let memory = estimate(&model, &run(checkpointing, largest));
    let mean_pass = (all as f64 / passes.len().max(1) as f64).ceil() as u64;
    let time = estimate(&model, &run(checkpointing, mean_pass));
    // A pass forward is half the work of one there and back.
    let beside = 1.0 + 0.5 * config.forwards_beside();
    Ok(Plan {
        model,
        rows,
        sampled: rows,
        mean_tokens: all as f64 / trained as f64,
        steps_per_epoch,
        run: run(checkpointing, largest),
        estimate: Estimate {
            step_flops: time.step_flops * beside,
            step_seconds: time.step_seconds * beside,
            total_seconds: time.total_seconds * beside,
            ..memory
        },
        limit_bytes: config.max_memory.0.get("cpu").copied(),
    })
}

fn modules(model: &ModelShape) -> Vec<ModuleShape> {
    let of_block = |layer: u64| {
        MODULES.iter().zip(model.projections()).map(move |((_, module), (inputs, outputs))| ModuleShape {
            layer: layer as usize,
            module,
            inputs: inputs as usize,
            outputs: outputs as usize,
        })
    };
    (0..model.layers).flat_map(of_block).collect()
}

fn weight_bytes(config: &Config, weights: &Weights, model: &ModelShape) -> u64 {
    let stored = weights.nbytes() as u64;
    let params = model.params().max(1) as f64;
    let stored_bits = stored as f64 * 8.0 / params;
    if config.base_precision() != Precision::Nf4 || stored_bits < 12.0 {
        return stored;
    }
    let projections = model.matmul_params() as f64;
    (stored as f64 - projections * (stored_bits - NF4_BITS) / 8.0).max(0.0) as u64
}

/// (tokens, supervised tokens) of every row of preference data, as a pair adds them to a batch: its prompt once.
fn preference_lengths(config: &Config, base: &Base) -> anyhow::Result<(Vec<(usize, usize)>, usize)> {
    let date = chrono::Utc::now().date_naive();
    // What is set aside is reckoned with afterwards; bad rows are for others to complain of.
    let all = Config { val_set_size: 0.0, on_bad_row: OnBadRow::Skip, ..config.clone() };
    let rows = Preparer { base, config: &all, offline: true, date }.prepare()?.rows;
    let supervised = |row: usize| rows.sequences(row).iter().map(|s| s.supervised_tokens()).sum();
    let lengths = rows.lengths(Sharing::WithinRow).into_iter().enumerate();
    let lengths: Vec<_> = lengths.map(|(row, tokens)| (tokens, supervised(row))).collect();
    let n = lengths.len();
    Ok((lengths, n))
}

/// (tokens, supervised tokens) of every row, most of them extrapolated; and how many were measured.
fn lengths(config: &Config, base: &Base) -> anyhow::Result<(Vec<(usize, usize)>, usize)> {
    if config.rl.is_some() {
        return preference_lengths(config, base);
    }
    let date = chrono::Utc::now().date_naive();
    let preparer = Preparer { base, config, offline: true, date };
    let mut loaded = Vec::new();
    for spec in config.dataset_specs()?.0 {
        // Bad rows are `galen data check`'s and `galen train`'s to complain of.
        let rows = preparer.load(&spec, galen_data::OnBadRow::Skip)?.rows;
        loaded.push((preparer.renderer(&spec, &rows)?, rows));
    }
    let all: Vec<_> =
        loaded.iter().flat_map(|(renderer, rows)| rows.iter().map(move |r| (renderer, r))).collect();
    let stride = all.len().div_ceil(SAMPLED_ROWS).max(1);
    let any_length = TokenizeOptions { sequence_len: usize::MAX, ..preparer.tokenize_options() };
    let measure = |(renderer, row): &(&Renderer, &Conversation)| {
        let rendered = [renderer.render(row).ok()?];
        let (rows, _) = tokenize(&rendered, &base.tokenizer, any_length).ok()?;
        rows.first().map(|row| (row.ids().len(), row.supervised_tokens()))
    };
    let measured: Vec<Option<(usize, usize)>> = all.iter().step_by(stride).map(measure).collect();
    let drops = config.excess_length_strategy == crate::config::types::ExcessLength::Drop;
    let limit = config.sequence_len as usize;
    let lengths = (0..all.len())
        .filter_map(|i| measured.get(i / stride).copied().flatten())
        .filter(|(tokens, _)| !(drops && *tokens > limit))
        .map(|(tokens, supervised)| (tokens.min(limit), supervised.min(limit)))
        .collect();
    Ok((lengths, measured.len()))
}

/// The plan as a small table.
pub fn text(plan: &Plan) -> String {
    let e = &plan.estimate;
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "  {name:<30}{value:>14}");
    };
    line("rows", plan.rows.to_string());
    line("tokens a row, about", format!("{:.0}", plan.mean_tokens));
    line("trained parameters", plan.run.adapter_params.to_string());
    line("steps", plan.run.steps.to_string());
    line("weights", bytes(e.weights_bytes));
    line("adapter, gradient, moments", bytes(e.adapter_bytes));
    let how = if plan.run.checkpointing { "activations, recomputed" } else { "activations" };
    line(how, bytes(e.activations_bytes));
    line("work space", bytes(e.workspace_bytes));
    line("memory together, about", bytes(e.total_bytes));
    let seconds = |s: f64| {
        if s.is_finite() { duration(Duration::from_secs_f64(s.clamp(0.0, 1e9))) } else { "unknown".into() }
    };
    if let Some(limit) = plan.limit_bytes.filter(|limit| e.total_bytes > *limit) {
        line("more than `max_memory`", bytes(limit));
    }
    line("a step, about", seconds(e.step_seconds));
    line("all steps, about", seconds(e.total_seconds));
    out
}
