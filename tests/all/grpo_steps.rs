//! Steps of GRPO and RLOO on given answers on SmolLM2 against TRL: `goldens/grpo_steps.py` states the setting and made the
//! figures. The answers lie where a run keeps those that wait for their rewards.

use crate::align_steps::follow_rows;
use crate::goldens::path;
use crate::support::real;
use galen_data::pack::Sharing;
use galen_loss::find;
use galen_loss::rollout::{AGGREGATIONS, Grpo, Rloo, SCALES};
use galen_model::{End, Model, Precision, Rollouts, Sampling, StepKernels, Weights};
use galen_train::preference::Reference;
use galen_train::rollout::{
    Judge, JudgedAnswer, Keep, LengthDrift, Part, Policy, PolicyLoss, PromptRows, RolloutSettings, Scores,
    Store,
};
use galen_types::{Origin, TokenizedPrompt};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::tempdir;

/// The script's two reward functions.
struct LengthAndEnd;

impl Judge for LengthAndEnd {
    fn functions(&self) -> Vec<(String, f64)> {
        ["length", "ends"].map(|name| (name.to_owned(), 1.0)).into()
    }

    fn score(&self, _: Part, answers: &[JudgedAnswer]) -> Result<Scores, String> {
        let ends = |a: &JudgedAnswer| if a.end == End::Stop { 1.0 } else { 0.0 };
        let values: Vec<Vec<Option<f64>>> =
            answers.iter().map(|a| vec![Some(0.1 * a.ids.len() as f64), Some(ends(a))]).collect();
        let totals = values.iter().map(|v| v.iter().copied().sum()).collect();
        Ok(Scores { values, totals, texts: vec![String::new(); answers.len()] })
    }

    fn prompt(&self, _: Part, _: usize) -> String {
        String::new()
    }
}

const KEY: &str = "golden";

/// Puts the answers to these prompts where they wait for their judge.
fn give(dir: &Path, golden: &Value, rows: &[usize], step: usize) {
    let group = golden["group"].as_u64().expect("a number") as usize;
    let sample = |(j, ids): (usize, &Value)| {
        // The generator's log-probabilities take no part in the loss of an answer that is learned from.
        let n = ids.as_array().expect("ids").len();
        json!({"ids": ids, "logps": vec![0u32; n], "stopped": j + 1 < group})
    };
    let answers: Vec<Value> = rows
        .iter()
        .flat_map(|row| golden["answers"][row].as_array().expect("answers").iter().enumerate().map(sample))
        .collect();
    let pending = json!({
        "key": KEY, "step": step, "rows": rows, "answers": answers, "advantages": [], "policy": null, "reference": null,
    });
    std::fs::write(dir.join("pending_rollouts.json"), pending.to_string()).expect("a file");
}

#[test]
fn steps_on_given_answers_follow_trl() {
    let Some(file) = real("smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let text = std::fs::read_to_string(path("grpo_steps.json")).expect("the golden file");
    let golden: Value = serde_json::from_str(&text).expect("the golden file is JSON");
    let weights = Weights::open(&file).expect("the model opens");
    let model = Model::load(&weights, Precision::Stored).expect("the model loads");
    let list = |v: &Value| -> Vec<u32> { serde_json::from_value(v.clone()).expect("ids") };
    let prompts: Vec<TokenizedPrompt> = golden["prompts"]
        .as_array()
        .expect("prompts")
        .iter()
        .enumerate()
        .map(|(i, ids)| {
            TokenizedPrompt::new(Origin::new("golden", i as u64 + 1), i as u64, list(ids)).expect("one")
        })
        .collect();
    let train: Vec<&TokenizedPrompt> = prompts.iter().collect();
    let grpo = |loss: Grpo| PolicyLoss::Grpo { loss, scale: SCALES[0], aggregation: AGGREGATIONS[0] };
    let defaults = Grpo::default();
    let per_answer = find(galen_loss::rollout::LOSS_TYPES, "grpo").expect("known");
    let inner = Grpo { loss_type: per_answer, epsilon: 0.02, ..defaults };
    // Name, loss, inner iterations, temperature, whether cut-off answers are masked.
    for (name, loss, iterations, temperature, mask) in [
        ("grpo", grpo(Grpo { beta: 0.04, ..defaults }), 1, 1.0, false),
        ("iterations", grpo(inner), 2, 0.8, true),
        ("rloo", PolicyLoss::Rloo(Rloo { beta: 0.05, ..Rloo::default() }), 1, 1.0, false),
    ] {
        let dir = tempdir().expect("a directory");
        let mut policy = Policy {
            rows: PromptRows { train: &train, validation: &[] },
            loss,
            settings: RolloutSettings {
                num_generations: golden["group"].as_u64().expect("a number") as usize,
                num_iterations: iterations,
                answers_per_pass: 3,
                mask_truncated: mask,
                rollouts: Rollouts {
                    sampling: Sampling { temperature, ..Sampling::default() },
                    max_tokens: 1,
                    stop_ids: Vec::new(),
                    together: 1,
                    kernels: StepKernels::Blocks,
                },
                seed: 0,
            },
            reference: Reference::default(),
            sharing: Sharing::AcrossRows,
            judge: &LengthAndEnd,
            drift: LengthDrift::default(),
            store: Store::new(dir.path().into(), KEY.into(), Keep::Nothing),
        };
        let rows = |k: usize| {
            let first = k / iterations as usize * 2;
            let rows = vec![first, first + 1];
            if k.is_multiple_of(iterations as usize) {
                give(dir.path(), &golden, &rows, k);
            }
            rows
        };
        let compared = follow_rows(&model, &golden, name, &mut policy, &rows);
        assert!(compared >= 4 * 7, "{name}: {compared} figures were compared");
    }
}
