//! Values worked by hand, and what is refused.

use galen_loss::pair::{Cpo, Dpo, F_DIVERGENCES, Orpo, PairBatch, PairLoss, PairObjective, Reference};
use galen_loss::rollout::{AGGREGATIONS, Grpo, Rewards, Rloo, RolloutBatch, SCALES};
use galen_loss::{Kto, KtoBatch, Label, LossError, Reward, Totals};

fn close(found: f64, wanted: f64) {
    assert!((found - wanted).abs() < 1e-6, "{found} is not {wanted}");
}

fn all_close(found: &[f32], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    found.iter().zip(wanted).for_each(|(f, w)| close(f64::from(*f), *w));
}

/// One pair: chosen of two tokens whose log ratio is 2, rejected of one token whose log ratio is -1.
fn one_pair(objective: &dyn PairObjective) -> PairLoss {
    let reference = Reference { chosen: &[&[-2.0, -2.0]], rejected: &[&[-1.0]] };
    let batch = PairBatch {
        chosen: &[&[-1.0, -1.0]],
        rejected: &[&[-2.0]],
        reference: Some(reference),
        prompt: None,
    };
    objective.loss(&batch, objective.totals_of(&batch)).unwrap()
}

fn dpo(loss_type: &str, beta: f64, label_smoothing: f64) -> PairLoss {
    one_pair(&Dpo { beta, label_smoothing, ..Dpo::of(&[loss_type], None).unwrap() })
}

/// 1 / (1 + e^-x).
fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[test]
fn losses_of_a_pair() {
    // c = 2, r = -1, d = 3; at beta 1 z = 3.
    let found = dpo("sigmoid", 1.0, 0.0);
    close(found.loss, -logistic(3.0).ln());
    all_close(&found.d_chosen[0], &[-logistic(-3.0); 2]);
    all_close(&found.d_rejected[0], &[logistic(-3.0)]);
    let names =
        ["rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen"];
    for (name, wanted) in names.into_iter().zip([2.0, -1.0, 3.0, 1.0, -2.0]) {
        close(found.metrics.get(name).unwrap(), wanted);
    }
    close(dpo("hinge", 0.1, 0.0).loss, 0.7);
    all_close(&dpo("hinge", 0.1, 0.0).d_chosen[0], &[-0.1; 2]);
    close(dpo("hinge", 1.0, 0.0).loss, 0.0);
    // Means over tokens: 1 and -1, target margin 1 / (2 * 0.25) = 2.
    close(dpo("ipo", 0.25, 0.0).loss, 0.0);
    close(dpo("ipo", 0.5, 0.0).loss, 1.0);
    all_close(&dpo("ipo", 0.5, 0.0).d_chosen[0], &[1.0; 2]);
    close(dpo("sigmoid_norm", 1.0, 0.0).loss, -logistic(2.0).ln());
    let robust = -(0.9 * logistic(3.0).ln() - 0.1 * logistic(-3.0).ln()) / 0.8;
    close(dpo("robust", 1.0, 0.1).loss, robust);
    // Labels that say what the policy says: no divergence.
    close(dpo("exo_pair", 1.0, logistic(-3.0)).loss, 0.0);
    close(
        dpo("nca_pair", 1.0, 0.0).loss,
        -(logistic(2.0).ln() + 0.5 * (logistic(-2.0) * logistic(1.0)).ln()),
    );
    close(dpo("bco_pair", 1.0, 0.0).loss, -(logistic(2.0) * logistic(1.0)).ln());
    // Targets +-1 at beta 1/2.
    close(dpo("sppo_hard", 0.5, 0.0).loss, 1.0);
    close(dpo("apo_zero", 1.0, 0.0).loss, logistic(-2.0) + logistic(-1.0));
    close(dpo("apo_down", 1.0, 0.0).loss, logistic(2.0) + logistic(-3.0));
    close(dpo("aot", 1.0, 0.0).loss, -logistic(3.0).ln());
    close(dpo("aot_unpaired", 1.0, 0.0).loss, -logistic(3.0).ln());
    let mixed = logistic(60.0);
    close(dpo("discopop", 1.0, 0.0).loss, -logistic(3.0).ln() * (1.0 - mixed) + (-3.0f64).exp() * mixed);
    close(dpo("sft", 1.0, 0.0).loss, 1.0);
    all_close(&dpo("sft", 1.0, 0.0).d_chosen[0], &[-0.5; 2]);
    all_close(&dpo("sft", 1.0, 0.0).d_rejected[0], &[0.0]);
    // LD-DPO: the chosen answer's second token counts a half.
    let half = Dpo { beta: 1.0, ld_alpha: Some(0.5), ..Dpo::default() };
    let found = one_pair(&half);
    close(found.loss, -logistic(2.5).ln());
    all_close(&found.d_chosen[0], &[-logistic(-2.5), -0.5 * logistic(-2.5)]);
}

