//! Runs that stop and go on: the same bits as the run that did not stop, and refusals that say why.

use crate::random::{Random, ids};
use crate::support::{adapter, lora, row, settings, tiny};
use galen_adapter::{Adapter, AdapterConfig, BaseRecord, METHODS, load_peft};
use galen_model::Model;
use galen_train::{
    Cadence, Error, Observer, Outcome, Run, Sft, TrainSettings, Validation, checkpoint, module_shapes,
};
use galen_types::{StepReport, Tokenized};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::{TempDir, tempdir};

/// A model and data: ten training rows in steps of two micro-batches of two, so three steps an epoch, the last
/// smaller.
struct Lab {
    model: Model,
    method: &'static str,
    train: Vec<Tokenized>,
    validation: Vec<Tokenized>,
    fingerprint: BTreeMap<String, String>,
}

/// Sets the stop flag after a step, and keeps what it is told.
#[derive(Default)]
struct Watch {
    stop: AtomicBool,
    stop_after: Option<u64>,
    validations: Vec<u64>,
    notes: Vec<String>,
}

struct Told<'a>(&'a AtomicBool, Option<u64>, &'a mut Vec<u64>, &'a mut Vec<String>);

impl Observer for Told<'_> {
    fn step(&mut self, report: &StepReport, _: u64) {
        self.0.store(self.1.is_some_and(|s| report.step >= s), Ordering::Relaxed);
    }
    fn validation(&mut self, step: u64, _: &Validation) {
        self.2.push(step);
    }
    fn note(&mut self, text: &str) {
        self.3.push(text.into());
    }
}

impl Lab {
    fn new() -> Self {
        let model = tiny("llama_tied");
        let r = &mut Random::new(31);
        let mut made = |n: usize, from: u64| -> Vec<Tokenized> {
            let one = |i: usize| {
                let len = 6 + r.below(12);
                let mask: Vec<bool> = (0..len).map(|t| t > len / 3).collect();
                row(from + i as u64, &ids(r, len, model.config.vocab_size), &mask)
            };
            (0..n).map(one).collect()
        };
        let (train, validation) = (made(10, 0), made(3, 100));
        let fingerprint = [("learning_rate", "0.001"), ("train.jsonl", "ab12")];
        let fingerprint = fingerprint.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        Self { model, method: "lora", train, validation, fingerprint }
    }

    fn settings() -> TrainSettings {
        TrainSettings {
            micro_batch_size: 2,
            gradient_accumulation_steps: 2,
            total_steps: 8,
            lr_scheduler: "cosine".into(),
            learning_rate: 5e-3,
            warmup_steps: 2,
            eval: Cadence::Steps(2),
            save: Cadence::Steps(3),
            ..settings()
        }
    }

    fn run(
        &self,
        dir: &Path,
        s: TrainSettings,
        resume: bool,
        watch: &mut Watch,
    ) -> galen_train::Result<Outcome> {
        let adapter = self.adapter();
        self.run_with(adapter, dir, s, resume, watch)
    }

    fn adapter(&self) -> Adapter {
        adapter(&self.model, AdapterConfig { method: self.method.into(), dropout: 0.2, ..lora(4, 8.0) })
    }

    fn run_with(
        &self,
        adapter: Adapter,
        dir: &Path,
        settings: TrainSettings,
        resume: bool,
        watch: &mut Watch,
    ) -> galen_train::Result<Outcome> {
        let newest = checkpoint::list(dir).pop().filter(|_| resume);
        let run = Run {
            model: &self.model,
            others: &[],
            group: None,
            adapter,
            base: BaseRecord { name: Some("made-up/base".into()), revision: None },
            held_out: None,
            objective: &mut Sft { train: &self.train, validation: &self.validation },
            settings,
            dir: dir.into(),
            fingerprint: self.fingerprint.clone(),
            stop: &watch.stop,
        };
        let mut told = Told(&watch.stop, watch.stop_after, &mut watch.validations, &mut watch.notes);
        run.run(newest.as_ref().map(|(_, p)| p.as_path()), &mut told)
    }

