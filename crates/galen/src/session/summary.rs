//! What a finished run says of itself: `report.html` and the model card.

use super::base::Base;
use super::generate::{GenerateOptions, generate};
use super::prepare::Prepared;
use super::record::sha256_file;
use super::run_dir::{published_name, replace};
use crate::config::Config;
use galen_adapter::Adapter;
use galen_model::tokenizer::Tokenizer;
use galen_model::{Model, Sampling};
use galen_ops::hook::ProjectionHook;
use galen_train::Outcome;
use galen_train::report::{DataRow, Fact, ModelCard, RunSummary, SampleRow, model_card, report_html};
use galen_types::{StepReport, TextEncoder as _, Tokenized};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Tokens a sample's answer may be longer than the right one.
const SLACK: usize = 8;

/// Writes `report.html` and `README.md` from what is known of the run.
pub(crate) fn write_reports(dir: &Path, summary: &RunSummary, chat: bool) -> anyhow::Result<()> {
    replace(&dir.join("report.html"), report_html(summary)?.as_bytes())?;
    let scores = summary.settings.iter().any(|fact| fact.name == "rl" && fact.value == "reward");
    let card = ModelCard { base_model: &summary.base_model, chat, scores, ..ModelCard::default() };
    replace(&dir.join("README.md"), model_card(&card, summary)?.as_bytes())
}

pub(super) fn summarise(
    config: &Config,
    base: &Base,
    prepared: &Prepared,
    outcome: &Outcome,
    eval_losses: Vec<(u64, f64)>,
    hashes: &BTreeMap<String, String>,
    dir: &Path,
) -> RunSummary {
    let (steps, earlier_validations) = read_log(&dir.join("log.jsonl"));
    let set_aside = prepared.rows.n_validation();
    let data = prepared.read.reports.iter().map(|r| DataRow {
        name: r.path.clone(),
        role: match (r.validates, config.val_set_size > 0.0) {
            (true, _) => "validation".into(),
            (false, true) => format!("train, {set_aside} rows of all set aside for validation"),
            (false, false) => "train".into(),
        },
        rows: r.kept,
        supervised_tokens: Some(r.supervised_tokens),
        // Of what is no single file, the rows as they are trained.
        sha256: Some(Path::new(&r.path))
            .filter(|path| path.is_file())
            .and_then(|path| sha256_file(path).ok())
            .unwrap_or_else(|| prepared.sha256.clone()),
    });
    let shown = [
        "rl",
        "rl_beta",
        "center_rewards_coefficient",
        "dpo_loss_type",
        "adapter",
        "lora_r",
        "lora_alpha",
        "peft_use_rslora",
        "peft_use_dora",
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
        base_model: published_name(config, base).unwrap_or_else(|| base.name.clone()),
        method: outcome.adapter.method().shown().to_owned(),
        low_rank: outcome.adapter.is_low_rank(),
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
            Fact::new("device", outcome.reports.last().map_or("cpu", |r| r.device.as_str())),
        ],
        config_yaml: config.to_yaml(),
        samples: None,
    }
}

/// `report_samples`: rows with what the base and the adapter write behind the text before the first supervised token.
pub(super) fn samples(
    rows: &[&Tokenized],
    model: &Model,
    adapter: &Adapter,
    tokenizer: &Tokenizer,
) -> anyhow::Result<Vec<SampleRow>> {
    let decode = |ids: &[u32]| tokenizer.decode(ids, true).map_err(anyhow::Error::msg);
    let mut out = Vec::with_capacity(rows.len());
    for row in rows {
        // A text that is learned throughout (but for its first token, which nothing predicts) is continued from its half.
        let first = match row.mask().iter().position(|m| *m) {
            Some(0 | 1) => (row.ids().len() / 2).max(1),
            first => first.unwrap_or(row.ids().len()),
        };
        let expected: Vec<u32> = row
            .ids()
            .iter()
            .zip(row.mask())
            .skip(first)
            .take_while(|(_, m)| **m)
            .map(|(id, _)| *id)
            .collect();
        let prompt = &row.ids()[..first];
        let answer = |hook: Option<&dyn ProjectionHook>| -> anyhow::Result<String> {
            let max_tokens = expected.len() + SLACK;
            let options =
                GenerateOptions { max_tokens, stop: &[], sampling: Sampling::default(), goes_on: false };
            let mut text = String::new();
            generate(model, hook, tokenizer, prompt, &options, &mut |piece| {
                text.push_str(piece);
                Ok(())
            })?;
            Ok(text)
        };
        out.push(SampleRow {
            prompt: decode(prompt)?,
            expected: decode(&expected)?,
            before: answer(None)?,
            after: answer(Some(adapter))?,
        });
    }
    Ok(out)
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
