//! Preference training: what must not change a result (sharing, accumulation, remembering the reference, stopping and going on),
//! and that its gradient is that of its loss.

use crate::random::{Random, ids};
use crate::support::{adapter, lora, settings, tiny};
use galen_adapter::{Adapter, AdapterConfig, BaseRecord};
use galen_data::pack::Sharing;
use galen_data::preference::mismatched;
use galen_loss::Kto;
use galen_loss::pair::{Cpo, Dpo, Orpo, PairObjective};
use galen_model::Model;
use galen_train::preference::{
    Displacement, LabelledRows, Labels, OnDisplacement, PairRows, Pairs, Part, Reference, RowSequences,
};
use galen_train::{
    Cadence, Objective, Observer, Outcome, Place, Run, StepGradient, TrainSettings, Validation, checkpoint,
};
use galen_types::{Origin, StepReport, TokenizedAnswer, TokenizedLabelled, TokenizedPair};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::tempdir;

struct Lab {
    model: Model,
    train: Vec<TokenizedPair>,
    validation: Vec<TokenizedPair>,
    labelled: Vec<TokenizedLabelled>,
    mismatched: Vec<TokenizedAnswer>,
}

fn answer(row: u64, prompt: &[u32], answer: &[u32]) -> TokenizedAnswer {
    let ids = [prompt, answer].concat();
    TokenizedAnswer::new(Origin::new("test", row + 1), row, ids, prompt.len()).expect("a sound row")
}

/// Prompts that begin with the same 12 tokens, answers of which some begin alike.
pub fn pairs(r: &mut Random, n: usize, vocabulary: usize) -> Vec<TokenizedPair> {
    let stem = ids(r, 12, vocabulary);
    let one = |row: u64, r: &mut Random| {
        let len = r.below(14);
        let prompt = [&stem[..], &ids(r, len, vocabulary)].concat();
        let common = ids(r, if row.is_multiple_of(2) { 10 } else { 0 }, vocabulary);
        let side = |r: &mut Random| {
            let len = 1 + r.below(9);
            answer(row, &prompt, &[&common[..], &ids(r, len, vocabulary)].concat())
        };
        let (chosen, rejected) = (side(r), side(r));
        TokenizedPair::new(chosen, rejected, None).expect("a sound pair")
    };
    (0..n as u64).map(|row| one(row, r)).collect()
}

const BATCH: usize = 2;

impl Lab {
    fn new(name: &str) -> Self {
        let model = tiny(name);
        let r = &mut Random::new(77);
        let vocabulary = model.config.vocab_size;
        let (train, validation) = (pairs(r, 8, vocabulary), pairs(r, 3, vocabulary));
        let label = |(i, pair): (usize, &TokenizedPair)| TokenizedLabelled {
            answer: if i.is_multiple_of(3) { pair.rejected().clone() } else { pair.chosen().clone() },
            label: !i.is_multiple_of(3),
        };
        let labelled: Vec<_> = train.iter().enumerate().map(label).collect();
        let mismatched = mismatched(&labelled, BATCH, 512).expect("answers");
        Self { model, train, validation, labelled, mismatched }
    }

    fn adapter(&self, dropout: f32) -> Adapter {
        adapter(&self.model, AdapterConfig { dropout, ..lora(4, 8.0) })
    }

    fn pair_rows(&self) -> PairRows<'_> {
        PairRows { train: &self.train, validation: &self.validation }
    }

    fn pairs<'a>(&'a self, loss: &'a dyn PairObjective, reference: Reference, sharing: Sharing) -> Pairs<'a> {
        let displacement = Displacement::new(OnDisplacement::Warn, 0.1);
        Pairs { rows: self.pair_rows(), loss, reference, sharing, displacement }
    }

    fn labelled_rows(&self) -> LabelledRows<'_> {
        LabelledRows {
            train: &self.labelled,
            validation: &self.labelled[..3],
            train_mismatched: &self.mismatched,
            validation_mismatched: &self.mismatched[..3],
        }
    }

    fn labels(&self, reference: Reference, sharing: Sharing) -> Labels<'_> {
        Labels { rows: self.labelled_rows(), loss: Kto { beta: 0.5, ..Kto::default() }, reference, sharing }
    }

    fn step(&self, objective: &mut dyn Objective, adapter: &Adapter, batches: &[Vec<usize>]) -> StepGradient {
        let settings = settings();
        let at = Place::new(&self.model, adapter, &settings);
        objective.step(&at, batches).expect("a step")
    }
}

