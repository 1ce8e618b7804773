//! DPO, CPO, `SimPO` and ORPO against TRL.

use crate::golden::{Golden, all_near, near, same_metrics, slices};
use galen_loss::find;
use galen_loss::pair::{Cpo, Dpo, F_DIVERGENCES, Orpo, PairBatch, PairObjective, Reference};
use serde_json::Value;

type Cases = Vec<Vec<Vec<f32>>>;

struct Pairs {
    file: Golden,
    chosen: Cases,
    rejected: Cases,
    ref_chosen: Cases,
    ref_rejected: Cases,
    prompt: Cases,
}

impl Pairs {
    fn open() -> Self {
        let file = Golden::open("pairs.safetensors");
        let sequences = |name: &str, lengths: &str| file.sequences(name, lengths);
        Self {
            chosen: sequences("chosen", "chosen_lengths"),
            rejected: sequences("rejected", "rejected_lengths"),
            ref_chosen: sequences("ref_chosen", "chosen_lengths"),
            ref_rejected: sequences("ref_rejected", "rejected_lengths"),
            prompt: sequences("prompt", "prompt_lengths"),
            file,
        }
    }

    /// A setting of every case.
    fn setting(&self, name: &str) -> Vec<f64> {
        self.file.numbers(name)
    }

    /// Every variant of a family, with the objective that `of` makes of its settings and a case.
    fn hold(&self, family: &str, of: impl Fn(&Value, usize) -> Box<dyn PairObjective>) {
        let names = self.file.names(if family == "orpo" { "orpo_metrics" } else { "metrics" });
        for (variant, settings) in self.file.variants(family) {
            let losses = self.file.numbers(&format!("{variant}/loss"));
            assert_eq!(losses.len(), 64);
            let d_chosen = self.file.sequences(&format!("{variant}/d_chosen"), "chosen_lengths");
            let d_rejected = self.file.sequences(&format!("{variant}/d_rejected"), "rejected_lengths");
            let metrics = self.file.numbers(&format!("{variant}/metrics"));
            for (case, wanted) in losses.iter().enumerate() {
                let what = format!("{variant}, case {case}");
                let objective = of(&settings, case);
                objective.check().unwrap();
                let [chosen, rejected] = [slices(&self.chosen[case]), slices(&self.rejected[case])];
                let [ref_chosen, ref_rejected] =
                    [slices(&self.ref_chosen[case]), slices(&self.ref_rejected[case])];
                let prompt = slices(&self.prompt[case]);
                let batch = PairBatch {
                    chosen: &chosen,
                    rejected: &rejected,
                    reference: Some(Reference { chosen: &ref_chosen, rejected: &ref_rejected }),
                    prompt: Some(&prompt),
                };
                let found = objective.loss(&batch, objective.totals_of(&batch)).unwrap();
                near(found.loss, *wanted, &what);
                all_near(&found.d_chosen, &d_chosen[case], &format!("{what}: d_chosen"));
                all_near(&found.d_rejected, &d_rejected[case], &format!("{what}: d_rejected"));
                if family == "orpo" {
                    let d_prompt = self.file.sequences(&format!("{variant}/d_prompt"), "prompt_lengths");
                    all_near(&found.d_prompt, &d_prompt[case], &format!("{what}: d_prompt"));
                } else {
                    assert!(found.d_prompt.is_empty());
                }
                let wanted = &metrics[case * names.len()..][..names.len()];
                same_metrics(&found.metrics, &names, wanted, &what);
            }
        }
    }
}

