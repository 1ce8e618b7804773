//! Whole training steps through the kernels, as `--device cuda:N` makes them, against the same steps on the CPU.

use crate::tiny::{VOCABULARY, hugging_face, llama};
use galen_adapter::{Adapter, AdapterConfig, BaseRecord, Init, Targets};
use galen_data::pack::Sharing;
use galen_kernels::place::OnHost;
use galen_loss::Kto;
use galen_loss::pair::Dpo;
use galen_model::{Model, Precision};
use galen_ops::device::{Accelerator, Path as Products};
use galen_ops::ops::Compute;
use galen_ops::quant::WeightDtype;
use galen_optim::{AdamW, AdamWConfig, Faster, clip_factor, global_norm};
use galen_testkit::fuzz::Random;
use galen_train::preference::{
    Displacement, LabelledRows, Labels, OnDisplacement, PairRows, Pairs, Reference,
};
use galen_train::{
    Cadence, Objective, Observer, OnDevice, Outcome, Place, Run, Sft, StepGradient, TrainSettings,
    Validation, checkpoint, module_shapes, step_gradient, validate,
};
use galen_types::{Origin, StepReport, Tokenized, TokenizedAnswer, TokenizedLabelled, TokenizedPair};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub fn lora(r: usize) -> AdapterConfig {
    AdapterConfig {
        method: "lora".into(),
        r,
        alpha: 2.0 * r as f64,
        dropout: 0.0,
        rslora: false,
        targets: Targets::All,
        layers: None,
        // Neither A nor B is zero.
        init: Init::Random,
        seed: 7,
    }
}

pub fn adapter(model: &Model, config: AdapterConfig) -> Adapter {
    Adapter::over(config, &module_shapes(model), model).unwrap()
}

/// Rows of (tokens of the common stem, tokens of their own).
pub fn rows(lengths: &[(usize, usize)]) -> Vec<Tokenized> {
    let random = &mut Random::new(21);
    let mut ids = |n: usize| -> Vec<u32> { (0..n).map(|_| random.below(VOCABULARY) as u32).collect() };
    let stem = ids(70);
    let row = |(i, (shared, own)): (usize, &(usize, usize))| {
        let all = [&stem[..*shared], &ids(*own)[..]].concat();
        let mask = (0..all.len()).map(|t| t + 1 == all.len() || t % 3 == 1).collect();
        Tokenized::new(Origin::new("made up", i as u64 + 1), i as u64, all, mask).unwrap()
    };
    lengths.iter().enumerate().map(row).collect()
}

pub fn settings() -> TrainSettings {
    TrainSettings {
        micro_batch_size: 3,
        gradient_accumulation_steps: 2,
        total_steps: 3,
        adamw: AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() },
        max_grad_norm: 0.5,
        ..TrainSettings::steps(1e-2)
    }
}

pub fn device() -> Accelerator {
    Accelerator::new("cuda:0", OnHost::default())
}

/// The largest difference, in shares of the largest magnitude of `want`; not a number where one is.
pub fn furthest(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
    assert!(largest > 0.0, "all zero");
    let far = |(g, w): (&f32, &f32)| (f64::from(*g) - f64::from(*w)).abs() / largest;
    got.iter().zip(want).map(far).fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m })
}

/// What `step_gradient` left on the device, by matrix.
pub fn gradients(adapter: &Adapter) -> Vec<Vec<f32>> {
    let placed = adapter.placed().unwrap();
    let all = placed.on().download_floats(placed.gradients()).unwrap();
    let mut buffers: Vec<Vec<f32>> = adapter.buffers().map(|b| vec![f32::NAN; b.len()]).collect();
    placed.gather(&all, buffers.iter_mut().map(Vec::as_mut_slice));
    buffers
}

