//! Several devices that share a run, against one device that has all of it.

use crate::tiny::llama;
use crate::training::{adapter, furthest, gradients, labelled, lora, pairs, rows, settings};
use galen_adapter::{Adapter, AdapterConfig, BaseRecord};
use galen_data::pack::Sharing;
use galen_kernels::place::OnHost;
use galen_loss::Kto;
use galen_loss::pair::Dpo;
use galen_model::{Model, Precision};
use galen_ops::device::{Accelerator, Group};
use galen_ops::ops::Compute;
use galen_ops::quant::WeightDtype;
use galen_optim::{AdamW, clip_factor};
use galen_train::preference::{
    Displacement, LabelledRows, Labels, OnDisplacement, PairRows, Pairs, Reference,
};
use galen_train::{
    Cadence, Objective, Observer, OnDevice, Outcome, Place, Run, Sft, TrainSettings, Validation, checkpoint,
    step_gradient,
};
use galen_types::{StepReport, Tokenized};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn devices(n: usize) -> Group {
    let device = |i| Accelerator::new(&format!("cuda:{i}"), OnHost::default());
    Group::by_host((0..n).map(device).collect()).unwrap()
}

/// The same model on each.
fn models(group: &Group) -> Vec<Model> {
    let model = llama(WeightDtype::Q8_0, Precision::Stored, Compute::Bf16);
    group.members().iter().map(|on| model.clone().onto(on).unwrap()).collect()
}

fn placed(model: &Model) -> Adapter {
    placed_with(model, lora(8))
}

fn placed_with(model: &Model, config: AdapterConfig) -> Adapter {
    let mut adapter = adapter(model, config);
    adapter.place(model.device().unwrap()).unwrap();
    adapter
}

fn values(adapter: &Adapter) -> Vec<f32> {
    let placed = adapter.placed().unwrap();
    placed.on().download_floats(placed.values()).unwrap()
}

/// Five micro-batches: of two and of three devices some have fewer than others, of eight some have none. What dropout leaves out
/// follows from the row, wherever it is; a magnitude's gradient is summed as a matrix' is.
#[test]
fn devices_make_the_step_of_one() {
    step_of_one(lora(8), &[3, 8]);
    step_of_one(AdapterConfig { method: "dora".into(), dropout: 0.25, ..lora(3) }, &[2]);
}

fn step_of_one(config: AdapterConfig, devices_of: &[usize]) {
    let rows = rows(&[(24, 9), (60, 4), (24, 30), (0, 17), (0, 40)]);
    let batches: Vec<Vec<&Tokenized>> = rows.iter().map(|r| vec![r]).collect();
    let settings = settings();
    let lone = models(&devices(1)).remove(0);
    let alone = placed_with(&lone, config.clone());
    let want = step_gradient(&Place::new(&lone, &alone, &settings), &batches).unwrap();
    let wanted = gradients(&alone);
    for &n in devices_of {
        let group = devices(n);
        let models = models(&group);
        let own = placed_with(&models[0], config.clone());
        let mut moments = AdamW::new(settings.adamw, own.buffers().map(<[f32]>::len));
        let together = OnDevice::over(&own, &moments, &models[1..], Some(&group)).unwrap();
        let at = Place { others: together.others(), ..Place::new(&models[0], &own, &settings) };
        let got = step_gradient(&at, &batches).unwrap();
        // Each micro-batch is computed as before, wherever.
        assert_eq!(got.loss.to_bits(), want.loss.to_bits(), "{n}: loss {} for {}", got.loss, want.loss);
        assert_eq!((got.tokens, got.supervised_tokens), (want.tokens, want.supervised_tokens));
        assert_eq!(got.correct, want.correct);
        let part = furthest(&gradients(&own).concat(), &wanted.concat());
        assert!(part > 0.01, "{n}: one device has all of the gradient");
        let norm = together.norm(&own).unwrap();
        let far = furthest(&gradients(&own).concat(), &wanted.concat());
        assert!(far <= 2e-6, "{n}: the sum is {far:.1e} from that of one device");
        let factor = clip_factor(norm, settings.max_grad_norm);
        together.step(&own, &mut moments, settings.learning_rate, factor).unwrap();
        let after = values(&own);
        assert!(furthest(&after, &values(&alone)) > 1e-3, "{n}: nothing was learned");
        for replica in together.others() {
            let theirs = values(&replica.adapter);
            assert!(after.iter().zip(&theirs).all(|(a, b)| a.to_bits() == b.to_bits()), "{n}: they differ");
            assert!(gradients(&replica.adapter).iter().flatten().all(|g| *g == 0.0), "{n}: left over");
        }
    }
}

/// The reference is an adapter too, and must be found on each device.
#[test]
fn devices_share_preference_optimisation() {
    let rows = pairs();
    let loss = Dpo { beta: 0.5, ..Dpo::default() };
    shared(&[vec![0], vec![1]], &|reference| {
        Box::new(Pairs {
            rows: PairRows { train: &rows, validation: &[] },
            loss: &loss,
            reference,
            sharing: Sharing::AcrossRows,
            displacement: Displacement::new(OnDisplacement::Warn, 0.1),
        })
    });
}

