//! What every entry of every registry keeps: a name that is found and suggested, a doc, settings that pass
//! their own check, and a gradient that is the loss's derivative.

use galen_loss::pair::{Cpo, Dpo, F_DIVERGENCES, Orpo, PairBatch, PairObjective, Reference};
use galen_loss::rollout::{AGGREGATIONS, Grpo, Level, Rloo, RolloutBatch, SCALES};
use galen_loss::{
    FAMILIES, KTO_LOSS_TYPES, Kto, KtoBatch, Label, Named, Reward, Totals, find, pair, rollout,
};

/// Names of a registry, after holding what `find` promises of each.
fn names<T: Named + PartialEq + std::fmt::Debug>(registry: &[&'static T]) -> Vec<&'static str> {
    let names: Vec<_> = registry.iter().map(|e| e.name()).collect();
    for (i, entry) in registry.iter().enumerate() {
        assert_eq!(find(registry, entry.name()).unwrap(), *entry);
        assert!(!names[..i].contains(&entry.name()), "`{}` twice", entry.name());
        assert!(entry.doc().len() > 10, "`{}` says nothing of itself", entry.name());
        let typo = format!("{}x", entry.name());
        let e = find(registry, &typo).unwrap_err().to_string();
        let wanted =
            format!("`{}: {typo}` is not known\nhint: did you mean `{}`? There is `", T::KEY, entry.name());
        assert!(e.starts_with(&wanted), "{e}");
        assert!(names.iter().all(|n| e.contains(&format!("`{n}`"))), "{e}");
    }
    let e = find(registry, "zzzz").unwrap_err().to_string();
    assert!(e.contains("hint: There is `"), "{e}");
    names
}

#[test]
fn names_are_trls() {
    let dpo = [
        "sigmoid",
        "sigmoid_norm",
        "robust",
        "hinge",
        "ipo",
        "exo_pair",
        "nca_pair",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
        "sft",
    ];
    assert_eq!(names(pair::LOSS_TYPES), dpo);
    assert_eq!(names(F_DIVERGENCES), ["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]);
    assert_eq!(names(pair::cpo::LOSS_TYPES), ["sigmoid", "hinge", "ipo", "simpo"]);
    assert_eq!(names(KTO_LOSS_TYPES), ["kto", "apo_zero_unpaired"]);
    let grpo = ["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"];
    assert_eq!(names(rollout::LOSS_TYPES), grpo);
    assert_eq!(names(Level::ALL), ["token", "sequence"]);
    assert_eq!(names(SCALES), ["group", "batch", "none"]);
    assert_eq!(names(AGGREGATIONS), ["sum_then_normalize", "normalize_then_sum"]);
    assert_eq!(names(FAMILIES), ["dpo", "kto", "orpo", "cpo", "simpo", "grpo", "rloo", "reward"]);
    Dpo::default().check().unwrap();
    Cpo::default().check().unwrap();
    Orpo::default().check().unwrap();
    Kto::default().check().unwrap();
    Grpo::default().check().unwrap();
    Rloo::default().check().unwrap();
    Reward::default().check().unwrap();
}

/// Log-probabilities of sequences, multiples of 1/1024 so that a step of 1/1024 is exact in f32.
fn sequences(lengths: &[usize], seed: u64) -> Vec<Vec<f32>> {
    let mut state = seed;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        -(((state >> 40) % 1500) as f32 + 100.0) / 1024.0
    };
    lengths.iter().map(|n| (0..*n).map(|_| draw()).collect()).collect()
}

fn slices(sequences: &[Vec<f32>]) -> Vec<&[f32]> {
    sequences.iter().map(Vec::as_slice).collect()
}

/// The gradient against central differences of the loss, every element, and that it is not all zero.
fn is_derivative(
    what: &str,
    inputs: &[Vec<f32>],
    loss_and_gradient: impl Fn(&[Vec<f32>]) -> (f64, Vec<Vec<f32>>),
) {
    const STEP: f32 = 1.0 / 1024.0;
    let (_, gradient) = loss_and_gradient(inputs);
    assert_eq!(gradient.len(), inputs.len());
    let mut largest = 0.0f64;
    for (i, row) in inputs.iter().enumerate() {
        assert_eq!(gradient[i].len(), row.len());
        for t in 0..row.len() {
            let at = |by: f32| {
                let mut moved = inputs.to_vec();
                moved[i][t] += by;
                loss_and_gradient(&moved).0
            };
            let slope = (at(STEP) - at(-STEP)) / (2.0 * f64::from(STEP));
            let found = f64::from(gradient[i][t]);
            assert!(
                (found - slope).abs() <= 1e-3 * slope.abs() + 1e-6,
                "{what}[{i}][{t}]: {found} for {slope}"
            );
            largest = largest.max(found.abs());
        }
    }
    assert!(largest > 1e-4, "{what}: no gradient");
}

const LENGTHS: [&[usize]; 3] = [&[2, 4, 1], &[3, 2, 5], &[3, 0, 2]];

fn pair_derivative(what: &str, objective: &dyn PairObjective) {
    objective.check().unwrap();
    let [chosen, rejected, prompt] = [0, 1, 2].map(|i| sequences(LENGTHS[i], 7 + i as u64));
    let [ref_chosen, ref_rejected] = [0, 1].map(|i| sequences(LENGTHS[i], 17 + i as u64));
    let [ref_chosen, ref_rejected] = [slices(&ref_chosen), slices(&ref_rejected)];
    let inputs = [chosen, rejected, prompt].concat();
    let take = if objective.reads_prompt() { 9 } else { 6 };
    is_derivative(what, &inputs[..take], |inputs| {
        let all = slices(inputs);
        let batch = PairBatch {
            chosen: &all[..3],
            rejected: &all[3..6],
            reference: objective
                .needs_reference()
                .then_some(Reference { chosen: &ref_chosen, rejected: &ref_rejected }),
            prompt: objective.reads_prompt().then_some(&all[6..]),
        };
        // Totals of a step twice as large.
        let found = objective.loss(&batch, objective.totals_of(&batch).times(2)).unwrap();
        (found.loss, [found.d_chosen, found.d_rejected, found.d_prompt].concat())
    });
}

#[test]
fn pairs_derive() {
    for loss_type in pair::LOSS_TYPES {
        for divergence in F_DIVERGENCES.iter().take(if loss_type.any_divergence { 4 } else { 1 }) {
            for ld_alpha in [None, Some(0.3)] {
                let settings = Dpo {
                    beta: 0.7,
                    label_smoothing: 0.1,
                    ld_alpha,
                    f_divergence: divergence,
                    discopop_tau: 0.5,
                    ..Dpo::of(&[loss_type.name], None).unwrap()
                };
                pair_derivative(&format!("{loss_type:?} {divergence:?} {ld_alpha:?}"), &settings);
            }
        }
    }
    for loss_type in pair::cpo::LOSS_TYPES {
        for alpha in [0.0, 0.2] {
            let settings = Cpo { alpha, beta: 0.7, label_smoothing: 0.1, ..Cpo::of(loss_type.name).unwrap() };
            pair_derivative(&format!("cpo {loss_type:?} {alpha}"), &settings);
        }
    }
    pair_derivative("alphapo", &Cpo { alpha: 0.2, ..Cpo::of("alphapo").unwrap() });
    pair_derivative("orpo", &Orpo { beta: 0.7 });
}

#[test]
fn single_answers_derive() {
    for loss_type in KTO_LOSS_TYPES {
        let settings = Kto { desirable_weight: 1.3, beta: 0.7, ..Kto::of(loss_type.name).unwrap() };
        let reference = sequences(LENGTHS[1], 4);
        is_derivative(loss_type.name, &sequences(LENGTHS[1], 3), |inputs| {
            let labels = [Label::Desirable, Label::Undesirable, Label::Desirable];
            let [completions, reference] = [slices(inputs), slices(&reference)];
            let batch =
                KtoBatch { completions: &completions, reference: &reference, labels: &labels, kl: 0.4 };
            let found = settings.loss(&batch, Kto::totals(5)).unwrap();
            (found.loss, found.gradient)
        });
    }
}

#[test]
fn reward_derives() {
    let settings = Reward { center_rewards_coefficient: Some(0.1) };
    is_derivative("reward", &sequences(&[3, 3], 5), |inputs| {
        let found = settings.loss(&inputs[0], &inputs[1], Some(&[0.5, 0.0, 1.0]), Reward::totals(4)).unwrap();
        (found.loss, vec![found.d_chosen, found.d_rejected])
    });
}

/// An answer that is masked out is among them: it counts as an answer and has no token.
const ANSWERS: &[usize] = &[2, 4, 0, 3];
const ADVANTAGES: [f64; 4] = [0.9, -1.2, 0.4, -0.3];

#[test]
fn rollouts_derive() {
    let [old, reference] = [8, 9].map(|seed| sequences(ANSWERS, seed));
    let derive = |what: &str, loss: &dyn Fn(&RolloutBatch) -> galen_loss::SequenceLoss| {
        is_derivative(what, &sequences(ANSWERS, 10), |inputs| {
            let [completions, old, reference] = [slices(inputs), slices(&old), slices(&reference)];
            let batch = RolloutBatch {
                completions: &completions,
                old: Some(&old),
                reference: Some(&reference),
                advantages: &ADVANTAGES,
            };
            let found = loss(&batch);
            assert!(found.gradient[2].is_empty());
            (found.loss, found.gradient)
        });
    };
    for loss_type in rollout::LOSS_TYPES {
        for level in Level::ALL {
            let settings = Grpo {
                beta: 0.3,
                max_completion_length: 8,
                // No gradient goes through the weights of `cispo` and `vespo`: they are held at a constant
                // here.
                epsilon_high: (loss_type.name == "cispo").then_some(0.01),
                vespo_k_pos: 0.0,
                vespo_lambda_pos: 0.0,
                vespo_k_neg: 0.0,
                vespo_lambda_neg: 0.0,
                ..Grpo::of(loss_type.name, level.name).unwrap()
            };
            settings.check().unwrap();
            let totals: Totals = ANSWERS.iter().map(|n| Grpo::totals(*n)).sum();
            derive(&format!("{loss_type:?} {level:?}"), &|batch| settings.loss(batch, totals).unwrap());
        }
    }
    let settings = Rloo { epsilon: 5.0, ..Rloo::default() };
    derive("rloo", &|batch| settings.loss(batch, Rloo::totals(4)).unwrap());
}

/// In the first inner iteration the sampling policy is the policy: leaving it out is giving its values.
#[test]
fn first_iteration_needs_no_old() {
    let [completions, reference] = [10, 9].map(|seed| sequences(ANSWERS, seed));
    let [completions, reference] = [slices(&completions), slices(&reference)];
    let totals: Totals = ANSWERS.iter().map(|n| Grpo::totals(*n)).sum();
    for loss_type in rollout::LOSS_TYPES {
        let settings = Grpo { beta: 0.3, ..Grpo::of(loss_type.name, "token").unwrap() };
        let loss = |old| {
            let batch = RolloutBatch {
                completions: &completions,
                old,
                reference: Some(&reference),
                advantages: &ADVANTAGES,
            };
            settings.loss(&batch, totals).unwrap()
        };
        assert_eq!(loss(None), loss(Some(&completions)), "{loss_type:?}");
    }
}

/// Log ratios far beyond what f32 exponentials hold: loss and gradient stay finite.
#[test]
fn extremes_stay_finite() {
    let low = vec![vec![-1000.0f32, -1000.0]];
    let high = vec![vec![-0.001f32, -0.001]];
    for (chosen, rejected) in [(&low, &high), (&high, &low)] {
        let [chosen, rejected] = [slices(chosen), slices(rejected)];
        let reference = Reference { chosen: &rejected, rejected: &chosen };
        let batch =
            PairBatch { chosen: &chosen, rejected: &rejected, reference: Some(reference), prompt: None };
        let mut objectives: Vec<Box<dyn PairObjective>> = vec![Box::new(Orpo::default())];
        for loss_type in pair::LOSS_TYPES {
            let of = Dpo::of(&[loss_type.name], None).unwrap();
            objectives.push(Box::new(Dpo { beta: 1.0, label_smoothing: 0.1, ..of }));
        }
        for loss_type in pair::cpo::LOSS_TYPES {
            objectives.push(Box::new(Cpo::of(loss_type.name).unwrap()));
        }
        for objective in objectives {
            let found = objective.loss(&batch, objective.totals_of(&batch)).unwrap();
            let all = [found.d_chosen, found.d_rejected].concat().concat();
            assert!(found.loss.is_finite() && all.iter().all(|g| g.is_finite()));
        }
    }
    // Every token certain: the odds are infinite, their gradient is held finite.
    let certain = vec![vec![0.0f32, 0.0]];
    let certain = slices(&certain);
    let batch = PairBatch { chosen: &certain, rejected: &certain, reference: None, prompt: None };
    let found = Orpo::default().loss(&batch, Orpo::default().totals_of(&batch)).unwrap();
    assert!(found.loss.is_finite() && found.d_chosen[0].iter().all(|g| g.is_finite()));
}