fn matrices<'a>(adapter: &'a Adapter, buffers: &'a [Vec<f32>]) -> impl Iterator<Item = (String, &'a [f32])> {
    adapter.layers().iter().zip(buffers).flat_map(|(layer, buffer)| {
        layer.entries.iter().flat_map(move |e| {
            let name = format!("layers.{}.{}", e.shape.layer, e.shape.module);
            e.ranges
                .iter()
                .zip(["A", "B", "m"])
                .map(move |(r, m)| (format!("{name}.{m}"), &buffer[r.clone()]))
        })
    })
}

/// Gradients on the device, on the CPU in bf16, and on the CPU in f32: the device's may not be much further from f32 than the CPU's
/// are, matrix by matrix.
pub fn check_gradients(
    name: &str,
    adapter: &Adapter,
    found: &[Vec<f32>],
    near: &[Vec<f32>],
    want: &[Vec<f32>],
) {
    let mut worst = (0f64, 0f64);
    let all = matrices(adapter, found).zip(matrices(adapter, near)).zip(matrices(adapter, want));
    for (((matrix, got), (_, near)), (_, want)) in all {
        let (device, cpu) = (furthest(got, want), furthest(near, want));
        let right = device <= 0.1 && device <= 3.0 * cpu + 3e-3;
        assert!(right, "{name} {matrix}: {device:.1e} of the largest, the CPU's bf16 {cpu:.1e}");
        worst = (worst.0.max(device), worst.1.max(cpu));
    }
    println!("{name}: gradients within {:.1e} of the largest, the CPU's bf16 {:.1e}", worst.0, worst.1);
}

/// A step's gradient, then the step: norm, clipping, AdamW, and what the next step computes with.
pub fn whole_step(name: &str, model: &dyn Fn(Compute) -> Model, config: AdapterConfig) {
    whole_step_on(device(), name, model, config);
}

fn whole_step_on(on: Accelerator, name: &str, model: &dyn Fn(Compute) -> Model, config: AdapterConfig) {
    let [exact, rounded] = [Compute::F32, Compute::Bf16].map(model);
    let placed = model(Compute::Bf16).onto(&on).unwrap();
    // A tree of shared beginnings, then rows of more than a tile: two micro-batches.
    let rows = rows(&[(24, 9), (60, 4), (24, 30), (0, 17), (0, 133)]);
    let batches: Vec<Vec<&Tokenized>> = vec![rows[..3].iter().collect(), rows[3..].iter().collect()];
    // Where rows share nothing anyhow, with noise on their embeddings.
    let noise = (config.dropout > 0.0).then_some(5.0);
    let settings = TrainSettings { neftune_noise_alpha: noise, ..settings() };
    let mut adapter = adapter(&exact, config);
    let gradient = |model: &Model, adapter: &Adapter| -> StepGradient {
        step_gradient(&Place { epoch: 1, ..Place::new(model, adapter, &settings) }, &batches).unwrap()
    };
    let (want, near) = (gradient(&exact, &adapter), gradient(&rounded, &adapter));
    let mut there = adapter.clone();
    there.place(&on).unwrap();
    let got = gradient(&placed, &there);
    let loss = |g: &StepGradient| (g.loss - want.loss).abs();
    assert!(loss(&got) <= 2e-3 * want.loss + loss(&near), "{name}: loss {} for {}", got.loss, want.loss);
    assert!(got.gradients.is_empty() && got.supervised_tokens == want.supervised_tokens);
    assert!(got.correct.abs_diff(want.correct) <= 2, "{name}: {} for {}", got.correct, want.correct);
    let found = gradients(&there);
    check_gradients(name, &adapter, &found, &near.gradients, &want.gradients);

    // The step itself is exact: the CPU's, over the device's gradient.
    let new = || {
        let faster = Some(Faster { ratio: 2.0, ranges: adapter.faster() });
        AdamW { faster, ..AdamW::new(settings.adamw, adapter.buffers().map(<[f32]>::len)) }
    };
    let (mut here, mut moments) = (new(), new());
    let optimizer = OnDevice::new(&there, &moments).unwrap();
    let norm = optimizer.norm(&there).unwrap();
    assert!((norm - global_norm(&found)).abs() <= 1e-9 * norm, "norm {norm}");
    let factor = clip_factor(norm, settings.max_grad_norm);
    assert!(factor < 1.0, "nothing is clipped at {norm}");
    here.step(adapter.buffers_mut(), &found, settings.learning_rate, factor);
    optimizer.step(&there, &mut moments, settings.learning_rate, factor).unwrap();
    optimizer.fetch(&mut there, &mut moments).unwrap();
    let flat = |a: &Adapter| a.buffers().flatten().copied().collect::<Vec<f32>>();
    for (what, got, want) in [
        ("values", flat(&there), flat(&adapter)),
        ("m", moments.m.concat(), here.m.concat()),
        ("v", moments.v.concat(), here.v.concat()),
    ] {
        let far = furthest(&got, &want);
        assert!(far <= 1e-6, "{name}: {what} after the step: {far:.1e}");
    }
    assert_eq!(moments.steps, 1);
    assert!(gradients(&there).iter().flatten().all(|g| *g == 0.0), "gradients are left over");
    // The next step reads what this one wrote.
    let (next, wanted) = (gradient(&placed, &there), gradient(&exact, &adapter));
    let near = gradient(&rounded, &adapter).loss - wanted.loss;
    let far = (next.loss - wanted.loss).abs();
    assert!(far <= 2e-3 * wanted.loss + near.abs(), "{name}: next loss {} for {}", next.loss, wanted.loss);
    assert!(wanted.loss < want.loss - 0.02, "{name}: {} after {}", wanted.loss, want.loss);
}

