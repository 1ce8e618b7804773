//! What must not change a result: packing, accumulation, threads, checkpointing, the cache, the order of rows.

use crate::random::{Random, ids};
use crate::support::{TINY, adapter, lora, real, row, settings, tiny, tiny_with};
use galen_adapter::{Adapter, AdapterConfig};
use galen_data::pack::pack;
use galen_model::{
    LoadOptions, Model, Noise, Pass, PassOptions, Precision, Session, StepKernels, WeightCache, Weights,
};
use galen_ops::ops::Compute;
use galen_ops::quant::Dots;
use galen_ops::tensor::f32_view;
use galen_optim::{AdamW, AdamWConfig};
use galen_train::{Place, StepGradient, TrainSettings, step_gradient};
use galen_types::{PackedBatch, Tokenized};

/// Six rows: five share 12 tokens, three of them 20, two 70 (more than a tile of queries); one stands alone.
fn rows(vocabulary: usize) -> Vec<Tokenized> {
    let r = &mut Random::new(21);
    let stem = ids(r, 70, vocabulary);
    let lengths = [(12, 9), (70, 4), (20, 11), (0, 17), (70, 1), (12, 3)];
    let made = lengths.into_iter().enumerate().map(|(i, (shared, own))| {
        let mut ids_of = stem[..shared].to_vec();
        ids_of.extend(ids(r, own, vocabulary));
        let n = ids_of.len();
        let mask: Vec<bool> = (0..n).map(|t| t + 1 == n || r.below(2) == 0).collect();
        row(i as u64, &ids_of, &mask)
    });
    made.collect()
}

const BF16: LoadOptions = LoadOptions {
    precision: Precision::Stored,
    compute: Compute::Bf16,
    weight_cache: WeightCache::Stream,
    dots: Dots::Float,
    interleave: false,
};

struct Case {
    name: String,
    /// The adapter's: the real model must stay itself, or its gradients are those of noise.
    alpha: f64,
    model: Model,
    rows: Vec<Tokenized>,
    tolerance: Tolerance,
}

/// How far results that are not equal to the bit may differ.
#[derive(Clone, Copy)]
struct Tolerance {
    /// Gradients summed in another order, of the largest.
    gradient: f64,
    /// Log-probabilities of cached decoding, of the largest logit.
    cached: f64,
}

/// Every tiny model in f32, two in bf16, and SmolLM2 where it is at hand.
fn cases() -> Vec<Case> {
    let case = |name: &str, alpha: f64, model: Model, tolerance| {
        let rows = rows(model.config.vocab_size);
        Case { name: name.into(), alpha, model, rows, tolerance }
    };
    let exact = Tolerance { gradient: tolerance(), cached: 1e-5 };
    // Gradients of a shared prefix are summed before they are rounded, not after.
    let rounded = Tolerance { gradient: 2e-2, cached: 0.1 };
    let mut cases: Vec<Case> = TINY.iter().map(|name| case(name, 10.0, tiny(name), exact)).collect();
    for name in ["llama_tied", "gemma3"] {
        cases.push(case(&format!("{name} bf16"), 10.0, tiny_with(name, BF16), rounded));
    }
    if let Some(file) = real("smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf") {
        let weights = Weights::open(&file).expect("the model opens");
        let model = Model::load(&weights, Precision::Stored).expect("the model loads");
        cases.push(case("smollm2", 0.4, model, exact));
    }
    cases
}

/// Log-probabilities, row by row, and the gradient of a weighted sum of them.
fn run(model: &Model, adapter: &Adapter, batch: &PackedBatch, weights: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let options = PassOptions { training: true, ..PassOptions::default() };
    let pass = Pass::forward(model, Some(adapter), batch, options).expect("forward");
    let logps = pass.logps.0.clone();
    let mut gradients: Vec<Vec<f32>> = adapter.layers().iter().map(|l| vec![0.0; l.values.len()]).collect();
    let sink = &mut |layer: usize, leaves: Vec<Option<candle_core::Tensor>>| {
        let ranges = adapter.layers()[layer].entries.iter().flat_map(|e| &e.ranges);
        for (range, leaf) in ranges.zip(leaves) {
            let leaf = leaf.expect("every matrix has a gradient");
            gradients[layer][range.clone()].copy_from_slice(&f32_view(&leaf)?);
        }
        Ok(())
    };
    pass.backward(weights.to_vec(), sink).expect("backward");
    (logps, gradients.concat())
}

fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |m, v| f64::from(v.abs()).max(m))
}

/// Of gradients summed in another order. The portable path rounds products and sums apart.
fn tolerance() -> f64 {
    if galen_ops::isa() == galen_ops::Isa::Portable { 2e-6 } else { 1e-6 }
}

/// Relative to the largest of `want`.
fn assert_near(what: &str, got: &[f32], want: &[f32], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{what}: lengths");
    let scale = largest(want);
    assert!(scale > 0.0, "{what}: all zero");
    let mut worst = 0f64;
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*g) - f64::from(*w)).abs() / scale;
        assert!(error <= tolerance, "{what}[{i}]: {g} for {w}, {error:e} of the largest");
        worst = worst.max(error);
    }
    println!("{what}: within {worst:.1e} of the largest");
}

#[test]
fn packed_shared_and_one_by_one_agree() {
    for Case { name, alpha, model, rows, tolerance } in cases() {
        let adapter = adapter(&model, lora(4, alpha));
        let all: Vec<&Tokenized> = rows.iter().collect();
        let mut weights: Vec<Vec<f32>> = Vec::new();
        let (mut logps, mut gradient) = (Vec::new(), Vec::new());
        for (i, row) in rows.iter().enumerate() {
            weights.push((0..row.supervised_tokens()).map(|t| 0.1 + ((i + t) % 5) as f32 / 5.0).collect());
            let batch = pack(&[row], None).expect("a batch");
            let (l, g) = run(&model, &adapter, &batch, &weights[i]);
            logps.extend(l);
            gradient =
                if gradient.is_empty() { g } else { gradient.iter().zip(&g).map(|(a, b)| a + b).collect() };
        }
        let weights = weights.concat();
        for share in [None, Some(1), Some(8)] {
            let batch = pack(&all, share).expect("a batch");
            let total: usize = rows.iter().map(|r| r.ids().len()).sum();
            assert_eq!(share.is_none(), batch.ids().len() == total, "{name}: sharing saves tokens");
            let (l, g) = run(&model, &adapter, &batch, &weights);
            assert_eq!(l, logps, "{name}, shared {share:?}: log-probabilities, to the bit");
            assert_near(&format!("{name}, shared {share:?}: gradients"), &g, &gradient, tolerance.gradient);
        }
    }
}

fn step(
    model: &Model,
    adapter: &Adapter,
    micro: &[Vec<&Tokenized>],
    settings: &TrainSettings,
) -> StepGradient {
    step_gradient(&Place::new(model, adapter, settings), micro).expect("a step")
}