    /// Runs until after `step`.
    fn until(&self, dir: &Path, step: u64, resume: bool) {
        let mut watch = Watch { stop_after: Some(step), ..Watch::default() };
        let outcome = self.run(dir, Self::settings(), resume, &mut watch).expect("a run");
        assert!(outcome.interrupted && outcome.state.step == step);
    }
}

fn values(adapter: &Adapter) -> Vec<u32> {
    adapter.layers().iter().flat_map(|l| &l.values).map(|v| v.to_bits()).collect()
}

/// The log without what a clock or the system says.
fn log(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("log.jsonl")).expect("a log");
    let rows = text.lines().map(|line| {
        let mut row: Value = serde_json::from_str(line).expect("a row of JSON");
        for key in ["tokens_per_second", "step_seconds", "peak_rss_bytes"] {
            row.as_object_mut().expect("an object").remove(key);
        }
        row
    });
    rows.collect()
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |e: std::io::Result<std::fs::DirEntry>| {
        let path = e.expect("an entry").path();
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
        (name, std::fs::read(&path).expect("a file"))
    };
    std::fs::read_dir(dir).expect("a directory").map(read).collect()
}

fn steps_kept(dir: &Path) -> Vec<u64> {
    checkpoint::list(dir).into_iter().map(|(s, _)| s).collect()
}

fn assert_same_run(what: &str, (got, got_dir): (&Outcome, &Path), (want, want_dir): (&Outcome, &Path)) {
    assert!(values(&got.adapter) == values(&want.adapter), "{what}: the adapter differs");
    assert_eq!(got.state, want.state, "{what}: the final state");
    assert_eq!(log(got_dir), log(want_dir), "{what}: the log");
    for (step, path) in checkpoint::list(want_dir) {
        let (got, want) = (files(&got_dir.join(format!("checkpoint-{step}"))), files(&path));
        assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "{what}: files");
        for (name, bytes) in want {
            assert!(got[&name] == bytes, "{what}: checkpoint-{step}/{name} differs");
        }
    }
}

fn whole(lab: &Lab) -> (TempDir, Outcome) {
    let dir = tempdir().expect("a directory");
    let outcome = lab.run(dir.path(), Lab::settings(), false, &mut Watch::default()).expect("a run");
    assert_eq!((outcome.state.step, outcome.interrupted), (8, false));
    assert_eq!(steps_kept(dir.path()), [3, 6, 8]);
    (dir, outcome)
}

#[test]
fn a_run_interrupted_after_any_step_goes_on_to_the_same_bits() {
    let lab = Lab::new();
    let (want_dir, want) = whole(&lab);
    let losses: Vec<f64> = want.reports.iter().map(|r| r.loss).collect();
    assert!(losses[7] < losses[0], "the run learns: {losses:?}");
    for step in 1..8 {
        let dir = tempdir().expect("a directory");
        lab.until(dir.path(), step, false);
        let got = lab.run(dir.path(), Lab::settings(), true, &mut Watch::default()).expect("a run");
        let what = format!("interrupted after step {step}");
        assert_eq!(got.reports.len() as u64, 8 - step, "{what}: steps after the resume");
        assert_same_run(&what, (&got, dir.path()), (&want, want_dir.path()));
    }
    // Interrupted after every step.
    let dir = tempdir().expect("a directory");
    for step in 1..8 {
        lab.until(dir.path(), step, step > 1);
    }
    let got = lab.run(dir.path(), Lab::settings(), true, &mut Watch::default()).expect("a run");
    assert_same_run("interrupted after every step", (&got, dir.path()), (&want, want_dir.path()));
    // Resuming what is finished changes nothing.
    let before = log(dir.path());
    let again = lab.run(dir.path(), Lab::settings(), true, &mut Watch::default()).expect("a run");
    assert!(again.reports.is_empty() && values(&again.adapter) == values(&want.adapter));
    assert_eq!(log(dir.path()), before);
}