/// Its estimate of the KL is one for all devices.
#[test]
fn devices_share_labelled_answers() {
    let (rows, mismatched) = labelled();
    shared(&[vec![0, 3], vec![1]], &|reference| {
        let rows = LabelledRows {
            train: &rows,
            validation: &[],
            train_mismatched: &mismatched,
            validation_mismatched: &[],
        };
        let loss = Kto { beta: 0.5, ..Kto::default() };
        Box::new(Labels { rows, loss, reference, sharing: Sharing::AcrossRows })
    });
}

pub fn shared<'a>(batches: &[Vec<usize>], objective: &dyn Fn(Reference) -> Box<dyn Objective + 'a>) {
    let settings = settings();
    let step = |models: &[Model], group: Option<&Group>| {
        let own = placed(&models[0]);
        let moments = AdamW::new(settings.adamw, own.buffers().map(<[f32]>::len));
        let together = OnDevice::over(&own, &moments, &models[1..], group).unwrap();
        let at = Place { others: together.others(), ..Place::new(&models[0], &own, &settings) };
        let step = objective(Reference::new(models.iter().map(placed))).step(&at, batches).unwrap();
        (step, together.norm(&own).unwrap())
    };
    let (want, norm) = step(&models(&devices(1)), None);
    let group = devices(2);
    let (got, together) = step(&models(&group), Some(&group));
    assert!((got.loss - want.loss).abs() <= 1e-12 * want.loss, "loss {} for {}", got.loss, want.loss);
    assert!((together - norm).abs() <= 1e-5 * norm, "norm {together} for {norm}");
    assert_eq!((got.tokens, got.judged_tokens, got.correct), (want.tokens, want.judged_tokens, want.correct));
    let figures = |m: &galen_loss::Metrics| m.iter().map(|(k, v)| (k.to_owned(), v)).collect::<Vec<_>>();
    for ((name, got), (other, want)) in figures(&got.metrics).iter().zip(figures(&want.metrics)) {
        assert!(*name == other && (got - want).abs() <= 1e-9 + 1e-9 * want.abs(), "{name}: {got} for {want}");
    }
}

/// Told of a run; stops it after a step.
struct Told<'a>(&'a AtomicBool, Option<u64>);

impl Observer for Told<'_> {
    fn step(&mut self, report: &StepReport, _: u64) {
        assert_eq!(report.device, "cuda:0, cuda:1");
        self.0.store(self.1 == Some(report.step), Ordering::Relaxed);
    }
    fn validation(&mut self, _: u64, _: &Validation) {}
    fn note(&mut self, _: &str) {}
}

fn run(rows: &[Tokenized], dir: &Path, settings: &TrainSettings, stop_after: Option<u64>) -> Outcome {
    let group = devices(2);
    let models = models(&group);
    let flag = AtomicBool::new(false);
    let newest = checkpoint::list(dir).pop();
    let run = Run {
        model: &models[0],
        others: &models[1..],
        group: Some(&group),
        adapter: adapter(&models[0], lora(8)),
        base: BaseRecord { name: Some("made-up/base".into()), revision: None },
        held_out: None,
        objective: &mut Sft { train: rows, validation: &rows[..2] },
        settings: settings.clone(),
        dir: dir.into(),
        fingerprint: BTreeMap::new(),
        stop: &flag,
    };
    run.run(newest.as_ref().map(|(_, p)| p.as_path()), &mut Told(&flag, stop_after)).unwrap()
}

#[test]
fn a_run_on_devices_that_was_stopped_goes_on_to_the_same_bits() {
    let rows = rows(&[(12, 3), (12, 9), (0, 11), (0, 6)]);
    let settings = TrainSettings {
        micro_batch_size: 1,
        gradient_accumulation_steps: 2,
        eval: Cadence::Steps(2),
        ..settings()
    };
    let bits = |o: &Outcome| o.adapter.buffers().flatten().map(|v| v.to_bits()).collect::<Vec<_>>();
    let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let want = run(&rows, whole.path(), &settings, None);
    assert!(want.reports.len() == 3 && want.reports[2].loss < want.reports[0].loss);
    let stopped = run(&rows, parts.path(), &settings, Some(1));
    assert!(stopped.interrupted && bits(&stopped) != bits(&want));
    let got = run(&rows, parts.path(), &settings, None);
    assert!(bits(&got) == bits(&want), "resuming gives other bits");
}

#[test]
fn what_does_not_fit_a_group_is_an_error() {
    let group = devices(2);
    let [first, second] = [0, 1].map(|i| group.members()[i].upload_floats(&[1.0, 2.0]).unwrap());
    assert!(group.sum(&[&first], 2).unwrap_err().to_string().contains("1 buffers for 2 devices"));
    assert!(group.sum(&[&first, &second], 3).is_err());
    group.sum(&[&first, &second], 1).unwrap();
    assert_eq!(group.members()[1].download_floats(&second).unwrap(), [2.0, 2.0]);
    assert!(Group::by_host(vec![]).is_err());
    assert_eq!(group.arithmetic(), "cuda, sums by the host");
}
