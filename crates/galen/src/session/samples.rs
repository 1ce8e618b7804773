//! Texts that a merge is made by and measured on.

use super::generate::{GenerateOptions, generate_all};
use super::opened::Opened;
use super::{Preparer, TemplateChoice};
use crate::progress::say;
use anyhow::Context as _;
use galen_adapter::Adapter;
use galen_data::template::RenderOptions;
use galen_eval::{Prompt, encode_prompt};
use galen_model::{Model, Sampling};
use galen_ops::hook::ProjectionHook;
use serde_json::json;
use std::path::Path;

/// About so many tokens are run to see the projections' inputs.
const CALIBRATION_TOKENS: usize = 4096;
/// So many texts are measured on.
const HELD_OUT: usize = 16;
/// New tokens for each of galen's own prompts.
const ANSWER_TOKENS: usize = 40;
/// Largest file of samples.
const MAX_BYTES: u64 = 16 << 20;

/// Where nothing else is known: questions of many kinds, answered by the model itself.
pub(super) const PROMPTS: &str = include_str!("samples.txt");

/// Token ids of texts.
pub struct Samples {
    /// To see what goes into the projections.
    pub calibration: Vec<Vec<u32>>,
    /// To measure on: others than those.
    pub held_out: Vec<Vec<u32>>,
    /// What they are, for messages.
    pub origin: String,
}

/// The texts of a file; else rows of the run that made the adapter; else answers of the model to prompts of galen's own.
pub fn samples(
    opened: &Opened,
    model: &Model,
    adapter: &Adapter,
    file: Option<&Path>,
    offline: bool,
) -> anyhow::Result<Samples> {
    if let Some(file) = file {
        let size = std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
        anyhow::ensure!(size <= MAX_BYTES, "{}: {size} bytes of samples are too many", file.display());
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        return answered(opened, model, adapter, &lines, format!("`{}`", file.display()));
    }
    if let Some(dir) = opened.source().adapter_dir
        && dir.join("config.yaml").is_file()
    {
        match of_run(opened, dir, offline) {
            Ok(samples) => return Ok(samples),
            Err(e) => {
                say(&format!("note: the run's rows cannot be read, so its samples are not used: {e:#}"));
            }
        }
    }
    let lines: Vec<&str> = PROMPTS.lines().filter(|l| !l.is_empty()).collect();
    answered(opened, model, adapter, &lines, "answers to galen's sample prompts".into())
}

/// Training rows to see inputs, validation rows (or later training rows) to measure on.
fn of_run(opened: &Opened, dir: &Path, offline: bool) -> anyhow::Result<Samples> {
    let (config, _) = crate::config::check(&dir.join("config.yaml"), &[]);
    let date = chrono::Local::now().date_naive();
    let prepared = Preparer { base: &opened.base, config: &config, offline, date }.prepare()?;
    let rows = &prepared.rows;
    let mut held_out: Vec<Vec<u32>> = rows.samples(HELD_OUT).iter().map(|r| r.ids().to_vec()).collect();
    held_out.retain(|ids| ids.len() > 1);
    let mut calibration: Vec<Vec<u32>> = Vec::new();
    let mut tokens = 0;
    for row in 0..rows.n_train() {
        for ids in rows.sequences(row).iter().map(|s| s.ids().to_vec()) {
            if tokens < CALIBRATION_TOKENS && !held_out.contains(&ids) {
                tokens += ids.len();
                calibration.push(ids);
            }
        }
    }
    anyhow::ensure!(!calibration.is_empty() && !held_out.is_empty(), "the run has too few rows");
    Ok(Samples { calibration, held_out, origin: "rows of the run".into() })
}

/// Prompts with the model's own answers; every fourth is measured on.
fn answered(
    opened: &Opened,
    model: &Model,
    adapter: &Adapter,
    prompts: &[&str],
    origin: String,
) -> anyhow::Result<Samples> {
    anyhow::ensure!(prompts.len() >= 2, "{origin}: at least two lines are wanted");
    let template = opened
        .base
        .template(TemplateChoice { jinja: opened.source().chat_template, ..TemplateChoice::default() })?;
    let tokenizer = &opened.base.tokenizer;
    let options = GenerateOptions {
        max_tokens: ANSWER_TOKENS,
        stop: &[],
        sampling: Sampling::default(),
        goes_on: false,
    };
    let mut asked = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let prompt = match &template {
            Some(t) => {
                let message = json!({"role": "user", "content": prompt});
                Prompt::Chat(t.render_prompt(&[message], None, true, &RenderOptions::default())?)
            }
            None => Prompt::Plain((*prompt).to_owned()),
        };
        asked.push((encode_prompt(tokenizer, &prompt).map_err(|e| anyhow::anyhow!(e))?, options.clone()));
    }
    let answers = generate_all(model, Some(adapter as &dyn ProjectionHook), tokenizer, &asked)?;
    let (mut calibration, mut held_out) = (Vec::new(), Vec::new());
    for (i, ((mut ids, _), (_, answer))) in asked.into_iter().zip(answers).enumerate() {
        ids.extend(answer);
        if i % 4 == 1 { held_out.push(ids) } else { calibration.push(ids) }
    }
    Ok(Samples { calibration, held_out, origin })
}