/// Two pairs with d = 3 and d = -1 against the reference's differences -2 and 0, ranked: -1 meets -2, 3 meets
/// 0.
#[test]
fn transport_meets_rank_by_rank() {
    let reference = Reference { chosen: &[&[-3.0], &[-1.0]], rejected: &[&[-1.0], &[-1.0]] };
    let batch = PairBatch {
        chosen: &[&[-1.0], &[-2.0]],
        rejected: &[&[-4.0], &[-1.0]],
        reference: Some(reference),
        prompt: None,
    };
    let objective = Dpo { beta: 1.0, ..Dpo::of(&["aot"], None).unwrap() };
    let found = objective.loss(&batch, objective.totals_of(&batch)).unwrap();
    close(found.loss, -0.5 * (logistic(3.0).ln() + logistic(1.0).ln()));
    all_close(&found.d_chosen.concat(), &[-0.5 * logistic(-3.0), -0.5 * logistic(-1.0)]);
}

#[test]
fn losses_without_reference() {
    // Mean probabilities 1/2 and 1/4: odds 1 and 1/3.
    let (half, quarter) = (0.5f32.ln(), 0.25f32.ln());
    let batch = PairBatch {
        chosen: &[&[half, half]],
        rejected: &[&[quarter]],
        reference: None,
        prompt: Some(&[&[-1.0, -2.0]]),
    };
    let orpo = Orpo { beta: 0.5 };
    assert_eq!(orpo.totals_of(&batch), Totals { items: 1, tokens: 4 });
    let found = orpo.loss(&batch, orpo.totals_of(&batch)).unwrap();
    let nll = (3.0 + 2.0 * 2.0f64.ln()) / 4.0;
    close(found.loss, nll - 0.5 * 0.75f64.ln());
    close(found.metrics.get("log_odds_chosen").unwrap(), 3.0f64.ln());
    close(found.metrics.get("log_odds_ratio").unwrap(), 0.75f64.ln());
    close(found.metrics.get("nll_loss").unwrap(), nll);
    // d log odds / d log P = 1 / (1 - P) = 2 and 4/3; sigmoid(-log 3) = 1/4.
    all_close(&found.d_chosen[0], &[-0.25 - 0.5 * 0.25 * 2.0 / 2.0; 2]);
    all_close(&found.d_rejected[0], &[0.5 * 0.25 * 4.0 / 3.0]);
    all_close(&found.d_prompt[0], &[-0.25; 2]);
    // SimPO at beta 2, gamma 1: z = 2 log 2 - 1. CPO's sums: z = 0 at beta of any size.
    let simpo = Cpo { beta: 2.0, simpo_gamma: 1.0, cpo_alpha: 0.0, ..Cpo::of("simpo").unwrap() };
    close(simpo.loss(&batch, simpo.totals_of(&batch)).unwrap().loss, -logistic(2.0 * 2.0f64.ln() - 1.0).ln());
    let cpo = Cpo::default();
    close(cpo.loss(&batch, cpo.totals_of(&batch)).unwrap().loss, 2.0 * 2.0f64.ln());
}

