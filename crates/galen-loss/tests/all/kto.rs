//! KTO against TRL.

use crate::golden::{Golden, all_near, near, same_metrics, slices};
use galen_loss::{Kto, KtoBatch, Label};

#[test]
fn kto_equals_trl() {
    let file = Golden::open("kto.safetensors");
    let [beta, desirable, undesirable] =
        ["beta", "desirable_weight", "undesirable_weight"].map(|n| file.numbers(n));
    let completions = file.sequences("completions", "completions_lengths");
    let reference = file.sequences("reference", "completions_lengths");
    let kl_policy = file.sequences("kl_policy", "kl_policy_lengths");
    let kl_reference = file.sequences("kl_reference", "kl_policy_lengths");
    let label = |l: &f64| if *l == 1.0 { Label::Desirable } else { Label::Undesirable };
    let names = file.names("metrics");
    for (variant, _) in file.variants("") {
        let losses = file.numbers(&format!("{variant}/loss"));
        assert_eq!(losses.len(), 64);
        let gradient = file.sequences(&format!("{variant}/gradient"), "completions_lengths");
        let metrics = file.numbers(&format!("{variant}/metrics"));
        let mut labels = file.numbers("labels").into_iter();
        for (case, wanted) in losses.iter().enumerate() {
            let what = format!("{variant}, case {case}");
            let settings = Kto {
                beta: beta[case],
                desirable_weight: desirable[case],
                undesirable_weight: undesirable[case],
                ..Kto::of(&variant).unwrap()
            };
            settings.check().unwrap();
            let kl = Kto::kl(&slices(&kl_policy[case]), &slices(&kl_reference[case])).unwrap();
            let rows = completions[case].len();
            let labels: Vec<Label> = labels.by_ref().take(rows).map(|l| label(&l)).collect();
            let [completions, reference] = [slices(&completions[case]), slices(&reference[case])];
            let batch = KtoBatch { completions: &completions, reference: &reference, labels: &labels, kl };
            let found = settings.loss(&batch, Kto::totals(rows)).unwrap();
            near(found.loss, *wanted, &what);
            all_near(&found.gradient, &gradient[case], &what);
            same_metrics(&found.metrics, &names, &metrics[case * names.len()..][..names.len()], &what);
        }
    }
}