fn losses() -> Vec<(&'static str, Box<dyn PairObjective>)> {
    let dpo = |names: &[&str]| Box::new(Dpo { beta: 0.5, ..Dpo::of(names, None).expect("known") });
    vec![
        ("dpo", dpo(&["sigmoid"])),
        ("dpo + sft", dpo(&["apo_zero", "sft"])),
        ("orpo", Box::new(Orpo::default())),
        ("simpo", Box::new(Cpo::of("simpo").expect("known"))),
    ]
}

pub fn assert_close(what: &str, got: &StepGradient, want: &StepGradient) {
    assert!((got.loss - want.loss).abs() <= 1e-6 * want.loss.abs(), "{what}: {} for {}", got.loss, want.loss);
    let largest = want.gradients.iter().flatten().fold(0f32, |m, g| m.max(g.abs()));
    assert!(largest > 0.0, "{what}: there is a gradient");
    for (g, w) in got.gradients.iter().flatten().zip(want.gradients.iter().flatten()) {
        let difference = (g - w).abs();
        assert!(difference <= 1e-6 * largest, "{what}: {g} for {w}, largest {largest}");
    }
    for (name, value) in want.metrics.iter() {
        let other = got.metrics.get(name).unwrap_or(f64::NAN);
        assert!((other - value).abs() <= 1e-4 * value.abs().max(1.0), "{what}: {name} {other} for {value}");
    }
}

pub const ALL: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

#[test]
fn a_shared_prompt_gives_what_sequences_apart_give() {
    for name in ["llama_tied", "qwen3", "gemma3"] {
        let lab = Lab::new(name);
        let adapter = lab.adapter(0.0);
        let batches = [ALL.to_vec()];
        for (loss, objective) in &losses() {
            let made = [Sharing::Apart, Sharing::WithinRow, Sharing::AcrossRows].map(|s| {
                lab.step(&mut lab.pairs(objective.as_ref(), Reference::default(), s), &adapter, &batches)
            });
            assert_close(&format!("{name}, {loss}, within pairs"), &made[1], &made[0]);
            assert_close(&format!("{name}, {loss}, across rows"), &made[2], &made[0]);
        }
        let made = [Sharing::Apart, Sharing::AcrossRows]
            .map(|s| lab.step(&mut lab.labels(Reference::default(), s), &adapter, &batches));
        assert_close(&format!("{name}, kto"), &made[1], &made[0]);
        // With dropout, both answers of a pair have one mask, so sharing within pairs stays exact.
        let adapter = lab.adapter(0.3);
        let dpo = Dpo::default();
        let made = [Sharing::Apart, Sharing::WithinRow]
            .map(|s| lab.step(&mut lab.pairs(&dpo, Reference::default(), s), &adapter, &batches));
        assert_close(&format!("{name}, with dropout"), &made[1], &made[0]);
    }
}

#[test]
fn accumulation_gives_the_larger_batch() {
    let lab = Lab::new("llama_tied");
    let adapter = lab.adapter(0.0);
    let divided = [vec![0, 1, 2], vec![3], vec![4, 5, 6, 7]];
    for (loss, objective) in &losses() {
        let made = [&[ALL.to_vec()][..], &divided].map(|batches| {
            lab.step(
                &mut lab.pairs(objective.as_ref(), Reference::default(), Sharing::AcrossRows),
                &adapter,
                batches,
            )
        });
        assert_close(loss, &made[1], &made[0]);
    }
    let made = [&[ALL.to_vec()][..], &divided].map(|batches| {
        lab.step(&mut lab.labels(Reference::default(), Sharing::AcrossRows), &adapter, batches)
    });
    assert_close("kto", &made[1], &made[0]);
}