#[test]
fn a_step_over_a_dense_base() {
    whole_step("bf16", &|compute| llama(WeightDtype::BF16, Precision::Stored, compute), lora(8));
}

/// Ranks that are no whole pieces of 8 are filled up.
#[test]
fn a_step_over_a_base_in_blocks() {
    for (dtype, rank) in [(WeightDtype::Q4_1, 5), (WeightDtype::Q8_0, 16)] {
        whole_step(&dtype.to_string(), &|compute| llama(dtype, Precision::Stored, compute), lora(rank));
    }
}

/// Plain numbers that are not bf16 are rounded to it once; projections are quantised at load. Masks are the CPU's.
#[test]
fn a_step_over_nf4_with_dropout() {
    let model = |compute| llama(WeightDtype::F32, Precision::Nf4, compute);
    whole_step("nf4", &model, lora(8));
    whole_step("nf4, dropout", &model, AdapterConfig { dropout: 0.25, ..lora(8) });
}

/// Every product with a weight by the library, those in blocks decoded in front of it.
#[test]
fn steps_by_the_library() {
    let on = || Accelerator::new("cuda:0", OnHost::with(Products::Library));
    let dense = |compute| llama(WeightDtype::BF16, Precision::Stored, compute);
    whole_step_on(on(), "bf16 by the library", &dense, lora(5));
    let nf4 = |compute| llama(WeightDtype::F32, Precision::Nf4, compute);
    let dropout = AdapterConfig { dropout: 0.25, ..lora(8) };
    whole_step_on(on(), "nf4 by the library, dropout", &nf4, dropout);
    whole_step_on(on(), "qwen2 by the library", &|compute| hugging_face("qwen2", compute), lora(8));
}

/// Biases of q, k and v; norms of heads; norms behind a sublayer, windows and GeGLU.
#[test]
fn a_step_of_other_families() {
    for family in ["qwen2", "qwen3", "gemma3"] {
        whole_step(family, &|compute| hugging_face(family, compute), lora(8));
    }
}

/// A step that waits for its log-probabilities, on the device and on the CPU.
fn preference_step(name: &str, step: &dyn Fn(&Model, &Adapter) -> StepGradient) {
    let model = |compute| llama(WeightDtype::Q8_0, Precision::Stored, compute);
    let [exact, rounded] = [Compute::F32, Compute::Bf16].map(model);
    let on = device();
    let placed = model(Compute::Bf16).onto(&on).unwrap();
    let adapter = adapter(&exact, lora(8));
    let mut there = adapter.clone();
    there.place(&on).unwrap();
    let (want, near, got) = (step(&exact, &adapter), step(&rounded, &adapter), step(&placed, &there));
    assert!((got.loss - want.loss).abs() <= 2e-2 * want.loss, "{name}: loss {} for {}", got.loss, want.loss);
    check_gradients(name, &adapter, &gradients(&there), &near.gradients, &want.gradients);
}

