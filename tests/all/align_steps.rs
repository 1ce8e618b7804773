//! Ten steps of DPO, KTO and ORPO on SmolLM2 against TRL: `goldens/align_steps.py` states the setting and made the figures.

use crate::goldens::path;
use crate::peft_steps::initialise;
use crate::support::{adapter, lora, real, settings};
use galen_data::pack::Sharing;
use galen_loss::Kto;
use galen_loss::pair::{Dpo, Orpo, PairObjective};
use galen_model::{Model, Precision, Weights};
use galen_optim::{AdamW, AdamWConfig, clip_factor, global_norm};
use galen_train::preference::{
    Displacement, LabelledRows, Labels, OnDisplacement, PairRows, Pairs, Reference,
};
use galen_train::{Objective, Place};
use galen_types::{Origin, TokenizedAnswer, TokenizedLabelled, TokenizedPair};
use serde_json::Value;

/// TRL's figures and ours may differ by so much: f32 on both sides.
const TOLERANCE: f64 = 1e-3;

fn list(row: &Value, key: &str) -> Vec<u32> {
    let list = row[key].as_array().unwrap_or_else(|| panic!("{key}")).iter();
    list.map(|v| v.as_u64().expect("a token id") as u32).collect()
}

fn answer(i: usize, row: &Value, key: &str) -> TokenizedAnswer {
    let (prompt, answer) = (list(row, "prompt"), list(row, key));
    let ids = [&prompt[..], &answer].concat();
    TokenizedAnswer::new(Origin::new("golden", i as u64 + 1), i as u64, ids, prompt.len()).expect("a row")
}

fn rows(golden: &Value) -> impl Iterator<Item = (usize, &Value)> {
    golden["rows"].as_array().expect("rows").iter().enumerate()
}

pub fn pair_rows(golden: &Value) -> Vec<TokenizedPair> {
    let pair = |(i, row): (usize, &Value)| {
        let margin = row["margin"].as_f64();
        TokenizedPair::new(answer(i, row, "chosen"), answer(i, row, "rejected"), margin).expect("a pair")
    };
    rows(golden).map(pair).collect()
}

/// Trains as the script does, with a score head where it has one, and compares every figure that both report.
pub fn follow(model: &Model, golden: &Value, name: &str, objective: &mut dyn Objective) {
    let rows = |k: usize| (k % 5 * 4..k % 5 * 4 + 4).collect();
    let compared = follow_rows(model, golden, name, objective, &rows);
    assert!(compared >= 10 * 7, "{name}: {compared} figures were compared");
}

/// The same with the rows of each step, counted from 0; gives the number of figures compared.
pub fn follow_rows(
    model: &Model,
    golden: &Value,
    name: &str,
    objective: &mut dyn Objective,
    rows: &dyn Fn(usize) -> Vec<usize>,
) -> usize {
    let number = |key: &str| golden[key].as_f64().expect("a number");
    let mut adapter = adapter(model, lora(number("lora_r") as usize, number("lora_alpha")));
    if golden["score"].is_object() {
        adapter = adapter.with_score_head(model.config.hidden_size, 1.0);
    }
    initialise(&mut adapter, golden["seed"].as_u64().expect("a seed"));
    if let Some(head) = adapter.score_head() {
        let first: Vec<f64> = head[..8].iter().map(|v| f64::from(*v)).collect();
        assert_eq!(golden["score"]["first_values"], serde_json::json!(first));
    }
    let lengths: Vec<usize> = adapter.buffers().map(<[f32]>::len).collect();
    let config =
        AdamWConfig { eps: number("eps"), weight_decay: number("weight_decay"), ..AdamWConfig::default() };
    let mut optimizer = AdamW::new(config, lengths);
    let settings = settings();
    let (mut worst, mut compared) = (0f64, 0);
    for (k, want) in golden[name]["steps"].as_array().expect("steps").iter().enumerate() {
        let at = Place { step: k as u64, ..Place::new(model, &adapter, &settings) };
        let ours = objective.step(&at, &[rows(k)]).expect("a step");
        let norm = global_norm(&ours.gradients);
        for (key, want) in want.as_object().expect("an object") {
            let want = want.as_f64().expect("a number");
            let (got, scale) = match key.as_str() {
                "loss" => (Some(ours.loss), 1.0),
                "grad_norm" => (Some(norm), want.abs()),
                "mean_token_accuracy" => (Some(ours.correct as f64 / ours.judged_tokens as f64), 1.0),
                // Sums over an answer: their size is that of its length.
                key => (ours.metrics.get(key), if key.starts_with("logps/") { want.abs() } else { 1.0 }),
            };
            let Some(got) = got else { continue };
            let difference = (got - want).abs() / scale;
            assert!(difference <= TOLERANCE, "{name}, step {}: {key} {got} for {want}", k + 1);
            worst = worst.max(difference);
            compared += 1;
        }
        let factor = clip_factor(norm, number("max_grad_norm"));
        optimizer.step(adapter.buffers_mut(), &ours.gradients, number("learning_rate"), factor);
    }
    println!("{name}: {compared} figures, the largest difference {worst:.1e}");
    compared
}

#[test]
fn ten_steps_follow_trl() {
    let Some(file) = real("smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let text = std::fs::read_to_string(path("align_steps.json")).expect("the golden file");
    let golden: Value = serde_json::from_str(&text).expect("the golden file is JSON");
    let weights = Weights::open(&file).expect("the model opens");
    let model = Model::load(&weights, Precision::Stored).expect("the model loads");
    let beta = |name: &str| golden[name]["beta"].as_f64().expect("a number");

    let losses: [(&str, Box<dyn PairObjective>); 2] = [
        ("dpo", Box::new(Dpo { beta: beta("dpo"), ..Dpo::default() })),
        ("orpo", Box::new(Orpo { beta: beta("orpo") })),
    ];
    for (name, loss) in &losses {
        let train = pair_rows(&golden[name]);
        let mut pairs = Pairs {
            rows: PairRows { train: &train, validation: &[] },
            loss: loss.as_ref(),
            reference: Reference::default(),
            sharing: Sharing::AcrossRows,
            displacement: Displacement::new(OnDisplacement::Off, 0.1),
        };
        follow(&model, &golden, name, &mut pairs);
    }

    let label = |row: &Value| row["label"].as_bool().expect("a label");
    let train: Vec<TokenizedLabelled> = rows(&golden["kto"])
        .map(|(i, row)| TokenizedLabelled { answer: answer(i, row, "completion"), label: label(row) })
        .collect();
    let other: Vec<TokenizedAnswer> =
        rows(&golden["kto"]).map(|(i, row)| answer(i, row, "kl_completion")).collect();
    assert!(
        other == galen_data::preference::mismatched(&train, 4, 512).expect("answers"),
        "TRL pairs them alike"
    );
    let mut labels = Labels {
        rows: LabelledRows {
            train: &train,
            validation: &[],
            train_mismatched: &other,
            validation_mismatched: &[],
        },
        loss: Kto { beta: beta("kto"), ..Kto::default() },
        reference: Reference::default(),
        sharing: Sharing::AcrossRows,
    };
    follow(&model, &golden, "kto", &mut labels);
}
