//! Every operation's values and directional derivatives against its f64 twin in `galen_testkit::reference`.

use crate::random::{Random, direction, dot, numbers, widen};
use candle_core::Tensor;
use galen_ops::ops::{
    Activation, Add, Attention, AttentionShape, Branch, Compute, Dropout, DropoutKey, DroppedPart, Frozen,
    Gated, LogProbHead, Magnitude, Projection, Projections, Prologue, RmsNorm, Rope, RopeTable, SelectRows,
};
use galen_ops::quant::{QuantMatrix, WeightDtype};
use galen_ops::tensor::{f32_tensor, f32_view};
use galen_ops::{Op, Result, Saved};
use galen_testkit::reference::{
    add_ref, attention_ref, directional, dropout_ref, gated_ref, log_prob_head_ref, lora_ref, projection_ref,
    rms_norm_ref, rope_ref, select_rows_ref,
};
use galen_types::{Segment, Target};
use std::sync::{Arc, Mutex};

/// Largest error: of the size of the value, or of a share of the largest beside it where that is more (and likewise
/// for derivatives and the gradient's norm).
#[derive(Clone, Copy)]
struct Tolerance {
    error: f64,
    floor: f64,
}

const EXACT: Tolerance = Tolerance { error: 1e-3, floor: 0.01 };
/// bfloat16 keeps eight bits.
const ROUNDED: Tolerance = Tolerance { error: 1.5e-2, floor: 1.0 };
const DIRECTIONS: usize = 4;

struct Input {
    dims: Vec<usize>,
    values: Vec<f32>,
}

fn input(random: &mut Random, dims: &[usize]) -> Input {
    Input { dims: dims.to_vec(), values: numbers(random, dims.iter().product()) }
}

/// Compares `op` with `twin`, which takes the same inputs: the output elementwise, and for each input the gradient of
/// `sum c y` (random c) along random directions.
fn check(name: &str, op: &dyn Op, inputs: &[Input], twin: &dyn Fn(&[Vec<f64>]) -> Vec<f64>) {
    check_within(EXACT, name, op, inputs, twin);
}

/// [`check`] of any number of outputs, one after the other.
fn check_within(
    tolerance: Tolerance,
    name: &str,
    op: &dyn Op,
    inputs: &[Input],
    twin: &dyn Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    let Tolerance { error: most, floor } = tolerance;
    let mut random = Random::new(name.len() as u64);
    let tensors: Vec<_> =
        inputs.iter().map(|i| f32_tensor(i.values.clone(), &i.dims[..]).expect("a tensor")).collect();
    let wide: Vec<Vec<f64>> = inputs.iter().map(|i| widen(&i.values)).collect();
    let (outputs, saved) = op.forward(&tensors.iter().collect::<Vec<_>>()).expect("forward runs");
    let got: Vec<f64> = outputs.iter().flat_map(|y| widen(&f32_view(y).expect("f32"))).collect();
    let want = twin(&wide);
    assert_eq!(got.len(), want.len(), "{name}: length");
    let largest = want.iter().fold(0f64, |m, w| m.max(w.abs()));
    let mut worst = [0f64; 2];
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        let error = (g - w).abs() / w.abs().max(floor * largest);
        assert!(error <= most, "{name}: y[{i}] = {g} for {w}");
        worst[0] = worst[0].max(error);
    }

    let c = numbers(&mut random, got.len());
    let backward = |needs: &[bool]| {
        let mut rest = &c[..];
        let of_output = |y: &candle_core::Tensor| {
            let (own, later) = rest.split_at(y.elem_count());
            rest = later;
            Some(f32_tensor(own.to_vec(), y.shape()).expect("a tensor"))
        };
        let grads = outputs.iter().map(of_output).collect();
        let grads = op.backward(&saved, grads, needs).expect("backward runs");
        assert_eq!(grads.len(), inputs.len(), "{name}: one gradient for each input");
        grads.into_iter().map(|g| g.map(|g| widen(&f32_view(&g).expect("f32")))).collect::<Vec<_>>()
    };
    let grads = backward(&vec![true; inputs.len()]);
    let c = widen(&c);
    let norm = |g: &Option<Vec<f64>>| g.as_ref().map_or(0.0, |g| dot(g, g).sqrt());
    let largest = grads.iter().map(norm).fold(0f64, f64::max);
    for (i, grad) in grads.iter().enumerate() {
        let grad = grad.as_ref().unwrap_or_else(|| panic!("{name}: no gradient of input {i}"));
        let norm = dot(grad, grad).sqrt().max(floor * largest);
        for _ in 0..DIRECTIONS {
            let d = direction(&mut random, grad.len());
            let value = |x: &[f64]| {
                let mut moved = wide.clone();
                moved[i] = x.to_vec();
                dot(&c, &twin(&moved))
            };
            let (got, want) = (dot(grad, &d), directional(value, &wide[i], &d));
            let error = (got - want).abs() / want.abs().max(floor * norm);
            assert!(error <= most, "{name}: derivative by input {i} is {got} for {want}");
            worst[1] = worst[1].max(error);
        }
        // A gradient nobody asked for is not given; one that is asked for does not depend on the others.
        if inputs.len() > 1 {
            let only: Vec<bool> = (0..inputs.len()).map(|j| i == j).collect();
            for (j, alone) in backward(&only).into_iter().enumerate() {
                let want = (i == j).then(|| grad.clone());
                assert_eq!(alone, want, "{name}: gradient of input {j} where {i} alone is needed");
            }
        }
    }
    println!("{name}: values within {:.1e}, derivatives within {:.1e}", worst[0], worst[1]);
}

