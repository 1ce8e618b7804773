//! Learning from answers that are sampled on a device.

use crate::devices::shared;
use crate::tiny::{VOCABULARY, llama};
use crate::training::{adapter, check_gradients, gradients, lora, settings};
use galen_adapter::Adapter;
use galen_data::pack::Sharing;
use galen_kernels::place::OnHost;
use galen_loss::rollout::{AGGREGATIONS, Grpo, SCALES};
use galen_model::{Model, Precision, Rollouts, Sampling, StepKernels};
use galen_ops::device::Accelerator;
use galen_ops::ops::Compute;
use galen_ops::quant::WeightDtype;
use galen_testkit::fuzz::Random;
use galen_train::preference::Reference;
use galen_train::rollout::{
    Judge, JudgedAnswer, Keep, LengthDrift, Part, Policy, PolicyLoss, PromptRows, RolloutSettings, Scores,
    Store,
};
use galen_train::{Objective as _, Place, StepGradient};
use galen_types::{Origin, TokenizedPrompt};
use serde_json::{Value, json};
use std::path::Path;

const KEY: &str = "made up";
const GROUP: usize = 3;

/// An answer is worth its share of even tokens.
struct Even;

impl Judge for Even {
    fn functions(&self) -> Vec<(String, f64)> {
        vec![("even".into(), 1.0)]
    }

    fn score(&self, _: Part, answers: &[JudgedAnswer]) -> Result<Scores, String> {
        let even =
            |a: &JudgedAnswer| a.ids.iter().filter(|id| *id % 2 == 0).count() as f64 / a.ids.len() as f64;
        let totals: Vec<Option<f64>> = answers.iter().map(|a| Some(even(a))).collect();
        let values = totals.iter().map(|t| vec![*t]).collect();
        Ok(Scores { values, totals, texts: vec![String::new(); answers.len()] })
    }

    fn prompt(&self, _: Part, _: usize) -> String {
        String::new()
    }
}

fn prompts() -> Vec<TokenizedPrompt> {
    let random = &mut Random::new(31);
    let prompt = |(i, n): (u64, usize)| {
        let ids = (0..n).map(|_| random.below(VOCABULARY) as u32).collect();
        TokenizedPrompt::new(Origin::new("made up", i + 1), i, ids).unwrap()
    };
    [9, 70, 4].into_iter().enumerate().map(|(i, n)| (i as u64, n)).map(prompt).collect()
}

fn policy<'a>(train: &'a [&'a TokenizedPrompt], reference: Reference, dir: &Path) -> Policy<'a> {
    let loss = Grpo { beta: 0.04, ..Grpo::default() };
    Policy {
        rows: PromptRows { train, validation: &[] },
        loss: PolicyLoss::Grpo { loss, scale: SCALES[0], aggregation: AGGREGATIONS[0] },
        settings: RolloutSettings {
            num_generations: GROUP,
            num_iterations: 1,
            answers_per_pass: 2,
            mask_truncated: false,
            rollouts: Rollouts {
                sampling: Sampling { temperature: 1.0, ..Sampling::default() },
                max_tokens: 5,
                stop_ids: vec![0, 1, 2, 3],
                together: 4,
                kernels: StepKernels::Passes,
            },
            seed: 3,
        },
        reference,
        sharing: Sharing::AcrossRows,
        judge: &Even,
        drift: LengthDrift::default(),
        store: Store::new(dir.into(), KEY.into(), Keep::Nothing),
    }
}

/// Puts answers where they wait for their judge.
fn give(dir: &Path, prompts: usize) {
    let random = &mut Random::new(8);
    let answers: Vec<Value> = (0..prompts * GROUP)
        .map(|i| {
            let ids: Vec<u32> = (0..=i % 5).map(|_| random.below(VOCABULARY) as u32).collect();
            json!({"logps": vec![0u32; ids.len()], "ids": ids, "stopped": true})
        })
        .collect();
    let rows: Vec<usize> = (0..prompts).collect();
    let pending = json!({
        "key": KEY, "step": 0, "rows": rows, "answers": answers, "advantages": [], "policy": null, "reference": null,
    });
    std::fs::write(dir.join("pending_rollouts.json"), pending.to_string()).unwrap();
}

/// On given answers, against the CPU.
#[test]
fn a_step_on_given_answers() {
    let prompts = prompts();
    let train: Vec<&TokenizedPrompt> = prompts.iter().collect();
    let settings = settings();
    let step = |model: &Model, adapter: &Adapter| -> StepGradient {
        let dir = tempfile::tempdir().unwrap();
        give(dir.path(), train.len());
        let mut policy = policy(&train, Reference::default(), dir.path());
        policy.step(&Place::new(model, adapter, &settings), &[vec![0, 1], vec![2]]).unwrap()
    };
    let model = |compute| llama(WeightDtype::BF16, Precision::Stored, compute);
    let [exact, rounded] = [Compute::F32, Compute::Bf16].map(model);
    let on = Accelerator::new("cuda:0", OnHost::default());
    let placed = model(Compute::Bf16).onto(&on).unwrap();
    let adapter = adapter(&exact, lora(8));
    let mut there = adapter.clone();
    there.place(&on).unwrap();
    let (want, near, got) = (step(&exact, &adapter), step(&rounded, &adapter), step(&placed, &there));
    let off = |g: &StepGradient| (g.loss - want.loss).abs();
    assert!(off(&got) <= 3.0 * off(&near) + 2e-3, "loss {} for {}", got.loss, want.loss);
    assert_eq!((got.tokens, got.supervised_tokens), (want.tokens, want.supervised_tokens));
    check_gradients("grpo", &adapter, &gradients(&there), &near.gradients, &want.gradients);
}

/// Prompts and passes are dealt; the answers are those that one device samples.
#[test]
fn devices_share_sampled_answers() {
    let prompts = prompts();
    let train: Vec<&TokenizedPrompt> = prompts.iter().collect();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let next = std::cell::Cell::new(0);
    shared(&[vec![0, 1], vec![2]], &|reference| {
        let dir = dirs[next.replace(next.get() + 1)].path();
        Box::new(policy(&train, reference, dir))
    });
    assert_eq!(next.get(), 2);
}
