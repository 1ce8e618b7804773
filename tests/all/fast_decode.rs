//! Decoding in integers: close to exact decoding, said to be so, and as independent of neighbours and threads.

use crate::random::{Random, ids};
use crate::support::{adapter, lora};
use galen_model::{
    Divergence, LoadOptions, Model, RolloutPrompt, Rollouts, Sampling, Session, StepKernels, Weights,
};
use galen_ops::quant::{Dots, WeightDtype};
use galen_testkit::big_gguf::{LlamaShape, write_llama};

const FORMATS: [WeightDtype; 3] = [WeightDtype::Q4_1, WeightDtype::Q8_0, WeightDtype::Q4_K];

/// Two loads of one model: exact, and in integers.
fn both(dtype: WeightDtype) -> [Model; 2] {
    let load = |dots| LoadOptions { dots, ..LoadOptions::default() };
    loads(dtype, [load(Dots::Float), load(Dots::Integer)])
}

fn loads<const N: usize>(dtype: WeightDtype, options: [LoadOptions; N]) -> [Model; N] {
    let shape = LlamaShape { layers: 2, hidden: 256, ffn: 512, heads: 4, kv_heads: 2, vocab: 300, dtype };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    write_llama(&path, shape, 3).expect("written");
    let weights = Weights::open(&path).expect("the model opens");
    options.map(|options| Model::load(&weights, options).expect("the model loads"))
}

/// Logits after a prompt of `prompt` tokens and after each of 20 steps.
fn logits(model: &Model, threads: usize, prompt: usize) -> Vec<Vec<f32>> {
    let text = ids(&mut Random::new(9), prompt + 20, 300);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    let run = || {
        let mut session = Session::new(model, None);
        let mut all = vec![session.feed(&text[..prompt]).expect("logits")];
        all.extend(text[prompt..].iter().map(|id| session.feed(&[*id]).expect("logits")));
        all
    };
    pool.install(run)
}

#[test]
fn an_interleaved_copy_changes_rounding_alone() {
    for dtype in [WeightDtype::Q4_1, WeightDtype::Q8_0] {
        let load = |interleave| LoadOptions { interleave, ..LoadOptions::default() };
        let [plain, copied] = loads(dtype, [load(false), load(true)]);
        let (want, got) = (logits(&plain, 1, 30), logits(&copied, 1, 30));
        assert!(logits(&copied, 2, 30) == got, "{dtype}: threads");
        let largest = want.iter().flatten().fold(0f32, |m, v| m.max(v.abs()));
        for (step, (want, got)) in want.iter().zip(&got).enumerate() {
            for (want, got) in want.iter().zip(got) {
                assert!((want - got).abs() <= 2e-5 * largest, "{dtype} step {step}: {got} for {want}");
            }
        }
    }
}

#[test]
fn prompts_in_integers_are_near_exact_ones_and_do_not_depend_on_threads() {
    let dtype = WeightDtype::Q4_1;
    let fast = LoadOptions { dots: Dots::Integer, interleave: true, ..LoadOptions::default() };
    let [exact, fast] = loads(dtype, [LoadOptions::default(), fast]);
    let adapter = adapter(&exact, lora(4, 4.0));
    let text = ids(&mut Random::new(4), 90, 300);
    let found = Divergence::measure(&exact, &fast, Some(&adapter), &text, 16).expect("measured");
    assert!(found.positions == 16 && found.mean_kl > 0.0, "{dtype}: {found:?}");
    assert!(found.mean_kl <= 5e-3 && found.max_kl <= 5e-2 && found.same_top >= 12, "{dtype}: {found:?}");
    let want = logits(&fast, 1, 70);
    assert!(logits(&fast, 2, 70) == want && logits(&fast, 3, 70) == want, "{dtype}: threads");
    println!("{dtype}: {found:?}");
}

#[test]
fn integer_decoding_is_near_exact_decoding_and_not_equal_to_it() {
    for dtype in FORMATS {
        let [exact, fast] = both(dtype);
        let adapter = adapter(&exact, lora(4, 4.0));
        let text = ids(&mut Random::new(4), 30, 300);
        let measure =
            |a: &Model, b: &Model, n| Divergence::measure(a, b, Some(&adapter), &text, n).expect("measured");
        let found = measure(&exact, &fast, 16);
        assert!(found.positions == 16 && found.mean_kl > 0.0, "{dtype}: {found:?}");
        assert!(found.mean_kl <= 5e-3 && found.max_kl <= 5e-2 && found.same_top >= 12, "{dtype}: {found:?}");
        let none = measure(&exact, &exact, 16);
        assert!(none.max_kl <= 1e-12 && none.same_top == 16, "{dtype}: {none:?}");
        assert_eq!(
            measure(&exact, &fast, 1000).positions,
            29,
            "{dtype}: the first token predicts the second"
        );
        let short = Divergence::measure(&exact, &fast, None, &text[..1], 16).expect("measured");
        assert_eq!(short, Divergence::default());
        println!("{dtype}: {found:?}");
    }
}

#[test]
fn integer_decoding_depends_on_neither_neighbours_nor_threads() {
    for dtype in FORMATS {
        let [_, fast] = both(dtype);
        let adapter = adapter(&fast, lora(4, 4.0));
        let r = &mut Random::new(5);
        let prompts = [12, 1, 40].map(|n| ids(r, n, 300));
        let seeds = [&[1, 2, 3][..], &[4], &[5, 6, 7, 8]];
        let asked: Vec<RolloutPrompt> =
            prompts.iter().zip(seeds).map(|(ids, seeds)| RolloutPrompt { ids, seeds }).collect();
        let run = |together, threads| {
            let rollouts = Rollouts {
                sampling: Sampling { temperature: 1.0, ..Sampling::default() },
                max_tokens: 6,
                stop_ids: vec![7],
                together,
                kernels: StepKernels::Blocks,
            };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| rollouts.run(&fast, Some(&adapter), &asked)).expect("rollouts")
        };
        let alone = run(1, 1);
        for (together, threads) in [(3, 2), (8, 3), (64, 1)] {
            assert!(run(together, threads) == alone, "{dtype}: {together} at a time, {threads} threads");
        }
    }
}
