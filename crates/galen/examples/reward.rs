//! The rewards that a run of `rl: reward` gives to the answers of its own configuration's pairs (those set aside, where there are
//! any): a JSON line an answer, `{"ids": [...], "reward": x}`. `tests/goldens/reward_check.py` holds them against PEFT.
//!
//!     cargo run --release -p galen --example reward -- RUN

use anyhow::Context as _;
use galen::session::reward_model::{RewardModel, SharedBase};
use galen::session::{Base, Preparer, Rows, resolve_run};
use std::path::Path;

fn main() -> anyhow::Result<()> {
    let run = std::env::args().nth(1).context("name the directory of a reward run")?;
    let (config, _) = galen::config::load(&Path::new(&run).join("config.yaml"), &[])?;
    let record = std::fs::read_to_string(Path::new(&run).join("run.json"))?;
    let record: serde_json::Value = serde_json::from_str(&record)?;
    let (name, options) = resolve_run(&run, true)?;
    let base = Base::open(&name, true)?;
    let model = base.model(options)?;
    let date = record["template_date"].as_str().and_then(|d| d.parse().ok()).unwrap_or_default();
    let Rows::Pairs(parts) = Preparer { base: &base, config: &config, offline: true, date }.prepare()?.rows
    else {
        anyhow::bail!("{run}: its rows are no pairs");
    };
    let sha256 = record["sha256"]["model"].as_str().unwrap_or_default();
    let reward_model =
        RewardModel::open(&run, SharedBase { base: &base, model: &model, sha256, offline: true })?;
    let pairs = if parts.validation.is_empty() { &parts.train } else { &parts.validation };
    let answers: Vec<_> = pairs
        .iter()
        .flat_map(|pair| [pair.chosen(), pair.rejected()].map(|a| (a.prompt_ids(), a.answer_ids())))
        .collect();
    for ((prompt, completion), reward) in answers.iter().zip(reward_model.score_tokens(&answers)?) {
        let ids = [*prompt, *completion].concat();
        println!("{}", serde_json::json!({"ids": ids, "reward": reward}));
    }
    Ok(())
}
