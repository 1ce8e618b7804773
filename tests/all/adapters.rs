//! Adapters that other programs wrote compute here what they compute there; DoRA's gradients are PEFT's.
//! `goldens/adapters.py` and `goldens/mlx_adapters.py` state the settings and made the figures.

use crate::goldens::{Golden, assert_close, path};
use crate::support::{batch, row, settings, tiny, tiny_with};
use galen_adapter::Adapter;
use galen_export::{Over, adapter_files, open_adapter};
use galen_model::{LoadOptions, Model, Pass, PassOptions, Session};
use galen_ops::ops::Compute;
use galen_train::{Place, module_shapes, step_gradient};
use galen_types::Tokenized;

/// Folder, base, kind of files, method.
const CASES: [(&str, &str, &str, &str); 5] = [
    ("patterns", "llama_tied", "peft", "lora"),
    ("rslora", "qwen2", "peft", "lora"),
    ("dora", "qwen2", "peft", "dora"),
    ("mlx_lora", "llama_tied", "mlx", "lora"),
    ("mlx_dora", "qwen2", "mlx", "dora"),
];

fn open(name: &str, model: &Model) -> Adapter {
    let over = Over { config: &model.config, modules: &module_shapes(model) };
    let folder = path(&format!("adapters/{name}"));
    let (adapter, base) = open_adapter(&folder, over, 7).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(base.name.is_some_and(|b| b.starts_with("tiny/")), "{name}: the base's name");
    adapter
}

fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| (l - max).exp()).sum();
    logits.iter().map(|l| l - max - sum.ln()).collect()
}

#[test]
fn adapters_of_peft_and_mlx_give_their_logits() {
    for (name, base, kind, method) in CASES {
        let files = adapter_files(&path(&format!("adapters/{name}"))).expect("an adapter");
        assert_eq!(files.name(), kind);
        let golden = Golden::open(&format!("adapters/{name}/golden.safetensors"));
        let ids = Golden::open(&format!("tiny/{base}/golden.safetensors")).ids("ids0");
        let want = golden.f64s("logits");
        let v = want.len() / ids.len();
        let model = tiny(base);
        let adapter = open(name, &model);
        assert_eq!(adapter.method().name(), method, "{name}");
        // Generation: a prompt, then token by token. Then training's pass, log-probabilities of the whole vocabulary.
        let mut session = Session::new(&model, Some(&adapter));
        for (t, id) in ids.iter().enumerate() {
            let logits = match t {
                0..19 => continue,
                19 => session.feed(&ids[..20]),
                _ => session.feed(&[*id]),
            };
            let logits = logits.expect("a forward pass").into_iter().map(f64::from);
            assert_close(&format!("{name} {t}"), logits, want[t * v..(t + 1) * v].to_vec(), 1e-4);
        }
        let all = |t: u32| (0..v as u32).map(move |id| (t, id));
        let targets: Vec<(u32, u32)> = (0..ids.len() as u32).flat_map(all).collect();
        let want: Vec<f64> = want.chunks(v).flat_map(log_softmax).collect();
        let largest = want.iter().fold(0f64, |m, w| m.max(w.abs()));
        for (compute, tolerance) in [(Compute::F32, 2e-5 * largest), (Compute::Bf16, 0.05 * largest)] {
            let model = tiny_with(base, LoadOptions { compute, ..LoadOptions::default() });
            let batch = batch(&ids, &targets);
            let pass = Pass::forward(&model, Some(&adapter), &batch, PassOptions::default()).expect("a pass");
            let got = pass.logps.0.into_iter().map(f64::from);
            assert_close(&format!("{name} {compute:?}"), got, want.clone(), tolerance);
        }
    }
}