#[test]
fn add() {
    let r = &mut Random::new(1);
    check("add", &Add, &[input(r, &[13, 7]), input(r, &[13, 7])], &|x| add_ref(&x[0], &x[1]));
}

#[test]
fn rms_norm_over_rows_and_over_heads() {
    let r = &mut Random::new(2);
    for (dims, width) in [([11, 37], 37), ([5, 3 * 18], 18), ([2, 20_000], 20_000)] {
        let weight = numbers(r, width);
        let op = RmsNorm { weight: weight.clone().into(), eps: 1e-3 };
        let twin = |x: &[Vec<f64>]| rms_norm_ref(&x[0], &widen(&weight), f64::from(1e-3f32));
        check(&format!("rms_norm {dims:?} by {width}"), &op, &[input(r, &dims)], &twin);
    }
}

#[test]
fn select_rows() {
    let r = &mut Random::new(21);
    let rows = [4u32, 0, 4, 10];
    let twin = |x: &[Vec<f64>]| select_rows_ref(&x[0], &rows, 7);
    check("select_rows", &SelectRows { rows: rows.into() }, &[input(r, &[11, 7])], &twin);
    let beyond = SelectRows { rows: [11].into() };
    let x = f32_tensor(vec![0.0; 77], (11, 7)).expect("a tensor");
    assert!(beyond.forward(&[&x]).is_err());
}

#[test]
fn rope() {
    let r = &mut Random::new(3);
    let positions: Vec<u32> = vec![0, 1, 2, 0, 1, 900, 901];
    let frequencies: Vec<f32> = (0..5).map(|i| 10f32.powf(-0.4 * i as f32)).collect();
    let op = Rope { table: RopeTable::new(&positions, &frequencies) };
    let twin = |x: &[Vec<f64>]| rope_ref(&x[0], &positions, &widen(&frequencies));
    check("rope", &op, &[input(r, &[7, 3 * 10])], &twin);
}

#[test]
fn gated_activations() {
    let r = &mut Random::new(4);
    for activation in [Activation::Silu, Activation::GeluTanh] {
        let mut inputs = [input(r, &[9, 1999]), input(r, &[9, 1999])];
        inputs[0].values.iter_mut().for_each(|x| *x *= 6.0);
        let twin = |x: &[Vec<f64>]| gated_ref(activation, &x[0], &x[1]);
        check(&format!("gated {activation:?}"), &Gated { activation }, &inputs, &twin);
    }
}

