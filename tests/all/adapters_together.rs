//! Sequences under different adapters step together over one base, each with the bits it has alone.

use crate::support::{TINY, adapter, lora, tiny};
use galen_adapter::{Adapter, AdapterConfig, Targets};
use galen_model::{Model, Session, StepKernels};
use galen_ops::hook::ProjectionHook;
use std::sync::Arc;

const STEPS: usize = 4;

fn prompt(i: usize) -> Vec<u32> {
    (0..=5 * i % 17).map(|t| (7 * i + 3 * t) as u32 % 60).collect()
}

fn follow(i: usize, t: usize) -> u32 {
    (11 * i + 5 * t + 1) as u32 % 60
}

/// Adapters of different methods, ranks, scales and targets; one covers a single module of one block.
pub fn adapters(model: &Model) -> Vec<Arc<Adapter>> {
    let narrow = AdapterConfig {
        targets: Targets::Names(vec!["v_proj".into()]),
        layers: Some(vec![1]),
        seed: 11,
        ..lora(3, 5.0)
    };
    let dora = AdapterConfig { method: "dora".into(), seed: 9, ..lora(2, 3.0) };
    [lora(4, 16.0), dora, narrow].into_iter().map(|config| Arc::new(moved(adapter(model, config)))).collect()
}

/// With B away from zero, so that it does something.
fn moved(mut adapter: Adapter) -> Adapter {
    for buffer in adapter.buffers_mut() {
        for (i, value) in buffer.iter_mut().enumerate() {
            *value += ((i * 37 % 101) as f32 - 50.0) / 400.0;
        }
    }
    adapter
}

#[test]
fn rows_of_different_adapters_step_with_the_bits_of_each_alone() {
    for name in TINY {
        let model = tiny(name);
        let adapters = adapters(&model);
        for kernels in [StepKernels::Blocks, StepKernels::PassesApart] {
            let session = |which: usize| match adapters.get(which) {
                Some(adapter) => Session::shared(&model, adapter.clone()).with_kernels(kernels),
                None => Session::new(&model, None).with_kernels(kernels),
            };
            // More rows than share a decoding; runs of one and of several rows, one adapter twice apart.
            let which = [3, 0, 0, 1, 2, 2, 2, 0, 1, 3, 3];
            let families: Vec<Session> = (0..4).map(session).collect();
            let alone: Vec<Vec<Vec<f32>>> = which
                .iter()
                .enumerate()
                .map(|(i, w)| {
                    let hook = adapters.get(*w).map(|a| &**a as &dyn ProjectionHook);
                    let mut session = Session::new(&model, hook).with_kernels(kernels);
                    let mut logits = vec![session.feed(&prompt(i)).expect("a forward pass")];
                    for t in 0..STEPS {
                        let mut one = [&mut session];
                        logits.push(Session::step(&mut one, &[follow(i, t)]).expect("a step"));
                    }
                    logits
                })
                .collect();
            let differ = alone[0][0] != alone[9][0] || prompt(0) != prompt(9);
            assert!(differ && alone[1][1] != alone[2][1], "{name}: the test is blind");
            let together = || {
                let mut sessions: Vec<Session> = which.iter().map(|w| families[*w].sibling()).collect();
                for (i, session) in sessions.iter_mut().enumerate() {
                    assert!(session.feed(&prompt(i)).expect("fed") == alone[i][0], "{name}: prompt {i}");
                }
                for t in 0..STEPS {
                    let ids: Vec<u32> = (0..which.len()).map(|i| follow(i, t)).collect();
                    let mut all: Vec<&mut Session> = sessions.iter_mut().collect();
                    let logits = Session::step(&mut all, &ids).expect("a step");
                    for (i, row) in logits.chunks_exact(model.config.vocab_size).enumerate() {
                        assert!(row == alone[i][t + 1], "{name}, {kernels:?}: row {i}, step {t}");
                    }
                }
            };
            for threads in [1, 2, 3] {
                rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .expect("a pool")
                    .install(together);
            }
        }
    }
}

#[test]
fn an_adapter_changes_what_its_row_gets() {
    let model = tiny("llama_tied");
    let adapters = adapters(&model);
    let mut logits = Vec::new();
    for which in 0..=adapters.len() {
        let hook = adapters.get(which).map(|a| &**a as &dyn ProjectionHook);
        logits.push(Session::new(&model, hook).feed(&[1, 2, 3]).expect("a forward pass"));
    }
    for i in 0..logits.len() {
        for j in 0..i {
            assert!(logits[i] != logits[j], "adapters {i} and {j} answer alike");
        }
    }
}

#[test]
fn a_prompt_in_parts_has_the_bits_of_the_whole() {
    let model = tiny("qwen3");
    let part = Session::PREFILL_TOKENS;
    let ids: Vec<u32> = (0..part + 9).map(|t| (t * t % 59) as u32).collect();
    let whole = Session::new(&model, None).feed(&ids).expect("fed");
    let mut session = Session::new(&model, None);
    session.feed(&ids[..part]).expect("fed");
    assert!(whole == session.feed(&ids[part..]).expect("fed"));
}

#[test]
fn a_branch_apart_is_within_rounding_of_one_in_the_product() {
    for name in TINY {
        let model = tiny(name);
        for adapter in adapters(&model) {
            let logits = |kernels| {
                let mut session = Session::new(&model, Some(&*adapter)).with_kernels(kernels);
                session.feed(&[3, 1, 4]).expect("fed");
                session.feed(&[1]).expect("fed")
            };
            let want = logits(StepKernels::Passes);
            let largest = want.iter().fold(0f32, |m, l| m.max(l.abs()));
            for (got, want) in logits(StepKernels::PassesApart).iter().zip(&want) {
                assert!((got - want).abs() <= 1e-5 * largest, "{name}: {got} for {want}");
            }
            let mut one = Session::new(&model, Some(&*adapter)).with_kernels(StepKernels::Passes);
            let mut other = Session::new(&model, None).with_kernels(StepKernels::Passes);
            assert!(Session::step(&mut [&mut one, &mut other], &[1, 2]).is_err());
        }
    }
}