#[test]
fn a_run_of_every_method_goes_on_to_the_same_bits() {
    for method in METHODS.iter().map(|m| m.name()).filter(|m| *m != "lora") {
        let lab = Lab { method, ..Lab::new() };
        let (want_dir, want) = whole(&lab);
        let losses: Vec<f64> = want.reports.iter().map(|r| r.loss).collect();
        assert!(losses[7] < losses[0], "{method} learns: {losses:?}");
        let start = lab.adapter();
        for (layer, was) in want.adapter.layers().iter().zip(start.layers()) {
            for range in layer.entries.iter().flat_map(|e| &e.ranges) {
                assert!(layer.values[range.clone()] != was.values[range.clone()], "{method}: not trained");
            }
        }
        for step in [1, 4] {
            let dir = tempdir().expect("a directory");
            lab.until(dir.path(), step, false);
            let got = lab.run(dir.path(), Lab::settings(), true, &mut Watch::default()).expect("a run");
            assert_same_run(&format!("{method} after {step}"), (&got, dir.path()), (&want, want_dir.path()));
        }
    }
}

#[test]
fn what_a_kill_leaves_behind_is_ignored_and_removed() {
    let lab = Lab::new();
    let (want_dir, want) = whole(&lab);
    let dir = tempdir().expect("a directory");
    lab.until(dir.path(), 5, false);
    // As if killed in the middle of writing checkpoint-5: it has no name yet, the log is ahead and cut off.
    std::fs::rename(dir.path().join("checkpoint-5"), dir.path().join(".tmp-checkpoint-x")).expect("a rename");
    std::fs::remove_file(dir.path().join(".tmp-checkpoint-x/trainer_state.json")).expect("a file");
    std::fs::write(dir.path().join(".tmp-log.jsonl"), "{").expect("a file");
    let path = dir.path().join("log.jsonl");
    let text = std::fs::read_to_string(&path).expect("a log") + "{\"step\":6,\"epo";
    std::fs::write(&path, text).expect("a log");
    let mut watch = Watch::default();
    let got = lab.run(dir.path(), Lab::settings(), true, &mut watch).expect("a run");
    assert!(watch.notes[0].contains("after step 3"), "{:?}", watch.notes);
    assert_same_run("killed while writing", (&got, dir.path()), (&want, want_dir.path()));
    let left: Vec<String> = std::fs::read_dir(dir.path())
        .expect("a directory")
        .map(|e| e.expect("an entry").file_name().into_string().expect("a name"))
        .filter(|n| n.starts_with(".tmp-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_changed_fingerprint_is_refused_by_name() {
    let mut lab = Lab::new();
    let dir = tempdir().expect("a directory");
    lab.until(dir.path(), 3, false);
    let original = lab.fingerprint.clone();
    let mut refused = |change: &dyn Fn(&mut BTreeMap<String, String>), words: &[&str]| {
        lab.fingerprint = original.clone();
        change(&mut lab.fingerprint);
        let before = log(dir.path());
        let error = lab.run(dir.path(), Lab::settings(), true, &mut Watch::default()).err();
        let error = error.expect("a refusal").to_string();
        for word in words {
            assert!(error.contains(word), "{word} is not in: {error}");
        }
        assert_eq!(log(dir.path()), before, "the log of the run that stands is untouched");
    };
    refused(
        &|f| drop(f.insert("train.jsonl".into(), "cd34".into())),
        &["train.jsonl", "ab12", "cd34", "checkpoint-3"],
    );
    refused(&|f| drop(f.insert("lora_r".into(), "4".into())), &["lora_r", "(absent)"]);
    refused(&|f| drop(f.remove("learning_rate")), &["learning_rate", "(absent)"]);
}

/// A learning rate at which the first validations are the best.
fn overshooting() -> TrainSettings {
    TrainSettings {
        learning_rate: 0.3,
        warmup_steps: 0,
        lr_scheduler: "constant".into(),
        eval: Cadence::Steps(1),
        save: Cadence::Steps(1),
        load_best_model_at_end: true,
        ..Lab::settings()
    }
}

fn saved_adapter(lab: &Lab, dir: &Path, step: u64) -> Vec<u32> {
    let path = dir.join(format!("checkpoint-{step}"));
    values(&load_peft(&path, &module_shapes(&lab.model), 7).expect("an adapter").0)
}

#[test]
fn the_limit_keeps_the_best_and_the_newest_and_the_best_is_the_result() {
    let mut lab = Lab::new();
    // What is validated is what is trained, for three steps down the loss and then up it.
    lab.validation = lab.train.clone();
    for limit in [1, 2, 3] {
        let dir = tempdir().expect("a directory");
        let downhill = TrainSettings { save_total_limit: Some(limit), learning_rate: 0.01, ..overshooting() };
        let uphill = TrainSettings { learning_rate: -0.03, ..downhill.clone() };
        let mut watch = Watch { stop_after: Some(3), ..Watch::default() };
        lab.run(dir.path(), downhill, false, &mut watch).expect("a run");
        let outcome = lab.run(dir.path(), uphill, true, &mut Watch::default()).expect("a run");
        let losses: Vec<f64> = log(dir.path()).iter().filter_map(|r| r["eval_loss"].as_f64()).collect();
        let least = (0..8).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).expect("validations") as u64 + 1;
        assert_eq!(least, 3, "the run must get worse for this test: {losses:?}");
        assert_eq!(outcome.state.best.as_ref().map(|(step, _)| *step), Some(3));
        let want = if limit == 3 { vec![3, 7, 8] } else { vec![3, 8] };
        assert_eq!(steps_kept(dir.path()), want, "limit {limit}");
        assert!(
            values(&outcome.adapter) == saved_adapter(&lab, dir.path(), 3),
            "the best adapter is the result"
        );
        assert!(values(&outcome.adapter) != saved_adapter(&lab, dir.path(), 8));
    }
    let dir = tempdir().expect("a directory");
    let settings = TrainSettings { load_best_model_at_end: false, save: Cadence::Never, ..overshooting() };
    let outcome = lab.run(dir.path(), settings, false, &mut Watch::default()).expect("a run");
    assert_eq!(steps_kept(dir.path()), [8], "the last step is always saved");
    assert!(values(&outcome.adapter) == saved_adapter(&lab, dir.path(), 8), "the last adapter is the result");
}

#[test]
fn early_stopping_waits_as_long_as_it_is_told() {
    let lab = Lab::new();
    for patience in [1, 3] {
        let dir = tempdir().expect("a directory");
        let settings = TrainSettings {
            early_stopping_patience: Some(patience),
            total_steps: 40,
            save: Cadence::Never,
            ..overshooting()
        };
        let mut watch = Watch::default();
        let outcome = lab.run(dir.path(), settings, false, &mut watch).expect("a run");
        let losses: Vec<f64> = log(dir.path()).iter().filter_map(|r| r["eval_loss"].as_f64()).collect();
        let (mut best, mut stale, mut stop) = (f64::INFINITY, 0, 0);
        for (i, loss) in losses.iter().enumerate() {
            (best, stale) = if *loss < best { (*loss, 0) } else { (best, stale + 1) };
            if stale == patience {
                stop = i + 1;
                break;
            }
        }
        assert_eq!(outcome.state.step, stop as u64, "patience {patience}: {losses:?}");
        assert_eq!(losses.len(), stop, "no validation after the stop");
        assert!(!outcome.interrupted && watch.notes.iter().any(|n| n.contains("stopping early")));
        assert_eq!(steps_kept(dir.path()).last(), Some(&(stop as u64)));
        let best = outcome.state.best.expect("a best validation").0;
        assert!(values(&outcome.adapter) == saved_adapter(&lab, dir.path(), best));
    }
}

#[test]
fn numbers_that_are_not_finite_stop_the_run_with_step_rows_and_checkpoint() {
    let lab = Lab::new();
    let dir = tempdir().expect("a directory");
    let absurd = TrainSettings { learning_rate: 1e30, ..overshooting() };
    let error = lab.run(dir.path(), absurd, false, &mut Watch::default()).err().expect("a stop");
    assert!(matches!(error, Error::NotFinite { step: 2, .. }), "{error}");
    let text = error.to_string();
    for word in ["step 2", "test:", "checkpoint-1", "hint:"] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
    assert_eq!(log(dir.path()).last().expect("a row")["step"], 1);
    assert_eq!(steps_kept(dir.path()), [1]);

    for bad in [f32::NAN, f32::INFINITY] {
        let dir = tempdir().expect("a directory");
        let mut broken = lab.adapter();
        let (key, n) = broken.tensors().next().map(|(k, _, v)| (k, v.len())).expect("a matrix");
        let mut matrix = vec![0.01; n];
        matrix[n / 2] = bad;
        assert!(broken.set(&key, &matrix));
        let before = values(&broken);
        let error = lab.run_with(broken.clone(), dir.path(), Lab::settings(), false, &mut Watch::default());
        let text = error.err().expect("a stop").to_string();
        for word in ["step 1", "test:", "none yet"] {
            assert!(text.contains(word), "{word} is not in: {text}");
        }
        assert!(values(&broken) == before && steps_kept(dir.path()).is_empty());
    }
}

#[test]
fn the_watchdog_stops_a_run_whose_loss_stays_high() {
    let lab = Lab::new();
    let dir = tempdir().expect("a directory");
    let settings =
        TrainSettings { loss_watchdog_threshold: Some(0.01), loss_watchdog_patience: 4, ..Lab::settings() };
    let error = lab.run(dir.path(), settings, false, &mut Watch::default()).err().expect("a stop");
    assert!(matches!(error, Error::Watchdog { step: 4, patience: 4, .. }), "{error}");
    // What it stopped at is there to be looked at, and to go on from.
    assert_eq!(log(dir.path()).iter().filter(|row| row["loss"].is_number()).count(), 4);
    assert_eq!(checkpoint::list(dir.path()).pop().map(|(step, _)| step), Some(4));
}

/// A line that a full disk cut off within a character.
#[test]
fn a_torn_log_is_no_obstacle() {
    let lab = Lab::new();
    let dir = tempdir().expect("a directory");
    lab.until(dir.path(), 3, false);
    let path = dir.path().join("log.jsonl");
    let mut bytes = std::fs::read(&path).expect("a log");
    let whole = bytes.len();
    bytes.extend(b"{\"step\": 4, \"note\": \"\xe5\x92");
    std::fs::write(&path, &bytes).expect("a torn line");
    lab.until(dir.path(), 4, true);
    let after = std::fs::read(&path).expect("a log");
    assert!(after.starts_with(&bytes[..whole]) && std::str::from_utf8(&after).is_ok());
}

/// The best checkpoint comes along into another folder, or its absence is said before anything is trained.
#[test]
fn the_best_so_far_comes_along_into_another_folder() {
    let lab = Lab::new();
    let [old, new] = [(); 2].map(|()| tempdir().expect("a directory"));
    let settings = TrainSettings {
        load_best_model_at_end: true,
        // Nothing is better than the first.
        metric_for_best_model: galen_train::BestMetric { name: "eval_loss".into(), greater_is_better: true },
        learning_rate: 5e-2,
        ..Lab::settings()
    };
    let mut watch = Watch { stop_after: Some(6), ..Watch::default() };
    let stopped = lab.run(old.path(), settings.clone(), false, &mut watch).expect("a run");
    let best = stopped.state.best.as_ref().map(|(step, _)| *step).expect("a best");
    assert!(stopped.interrupted && best < 6, "{best}");
    let from = old.path().join("checkpoint-6");
    let go = |settings: TrainSettings| {
        let run = Run {
            model: &lab.model,
            others: &[],
            group: None,
            adapter: lab.adapter(),
            base: BaseRecord { name: None, revision: None },
            held_out: None,
            objective: &mut Sft { train: &lab.train, validation: &lab.validation },
            settings,
            dir: new.path().into(),
            fingerprint: lab.fingerprint.clone(),
            stop: &AtomicBool::new(false),
        };
        run.run(Some(&from), &mut Told(&AtomicBool::new(false), None, &mut vec![], &mut vec![]))
    };
    let gone_on = go(settings.clone()).expect("a run");
    let (kept, _) = load_peft(&old.path().join(format!("checkpoint-{best}")), &module_shapes(&lab.model), 0)
        .expect("the best checkpoint");
    assert_eq!(gone_on.state.best.as_ref().map(|(step, _)| *step), Some(best));
    assert!(values(&gone_on.adapter) == values(&kept));
    for folder in [&old, &new] {
        std::fs::remove_dir_all(folder.path().join(format!("checkpoint-{best}"))).expect("removes");
    }
    let e = go(settings).err().expect("a refusal").to_string();
    assert!(e.contains("the best checkpoint so far") && e.contains("load_best_model_at_end"), "{e}");
}