/// A matrix in any of the formats: quantised ones from random blocks with scales near 1/64.
fn matrix(r: &mut Random, dtype: WeightDtype, rows: usize, cols: usize) -> Arc<QuantMatrix> {
    let values = numbers(r, rows * cols);
    let made = match dtype {
        WeightDtype::F32 => QuantMatrix::from_f32(rows, cols, &values),
        WeightDtype::Nf4 => QuantMatrix::quantize_nf4(rows, cols, &values),
        WeightDtype::BF16 => {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()[2..].to_vec()).collect();
            QuantMatrix::new(dtype, rows, cols, bytes.into())
        }
        _ => {
            let n = rows * dtype.row_bytes(cols).expect("whole blocks");
            let mut bytes: Vec<u8> = (0..n).map(|_| r.bits() as u8).collect();
            let halves = if dtype == WeightDtype::Q8_0 { 1 } else { 2 };
            for block in bytes.chunks_mut(dtype.block_bytes()) {
                for half in block.chunks_mut(2).take(halves) {
                    half.copy_from_slice(&(0x2400u16 | (r.bits() & 0x1ff) as u16).to_le_bytes());
                }
            }
            QuantMatrix::new(dtype, rows, cols, bytes.into())
        }
    };
    Arc::new(made.expect("a sound matrix"))
}

/// Formats with a row of a length they take; [19, 2083] is more than a panel deep.
const FORMATS: [(WeightDtype, usize, usize); 7] = [
    (WeightDtype::F32, 37, 45),
    (WeightDtype::F32, 19, 2083),
    (WeightDtype::BF16, 70, 45),
    (WeightDtype::Q4_1, 37, 96),
    (WeightDtype::Q8_0, 37, 96),
    (WeightDtype::Q4_K, 37, 512),
    (WeightDtype::Nf4, 37, 45),
];

#[test]
fn projections_in_every_kind_of_format() {
    let r = &mut Random::new(5);
    for (dtype, outputs, inputs) in FORMATS {
        let w = matrix(r, dtype, outputs, inputs);
        let wide = widen(&w.to_f32());
        for tokens in [1, 29] {
            let bias = numbers(r, outputs);
            let x = [input(r, &[tokens, inputs])];
            let base = Projection::new(w.clone(), Some(bias.clone().into())).expect("a projection");
            let op = Projections::frozen(base);
            let twin = |x: &[Vec<f64>]| projection_ref(&x[0], &wide, inputs, Some(&widen(&bias)));
            check(&format!("projection {dtype} [{outputs}, {inputs}] of {tokens}, bias"), &op, &x, &twin);
            let op = Projections::frozen(Projection::new(w.clone(), None).expect("a projection"));
            let twin = |x: &[Vec<f64>]| projection_ref(&x[0], &wide, inputs, None);
            check(&format!("projection {dtype} [{outputs}, {inputs}] of {tokens}"), &op, &x, &twin);
        }
    }
}

#[test]
fn lora_projections_with_and_without_a_separate_branch_input() {
    let r = &mut Random::new(6);
    for (dtype, outputs, inputs) in FORMATS {
        let w = matrix(r, dtype, outputs, inputs);
        let wide = widen(&w.to_f32());
        for (tokens, rank) in [(1, 1), (23, 5), (31, 16)] {
            let bias = numbers(r, outputs);
            let base = Projection::new(w.clone(), Some(bias.clone().into())).expect("a projection");
            let op =
                Projections::low_rank(base.clone(), Branch { scale: 2.5, dropout: None, unrounded: false });
            let x = vec![input(r, &[tokens, inputs]), input(r, &[rank, inputs]), input(r, &[outputs, rank])];
            let name = format!("lora {dtype} [{outputs}, {inputs}] of {tokens}, rank {rank}");
            let twin = |x: &[Vec<f64>]| {
                let base = projection_ref(&x[0], &wide, inputs, Some(&widen(&bias)));
                add_ref(&base, &lora_ref(&x[0], &x[1], &x[2], inputs, 2.5))
            };
            check(&name, &op, &x, &twin);
            let dropout = Dropout { p: 0.3, key: dropout_key(tokens) };
            let ones = dropout.apply(&vec![1.0; tokens * inputs], inputs).expect("a mask");
            let kept: Vec<bool> = ones.iter().map(|m| *m > 0.0).collect();
            let branch = Branch { scale: 2.5, dropout: Some(dropout), unrounded: false };
            for (how, tolerance, frozen) in
                [("f32", EXACT, Frozen::from(w.clone())), ("bf16", ROUNDED, Frozen::packed(w.clone()))]
            {
                let base = Projection::new(frozen, Some(bias.clone().into())).expect("a projection");
                let op = Projections::low_rank(base, branch.clone());
                let twin = |x: &[Vec<f64>]| {
                    let base = projection_ref(&x[0], &wide, inputs, Some(&widen(&bias)));
                    let dropped = dropout_ref(&x[0], &kept, f64::from(0.3f32));
                    add_ref(&base, &lora_ref(&dropped, &x[1], &x[2], inputs, 2.5))
                };
                check_within(tolerance, &format!("{name}, {how}, dropout"), &op, &x, &twin);
            }
        }
    }
}

