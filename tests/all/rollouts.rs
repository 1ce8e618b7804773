//! Completions with the log-probabilities of their tokens.

use crate::random::{Random, ids};
use crate::support::{adapter, batch, lora, tiny, tiny_with};
use galen_model::{
    Completion, End, LoadOptions, Model, Pass, PassOptions, RolloutPrompt, Rollouts, Sampling, StepKernels,
};
use galen_ops::hook::ProjectionHook;
use galen_ops::ops::Compute;

/// More than the rows that share a reading of the blocks.
const SEEDS: [&[u64]; 4] = [&[1, 2, 3, 4, 5, 6, 7, 8, 10], &[9], &[], &[1, 7, 7]];

fn rollouts(kernels: StepKernels) -> Rollouts {
    Rollouts {
        sampling: Sampling { temperature: 1.3, top_p: 0.95, min_p: 0.001, ..Sampling::default() },
        max_tokens: 12,
        stop_ids: vec![3, 17, 40, 41],
        together: 4,
        kernels,
    }
}

fn prompts(model: &Model) -> Vec<Vec<u32>> {
    let r = &mut Random::new(8);
    [11, 1, 5, 30].map(|n| ids(r, n, model.config.vocab_size)).into()
}

fn run(how: &Rollouts, model: &Model, hook: &dyn ProjectionHook, threads: usize) -> Vec<Vec<Completion>> {
    let prompts = prompts(model);
    let asked: Vec<RolloutPrompt> =
        prompts.iter().zip(SEEDS).map(|(ids, seeds)| RolloutPrompt { ids, seeds }).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    pool.install(|| how.run(model, Some(hook), &asked)).expect("rollouts")
}

#[test]
fn a_completion_depends_on_its_prompt_and_seed_alone() {
    let bf16 = LoadOptions { compute: Compute::Bf16, ..LoadOptions::default() };
    for (name, model) in
        [("llama_tied", tiny("llama_tied")), ("qwen3", tiny("qwen3")), ("gemma3", tiny_with("gemma3", bf16))]
    {
        let adapter = adapter(&model, lora(4, 10.0));
        for kernels in [StepKernels::Blocks, StepKernels::Passes] {
            let how = rollouts(kernels);
            let all = run(&how, &model, &adapter, 1);
            for (together, threads) in [(1, 2), (3, 3), (64, 2)] {
                let how = Rollouts { together, ..how.clone() };
                assert!(run(&how, &model, &adapter, threads) == all, "{name}: {together} at a time");
            }
            assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), SEEDS.map(<[u64]>::len));
            assert!(all[0][0] != all[0][1], "{name}: seeds make no difference");
            assert!(all[3][1] == all[3][2], "{name}: the same seed twice");
            for ((ids, seeds), completions) in prompts(&model).iter().zip(SEEDS).zip(&all) {
                for (seed, want) in seeds.iter().zip(completions) {
                    let alone = how.run(&model, Some(&adapter), &[RolloutPrompt { ids, seeds: &[*seed] }]);
                    assert!(alone.expect("rollouts") == [[want.clone()]], "{name}: seed {seed} alone");
                }
            }
        }
    }
}

#[test]
fn log_probabilities_are_those_of_a_pass_over_the_same_tokens() {
    for name in ["llama_tied", "gemma3"] {
        let model = tiny(name);
        let adapter = adapter(&model, lora(4, 10.0));
        for kernels in [StepKernels::Blocks, StepKernels::Passes] {
            let all = run(&rollouts(kernels), &model, &adapter, 2);
            for (prompt, completions) in prompts(&model).iter().zip(&all) {
                for Completion { ids, logps, .. } in completions {
                    let whole: Vec<u32> = prompt.iter().chain(ids).copied().collect();
                    let first = prompt.len() as u32 - 1;
                    let targets: Vec<(u32, u32)> =
                        ids.iter().enumerate().map(|(i, id)| (first + i as u32, *id)).collect();
                    let pass = Pass::forward(
                        &model,
                        Some(&adapter),
                        &batch(&whole, &targets),
                        PassOptions::default(),
                    )
                    .expect("a pass");
                    assert_eq!(logps.len(), ids.len());
                    for (got, want) in logps.iter().zip(&pass.logps.0) {
                        let error = (got - want).abs();
                        assert!(error <= 1e-4 * want.abs().max(1.0), "{name}: {got} for {want}");
                    }
                }
            }
        }
    }
}

#[test]
fn completions_end_at_a_stop_token_or_at_their_length() {
    let model = tiny("llama_tied");
    let adapter = adapter(&model, lora(4, 10.0));
    let how = rollouts(StepKernels::Blocks);
    let mut ends = [0, 0];
    for completion in run(&how, &model, &adapter, 2).iter().flatten() {
        let stops = completion.ids.iter().filter(|id| how.stop_ids.contains(id)).count();
        match completion.end {
            End::Stop => {
                assert!(stops == 1 && completion.ids.last().is_some_and(|id| how.stop_ids.contains(id)));
                ends[0] += 1;
            }
            End::Length => {
                assert!(stops == 0 && completion.ids.len() == how.max_tokens);
                ends[1] += 1;
            }
        }
    }
    assert!(ends[0] > 0 && ends[1] > 0, "{ends:?} of each: the test is blind");
    let none = Rollouts { max_tokens: 0, ..how.clone() };
    assert!(run(&none, &model, &adapter, 1).iter().flatten().all(|c| c.ids.is_empty()));
    let empty = RolloutPrompt { ids: &[], seeds: &[1] };
    assert!(how.run(&model, None, &[empty]).is_err());
}

#[test]
fn the_adapter_is_read_anew_by_every_call() {
    let model = tiny("llama_tied");
    let mut adapter = adapter(&model, lora(4, 10.0));
    let how = rollouts(StepKernels::Blocks);
    let before = run(&how, &model, &adapter, 1);
    adapter.buffers_mut().for_each(|values| values.iter_mut().for_each(|v| *v *= -2.0));
    let after = run(&how, &model, &adapter, 1);
    assert!(before != after, "the adapter's change is not seen");
}
