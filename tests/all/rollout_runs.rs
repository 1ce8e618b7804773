//! Runs that learn from sampled answers: stopping and going on, and rewards that fail.

use crate::preference::{Stop, bits, log};
use crate::random::{Random, ids};
use crate::support::{adapter, lora, settings, tiny};
use galen_adapter::BaseRecord;
use galen_data::pack::Sharing;
use galen_loss::rollout::{AGGREGATIONS, Grpo, SCALES};
use galen_model::{End, Model, Rollouts, Sampling, StepKernels};
use galen_train::preference::Reference;
use galen_train::rollout::{
    Judge, JudgedAnswer, Keep, LengthDrift, Part, Policy, PolicyLoss, PromptRows, RolloutSettings, Scores,
    Store,
};
use galen_train::{Cadence, Error, Outcome, Result, Run, TrainSettings, checkpoint};
use galen_types::{Origin, TokenizedPrompt};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tempfile::tempdir;

/// Likes tokens of even number; fails at one of its calls in training.
struct Even {
    calls: AtomicUsize,
    fails_at: Option<usize>,
    seen: Mutex<Vec<Vec<u32>>>,
}

impl Even {
    fn new(fails_at: Option<usize>) -> Self {
        Self { calls: AtomicUsize::new(0), fails_at, seen: Mutex::default() }
    }
}

impl Judge for Even {
    fn functions(&self) -> Vec<(String, f64)> {
        vec![("even".into(), 1.0)]
    }

    fn score(&self, part: Part, answers: &[JudgedAnswer]) -> std::result::Result<Scores, String> {
        if part == Part::Train {
            *self.seen.lock().expect("whole") = answers.iter().map(|a| a.ids.to_vec()).collect();
            let call = self.calls.fetch_add(1, Ordering::Relaxed);
            if self.fails_at == Some(call) {
                return Err("reward `even`: `judge` was killed".into());
            }
        }
        let even = |a: &JudgedAnswer| {
            let even = a.ids.iter().filter(|id| id.is_multiple_of(2)).count() as f64 / a.ids.len() as f64;
            even + f64::from(u8::from(a.end == End::Stop)) / 10.0
        };
        let totals: Vec<Option<f64>> = answers.iter().map(|a| Some(even(a))).collect();
        let values = totals.iter().map(|v| vec![*v]).collect();
        Ok(Scores { values, totals, texts: answers.iter().map(|a| format!("{:?}", a.ids)).collect() })
    }

    fn prompt(&self, _: Part, row: usize) -> String {
        format!("prompt {row}")
    }
}

/// Six steps in three samplings, to the end or until `stop_after`, from the newest checkpoint there is.
fn run(model: &Model, judge: &Even, dir: &Path, stop_after: Option<u64>) -> Result<Outcome> {
    let r = &mut Random::new(5);
    let prompt = |i: u64, r: &mut Random| {
        TokenizedPrompt::new(Origin::new("test", i + 1), i, ids(r, 9, model.config.vocab_size)).expect("one")
    };
    let prompts: Vec<TokenizedPrompt> = (0..8).map(|i| prompt(i, r)).collect();
    let all: Vec<&TokenizedPrompt> = prompts.iter().collect();
    let start = adapter(model, lora(4, 8.0));
    let loss = Grpo { beta: 0.1, ..Grpo::default() };
    let mut policy = Policy {
        rows: PromptRows { train: &all[..6], validation: &all[6..] },
        loss: PolicyLoss::Grpo { loss, scale: SCALES[0], aggregation: AGGREGATIONS[0] },
        settings: RolloutSettings {
            num_generations: 4,
            num_iterations: 2,
            answers_per_pass: 3,
            mask_truncated: false,
            rollouts: Rollouts {
                sampling: Sampling { temperature: 1.0, ..Sampling::default() },
                max_tokens: 6,
                stop_ids: vec![3],
                together: 5,
                kernels: StepKernels::Blocks,
            },
            seed: 11,
        },
        reference: Reference::new(Some(start.clone())),
        sharing: Sharing::AcrossRows,
        judge,
        drift: LengthDrift::default(),
        store: Store::new(dir.into(), "test".into(), Keep::All),
    };
    let newest = checkpoint::list(dir).pop();
    let flag = AtomicBool::new(false);
    let run = Run {
        model,
        others: &[],
        group: None,
        adapter: start,
        base: BaseRecord { name: Some("made-up/base".into()), revision: None },
        held_out: None,
        objective: &mut policy,
        settings: TrainSettings {
            micro_batch_size: 2,
            gradient_accumulation_steps: 1,
            num_iterations: 2,
            total_steps: 6,
            learning_rate: 5e-3,
            eval: Cadence::Steps(3),
            save: Cadence::Steps(4),
            ..settings()
        },
        dir: dir.into(),
        fingerprint: BTreeMap::new(),
        stop: &flag,
    };
    run.run(newest.as_ref().map(|(_, p)| p.as_path()), &mut Stop(&flag, stop_after))
}