/// Two pairs, each of a prompt and its two answers.
pub fn pairs() -> Vec<TokenizedPair> {
    let random = &mut Random::new(5);
    let mut ids = |n: usize| -> Vec<u32> { (0..n).map(|_| random.below(VOCABULARY) as u32).collect() };
    let prompt = ids(13);
    let mut side = |row: u64, n: usize| {
        let all = [&prompt[..], &ids(n)].concat();
        TokenizedAnswer::new(Origin::new("made up", row + 1), row, all, prompt.len()).unwrap()
    };
    let pair = |(i, (a, b))| TokenizedPair::new(side(i as u64, a), side(i as u64, b), None).unwrap();
    [(5, 9), (12, 2)].into_iter().enumerate().map(pair).collect()
}

/// Its gradient depends on the log-probabilities of the policy and of the base alone.
#[test]
fn a_step_of_preference_optimisation() {
    let rows = pairs();
    let loss = Dpo { beta: 0.5, ..Dpo::default() };
    let settings = settings();
    let step = |model: &Model, adapter: &Adapter| -> StepGradient {
        let mut objective = Pairs {
            rows: PairRows { train: &rows, validation: &[] },
            loss: &loss,
            reference: Reference::new(None),
            sharing: Sharing::AcrossRows,
            displacement: Displacement::new(OnDisplacement::Warn, 0.1),
        };
        let at = Place::new(model, adapter, &settings);
        objective.step(&at, &[vec![0], vec![1]]).unwrap()
    };
    preference_step("dpo", &step);
}

/// Both answers of each pair with their labels, and for each row another's answer.
pub fn labelled() -> (Vec<TokenizedLabelled>, Vec<TokenizedAnswer>) {
    let rows: Vec<TokenizedLabelled> = pairs()
        .iter()
        .flat_map(|p| [(p.chosen(), true), (p.rejected(), false)])
        .map(|(answer, label)| TokenizedLabelled { answer: answer.clone(), label })
        .collect();
    let mismatched = rows.iter().rev().map(|r| r.answer.clone()).collect();
    (rows, mismatched)
}

/// Its gradient depends on an estimate over all micro-batches of a step.
#[test]
fn a_step_from_labelled_answers() {
    let (rows, mismatched) = labelled();
    let step = |model: &Model, adapter: &Adapter| -> StepGradient {
        let mut objective = Labels {
            rows: LabelledRows {
                train: &rows,
                validation: &[],
                train_mismatched: &mismatched,
                validation_mismatched: &[],
            },
            loss: Kto { beta: 0.5, ..Kto::default() },
            reference: Reference::new(None),
            sharing: Sharing::AcrossRows,
        };
        let settings = settings();
        objective.step(&Place::new(model, adapter, &settings), &[vec![0, 3], vec![1, 2]]).unwrap()
    };
    preference_step("kto", &step);
}

/// Told of a run on a device of that name; stops it after a step.
struct Told<'a>(&'a AtomicBool, Option<u64>, &'a str);

impl Observer for Told<'_> {
    fn step(&mut self, report: &StepReport, _: u64) {
        assert_eq!(report.device, self.2);
        self.0.store(self.1 == Some(report.step), Ordering::Relaxed);
    }
    fn validation(&mut self, _: u64, _: &Validation) {}
    fn note(&mut self, _: &str) {}
}

