//! Every architecture's loss and gradients against the f64 twin of the whole forward.

use crate::goldens::path;
use crate::random::{Random, direction, dot, ids, widen};
use crate::support::{TINY, adapter, lora, row, settings, tiny};
use galen_adapter::{Adapter, AdapterConfig, METHODS};
use galen_model::Weights;
use galen_model::arch::ARCHITECTURES;
use galen_testkit::reference::{Branches, LoraRef, ModelRef, directional};
use galen_train::{Place, step_gradient};
use galen_types::Tokenized;

/// Rows longer than the tiny models' window of 8, with about two supervised tokens in three.
fn rows(vocabulary: usize) -> Vec<Tokenized> {
    let r = &mut Random::new(11);
    let made = [23, 14, 19].into_iter().enumerate().map(|(i, n)| {
        let mask: Vec<bool> = (0..n).map(|t| t + 1 == n || r.below(3) > 0).collect();
        row(i as u64, &ids(r, n, vocabulary), &mask)
    });
    made.collect()
}

/// The adapter's branches with the values `x`, which are its own in the order of its buffers.
pub fn branches(adapter: &Adapter, x: &[f64]) -> Branches {
    let mut out = Branches::new();
    let mut start = 0;
    for layer in adapter.layers() {
        for e in &layer.entries {
            let [a, b] = &e.ranges[..] else { panic!("LoRA has A and B") };
            let part = |range: &std::ops::Range<usize>| x[start + range.start..start + range.end].to_vec();
            let scale = f64::from(e.scale);
            out.insert((e.shape.layer, e.shape.module), LoraRef { a: part(a), b: part(b), scale });
        }
        start += layer.values.len();
    }
    assert_eq!(start, x.len());
    out
}

#[test]
fn loss_and_gradients_of_every_architecture_equal_the_f64_twin() {
    for name in TINY {
        let model = tiny(name);
        let weights = Weights::open(&path(&format!("tiny/{name}"))).expect("the model opens");
        let twin = ModelRef::new(&weights).expect("every tensor is there");
        let adapter = adapter(&model, lora(3, 5.0));
        let rows = rows(model.config.vocab_size);
        let supervised: usize = rows.iter().map(Tokenized::supervised_tokens).sum();
        let loss_ref = |x: &[f64]| {
            let branches = branches(&adapter, x);
            let of = |r: &Tokenized| twin.negative_log_likelihood(&branches, r.ids(), r.mask());
            rows.iter().map(of).sum::<f64>() / supervised as f64
        };
        let values: Vec<f32> = adapter.layers().iter().flat_map(|l| l.values.clone()).collect();
        let values = widen(&values);
        let step = step_gradient(&Place::new(&model, &adapter, &settings()), &[rows.iter().collect()])
            .expect("a step");
        let want = loss_ref(&values);
        assert!((step.loss - want).abs() <= 1e-6 * want, "{name}: loss {} for {want}", step.loss);
        let gradient = widen(&step.gradients.concat());
        let norm = dot(&gradient, &gradient).sqrt();
        let r = &mut Random::new(12);
        let mut worst = 0f64;
        for i in 0..6 {
            // Along everything, and along one matrix at a time.
            let mut d = direction(r, values.len());
            if i > 0 {
                let ranges = adapter.layers()[i % 2].entries.iter().flat_map(|e| e.ranges.clone());
                let ranges: Vec<_> = ranges.collect();
                let before = if i % 2 == 0 { 0 } else { adapter.layers()[0].values.len() };
                let chosen = &ranges[r.below(ranges.len())];
                let chosen = chosen.start + before..chosen.end + before;
                d.iter_mut().enumerate().filter(|(at, _)| !chosen.contains(at)).for_each(|(_, d)| *d = 0.0);
            }
            let (got, want) = (dot(&gradient, &d), directional(loss_ref, &values, &d));
            let error = (got - want).abs() / want.abs().max(1e-3 * norm);
            assert!(error <= 1e-3, "{name}: derivative {i} is {got} for {want}");
            worst = worst.max(error);
        }
        println!("{name}: loss {want}, difference {:.1e}, derivatives {worst:.1e}", (step.loss - want).abs());
    }
}

#[test]
fn every_trainable_matrix_of_every_architecture_has_a_finite_gradient_that_is_not_zero() {
    let mut left: Vec<&str> = ARCHITECTURES.iter().map(|a| a.name()).collect();
    for name in TINY {
        let model = tiny(name);
        left.retain(|a| *a != model.config.architecture);
        for method in METHODS {
            let config = AdapterConfig { method: method.name().into(), ..lora(3, 5.0) };
            let adapter = adapter(&model, config);
            let of_one = method.parameters(3, 1, 1).len();
            assert_eq!(adapter.tensors().count(), of_one * 7 * model.config.n_layers, "{name}: all seven");
            let rows = rows(model.config.vocab_size);
            let step = step_gradient(&Place::new(&model, &adapter, &settings()), &[rows.iter().collect()])
                .expect("a step");
            for (layer, gradient) in adapter.layers().iter().zip(&step.gradients) {
                for e in &layer.entries {
                    for range in &e.ranges {
                        let g = &gradient[range.clone()];
                        let what = format!(
                            "{name}, {}: {} {} {range:?}",
                            method.name(),
                            e.shape.layer,
                            e.shape.module
                        );
                        assert!(g.iter().all(|g| g.is_finite()), "{what} is not finite");
                        let zeros = g.iter().filter(|g| **g == 0.0).count();
                        assert!(zeros * 10 <= g.len(), "{what}: {zeros} of {} are zero", g.len());
                    }
                }
            }
        }
    }
    assert!(left.is_empty(), "no tiny model for the architectures {left:?}: see goldens/tiny_models.py");
}
