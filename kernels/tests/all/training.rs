//! Whole training steps through the kernels, as `--device cuda:N` makes them, against the same steps on the CPU.

use galen_adapter::{Adapter, AdapterConfig, BaseRecord, Init, Targets};
use galen_kernels::place::OnHost;
use galen_model::{LoadOptions, Model, Precision, WeightCache, Weights};
use galen_ops::device::Accelerator;
use galen_ops::ops::Compute;
use galen_ops::quant::WeightDtype;
use galen_optim::{AdamW, AdamWConfig, clip_factor, global_norm};
use galen_testkit::big_gguf::{LlamaShape, write_llama};
use galen_testkit::fuzz::Random;
use galen_train::{
    BestMetric, Cadence, Observer, OnDevice, Outcome, Run, Sft, StepGradient, TrainSettings, Validation, checkpoint,
    module_shapes, step_gradient, validate,
};
use galen_types::{Origin, StepReport, Tokenized};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const VOCABULARY: usize = 300;

/// Two blocks, two query heads over one of keys, a vocabulary that is no whole tile.
fn model(dtype: WeightDtype, precision: Precision, compute: Compute) -> Model {
    let shape = LlamaShape {
        layers: 2,
        hidden: 128,
        ffn: 192,
        heads: 2,
        kv_heads: 1,
        vocab: VOCABULARY as u64,
        dtype,
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    write_llama(&path, shape, 3).unwrap();
    let weights = Weights::open(&path).unwrap();
    let options = LoadOptions { precision, compute, weight_cache: WeightCache::Stream, ..LoadOptions::default() };
    Model::load(&weights, options).unwrap()
}

fn adapter(model: &Model, r: usize) -> Adapter {
    let config = AdapterConfig {
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
    };
    Adapter::over(config, &module_shapes(model), model).unwrap()
}

/// Rows of (tokens of the common stem, tokens of their own).
fn rows(lengths: &[(usize, usize)]) -> Vec<Tokenized> {
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

fn settings() -> TrainSettings {
    TrainSettings {
        micro_batch_size: 3,
        gradient_accumulation_steps: 2,
        total_steps: 3,
        packing: None,
        share_prefixes: true,
        gradient_checkpointing: false,
        lr_scheduler: "constant".into(),
        learning_rate: 1e-2,
        warmup_steps: 0,
        adamw: AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() },
        max_grad_norm: 0.5,
        num_iterations: 1,
        seed: 1,
        eval: Cadence::Never,
        save: Cadence::Never,
        save_total_limit: None,
        metric_for_best_model: BestMetric::default(),
        load_best_model_at_end: false,
        early_stopping_patience: None,
        loss_watchdog_threshold: None,
        loss_watchdog_patience: 3,
    }
}

fn device() -> Accelerator {
    Accelerator::new("cuda:0", OnHost)
}

/// The largest difference, in shares of the largest magnitude of `want`; not a number where one is.
fn furthest(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0f64, |m, v| m.max(f64::from(v.abs())));
    assert!(largest > 0.0, "all zero");
    let far = |(g, w): (&f32, &f32)| (f64::from(*g) - f64::from(*w)).abs() / largest;
    got.iter().zip(want).map(far).fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m })
}

/// What `step_gradient` left on the device, by matrix.
fn gradients(adapter: &Adapter) -> Vec<Vec<f32>> {
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
            e.ranges.iter().zip(["A", "B"]).map(move |(r, m)| (format!("{name}.{m}"), &buffer[r.clone()]))
        })
    })
}