/// Two adapted projections and a frozen one that read one input, as q, k and v do, in both arithmetics and after each
/// prologue.
#[test]
fn projections_of_one_input_together() {
    let r = &mut Random::new(8);
    for (dtype, inputs) in [(WeightDtype::F32, 45), (WeightDtype::Q4_1, 96), (WeightDtype::Q4_K, 512)] {
        let weights = [37, 70, 32].map(|outputs| matrix(r, dtype, outputs, inputs));
        let wide = weights.each_ref().map(|w| widen(&w.to_f32()));
        let branches = [Some(2.5), None, Some(0.5)]
            .map(|s| s.map(|scale| Branch { scale, dropout: None, unrounded: false }));
        let (weight, eps) = (numbers(r, inputs), 1e-5);
        let wide_norm = widen(&weight);
        let whole = [
            ("plain", Prologue::Plain),
            ("norm", Prologue::Norm(RmsNorm { weight: weight.into(), eps })),
            ("gated", Prologue::Gated(Gated { activation: Activation::Silu })),
        ];
        let part = |inner: &Prologue, tokens: usize, part: DroppedPart| Prologue::Dropped {
            inner: Box::new(inner.clone()),
            dropout: Dropout { p: 0.3, key: dropout_key(tokens) },
            part,
        };
        let prologues = [1, 29].into_iter().flat_map(|tokens| {
            whole.iter().flat_map(move |(name, inner)| {
                let [kept, taken] = [DroppedPart::Kept, DroppedPart::Taken].map(|p| part(inner, tokens, p));
                [
                    (tokens, (*name).to_owned(), inner.clone()),
                    (tokens, format!("{name} kept"), kept),
                    (tokens, format!("{name} taken"), taken),
                ]
            })
        });
        for (tokens, step, prologue) in prologues {
            let prologue = &prologue;
            let own = prologue.inputs();
            let kept = kept(tokens, inputs);
            let mut x: Vec<Input> = (0..own).map(|_| input(r, &[tokens, inputs])).collect();
            for (outputs, rank) in [(37, 5), (32, 16)] {
                x.push(input(r, &[rank, inputs]));
                x.push(input(r, &[outputs, rank]));
            }
            let twin = |x: &[Vec<f64>]| {
                let whole = |prologue: &Prologue| match prologue {
                    Prologue::Norm(_) => rms_norm_ref(&x[0], &wide_norm, f64::from(eps)),
                    Prologue::Gated(g) => gated_ref(g.activation, &x[0], &x[1]),
                    Prologue::Plain | Prologue::Dropped { .. } => x[0].clone(),
                };
                let h = match prologue {
                    Prologue::Dropped { inner, part, .. } => {
                        let h = whole(inner);
                        let dropped = dropout_ref(&h, &kept, f64::from(0.3f32));
                        match part {
                            DroppedPart::Kept => dropped,
                            DroppedPart::Taken => h.iter().zip(dropped).map(|(h, d)| h - d).collect(),
                        }
                    }
                    whole_one => whole(whole_one),
                };
                let low = |i: usize, s| lora_ref(&h, &x[own + i], &x[own + i + 1], inputs, s);
                let base = |i: usize| projection_ref(&h, &wide[i], inputs, None);
                [add_ref(&base(0), &low(0, 2.5)), base(1), add_ref(&base(2), &low(2, 0.5))].concat()
            };
            let frozen = [
                ("f32", EXACT, weights.clone().map(Frozen::from)),
                ("bf16", ROUNDED, weights.clone().map(|w| Frozen::new(w, Compute::Bf16))),
                ("packed", ROUNDED, weights.clone().map(Frozen::packed)),
            ];
            for (how, tolerance, frozen) in frozen {
                let project = |w| Projection::new(w, None).expect("a projection");
                let op = Projections {
                    prologue: prologue.clone(),
                    members: frozen.map(project).into_iter().zip(branches.clone()).collect(),
                };
                check_within(tolerance, &format!("{how} {dtype} of {tokens}, {step}"), &op, &x, &twin);
            }
        }
    }
}