/// The loss's slope along its own gradient.
#[test]
fn the_gradient_is_that_of_the_loss() {
    let lab = Lab::new("llama_tied");
    let at = lab.adapter(0.0);
    let batches = [vec![0, 3, 5], vec![6, 1]];
    let objectives = losses();
    let mut all: Vec<(&str, Box<dyn Objective + '_>)> = Vec::new();
    for (name, loss) in &objectives {
        all.push((name, Box::new(lab.pairs(loss.as_ref(), Reference::default(), Sharing::AcrossRows))));
    }
    // Without its KL estimate, which has no gradient by definition.
    let mut kto = lab.labels(Reference::default(), Sharing::AcrossRows);
    kto.rows.train_mismatched = &[];
    all.push(("kto", Box::new(kto)));
    for (name, objective) in &mut all {
        let step = lab.step(objective.as_mut(), &at, &batches);
        let norm: f64 = step.gradients.iter().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let mut loss_at = |distance: f64| {
            let mut moved = at.clone();
            for (values, gradient) in moved.buffers_mut().zip(&step.gradients) {
                values
                    .iter_mut()
                    .zip(gradient)
                    .for_each(|(v, g)| *v += (distance * f64::from(*g) / norm) as f32);
            }
            lab.step(objective.as_mut(), &moved, &batches).loss
        };
        let h = 2e-3;
        let slope = (loss_at(h) - loss_at(-h)) / (2.0 * h);
        assert!((slope - norm).abs() <= 2e-2 * norm, "{name}: slope {slope}, gradient norm {norm}");
    }
}

#[test]
fn the_reference_is_where_training_started() {
    let lab = Lab::new("llama_tied");
    let start = lab.adapter(0.2);
    let dpo = Dpo::default();
    let rows: Vec<usize> = ALL.to_vec();
    let policy = |reference: Reference| {
        let mut pairs = lab.pairs(&dpo, reference, Sharing::WithinRow);
        let settings = settings();
        let at = Place::new(&lab.model, &start, &settings);
        pairs.validate(&at).expect("a validation").expect("rows").metrics
    };
    // From an adapter: its own copy, so that nothing has moved. From the base: it has.
    let own = policy(Reference::new(Some(start.clone())));
    assert_eq!((own["eval_rewards/chosen"], own["eval_reference_kl"]), (0.0, 0.0));
    let base = policy(Reference::new(None));
    assert!(base["eval_rewards/chosen"] != 0.0 && base["eval_reference_kl"] > 0.0);

    // Remembered: the same bits as computed step by step.
    let dir = tempdir().expect("a directory");
    let file = dir.path().join("cache/reference.safetensors");
    let data = lab.labelled_rows();
    let fresh = Reference::new(Some(start.clone()));
    let mut told = 0;
    let mut first = Reference::new(Some(start.clone()));
    first
        .precompute(&lab.model, &data, 3, &file, "key", &mut |done, all| told += u64::from(done <= all))
        .expect("a file");
    assert_eq!(told, 4, "three batches of training rows, one of validation rows");
    let mut second = Reference::new(Some(start.clone()));
    second.precompute(&lab.model, &data, 3, &file, "key", &mut |_, _| told += 100).expect("a file");
    assert_eq!(told, 4, "nothing is computed twice");
    for known in [&first, &second] {
        let of =
            |r: &Reference| r.logps(&lab.model, &data, Part::Train, &rows, Sharing::Apart).expect("logps");
        assert_eq!(of(known), of(&fresh));
    }
    let mut other = Reference::new(Some(start));
    other.precompute(&lab.model, &data, 3, &file, "another key", &mut |_, _| told += 1).expect("a file");
    assert_eq!(told, 8, "another key is computed anew");
    let mut bytes = std::fs::read(&file).expect("a file");
    bytes.truncate(bytes.len() - 4);
    std::fs::write(&file, bytes).expect("a file");
    other.precompute(&lab.model, &data, 3, &file, "another key", &mut |_, _| told += 1).expect("a file");
    assert_eq!(told, 12, "a broken file is computed anew");
    assert_eq!(data.sequences(Part::Train, 0).len(), 2);
}

/// Asks for the end of a run after a step.
pub struct Stop<'a>(pub &'a AtomicBool, pub Option<u64>);