fn completions(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("completions.jsonl")).expect("the answers")
}

#[test]
fn a_run_interrupted_after_any_step_goes_on_to_the_same_bits() {
    let model = tiny("llama_tied");
    let want_dir = tempdir().expect("a directory");
    let want = run(&model, &Even::new(None), want_dir.path(), None).expect("a run");
    assert!(want.reports.iter().all(|r| r.grad_norm > 0.0), "every step learns");
    assert_eq!(completions(want_dir.path()).lines().count(), 3 * 8);
    // Half-way through a sampling too: its answers are in the checkpoint.
    for step in 1..6 {
        let dir = tempdir().expect("a directory");
        assert!(run(&model, &Even::new(None), dir.path(), Some(step)).expect("a run").interrupted);
        let got = run(&model, &Even::new(None), dir.path(), None).expect("a run");
        assert!(bits(&got) == bits(&want), "after step {step}: the adapter differs");
        assert_eq!(got.state, want.state, "after step {step}");
        assert_eq!(log(dir.path()), log(want_dir.path()), "after step {step}");
        assert_eq!(completions(dir.path()), completions(want_dir.path()), "after step {step}");
    }
}

#[test]
fn a_reward_that_fails_costs_no_step_and_no_answer() {
    let model = tiny("llama_tied");
    let want_dir = tempdir().expect("a directory");
    let want = run(&model, &Even::new(None), want_dir.path(), None).expect("a run");
    for sampling in 0..3 {
        let dir = tempdir().expect("a directory");
        let failing = Even::new(Some(sampling));
        let Err(e) = run(&model, &failing, dir.path(), None) else { panic!("the reward failed") };
        assert!(matches!(e, Error::Judge { step, .. } if step == 2 * sampling as u64 + 1), "{e}");
        assert!(e.to_string().contains("`judge` was killed\nhint: "), "{e}");
        // What was trained before is in a checkpoint, though none was due.
        let newest = checkpoint::list(dir.path()).pop().map(|(step, _)| step);
        assert_eq!(newest, (sampling > 0).then_some(2 * sampling as u64));
        let mended = Even::new(None);
        let got = run(&model, &mended, dir.path(), None).expect("a run");
        assert_eq!(mended.calls.into_inner(), 3 - sampling, "nothing is judged twice");
        assert!(bits(&got) == bits(&want), "sampling {sampling}: the adapter differs");
        assert_eq!(completions(dir.path()), completions(want_dir.path()));
        assert!(!dir.path().join("pending_rollouts.json").exists());
    }
}

#[test]
fn answers_that_wait_are_judged_and_not_drawn_again() {
    let model = tiny("llama_tied");
    let dir = tempdir().expect("a directory");
    let failing = Even::new(Some(0));
    assert!(run(&model, &failing, dir.path(), None).is_err());
    let path = dir.path().join("pending_rollouts.json");
    let mut pending: Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    let token = pending["answers"][5]["ids"][0].as_u64().expect("a token");
    let other = if token == 20 { 21 } else { 20 };
    pending["answers"][5]["ids"][0] = other.into();
    std::fs::write(&path, pending.to_string()).expect("a file");
    let judge = Even::new(Some(1));
    assert!(run(&model, &judge, dir.path(), None).is_err());
    let first = completions(dir.path());
    assert!(first.lines().nth(5).expect("a line").contains(&format!("\"completion\":\"[{other}")), "{first}");

    // What is no sound set of answers is not taken: they are drawn anew.
    for broken in ["", "{", "{\"key\":\"test\"}", "[]"] {
        let dir = tempdir().expect("a directory");
        std::fs::write(dir.path().join("pending_rollouts.json"), broken).expect("a file");
        let judge = Even::new(Some(0));
        assert!(run(&model, &judge, dir.path(), None).is_err());
        assert_eq!(*judge.seen.lock().expect("whole"), *failing.seen.lock().expect("whole"), "{broken}");
    }
}
