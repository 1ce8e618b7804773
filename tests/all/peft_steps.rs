//! Twenty AdamW steps on SmolLM2 against PEFT: `goldens/peft_steps.py` states the setting and made the figures.

use crate::goldens::path;
use crate::support::{adapter, lora, real, row, settings};
use galen_adapter::{Adapter, AdapterConfig, Init};
use galen_model::{Model, Precision, Weights};
use galen_optim::{AdamW, AdamWConfig, Faster, clip_factor, global_norm};
use galen_testkit::fuzz::Random;
use galen_train::{Place, step_gradient};
use galen_types::Tokenized;
use serde_json::Value;

/// The start that the script documents: one counter over all matrices in their order.
pub fn initialise(adapter: &mut Adapter, seed: u64) {
    let mut random = Random::new(seed);
    let keys: Vec<(String, usize)> = adapter.tensors().map(|(k, _, v)| (k, v.len())).collect();
    // DoRA's magnitudes start where they are: the norms of the base's rows.
    for (key, n) in keys.into_iter().filter(|(key, _)| !key.ends_with("lora_magnitude_vector")) {
        let bound = match key.rsplit_once('.').map_or("", |(name, _)| name) {
            name if name.ends_with("lora_A") => 0.03f32,
            name if name.ends_with("score") => 0.05,
            _ => 0.01,
        };
        let values: Vec<f32> =
            (0..n).map(|_| (2.0 * ((random.bits() >> 40) as f32 / (1 << 24) as f32) - 1.0) * bound).collect();
        assert!(adapter.set(&key, &values), "{key}");
    }
}

fn sum_abs(adapter: &Adapter, suffix: &str) -> f64 {
    let of = |(key, _, values): (String, Vec<usize>, &[f32])| {
        if key.ends_with(suffix) { values.iter().map(|v| f64::from(v.abs())).sum() } else { 0.0 }
    };
    adapter.tensors().map(of).sum()
}

fn close(what: &str, got: f64, want: &Value, tolerance: f64) {
    let want = want.as_f64().expect("a number");
    let error = (got - want).abs() / want;
    println!("{what}: {got} for {want}, {error:.1e}");
    assert!(error <= tolerance, "{what}: {got} for {want}");
}

#[test]
fn twenty_steps_follow_peft() {
    steps_follow_peft("lora", "peft_steps.json");
}

/// `goldens/dora_steps.py`: the setting and rows of `peft_steps.py`.
#[test]
fn ten_dora_steps_follow_peft() {
    steps_follow_peft("dora", "dora_steps.json");
}

/// `goldens/loraplus_steps.py`: the same start, stepped by PEFT's LoRA+.
#[test]
fn six_loraplus_steps_follow_peft() {
    steps_follow_peft("dora", "loraplus_steps.json");
}

fn steps_follow_peft(method: &str, steps: &str) {
    let Some(file) = real("smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    let text = std::fs::read_to_string(path("peft_steps.json")).expect("the golden file");
    let golden: Value = serde_json::from_str(&text).expect("the golden file is JSON");
    let weights = Weights::open(&file).expect("the model opens");
    let model = Model::load(&weights, Precision::Stored).expect("the model loads");
    let own = std::fs::read_to_string(path(steps)).expect("the golden file");
    let own: Value = serde_json::from_str(&own).expect("the golden file is JSON");
    // What a file does not say is as in `peft_steps.py`.
    let number = |key: &str| own[key].as_f64().or(golden[key].as_f64()).expect("a number");
    let config = AdapterConfig {
        method: method.into(),
        init: Init::Kaiming,
        ..lora(number("lora_r") as usize, number("lora_alpha"))
    };
    let mut adapter = adapter(&model, config);
    initialise(&mut adapter, golden["init"]["seed"].as_u64().expect("a seed"));
    let first = adapter.tensors().next().expect("a matrix").2[..8].to_vec();
    let want: Vec<f32> = golden["init"]["first_values"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|v| v.as_f64().expect("a number") as f32)
        .collect();
    assert_eq!(first, want);
    close("sum of |A| at the start", sum_abs(&adapter, "lora_A.weight"), &golden["init"]["sum_abs_a"], 1e-9);
    close("sum of |B| at the start", sum_abs(&adapter, "lora_B.weight"), &golden["init"]["sum_abs_b"], 1e-9);

    if method == "dora" {
        close("sum of m at the start", sum_abs(&adapter, "vector"), &own["start"]["sum_m"], 1e-6);
    }

    let rows = golden["rows"].as_array().expect("rows").iter().enumerate().map(|(i, r)| {
        let list = |key: &str| {
            let list = r[key].as_array().expect("a list").iter();
            list.map(|v| v.as_u64().expect("a number") as u32).collect::<Vec<u32>>()
        };
        row(i as u64, &list("ids"), &list("mask").iter().map(|m| *m == 1).collect::<Vec<bool>>())
    });
    let rows: Vec<Tokenized> = rows.collect();
    let lengths: Vec<usize> = adapter.buffers().map(<[f32]>::len).collect();
    let config =
        AdamWConfig { eps: number("eps"), weight_decay: number("weight_decay"), ..AdamWConfig::default() };
    let mut optimizer = AdamW::new(config, lengths);
    let ratio = own["loraplus_lr_ratio"].as_f64();
    optimizer.faster = ratio.map(|ratio| Faster { ratio, ranges: adapter.faster() });
    for (k, step) in own["steps"].as_array().expect("steps").iter().enumerate() {
        let batch: Vec<&Tokenized> = rows[k % 5 * 4..k % 5 * 4 + 4].iter().collect();
        let ours = step_gradient(&Place::new(&model, &adapter, &settings()), &[batch]).expect("a step");
        assert_eq!(Some(ours.supervised_tokens), step["supervised_tokens"].as_u64());
        let norm = global_norm(&ours.gradients);
        close(&format!("step {} loss", k + 1), ours.loss, &step["loss"], 1e-4);
        close(&format!("step {} gradient norm", k + 1), norm, &step["grad_norm"], 1e-3);
        let factor = clip_factor(norm, number("max_grad_norm"));
        optimizer.step(adapter.buffers_mut(), &ours.gradients, number("learning_rate"), factor);
    }
    close("sum of |A| at the end", sum_abs(&adapter, "lora_A.weight"), &own["after"]["sum_abs_a"], 1e-5);
    close("sum of |B| at the end", sum_abs(&adapter, "lora_B.weight"), &own["after"]["sum_abs_b"], 1e-4);
    if method == "dora" {
        close("sum of m at the end", sum_abs(&adapter, "vector"), &own["after"]["sum_m"], 1e-6);
    }
}