#[test]
fn a_merged_dora_adapter_gives_pefts_logits() {
    let golden = Golden::open("adapters/dora/golden.safetensors");
    let base = path("tiny/qwen2");
    let ids = Golden::open("tiny/qwen2/golden.safetensors").ids("ids0");
    let model = tiny("qwen2");
    let adapter = open("dora", &model);
    let want = golden.f64s("merged");
    let v = want.len() / ids.len();
    // The same adapter's weights merged into a copy of the base's file.
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::copy(base.join("config.json"), dir.path().join("config.json")).expect("a copy");
    let bytes = std::fs::read(base.join("model.safetensors")).expect("the base");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let merged: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .tensors()
        .into_iter()
        .map(|(name, tensor)| {
            let mut values: Vec<f32> =
                tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let place = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
            if let Some((layer, module)) = place.and_then(|(l, m)| Some((l, m.strip_suffix(".weight")?))) {
                adapter.merge_into(layer.parse().expect("a number"), module, &mut values);
            }
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name, tensor.shape().to_vec(), bytes)
        })
        .collect();
    let views = merged.iter().map(|(name, shape, bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name.clone(), view.expect("a view"))
    });
    let out = safetensors::serialize(views, None).expect("bytes");
    std::fs::write(dir.path().join("model.safetensors"), out).expect("a file");
    let weights = galen_model::Weights::open(dir.path()).expect("the merged model");
    let model = Model::load(&weights, LoadOptions::default()).expect("the merged model");
    let logits = Session::new(&model, None).feed(&ids).expect("a forward pass");
    assert_close("merged", logits.into_iter().map(f64::from), want[want.len() - v..].to_vec(), 1e-4);
}

fn rows() -> Vec<Tokenized> {
    let golden = Golden::open("tiny/qwen2/golden.safetensors");
    let one = |i: u64| {
        let mask: Vec<bool> = golden.f64s(&format!("mask{i}")).iter().map(|m| *m != 0.0).collect();
        row(i, &golden.ids(&format!("ids{i}")), &mask)
    };
    (0..2).map(one).collect()
}

#[test]
fn dora_has_the_loss_and_gradients_of_peft_with_and_without_dropout() {
    let golden = Golden::open("adapters/dora/golden.safetensors");
    let rows = rows();
    let micro = vec![rows.iter().collect::<Vec<_>>()];
    // Of the largest gradient of each kind of matrix.
    for (compute, prefix, dropout, loss, gradient) in [
        (Compute::F32, "", 0.0, 1e-5, 1e-4),
        (Compute::F32, "dropped.", 0.25, 1e-5, 1e-4),
        (Compute::Bf16, "", 0.0, 0.02, 0.06),
        (Compute::Bf16, "dropped.", 0.25, 0.02, 0.06),
    ] {
        let model = tiny_with("qwen2", LoadOptions { compute, ..LoadOptions::default() });
        let mut adapter = open("dora", &model);
        adapter.config.dropout = dropout;
        for checkpointing in [false, true] {
            let what = format!("{compute:?} {prefix}{checkpointing}");
            let settings = galen_train::TrainSettings {
                gradient_checkpointing: checkpointing,
                share_prefixes: false,
                ..settings()
            };
            let step = step_gradient(&Place::new(&model, &adapter, &settings), &micro).expect("a step");
            assert_close(&format!("{what} loss"), [step.loss], golden.f64s(&format!("{prefix}loss")), loss);
            for part in ["lora_A", "lora_B", "lora_magnitude_vector"] {
                let (mut got, mut want) = (Vec::new(), Vec::new());
                for (layer, ours) in adapter.layers().iter().zip(&step.gradients) {
                    for e in &layer.entries {
                        let parameters = adapter.method().parameters(e.r, e.shape.inputs, e.shape.outputs);
                        for (p, range) in parameters.iter().zip(&e.ranges) {
                            if p.suffix.trim_end_matches(".weight") == part {
                                let name = format!("model.layers.{}.{}", e.shape.layer, e.shape.module);
                                got.extend(ours[range.clone()].iter().map(|g| f64::from(*g)));
                                want.extend(golden.f64s(&format!("{prefix}{name}.{part}.grad")));
                            }
                        }
                    }
                }
                let largest = want.iter().fold(0f64, |m, g| m.max(g.abs()));
                assert!(largest > 1e-3, "{part}: the test is blind");
                assert_close(&format!("{what} {part}"), got, want, gradient * largest);
            }
        }
    }
}