/// Features that [`dropout_key`]'s mask keeps at 0.3.
fn kept(tokens: usize, inputs: usize) -> Vec<bool> {
    let dropout = Dropout { p: 0.3, key: dropout_key(tokens) };
    let ones = dropout.apply(&vec![1.0; tokens * inputs], inputs).expect("a mask");
    ones.iter().map(|m| *m > 0.0).collect()
}

/// A magnitude over given norms.
struct OverNorms(Magnitude, Tensor);

impl Op for OverNorms {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        self.0.forward(&[inputs, &[&self.1]].concat())
    }

    fn infer(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        self.0.infer(&[inputs, &[&self.1]].concat())
    }

    fn backward(
        &self,
        saved: &Saved,
        grads: Vec<Option<Tensor>>,
        needs: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let mut found = self.0.backward(saved, grads, &[needs, &[false]].concat())?;
        assert!(found.pop().is_some_and(|norms| norms.is_none()), "norms have no gradient");
        Ok(found)
    }
}

/// Norms are constants: the twin's do not follow its inputs.
#[test]
fn magnitudes_over_constant_norms() {
    let r = &mut Random::new(31);
    for (tokens, outputs, biased) in [(1, 5, true), (29, 130, false), (7, 70, true)] {
        let norms: Vec<f32> = numbers(r, outputs).iter().map(|n| n.abs() + 0.2).collect();
        let bias = biased.then(|| numbers(r, outputs));
        let wide = bias.as_ref().map_or(vec![0.0; outputs], |b| widen(b));
        let twin = |x: &[Vec<f64>]| {
            let of = |(at, h): (usize, &f64)| {
                let o = at % outputs;
                x[1][o] / f64::from(norms[o]) * (h - wide[o]) + wide[o]
            };
            x[0].iter().enumerate().map(of).collect()
        };
        for (compute, tolerance) in [(Compute::F32, EXACT), (Compute::Bf16, ROUNDED)] {
            let bias = bias.clone().map(Into::into);
            let constant = f32_tensor(norms.clone(), outputs).expect("a tensor");
            let op = OverNorms(Magnitude { bias, compute }, constant);
            let x = [input(r, &[tokens, outputs]), input(r, &[outputs])];
            check_within(tolerance, &format!("magnitude {compute:?} [{tokens}, {outputs}]"), &op, &x, &twin);
        }
    }
    let norms = f32_tensor(vec![0.0, 2.0], 2).expect("a tensor");
    let op = OverNorms(Magnitude { bias: None, compute: Compute::F32 }, norms);
    let (h, m) = (f32_tensor(vec![3.0, 4.0], (1, 2)), f32_tensor(vec![1.0, 1.0], 2));
    let (h, m) = (h.expect("a tensor"), m.expect("a tensor"));
    let y = op.infer(&[&h, &m]).expect("it runs").remove(0);
    assert_eq!(f32_view(&y).expect("f32")[..], [0.0, 2.0], "a row of norm 0 gives 0");
    assert!(op.infer(&[&m, &h]).is_err() && op.infer(&[&h, &h]).is_err());
}

