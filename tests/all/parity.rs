//! Forward and gradients against transformers and PEFT.

use crate::goldens::{Golden, assert_close};
use crate::support::{TINY, adapter, batch, lora, real, row, tiny};
use galen_model::{Model, Pass, PassOptions, Precision, Session, Weights};
use galen_train::{Place, step_gradient};

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| (l - max).exp()).sum();
    logits.iter().map(|l| l - max - sum.ln()).collect()
}

#[test]
fn tiny_models_give_the_logits_of_transformers() {
    for name in TINY {
        let (model, golden) = (tiny(name), Golden::open(&format!("tiny/{name}/golden.safetensors")));
        for which in ["0", "1"] {
            let ids = golden.ids(&format!("ids{which}"));
            let want = golden.f64s(&format!("logits{which}"));
            let v = want.len() / ids.len();
            // Cached decoding: in two parts, then one by one.
            let mut session = Session::new(&model, None);
            for (t, id) in ids.iter().enumerate() {
                let logits = match t {
                    0..3 => continue,
                    3 => session.feed(&ids[..4]),
                    _ => session.feed(&[*id]),
                };
                let logits = logits.expect("a forward pass").into_iter().map(f64::from);
                assert_close(&format!("{name} {which} {t}"), logits, want[t * v..(t + 1) * v].to_vec(), 1e-4);
            }
            // The training path: log-probability of every token at every position.
            let targets: Vec<(u32, u32)> =
                (0..ids.len() as u32).flat_map(|t| (0..v as u32).map(move |id| (t, id))).collect();
            let pass =
                Pass::forward(&model, None, &batch(&ids, &targets), PassOptions::default()).expect("a pass");
            let want: Vec<f64> = want.chunks(v).flat_map(log_softmax).collect();
            assert_close(
                &format!("{name} {which} logps"),
                pass.logps.0.into_iter().map(f64::from),
                want,
                1e-4,
            );
        }
    }
}

#[test]
fn tiny_models_give_the_lora_loss_and_gradients_of_peft() {
    for name in TINY {
        for checkpointing in [false, true] {
            let (model, golden) = (tiny(name), Golden::open(&format!("tiny/{name}/golden.safetensors")));
            let mut lora = adapter(&model, lora(4, 10.0));
            let keys: Vec<String> = lora.tensors().map(|(k, _, _)| k).collect();
            let golden_key = |k: &str| k.replace("base_model.model.", "").replace(".weight", "");
            for key in &keys {
                assert!(lora.set(key, &golden.f32s(&golden_key(key))), "{key}");
            }
            let rows = ["0", "1"].map(|i| {
                let mask: Vec<bool> = golden.f64s(&format!("mask{i}")).iter().map(|m| *m != 0.0).collect();
                row(0, &golden.ids(&format!("ids{i}")), &mask)
            });
            let mut settings = crate::support::settings();
            settings.gradient_checkpointing = checkpointing;
            let micro = vec![rows.iter().collect::<Vec<_>>()];
            let step = step_gradient(&Place::new(&model, &lora, &settings), &micro).expect("a step");
            assert_close(&format!("{name} loss"), [step.loss], golden.f64s("lora_loss"), 1e-5);
            let mut of_peft: Vec<f64> = Vec::new();
            for key in &keys {
                of_peft.extend(golden.f64s(&format!("{}.grad", golden_key(key))));
            }
            let ours = step.gradients.iter().flatten().map(|g| f64::from(*g));
            let largest = of_peft.iter().fold(0.0f64, |m, g| m.max(g.abs()));
            assert_close(&format!("{name} gradients"), ours, of_peft, 1e-4 * largest);
        }
    }
}

fn real_model_matches(name: &str, file: &str, golden: &str, tolerance: f64) {
    let Some(path) = real(name, file) else { return };
    let golden = Golden::open(golden);
    let weights = Weights::open(&path).expect("the model opens");
    let model = Model::load(&weights, Precision::Stored).expect("the model loads");
    for p in 0..4 {
        let key = |k: &str| format!("p{p}.{k}");
        let ids = golden.ids(&key("ids"));
        let targets: Vec<(u32, u32)> = (0..ids.len() - 1).map(|t| (t as u32, ids[t + 1])).collect();
        let pass =
            Pass::forward(&model, None, &batch(&ids, &targets), PassOptions::default()).expect("a pass");
        let want = golden.f64s(&key("token_logprobs"));
        assert_close(&format!("{name} {p} logps"), pass.logps.0.into_iter().map(f64::from), want, tolerance);
        let (positions, columns) = (golden.ids(&key("positions")), golden.ids(&key("columns")));
        let targets: Vec<(u32, u32)> =
            positions.iter().flat_map(|t| columns.iter().map(|c| (*t, *c))).collect();
        let pass =
            Pass::forward(&model, None, &batch(&ids, &targets), PassOptions::default()).expect("a pass");
        let (logits, lse) = (golden.f64s(&key("logits")), golden.f64s(&key("logsumexp")));
        let want: Vec<f64> = logits.iter().enumerate().map(|(i, l)| l - lse[i / columns.len()]).collect();
        assert_close(
            &format!("{name} {p} columns"),
            pass.logps.0.into_iter().map(f64::from),
            want,
            tolerance,
        );
        let mut session = Session::new(&model, None);
        let last = session.feed(&ids).expect("a forward pass");
        let got = columns.iter().map(|c| f64::from(last[*c as usize]));
        let at = positions.len() - 1;
        let want = logits[at * columns.len()..].to_vec();
        assert_eq!(positions[at] as usize, ids.len() - 1);
        assert_close(&format!("{name} {p} logits"), got, want, tolerance);
    }
}

#[test]
fn smollm2_gives_the_logits_of_transformers() {
    real_model_matches(
        "smollm2-135m-instruct",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "logits/smollm2.safetensors",
        5e-4,
    );
}

#[test]
fn gemma3_gives_the_logits_of_transformers() {
    real_model_matches("gemma-3-270m", "gemma-3-270m-Q4_K_M.gguf", "logits/gemma3.safetensors", 5e-4);
}