/// One step's gradient on the device, on the CPU in bf16, and on the CPU in f32: the device's may not be much further from f32 than
/// the CPU's is. Then the step: norm, clipping, AdamW, and what the next step computes with.
fn whole_step(dtype: WeightDtype, precision: Precision, rank: usize) {
    let [exact, rounded] = [Compute::F32, Compute::Bf16].map(|compute| model(dtype, precision, compute));
    let on = device();
    let placed = model(dtype, precision, Compute::Bf16).onto(&on).unwrap();
    // A tree of shared beginnings, then rows of more than a tile: two micro-batches.
    let rows = rows(&[(24, 9), (60, 4), (24, 30), (0, 17), (0, 133)]);
    let batches: Vec<Vec<&Tokenized>> = vec![rows[..3].iter().collect(), rows[3..].iter().collect()];
    let settings = settings();
    let mut adapter = adapter(&exact, rank);
    let gradient = |model: &Model, adapter: &Adapter| -> StepGradient {
        step_gradient(model, adapter, &batches, &settings, 0).unwrap()
    };
    let (want, near) = (gradient(&exact, &adapter), gradient(&rounded, &adapter));
    let mut there = adapter.clone();
    there.place(&on).unwrap();
    let got = gradient(&placed, &there);
    let loss = |g: &StepGradient| (g.loss - want.loss).abs();
    assert!(loss(&got) <= 2e-3 * want.loss, "loss {} for {}", got.loss, want.loss);
    assert!(got.gradients.is_empty() && got.supervised_tokens == want.supervised_tokens);
    assert!(got.correct.abs_diff(want.correct) <= 2, "{} for {}", got.correct, want.correct);
    let found = gradients(&there);
    let mut worst = (0f64, 0f64);
    for (((name, got), (_, want)), (_, near)) in
        matrices(&adapter, &found).zip(matrices(&adapter, &want.gradients)).zip(matrices(&adapter, &near.gradients))
    {
        let (device, cpu) = (furthest(got, want), furthest(near, want));
        assert!(device <= 6e-2 && device <= 2.0 * cpu + 3e-3, "{dtype} {name}: {device:.1e}, the CPU's bf16 {cpu:.1e}");
        worst = (worst.0.max(device), worst.1.max(cpu));
    }
    println!("{dtype} {precision:?}: loss {} for {}, gradients within {:.1e} of the largest, the CPU's bf16 {:.1e}", got.loss, want.loss, worst.0, worst.1);

    // The step itself is exact: the CPU's, over the device's gradient.
    let lengths = || adapter.buffers().map(<[f32]>::len);
    let (mut here, mut moments) = (AdamW::new(settings.adamw, lengths()), AdamW::new(settings.adamw, lengths()));
    let optimizer = OnDevice::new(&there, &moments).unwrap();
    let norm = optimizer.norm(&there).unwrap();
    assert!((norm - global_norm(&found)).abs() <= 1e-9 * norm, "norm {norm}");
    let factor = clip_factor(norm, settings.max_grad_norm);
    assert!(factor < 1.0, "nothing is clipped at {norm}");
    here.step(adapter.buffers_mut(), &found, settings.learning_rate, factor);
    optimizer.step(&there, &mut moments, settings.learning_rate, factor).unwrap();
    optimizer.fetch(&mut there, &mut moments).unwrap();
    let flat = |a: &Adapter| a.buffers().flatten().copied().collect::<Vec<f32>>();
    for (name, got, want) in [
        ("values", flat(&there), flat(&adapter)),
        ("m", moments.m.concat(), here.m.concat()),
        ("v", moments.v.concat(), here.v.concat()),
    ] {
        let far = furthest(&got, &want);
        assert!(far <= 1e-6, "{dtype}: {name} after the step: {far:.1e}");
    }
    assert_eq!(moments.steps, 1);
    assert!(gradients(&there).iter().flatten().all(|g| *g == 0.0), "gradients are left over");
    // The next step reads what this one wrote.
    let (next, wanted) = (gradient(&placed, &there), gradient(&exact, &adapter));
    assert!((next.loss - wanted.loss).abs() <= 2e-3 * wanted.loss, "next loss {} for {}", next.loss, wanted.loss);
    assert!(wanted.loss < want.loss - 0.02, "{} after {}", wanted.loss, want.loss);
}

#[test]
fn a_step_over_a_dense_base() {
    whole_step(WeightDtype::BF16, Precision::Stored, 8);
}

/// Ranks that are no whole pieces of 8 are filled up.
#[test]
fn a_step_over_a_base_in_blocks() {
    whole_step(WeightDtype::Q4_1, Precision::Stored, 5);
    whole_step(WeightDtype::Q8_0, Precision::Stored, 16);
}

/// Plain numbers that are not bf16 are rounded to it once; projections are quantised at load.
#[test]
fn a_step_over_nf4() {
    whole_step(WeightDtype::F32, Precision::Nf4, 8);
}