#[test]
fn loss_of_single_answers() {
    assert_eq!(Kto::mismatched(3).collect::<Vec<_>>(), [2, 0, 1]);
    // Mean log ratio of the mismatched answers (2 - 1)/2; below 0 it is 0.
    let kl = Kto::kl(&[&[-1.0], &[-2.0]], &[&[-3.0], &[-1.0]]).unwrap();
    close(kl, 0.5);
    close(Kto::kl(&[&[-3.0]], &[&[-1.0]]).unwrap(), 0.0);
    let batch = KtoBatch {
        completions: &[&[-1.0], &[-1.0]],
        reference: &[&[-2.5], &[-2.5]],
        labels: &[Label::Desirable, Label::Undesirable],
        kl,
    };
    let settings = Kto { beta: 1.0, undesirable_weight: 2.0, ..Kto::default() };
    let found = settings.loss(&batch, Kto::totals(2)).unwrap();
    close(found.loss, 0.5 * (logistic(-1.0) + 2.0 * logistic(1.0)));
    let slope = logistic(1.0) * logistic(-1.0);
    all_close(&found.gradient.concat(), &[-0.5 * slope, slope]);
}

#[test]
fn loss_of_scalars() {
    let settings = Reward { center_rewards_coefficient: Some(0.5) };
    let found = settings.loss(&[2.0], &[1.0], None, Reward::totals(1)).unwrap();
    close(found.loss, -logistic(1.0).ln() + 4.5);
    all_close(&[found.d_chosen[0], found.d_rejected[0]], &[3.0 - logistic(-1.0), 3.0 + logistic(-1.0)]);
}

#[test]
fn advantages_of_a_group() {
    let values = [1.0, 0.0, 0.0].map(|r| vec![Some(r)]);
    let rewards = Rewards { values: &values, names: &["r"], weights: &[1.0], num_generations: 3 };
    let std = (1.0f64 / 3.0).sqrt() + 1e-4;
    let found = rewards.relative(SCALES[0], AGGREGATIONS[0]).unwrap();
    found.values.iter().zip([2.0, -1.0, -1.0]).for_each(|(f, w)| close(*f, w / 3.0 / std));
    let rloo = Rloo { beta: 0.0, ..Rloo::default() };
    assert_eq!(rloo.advantages(&rewards, &[], None).unwrap().values, [1.0, -0.5, -0.5]);
    // An answer that nothing scored is left out; a lone score teaches nothing.
    let values = [Some(1.0), None, Some(0.0), Some(5.0), None, None].map(|r| vec![r]);
    let rewards = Rewards { values: &values, names: &["r"], weights: &[1.0], num_generations: 3 };
    assert_eq!(rloo.advantages(&rewards, &[], None).unwrap().values, [1.0, 0.0, -1.0, 0.0, 0.0, 0.0]);
    assert_eq!(rewards.relative(SCALES[2], AGGREGATIONS[0]).unwrap().values, [0.5, 0.0, -0.5, 0.0, 0.0, 0.0]);
}

#[test]
fn clipped_ratios() {
    // Ratios 2 and 1/2 with epsilon 0.2: stopped where the advantage drives them on, free where it drives
    // them back.
    let log2 = 2.0f32.ln();
    let loss = |logp: f32, advantage: f64| {
        let settings = Grpo::of("dapo", "token").unwrap();
        let batch = RolloutBatch {
            completions: &[&[logp]],
            old: Some(&[&[-1.0]]),
            reference: None,
            advantages: &[advantage],
        };
        let found = settings.loss(&batch, Grpo::totals(1)).unwrap();
        (found.loss, f64::from(found.gradient[0][0]), found.metrics.get("clip_ratio/region_mean").unwrap())
    };
    let cases = [
        (log2, 1.0, (-1.2, 0.0, 1.0)),
        (log2, -1.0, (2.0, 2.0, 0.0)),
        (-log2, 1.0, (-0.5, -0.5, 0.0)),
        (-log2, -1.0, (0.8, 0.0, 1.0)),
        (0.0, 1.0, (-1.0, -1.0, 0.0)),
    ];
    for (by, advantage, wanted) in cases {
        let found = loss(by - 1.0, advantage);
        close(found.0, wanted.0);
        close(found.1, wanted.1);
        close(found.2, wanted.2);
    }
}