impl Observer for Stop<'_> {
    fn step(&mut self, report: &StepReport, _: u64) {
        self.0.store(self.1.is_some_and(|s| report.step >= s), Ordering::Relaxed);
    }
    fn validation(&mut self, _: u64, _: &Validation) {}
    fn note(&mut self, _: &str) {}
}

/// A run's log without what differs from run to run.
pub fn log(dir: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(dir.join("log.jsonl")).expect("a log");
    let rows = text.lines().map(|line| {
        let mut row: serde_json::Value = serde_json::from_str(line).expect("a row of JSON");
        for key in ["tokens_per_second", "step_seconds", "peak_rss_bytes"] {
            row.as_object_mut().expect("an object").remove(key);
        }
        row
    });
    rows.collect()
}

/// Five steps with validations and checkpoints, or as many as until `stop_after`, from the newest checkpoint there is.
pub fn run_on(
    model: &Model,
    start: Adapter,
    objective: &mut dyn Objective,
    dir: &Path,
    stop_after: Option<u64>,
) -> Outcome {
    let flag = AtomicBool::new(false);
    let newest = checkpoint::list(dir).pop();
    let settings = TrainSettings {
        micro_batch_size: BATCH,
        gradient_accumulation_steps: 2,
        total_steps: 5,
        learning_rate: 5e-3,
        eval: Cadence::Steps(2),
        save: Cadence::Steps(3),
        ..settings()
    };
    let run = Run {
        model,
        others: &[],
        group: None,
        adapter: start,
        base: BaseRecord { name: Some("made-up/base".into()), revision: None },
        held_out: None,
        objective,
        settings,
        dir: dir.into(),
        fingerprint: BTreeMap::new(),
        stop: &flag,
    };
    run.run(newest.as_ref().map(|(_, p)| p.as_path()), &mut Stop(&flag, stop_after)).expect("a run")
}

/// Of everything trained.
pub fn bits(outcome: &Outcome) -> Vec<u32> {
    outcome.adapter.buffers().flatten().map(|v| v.to_bits()).collect()
}

#[test]
fn an_alignment_interrupted_after_any_step_goes_on_to_the_same_bits() {
    let lab = Lab::new("llama_tied");
    let run = |kind: &str, dir: &Path, stop_after: Option<u64>| -> Outcome {
        let dpo = Dpo::default();
        let start = lab.adapter(0.2);
        let reference = Reference::new(Some(start.clone()));
        let mut objective: Box<dyn Objective> = match kind {
            "dpo" => Box::new(lab.pairs(&dpo, reference, Sharing::WithinRow)),
            _ => Box::new(lab.labels(reference, Sharing::WithinRow)),
        };
        run_on(&lab.model, start, objective.as_mut(), dir, stop_after)
    };
    for kind in ["dpo", "kto"] {
        let want_dir = tempdir().expect("a directory");
        let want = run(kind, want_dir.path(), None);
        let margins: Vec<f64> = want.reports.iter().map(|r| r.metrics["rewards/margins"]).collect();
        assert!(margins[4] > margins[0], "{kind} learns: {margins:?}");
        assert!(log(want_dir.path()).iter().any(|row| row["eval_rewards/margins"].is_f64()));
        for step in 1..5 {
            let dir = tempdir().expect("a directory");
            assert!(run(kind, dir.path(), Some(step)).interrupted);
            let got = run(kind, dir.path(), None);
            assert!(bits(&got) == bits(&want), "{kind}, after step {step}: the adapter differs");
            assert_eq!(got.state, want.state, "{kind}, after step {step}");
            assert_eq!(log(dir.path()), log(want_dir.path()), "{kind}, after step {step}");
        }
    }
}