/// A run from the beginning or from the newest checkpoint in `dir`.
pub fn run(
    (model, adapter): (&Model, Adapter),
    objective: &mut dyn Objective,
    dir: &Path,
    settings: TrainSettings,
    stop_after: Option<u64>,
) -> Outcome {
    let flag = AtomicBool::new(false);
    let newest = checkpoint::list(dir).pop();
    let run = Run {
        model,
        others: &[],
        group: None,
        adapter,
        base: BaseRecord { name: Some("made-up/base".into()), revision: None },
        held_out: None,
        objective,
        settings,
        dir: dir.into(),
        fingerprint: BTreeMap::new(),
        stop: &flag,
    };
    let name = model.device().map_or("cpu", Accelerator::name);
    run.run(newest.as_ref().map(|(_, p)| p.as_path()), &mut Told(&flag, stop_after, name)).unwrap()
}

pub fn bits(outcome: &Outcome) -> Vec<u32> {
    outcome.adapter.buffers().flatten().map(|v| v.to_bits()).collect()
}

/// Rows of runs, and how these train.
pub fn of_runs() -> (Vec<Tokenized>, TrainSettings) {
    let settings = TrainSettings {
        micro_batch_size: 2,
        gradient_accumulation_steps: 1,
        eval: Cadence::Steps(2),
        ..settings()
    };
    (rows(&[(12, 3), (12, 9), (0, 11), (0, 6)]), settings)
}

/// Checkpoints, resuming, recomputation and validation see what the device has.
#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_bits() {
    let on = device();
    let model = llama(WeightDtype::Q8_0, Precision::Stored, Compute::Bf16).onto(&on).unwrap();
    let (rows, settings) = of_runs();
    let run = |dir: &Path, settings: TrainSettings, stop_after| {
        let mut objective = Sft { train: &rows, validation: &rows[..2] };
        run((&model, adapter(&model, lora(8))), &mut objective, dir, settings, stop_after)
    };
    let [whole, parts, again] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let want = run(whole.path(), settings.clone(), None);
    assert!(want.reports.len() == 3 && want.adapter.placed().is_none());
    let stopped = run(parts.path(), settings.clone(), Some(1));
    assert!(stopped.interrupted && bits(&stopped) != bits(&want));
    let got = run(parts.path(), settings.clone(), None);
    assert!(bits(&got) == bits(&want), "resuming gives other bits");
    let recomputed = TrainSettings { gradient_checkpointing: true, ..settings.clone() };
    let got = run(again.path(), recomputed, None);
    assert!(bits(&got) == bits(&want), "recomputing gives other bits");
    // The last validation, on the CPU.
    let cpu = llama(WeightDtype::Q8_0, Precision::Stored, Compute::F32);
    let cpu = validate(&cpu, &want.adapter, &rows[..2], &settings).unwrap().unwrap().eval_loss;
    let device = want.state.last.unwrap().eval_loss;
    assert!((device - cpu).abs() <= 3e-3 * cpu, "eval_loss {device} for {cpu}");
}

/// What has no kernel says so, and what to do.
#[test]
fn what_is_not_supported_is_an_error_with_a_remedy() {
    let on = device();
    let model = llama(WeightDtype::BF16, Precision::Stored, Compute::Bf16).onto(&on).unwrap();
    let rows = rows(&[(0, 9)]);
    let mut adapter = adapter(&model, lora(8));
    let step = |adapter: &Adapter| {
        let settings = settings();
        let at = Place::new(&model, adapter, &settings);
        step_gradient(&at, &[rows.iter().collect()]).err().map(|e| e.to_string())
    };
    let absent = step(&adapter).unwrap();
    assert!(absent.contains("does not lie on `cuda:0`"), "{absent}");
    adapter.place(&on).unwrap();
    assert_eq!(step(&adapter), None);
    // It has no room for gradients: none may be written, and nobody steps it.
    let mut frozen = adapter.clone();
    frozen.place_frozen(&on).unwrap();
    assert_eq!(step(&frozen), None);
    let moments = AdamW::new(settings().adamw, frozen.buffers().map(<[f32]>::len));
    let refused = OnDevice::new(&frozen, &moments).err().unwrap().to_string();
    assert!(refused.contains("was not placed to be trained"), "{refused}");
}