/// Segments `(tokens, parent)` laid end to end.
fn segments(of: &[(u32, Option<u32>)]) -> Vec<Segment> {
    let mut out: Vec<Segment> = Vec::new();
    for (len, parent) in of {
        let start = out.last().map_or(0, |s| s.start + s.len);
        let position = parent.map_or(0, |p| out[p as usize].position + out[p as usize].len);
        out.push(Segment { start, len: *len, parent: *parent, position });
    }
    out
}

#[test]
fn attention_over_trees_of_segments() {
    let r = &mut Random::new(7);
    // 67 and 63 tokens are more than a tile of queries.
    let tree = [(67, None), (5, Some(0)), (63, Some(0)), (1, None), (3, Some(2)), (2, Some(1)), (9, None)];
    for (of, n_heads, n_kv_heads, head_dim, window) in [
        (&tree[..], 6, 2, 10, None),
        (&tree[..], 6, 2, 10, Some(7)),
        (&tree[..], 3, 3, 33, Some(64)),
        (&tree[..], 4, 1, 8, Some(1)),
        (&[(1, None)][..], 2, 1, 5, None),
        (&[(130, None)][..], 1, 1, 16, Some(61)),
    ] {
        let segments = segments(of);
        let tokens: u32 = segments.iter().map(|s| s.len).sum();
        let shape = AttentionShape { n_heads, n_kv_heads, head_dim, scale: 0.7, window };
        let [q, kv] = [n_heads, n_kv_heads].map(|h| [tokens as usize, h * head_dim]);
        let mut inputs = [input(r, &q), input(r, &kv), input(r, &kv)];
        let twin = |x: &[Vec<f64>]| attention_ref(&x[0], &x[1], &x[2], &segments, &shape);
        let op = |compute| Attention { shape, segments: segments.clone().into(), compute };
        check(&format!("attention {tokens} {shape:?}"), &op(Compute::F32), &inputs, &twin);
        // Scores of values that bfloat16 holds are exact; a rounded score is magnified by the softmax.
        let values = inputs.iter_mut().flat_map(|i| &mut i.values);
        values.for_each(|x| *x = half::bf16::from_f32(*x).to_f32());
        let name = format!("bf16 attention {tokens} {shape:?}");
        check_within(ROUNDED, &name, &op(Compute::Bf16), &inputs, &twin);
    }
}

#[test]
fn log_prob_head_with_shared_rows() {
    let r = &mut Random::new(8);
    // 8211 ids are two whole chunks and a bit.
    for (dtype, vocabulary, width) in
        [(WeightDtype::F32, 8211, 13), (WeightDtype::Q8_0, 301, 64), (WeightDtype::BF16, 33, 7)]
    {
        let tokens = 9;
        let w = matrix(r, dtype, vocabulary, width);
        // Row 4 predicts three tokens (one of them twice), rows 0, 3, 5 and 7 nothing; out of order.
        let targets: Vec<Target> = [4, 1, 8, 4, 4, 2, 6, 4]
            .map(|index| Target { index, token: r.below(vocabulary) as u32, row: 0 })
            .to_vec();
        let mut targets = targets;
        targets[7].token = targets[0].token;
        targets[1].token = vocabulary as u32 - 1;
        let correct = Arc::new(Mutex::new(Vec::new()));
        let op = LogProbHead {
            weight: w.clone().into(),
            targets: targets.clone().into(),
            temperature: None,
            with_gradient: true,
            correct: correct.clone(),
            scores: Arc::default(),
        };
        let mut inputs = [input(r, &[tokens, width])];
        inputs[0].values.iter_mut().for_each(|x| *x *= 3.0);
        let wide = widen(&w.to_f32());
        let twin = |x: &[Vec<f64>]| log_prob_head_ref(&x[0], &wide, width, &targets);
        check(&format!("log_prob_head {dtype} [{vocabulary}, {width}]"), &op, &inputs, &twin);
        let warm = LogProbHead { temperature: Some(1.7), ..op };
        let divided: Vec<f64> = wide.iter().map(|w| w / f64::from(1.7f32)).collect();
        let twin = |x: &[Vec<f64>]| log_prob_head_ref(&x[0], &divided, width, &targets);
        check(&format!("log_prob_head {dtype} at temperature 1.7"), &warm, &inputs, &twin);
        let correct = correct.lock().expect("a lock").clone();
        let h = widen(&inputs[0].values);
        for (target, correct) in targets.iter().zip(correct) {
            let h = &h[target.index as usize * width..][..width];
            let logit = |id: usize| dot(h, &wide[id * width..][..width]);
            let best = (0..vocabulary).max_by(|a, b| logit(*a).total_cmp(&logit(*b))).expect("a vocabulary");
            assert_eq!(correct, best == target.token as usize, "{target:?}");
        }
    }
}