#[test]
fn settings_are_refused_by_name() {
    let with = |loss_type: &str| Dpo::of(&[loss_type], None).unwrap();
    let refused: [(Result<(), LossError>, &str); 12] = [
        (
            with("exo_pair").check(),
            "`label_smoothing: 0`: `loss_type: exo_pair` needs it in (0, 1)\nhint: 0.001",
        ),
        (
            Dpo { label_smoothing: 0.5, ..with("robust") }.check(),
            "`label_smoothing: 0.5`: `loss_type: robust`",
        ),
        (Dpo { beta: 0.0, ..Dpo::default() }.check(), "`beta: 0`: it must be above 0\nhint: 0.1"),
        (Dpo { beta: f64::NAN, ..Dpo::default() }.check(), "`beta: NaN`"),
        (Dpo { ld_alpha: Some(1.5), ..Dpo::default() }.check(), "`ld_alpha: 1.5`: it must be of [0, 1]"),
        (
            Dpo { f_divergence: F_DIVERGENCES[1], ..with("bco_pair") }.check(),
            "`f_divergence_type: forward_kl`: only losses of the difference",
        ),
        (Dpo { losses: vec![], ..Dpo::default() }.check(), "`loss_type: []`"),
        (Dpo::of(&["ipo"], Some(&[1.0, 2.0])).map(|_| ()), "`loss_weights: 2`: another number"),
        (
            Kto { desirable_weight: -1.0, ..Kto::default() }.check(),
            "`desirable_weight: -1`: it must be 0 or more",
        ),
        (
            Grpo { delta: Some(1.1), ..Grpo::default() }.check(),
            "`delta: 1.1`: it must be above 1 + `epsilon_high`",
        ),
        (
            Rloo { reward_clip_range: Some((1.0, 0.0)), ..Rloo::default() }.check(),
            "`reward_clip_range: [1, 0]`",
        ),
        (Cpo { alpha: f64::INFINITY, ..Cpo::default() }.check(), "`alpha: inf`"),
    ];
    for (found, wanted) in refused {
        let e = found.unwrap_err().to_string();
        assert!(e.starts_with(wanted) && e.contains("\nhint: "), "{e}");
    }
}

#[test]
fn batches_are_refused_by_place() {
    let [one, two]: [&[f32]; 2] = [&[-1.0], &[-1.0, -2.0]];
    let pair = |chosen: &[&[f32]], rejected: &[&[f32]], reference: Option<Reference>| {
        let batch = PairBatch { chosen, rejected, reference, prompt: None };
        Dpo::default().loss(&batch, Totals::default()).unwrap_err().to_string()
    };
    assert_eq!(pair(&[one, one], &[one], None), "rejected: 1 sequences, not the `2` of the others");
    assert_eq!(pair(&[one, &[]], &[one, one], None), "chosen[1]: it has no supervised token");
    assert_eq!(pair(&[one], &[one], None), "reference: its log-probabilities are missing");
    let reference = Reference { chosen: &[one], rejected: &[two] };
    assert_eq!(
        pair(&[one], &[one], Some(reference)),
        "reference.rejected[0]: 2 log-probabilities of a sequence of `1`"
    );
    let grpo = Grpo { beta: 0.1, ..Grpo::default() };
    let batch = RolloutBatch { completions: &[one], old: None, reference: None, advantages: &[1.0] };
    let e = grpo.loss(&batch, Grpo::totals(1)).unwrap_err().to_string();
    assert_eq!(e, "reference: its log-probabilities are missing");
    let batch = RolloutBatch { advantages: &[], ..batch };
    let e = Grpo::default().loss(&batch, Grpo::totals(1)).unwrap_err().to_string();
    assert_eq!(e, "advantages: 0 numbers of `1` answers");
    let rewards = Rewards { values: &[vec![Some(1.0)]], names: &["r"], weights: &[1.0], num_generations: 2 };
    let e = rewards.relative(SCALES[0], AGGREGATIONS[0]).unwrap_err().to_string();
    assert_eq!(e, "rewards: 1 answers are no groups of `2`");
}