#[test]
fn accumulation_is_the_big_batch_however_it_is_split() {
    for Case { name, alpha, model, rows, tolerance } in cases() {
        let adapter = adapter(&model, lora(4, alpha));
        let rows: Vec<&Tokenized> = rows.iter().collect();
        let big = step(&model, &adapter, std::slice::from_ref(&rows), &settings());
        let r = &mut Random::new(22);
        let mut splits = vec![vec![1; 6], vec![3, 3], vec![5, 1]];
        splits.push(vec![1 + r.below(2), 2, 6 - 2 - 1]);
        for split in splits {
            let mut left = &rows[..];
            let mut micro = Vec::new();
            for n in &split {
                let (now, later) = left.split_at((*n).min(left.len()));
                micro.push(now.to_vec());
                left = later;
            }
            micro.retain(|m| !m.is_empty());
            assert!(left.is_empty(), "{split:?} covers every row");
            let parts = step(&model, &adapter, &micro, &settings());
            let error = (parts.loss - big.loss).abs() / big.loss;
            assert!(error <= 1e-6, "{name} {split:?}: loss {} for {}", parts.loss, big.loss);
            assert_eq!((parts.tokens, parts.supervised_tokens), (big.tokens, big.supervised_tokens));
            let what = format!("{name} {split:?}: gradients");
            assert_near(&what, &parts.gradients.concat(), &big.gradients.concat(), tolerance.gradient);
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for Case { name, alpha, model, rows, .. } in cases() {
        let rows: Vec<&Tokenized> = rows.iter().collect();
        let train = || {
            let mut config = lora(4, alpha);
            config.dropout = 0.1;
            let mut adapter = adapter(&model, config);
            let lengths: Vec<usize> = adapter.buffers().map(<[f32]>::len).collect();
            let mut optimizer = AdamW::new(AdamWConfig::default(), lengths);
            let mut trace: Vec<Vec<f32>> = Vec::new();
            let batch = pack(&rows, Some(8)).expect("a batch");
            let pass = Pass::forward(&model, Some(&adapter), &batch, PassOptions::default()).expect("a pass");
            trace.push(pass.logps.0);
            let steps = if name == "smollm2" { 1 } else { 3 };
            for _ in 0..steps {
                let micro = [rows[..4].to_vec(), rows[4..].to_vec()];
                let step = step(&model, &adapter, &micro, &settings());
                optimizer.step(adapter.buffers_mut(), &step.gradients, 1e-3, 0.9);
                trace.push(vec![step.loss as f32]);
                trace.extend(step.gradients);
                trace.extend(adapter.layers().iter().map(|l| l.values.clone()));
            }
            trace
        };
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(train)
        };
        let one = on(1);
        for threads in [2, 3] {
            for (i, (got, want)) in on(threads).iter().zip(&one).enumerate() {
                assert!(got == want, "{name}: {threads} threads, part {i} of the trace differs");
            }
        }
    }
}

#[test]
fn packed_and_streamed_weights_give_the_same_bits() {
    for name in ["llama_tied", "llama_untied", "qwen2", "gemma3"] {
        let models =
            [BF16, LoadOptions { weight_cache: WeightCache::Packed, ..BF16 }].map(|o| tiny_with(name, o));
        let [streamed, packed] = models.each_ref().map(|model| {
            let adapter = adapter(model, lora(4, 10.0));
            let rows = rows(model.config.vocab_size);
            step(model, &adapter, &[rows.iter().collect()], &settings())
        });
        assert_eq!(streamed.loss, packed.loss, "{name}: loss");
        assert!(streamed.gradients == packed.gradients, "{name}: gradients");
    }
}

#[test]
fn checkpointing_changes_no_bit() {
    for Case { name, alpha, model, rows, .. } in cases() {
        for (method, dropout) in [("lora", 0.0), ("lora", 0.2), ("dora", 0.0), ("dora", 0.2)] {
            if method == "dora" && name == "smollm2" {
                continue;
            }
            let adapter = adapter(&model, AdapterConfig { method: method.into(), dropout, ..lora(4, alpha) });
            let micro = [rows.iter().collect::<Vec<_>>()];
            let [off, on] = [false, true].map(|gradient_checkpointing| {
                step(&model, &adapter, &micro, &TrainSettings { gradient_checkpointing, ..settings() })
            });
            assert_eq!(on.loss, off.loss, "{name}, {method}, dropout {dropout}: loss");
            assert!(on.gradients == off.gradients, "{name}, {method}, dropout {dropout}: gradients");
        }
    }
}

/// Decoding sums in another order than training does: equal within rounding, relative to the largest logit.
#[test]
fn cached_decoding_gives_the_log_probabilities_of_training() {
    for Case { name, alpha, model, rows, tolerance } in cases() {
        let adapter = adapter(&model, lora(4, alpha));
        let mut worst = 0f64;
        for row in &rows[..3] {
            let everything = vec![true; row.ids().len()];
            let row = crate::support::row(0, row.ids(), &everything);
            let batch = pack(&[&row], None).expect("a batch");
            let pass = Pass::forward(&model, Some(&adapter), &batch, PassOptions::default()).expect("a pass");
            let mut session = Session::new(&model, Some(&adapter));
            let mut logits = session.feed(&row.ids()[..2]).expect("a forward pass");
            for t in 2..row.ids().len() {
                let token = row.ids()[t];
                let (logit, want) = (f64::from(logits[token as usize]), f64::from(pass.logps.0[t - 1]));
                let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
                let sum: f64 = logits.iter().map(|l| (f64::from(*l) - max).exp()).sum();
                let got = logit - max - sum.ln();
                let error = (got - want).abs() / largest(&logits).max(1.0);
                assert!(error <= tolerance.cached, "{name} at {t}: {got} for {want}");
                worst = worst.max(error);
                logits = session.feed(&[token]).expect("a forward pass");
            }
            let whole = Session::new(&model, Some(&adapter)).feed(row.ids()).expect("a forward pass");
            assert_near(&format!("{name}: one by one"), &logits, &whole, tolerance.cached);
        }
        println!("{name}: cached decoding within {worst:.1e} of the largest logit");
    }
}

#[test]
fn sequences_decoded_together_have_the_bits_of_each_alone_on_any_number_of_threads() {
    for Case { name, alpha, model, rows, .. } in cases() {
        let adapter = adapter(&model, lora(4, alpha));
        let steps = if name == "smollm2" { 2 } else { 6 };
        // Prompts of different lengths, one of a single token, and twice the same.
        let prompts: Vec<&[u32]> = [
            &rows[0].ids()[..15],
            &rows[1].ids()[..1],
            &rows[2].ids()[..9],
            &rows[2].ids()[..9],
            rows[5].ids(),
        ]
        .to_vec();
        let follow = |i: usize, t: usize| rows[3].ids()[(3 * i + t) % rows[3].ids().len()];
        let alone: Vec<Vec<Vec<f32>>> = prompts
            .iter()
            .enumerate()
            .map(|(i, prompt)| {
                let mut session = Session::new(&model, Some(&adapter));
                let mut logits = vec![session.feed(prompt).expect("a forward pass")];
                for t in 0..steps {
                    logits.push(session.feed(&[follow(i, t)]).expect("a forward pass"));
                }
                logits
            })
            .collect();
        let together = || {
            let family = Session::new(&model, Some(&adapter));
            let mut sessions: Vec<Session> = prompts.iter().map(|_| family.sibling()).collect();
            for ((session, prompt), want) in sessions.iter_mut().zip(&prompts).zip(&alone) {
                assert!(session.feed(prompt).expect("a forward pass") == want[0], "{name}: prompt");
            }
            for t in 0..steps {
                let ids: Vec<u32> = (0..prompts.len()).map(|i| follow(i, t)).collect();
                let mut all: Vec<&mut Session> = sessions.iter_mut().collect();
                let logits = Session::step(&mut all, &ids).expect("a forward pass");
                for (i, row) in logits.chunks_exact(model.config.vocab_size).enumerate() {
                    assert!(row == alone[i][t + 1], "{name}: sequence {i}, step {t}");
                }
            }
            assert_eq!(sessions[1].len(), 1 + steps);
            let mut fork = sessions[0].clone();
            assert_eq!(
                fork.feed(&[7]).expect("fed"),
                sessions[0].feed(&[7]).expect("fed"),
                "{name}: a clone"
            );
            let other = Session::new(&model, Some(&adapter));
            let mut other = other.with_kernels(StepKernels::Passes);
            assert!(Session::step(&mut [&mut sessions[0], &mut other], &[1, 2]).is_err());
            assert!(Session::step(&mut [&mut sessions[0]], &[1, 2]).is_err());
            assert!(sessions[0].feed(&[]).is_err());
        };
        for threads in [1, 2, 3] {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(together);
        }
    }
}

#[test]
fn dropout_does_not_depend_on_packing_or_order() {
    for Case { name, alpha, model, rows, .. } in cases() {
        let method = if name == "qwen2" { "dora" } else { "lora" };
        let config = AdapterConfig { method: method.into(), dropout: 0.3, ..lora(4, alpha) };
        let adapter = adapter(&model, config);
        let logps = |order: &[usize], training: bool, epoch: u64| -> Vec<Vec<f32>> {
            let chosen: Vec<&Tokenized> = order.iter().map(|i| &rows[*i]).collect();
            let batch = pack(&chosen, None).expect("a batch");
            let options = PassOptions { training, epoch, ..PassOptions::default() };
            let pass = Pass::forward(&model, Some(&adapter), &batch, options).expect("a pass");
            let mut by_row = vec![Vec::new(); rows.len()];
            for (target, logp) in batch.targets().iter().zip(&pass.logps.0) {
                by_row[order[target.row as usize]].push(*logp);
            }
            by_row
        };
        let want = logps(&[0, 1, 2, 3, 4, 5], true, 1);
        assert_eq!(logps(&[4, 2, 5, 0, 3, 1], true, 1), want, "{name}: another order");
        for i in 0..rows.len() {
            assert_eq!(logps(&[i], true, 1)[i], want[i], "{name}: row {i} alone");
        }
        assert_ne!(logps(&[0, 1, 2, 3, 4, 5], true, 2), want, "{name}: another epoch, another mask");
        assert_ne!(logps(&[0, 1, 2, 3, 4, 5], false, 1), want, "{name}: no dropout in evaluation");
        // Sharing is left aside where each row has a mask of its own.
        let micro = [rows.iter().collect::<Vec<_>>()];
        let [shared, apart] = [true, false].map(|share_prefixes| {
            step(&model, &adapter, &micro, &TrainSettings { share_prefixes, ..settings() })
        });
        assert_eq!(shared.loss, apart.loss, "{name}");
        assert!(shared.gradients == apart.gradients, "{name}");
    }
}

/// NEFTune's too: a row's noise is its own, wherever and beside whatever it lies.
#[test]
fn noise_on_embeddings_does_not_depend_on_packing_or_order() {
    for Case { name, alpha, model, rows, .. } in cases() {
        let adapter = adapter(&model, lora(4, alpha));
        let logps = |order: &[usize], training: bool, epoch: u64, alpha: f32| -> Vec<Vec<f32>> {
            let chosen: Vec<&Tokenized> = order.iter().map(|i| &rows[*i]).collect();
            let batch = pack(&chosen, None).expect("a batch");
            let noise = Some(Noise { alpha, seed: 5 });
            let options = PassOptions { training, epoch, noise, ..PassOptions::default() };
            let pass = Pass::forward(&model, Some(&adapter), &batch, options).expect("a pass");
            let mut by_row = vec![Vec::new(); rows.len()];
            for (target, logp) in batch.targets().iter().zip(&pass.logps.0) {
                by_row[order[target.row as usize]].push(*logp);
            }
            by_row
        };
        let all = [0, 1, 2, 3, 4, 5];
        let want = logps(&all, true, 1, 5.0);
        assert_eq!(logps(&[4, 2, 5, 0, 3, 1], true, 1, 5.0), want, "{name}: another order");
        for i in 0..rows.len() {
            assert_eq!(logps(&[i], true, 1, 5.0)[i], want[i], "{name}: row {i} alone");
        }
        let quiet = logps(&all, true, 1, 0.0);
        assert_ne!(quiet, want, "{name}: no noise");
        assert_ne!(logps(&all, true, 2, 5.0), want, "{name}: another epoch, other noise");
        assert_eq!(logps(&all, false, 1, 5.0), quiet, "{name}: none in evaluation");
        // Sharing is left aside where each row has noise of its own.
        let micro = [rows.iter().collect::<Vec<_>>()];
        let noisy = TrainSettings { neftune_noise_alpha: Some(5.0), ..settings() };
        let [shared, apart] = [true, false].map(|share_prefixes| {
            step(&model, &adapter, &micro, &TrainSettings { share_prefixes, ..noisy.clone() })
        });
        assert_eq!(shared.loss, apart.loss, "{name}");
        assert!(shared.loss != step(&model, &adapter, &micro, &settings()).loss, "{name}");
    }
}

#[test]
fn only_the_chosen_blocks_train_and_backward_stops_below_them() {
    for Case { name, alpha, model, rows, .. } in cases() {
        let n = model.config.n_layers;
        let choices = if n > 2 { vec![vec![7, 20], vec![n - 1]] } else { vec![vec![0], vec![1]] };
        for chosen in choices {
            let adapter = adapter(&model, AdapterConfig { layers: Some(chosen.clone()), ..lora(4, alpha) });
            let batch = pack(&rows.iter().collect::<Vec<_>>(), Some(8)).expect("a batch");
            let options = PassOptions { training: true, ..PassOptions::default() };
            let pass = Pass::forward(&model, Some(&adapter), &batch, options).expect("a pass");
            let mut visited = Vec::new();
            let weights = vec![1.0; pass.logps.0.len()];
            let sink = &mut |layer: usize, leaves: Vec<Option<candle_core::Tensor>>| {
                visited.push((layer, leaves.iter().flatten().count()));
                Ok(())
            };
            pass.backward(weights, sink).expect("backward");
            let want: Vec<(usize, usize)> =
                (chosen[0]..n).rev().map(|l| (l, if chosen.contains(&l) { 14 } else { 0 })).collect();
            assert_eq!(visited, want, "{name}, blocks {chosen:?}: (block, matrices with a gradient)");
        }
    }
}