fn dropout_key(tokens: usize) -> DropoutKey {
    DropoutKey {
        seed: 5,
        epoch: 1,
        module: 99,
        rows: (0..tokens as u64).map(|t| t / 8).collect::<Vec<_>>().into(),
        positions: (0..tokens as u32).map(|t| t % 8).collect::<Vec<_>>().into(),
    }
}

#[test]
fn dropout_scales_what_it_keeps_and_its_mask_follows_its_keys() {
    let r = &mut Random::new(9);
    let (tokens, width) = (40, 333);
    let key = dropout_key(tokens);
    let mask = |p: f32, key: &DropoutKey| -> Vec<bool> {
        let tokens = key.rows.len();
        let y = Dropout { p, key: key.clone() }.apply(&vec![1.0; tokens * width], width).expect("a mask");
        y.iter().map(|y| *y != 0.0).collect()
    };
    for p in [0.0, 0.05, 0.5, 0.9] {
        let kept = mask(p, &key);
        let n = kept.len() as f64;
        let share = kept.iter().filter(|k| **k).count() as f64 / n;
        let p64 = f64::from(p);
        let sigma = (p64 * (1.0 - p64) / n).sqrt();
        assert!((share - (1.0 - p64)).abs() <= 4.0 * sigma, "p = {p}: {share} kept");
        let x = numbers(r, tokens * width);
        let y = Dropout { p, key: key.clone() }.apply(&x, width).expect("values");
        for (y, want) in y.iter().zip(dropout_ref(&widen(&x), &kept, p64)) {
            let error = (f64::from(*y) - want).abs();
            assert!(error <= 1e-6 * want.abs(), "dropout {p}: {y} for {want}");
        }
    }
    let whole = mask(0.5, &key);
    // Tokens in another order take their masks along.
    let order: Vec<usize> = (0..tokens).map(|t| (t * 7 + 3) % tokens).collect();
    let moved = DropoutKey {
        rows: order.iter().map(|t| key.rows[*t]).collect::<Vec<_>>().into(),
        positions: order.iter().map(|t| key.positions[*t]).collect::<Vec<_>>().into(),
        ..key.clone()
    };
    let rows = mask(0.5, &moved);
    for (row, from) in rows.chunks(width).zip(&order) {
        assert_eq!(row, &whole[from * width..][..width], "token {from}");
    }
    // Every part of the key matters: another one keeps about half of the same places.
    let bump = |x: &[u64]| x.iter().map(|x| x + 1).collect::<Vec<_>>();
    let positions: Vec<u32> = key.positions.iter().map(|p| p + 1).collect();
    for other in [
        DropoutKey { seed: 6, ..key.clone() },
        DropoutKey { epoch: 2, ..key.clone() },
        DropoutKey { module: 100, ..key.clone() },
        DropoutKey { rows: bump(&key.rows).into(), ..key.clone() },
        DropoutKey { positions: positions.into(), ..key.clone() },
    ] {
        let same = mask(0.5, &other).iter().zip(&whole).filter(|(a, b)| a == b).count() as f64;
        let share = same / whole.len() as f64;
        assert!((share - 0.5).abs() < 0.05, "{other:?}: {share} of the mask is the same");
    }
}
