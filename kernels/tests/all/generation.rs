//! Generation through the kernels, as `--device cuda:N` does it, against passes there and generation on the CPU.

use crate::tiny::{VOCABULARY, hugging_face, llama};
use crate::training::{adapter, furthest, lora};
use galen_adapter::{Adapter, AdapterConfig};
use galen_kernels::place::OnHost;
use galen_model::{Completion, Model, Pass, PassOptions, Precision, RolloutPrompt, Rollouts, Sampling};
use galen_model::{Session, StepKernels, log_prob};
use galen_ops::device::{Accelerator, KvExtension, KvPool, KvSequence, KvShape};
use galen_ops::hook::ProjectionHook;
use galen_ops::ops::Compute;
use galen_ops::quant::WeightDtype;
use galen_testkit::fuzz::Random;
use galen_types::{PackedBatch, Segment, Target};

fn device() -> Accelerator {
    Accelerator::new("cuda:0", OnHost::default())
}

fn text(n: usize, seed: u64) -> Vec<u32> {
    let random = &mut Random::new(seed);
    (0..n).map(|_| random.below(VOCABULARY) as u32).collect()
}

/// The same model and adapter on the CPU and on a device.
fn both(model: &dyn Fn(Compute) -> Model) -> [(Model, Adapter); 2] {
    both_with(model, lora(8))
}

fn both_with(model: &dyn Fn(Compute) -> Model, config: AdapterConfig) -> [(Model, Adapter); 2] {
    let cpu = model(Compute::Bf16);
    let here = adapter(&cpu, config);
    let placed = model(Compute::Bf16).onto(&device()).unwrap();
    let mut there = here.clone();
    there.place_frozen(placed.device().unwrap()).unwrap();
    [(cpu, here), (placed, there)]
}

fn by(adapter: &Adapter) -> &dyn ProjectionHook {
    adapter
}

/// A prompt of several pages, then single tokens: the logits after each.
fn told(model: &Model, adapter: Option<&Adapter>, ids: &[u32], prompt: usize) -> Vec<Vec<f32>> {
    let mut session = Session::new(model, adapter.map(|a| a as &dyn ProjectionHook));
    let mut logits = vec![session.feed(&ids[..prompt]).unwrap()];
    logits.extend(ids[prompt..].iter().map(|id| session.feed(&[*id]).unwrap()));
    assert_eq!(session.len(), ids.len());
    logits
}

/// `ln p` of each next token, by a pass over the whole text on the same device.
fn passed(model: &Model, adapter: &Adapter, ids: &[u32], prompt: usize) -> Vec<f32> {
    let targets =
        (prompt..ids.len()).map(|i| Target { index: i as u32 - 1, token: ids[i], row: 0 }).collect();
    let own = Segment { start: 0, len: ids.len() as u32, parent: None, position: 0 };
    let batch = PackedBatch::new(ids.to_vec(), vec![own], targets, vec![0; ids.len()]).unwrap();
    Pass::forward(model, Some(by(adapter)), &batch, PassOptions::default()).unwrap().logps.0
}

fn agrees(name: &str, model: &dyn Fn(Compute) -> Model, config: AdapterConfig) {
    let [(cpu, here), (placed, there)] = both_with(model, config);
    let exact = model(Compute::F32);
    let (ids, prompt) = (text(78, 5), 70);
    for adapted in [false, true] {
        let of = |a| adapted.then_some(a);
        let got = told(&placed, of(&there), &ids, prompt);
        let (near, want) = (told(&cpu, of(&here), &ids, prompt), told(&exact, of(&here), &ids, prompt));
        for ((got, near), want) in got.iter().zip(&near).zip(&want) {
            let (device, cpu) = (furthest(got, want), furthest(near, want));
            assert!(
                device <= 0.05 && device <= 5.0 * cpu + 5e-3,
                "{name}: {device:.1e}, the CPU's {cpu:.1e}"
            );
        }
    }
    // What a step says of a token is what a pass says of it.
    let got = told(&placed, Some(&there), &ids, prompt);
    let by_pass = passed(&placed, &there, &ids, prompt);
    for (i, want) in by_pass.iter().enumerate() {
        let step = log_prob(&got[i], ids[prompt + i]);
        assert!((step - want).abs() <= 0.05, "{name}: token {i}: {step} by steps, {want} by a pass");
    }
}

#[test]
fn generation_says_what_passes_and_the_cpu_say() {
    agrees("bf16", &|compute| llama(WeightDtype::BF16, Precision::Stored, compute), lora(8));
    agrees("q4_1", &|compute| llama(WeightDtype::Q4_1, Precision::Stored, compute), lora(5));
    for (family, method) in [("qwen2", "dora"), ("qwen3", "lora"), ("gemma3", "lora")] {
        let config = AdapterConfig { method: method.into(), ..lora(8) };
        agrees(family, &|compute| hugging_face(family, compute), config);
    }
}