/// Told of a run; stops it after a step.
struct Told<'a>(&'a AtomicBool, Option<u64>);

impl Observer for Told<'_> {
    fn step(&mut self, report: &StepReport, _: u64) {
        assert_eq!(report.device, "cuda:0");
        self.0.store(self.1 == Some(report.step), Ordering::Relaxed);
    }
    fn validation(&mut self, _: u64, _: &Validation) {}
    fn note(&mut self, _: &str) {}
}

fn run(model: &Model, rows: &[Tokenized], dir: &Path, settings: TrainSettings, stop_after: Option<u64>) -> Outcome {
    let flag = AtomicBool::new(false);
    let newest = checkpoint::list(dir).pop();
    let run = Run {
        model,
        adapter: adapter(model, 8),
        base: BaseRecord { name: Some("made-up/base".into()), revision: None },
        held_out: None,
        objective: &mut Sft { train: rows, validation: &rows[..2] },
        settings,
        dir: dir.into(),
        fingerprint: BTreeMap::new(),
        stop: &flag,
    };
    run.run(newest.as_ref().map(|(_, p)| p.as_path()), &mut Told(&flag, stop_after)).unwrap()
}

/// Checkpoints, resuming, recomputation and validation see what the device has.
#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_bits() {
    let on = device();
    let model = model(WeightDtype::Q8_0, Precision::Stored, Compute::Bf16).onto(&on).unwrap();
    let rows = rows(&[(12, 3), (12, 9), (0, 11), (0, 6)]);
    let settings = TrainSettings {
        micro_batch_size: 2,
        gradient_accumulation_steps: 1,
        eval: Cadence::Steps(2),
        ..settings()
    };
    let bits = |o: &Outcome| o.adapter.buffers().flatten().map(|v| v.to_bits()).collect::<Vec<_>>();
    let [whole, parts, again] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let want = run(&model, &rows, whole.path(), settings.clone(), None);
    assert!(want.reports.len() == 3 && want.adapter.placed().is_none());
    let stopped = run(&model, &rows, parts.path(), settings.clone(), Some(1));
    assert!(stopped.interrupted && bits(&stopped) != bits(&want));
    let got = run(&model, &rows, parts.path(), settings.clone(), None);
    assert!(bits(&got) == bits(&want), "resuming gives other bits");
    let recomputed = TrainSettings { gradient_checkpointing: true, ..settings.clone() };
    let got = run(&model, &rows, again.path(), recomputed, None);
    assert!(bits(&got) == bits(&want), "recomputing gives other bits");
    // The last validation, on the CPU.
    let cpu = self::model(WeightDtype::Q8_0, Precision::Stored, Compute::F32);
    let cpu = validate(&cpu, &want.adapter, &rows[..2], &settings).unwrap().unwrap().eval_loss;
    let device = want.state.last.unwrap().eval_loss;
    assert!((device - cpu).abs() <= 3e-3 * cpu, "eval_loss {device} for {cpu}");
}

/// What has no kernel says so, and what to do.
#[test]
fn what_is_not_supported_is_an_error_with_a_remedy() {
    let on = device();
    let model = model(WeightDtype::BF16, Precision::Stored, Compute::Bf16).onto(&on).unwrap();
    let rows = rows(&[(0, 9)]);
    let mut adapter = adapter(&model, 8);
    let step = |adapter: &Adapter| {
        step_gradient(&model, adapter, &[rows.iter().collect()], &settings(), 0).err().map(|e| e.to_string())
    };
    let absent = step(&adapter).unwrap();
    assert!(absent.contains("does not lie on `cuda:0`"), "{absent}");
    adapter.place(&on).unwrap();
    assert_eq!(step(&adapter), None);
    adapter.config.dropout = 0.1;
    let dropout = step(&adapter).unwrap();
    assert!(dropout.contains("`lora_dropout` on `cuda:0` is not supported\nhint: "), "{dropout}");
    let config = AdapterConfig { method: "dora".into(), ..adapter.config.clone() };
    let mut dora = Adapter::over(config, &module_shapes(&model), &model).unwrap();
    let dora = dora.place(&on).unwrap_err().to_string();
    assert!(dora.contains("training DoRA on `cuda:0` is not supported\nhint: "), "{dora}");
}