#[test]
fn dpo_equals_trl() {
    let pairs = Pairs::open();
    let [beta, smoothing, ld_alpha, f_alpha, tau] =
        ["beta", "smoothing", "ld_alpha", "f_alpha", "tau"].map(|n| pairs.setting(n));
    pairs.hold("dpo/", |settings, case| {
        let list = |v: &Value| v.as_array().unwrap().clone();
        let types = list(&settings["loss_type"]);
        let types: Vec<&str> = types.iter().map(|t| t.as_str().unwrap()).collect();
        let weights = settings.get("loss_weights").map(list);
        let weights: Option<Vec<f64>> = weights.map(|w| w.iter().map(|v| v.as_f64().unwrap()).collect());
        let divergence = settings.get("f").and_then(Value::as_str).unwrap_or("reverse_kl");
        Box::new(Dpo {
            beta: beta[case],
            label_smoothing: smoothing[case],
            ld_alpha: settings.get("ld").map(|_| ld_alpha[case]),
            f_divergence: find(F_DIVERGENCES, divergence).unwrap(),
            f_alpha_divergence_coef: f_alpha[case],
            discopop_tau: tau[case],
            ..Dpo::of(&types, weights.as_deref()).unwrap()
        })
    });
}

#[test]
fn cpo_and_simpo_equal_trl() {
    let pairs = Pairs::open();
    let [beta, smoothing, gamma, alpha, cpo_alpha] =
        ["beta", "smoothing", "gamma", "alpha", "cpo_alpha"].map(|n| pairs.setting(n));
    pairs.hold("cpo/", |settings, case| {
        let likelihood = settings.get("cpo_alpha").and_then(Value::as_f64);
        Box::new(Cpo {
            beta: beta[case],
            label_smoothing: smoothing[case],
            simpo_gamma: gamma[case],
            alpha: if settings.get("alpha").is_some() { alpha[case] } else { 0.0 },
            cpo_alpha: likelihood.unwrap_or(cpo_alpha[case]),
            ..Cpo::of(settings["loss_type"].as_str().unwrap()).unwrap()
        })
    });
}

#[test]
fn orpo_equals_trl() {
    let pairs = Pairs::open();
    let beta = pairs.setting("beta");
    pairs.hold("orpo", |_, case| Box::new(Orpo { beta: beta[case] }));
}

/// Micro-batches of one pair each add up to the step, whatever their lengths, for every loss that is a mean.
#[test]
fn accumulation_gives_the_step() {
    let pairs = Pairs::open();
    let case = (0..64).find(|c| pairs.chosen[*c].len() == 4).unwrap();
    let [chosen, rejected] = [slices(&pairs.chosen[case]), slices(&pairs.rejected[case])];
    let [ref_chosen, ref_rejected] = [slices(&pairs.ref_chosen[case]), slices(&pairs.ref_rejected[case])];
    let prompt = slices(&pairs.prompt[case]);
    let batch = |rows: std::ops::Range<usize>| PairBatch {
        chosen: &chosen[rows.clone()],
        rejected: &rejected[rows.clone()],
        reference: Some(Reference {
            chosen: &ref_chosen[rows.clone()],
            rejected: &ref_rejected[rows.clone()],
        }),
        prompt: Some(&prompt[rows]),
    };
    let mixed = Dpo::of(&["sigmoid", "bco_pair", "sft"], Some(&[0.8, 0.2, 1.0])).unwrap();
    let objectives: [&dyn PairObjective; 4] =
        [&mixed, &Cpo::of("simpo").unwrap(), &Cpo::of("hinge").unwrap(), &Orpo::default()];
    for objective in objectives {
        let totals = objective.totals_of(&batch(0..4));
        let whole = objective.loss(&batch(0..4), totals).unwrap();
        let mut metrics = galen_loss::Metrics::default();
        let mut loss = 0.0;
        for row in 0..4 {
            let part = objective.loss(&batch(row..row + 1), totals).unwrap();
            loss += part.loss;
            assert_eq!(part.d_chosen[0], whole.d_chosen[row]);
            assert_eq!(part.d_rejected[0], whole.d_rejected[row]);
            metrics.merge(&part.metrics);
        }
        assert!((loss - whole.loss).abs() < 1e-12);
        for (name, value) in whole.metrics.iter() {
            assert!((metrics.get(name).unwrap() - value).abs() < 1e-12, "{name}");
        }
    }
}