/// Beside others, in a clone that shares pages, whatever was fed before: the same bits.
#[test]
fn a_sequence_does_not_depend_on_those_beside_it() {
    let [_, (model, adapter)] = both(&|compute| llama(WeightDtype::Q8_0, Precision::Stored, compute));
    let family = Session::new(&model, Some(by(&adapter)));
    let lengths = [1, 63, 64, 65, 100];
    let texts: Vec<Vec<u32>> = lengths.iter().zip(3..).map(|(n, seed)| text(n + 4, seed)).collect();
    let alone: Vec<_> = texts.iter().zip(lengths).map(|(t, n)| told(&model, Some(&adapter), t, n)).collect();
    // Twice each: a sequence and its clone, whose last page both go on writing.
    let mut sessions = Vec::new();
    for (t, n) in texts.iter().zip(lengths) {
        let mut session = family.sibling();
        session.feed(&t[..n]).unwrap();
        sessions.push(session.clone());
        sessions.push(session);
    }
    for step in 0..4 {
        let next: Vec<u32> = (0..sessions.len())
            .map(|i| {
                let own = texts[i / 2][lengths[i / 2] + step];
                // Clones go their own way.
                if i % 2 == 0 { own } else { (own + 1) % VOCABULARY as u32 }
            })
            .collect();
        let mut live: Vec<&mut Session> = sessions.iter_mut().collect();
        let logits = Session::step(&mut live, &next).unwrap();
        for (i, row) in logits.chunks_exact(VOCABULARY).enumerate().step_by(2) {
            assert!(row == alone[i / 2][step + 1], "sequence {} at step {step}", i / 2);
            assert!(row != &logits[(i + 1) * VOCABULARY..][..VOCABULARY], "clones that say the same");
        }
    }
}

/// Sequences under several adapters and none in one step.
#[test]
fn every_sequence_has_its_own_adapter() {
    let [_, (model, first)] = both(&|compute| llama(WeightDtype::BF16, Precision::Stored, compute));
    let mut second = crate::training::adapter(&model, AdapterConfig { seed: 8, ..lora(3) });
    second.place_frozen(model.device().unwrap()).unwrap();
    let ids = text(20, 9);
    let hooks = [Some(&first), None, Some(&second)];
    let alone: Vec<_> = hooks.iter().map(|a| told(&model, *a, &ids, 19)).collect();
    assert!(furthest(&alone[0][1], &alone[1][1]) > 0.01 && furthest(&alone[0][1], &alone[2][1]) > 0.01);
    let mut sessions: Vec<Session> =
        hooks.iter().map(|a| Session::new(&model, a.map(|a| a as &dyn ProjectionHook))).collect();
    for session in &mut sessions {
        session.feed(&ids[..19]).unwrap();
    }
    let mut live: Vec<&mut Session> = sessions.iter_mut().collect();
    let logits = Session::step(&mut live, &[ids[19]; 3]).unwrap();
    for (row, alone) in logits.chunks_exact(VOCABULARY).zip(&alone) {
        assert!(row == alone[1]);
    }
}

/// What policy gradients are estimated from: several answers a prompt, whose log-probabilities are a pass's.
#[test]
fn answers_are_sampled_with_their_log_probabilities() {
    let [_, (model, adapter)] = both(&|compute| llama(WeightDtype::Q8_0, Precision::Stored, compute));
    let prompts = [text(70, 1), text(5, 2)];
    let seeds = [[1, 2, 3], [4, 5, 6]];
    let asked: Vec<RolloutPrompt> =
        prompts.iter().zip(&seeds).map(|(ids, seeds)| RolloutPrompt { ids, seeds }).collect();
    let of = |together| Rollouts {
        sampling: Sampling { temperature: 1.0, ..Sampling::default() },
        max_tokens: 6,
        stop_ids: vec![0, 1, 2, 3],
        together,
        kernels: StepKernels::Passes,
    };
    let run = |together| of(together).run(&model, Some(by(&adapter)), &asked).unwrap();
    let all = run(5);
    assert!(all == run(1) && all == run(2), "answers depend on those beside them");
    for (prompt, answers) in prompts.iter().zip(&all) {
        assert!(answers.iter().any(|a| a.ids != answers[0].ids), "every answer is the same");
        for Completion { ids, logps, .. } in answers {
            let whole = [&prompt[..], ids].concat();
            for (got, want) in logps.iter().zip(passed(&model, &adapter, &whole, prompt.len())) {
                assert!((got - want).abs() <= 0.03, "{got} drawn, {want} by a pass");
            }
        }
    }
}

/// Clones share pages until one writes; what nobody holds is given back, and the memory with the last page.
#[test]
fn pages_are_shared_and_given_back() {
    let shape = KvShape { layers: 2, kv_heads: 1, head_dim: 64 };
    let pool = KvPool::new(&device(), shape).unwrap();
    assert!(KvPool::new(&device(), KvShape { head_dim: 80, ..shape }).is_err());
    assert_eq!(pool.pages(), (0, 0));
    let mut first = KvSequence::new(&pool);
    KvExtension::prompt(&mut first, 0, 100).unwrap();
    assert_eq!(pool.pages(), (2, 4));
    let mut second = first.clone();
    assert_eq!(pool.pages(), (2, 4));
    // Its own copy of the page that both have begun; the full one stays shared.
    KvExtension::step(&mut [(&mut second, 100)]).unwrap();
    assert_eq!(pool.pages(), (3, 4));
    KvExtension::step(&mut [(&mut first, 100), (&mut second, 101)]).unwrap();
    assert_eq!(pool.pages(), (3, 4));
    KvExtension::prompt(&mut first, 101, 200).unwrap();
    assert_eq!(pool.pages(), (6, 8));
    // A full page is begun by neither.
    let mut third = first.clone();
    KvExtension::step(&mut [(&mut third, 128)]).unwrap();
    assert_eq!(pool.pages(), (7, 8));
    drop((first, third));
    assert_eq!(pool.pages(), (2, 8));
    drop(second);
    assert_eq!(pool.pages(), (0, 0));
    assert!(KvExtension::step(&mut []).is_err());
    let other = KvPool::new(&device(), shape).unwrap();
    let (mut a, mut b) = (KvSequence::new(&pool), KvSequence::new(&other));
    assert!(KvExtension::step(&mut [(&mut a, 0), (&mut b, 0)]).is_err());
}
