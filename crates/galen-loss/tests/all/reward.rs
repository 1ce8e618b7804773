//! The reward model's loss against TRL.

use crate::golden::{Golden, all_near, near, same_metrics};
use galen_loss::Reward;

#[test]
fn reward_equals_trl() {
    let file = Golden::open("reward.safetensors");
    let center = file.numbers("center");
    let rows = file.counts("rows");
    let names = file.names("metrics");
    let starts: Vec<usize> = rows.iter().scan(0, |at, n| Some(std::mem::replace(at, *at + n))).collect();
    let of_case = |name: &str, case: usize| file.f32s(name)[starts[case]..][..rows[case]].to_vec();
    for (variant, flags) in file.variants("") {
        let losses = file.numbers(&format!("{variant}/loss"));
        assert_eq!(losses.len(), 64);
        let metrics = file.numbers(&format!("{variant}/metrics"));
        for (case, wanted) in losses.iter().enumerate() {
            let what = format!("{variant}, case {case}");
            let settings = Reward { center_rewards_coefficient: flags.get("center").map(|_| center[case]) };
            settings.check().unwrap();
            let [chosen, rejected, margin] = ["chosen", "rejected", "margin"].map(|n| of_case(n, case));
            let margin = flags.get("margin").map(|_| margin.as_slice());
            let found = settings.loss(&chosen, &rejected, margin, Reward::totals(rows[case])).unwrap();
            near(found.loss, *wanted, &what);
            let wanted = ["d_chosen", "d_rejected"].map(|n| of_case(&format!("{variant}/{n}"), case));
            all_near(&[found.d_chosen, found.d_rejected], &wanted, &what);
            same_metrics(&found.metrics, &names, &metrics[case * names.len()..][..names.len()], &what);
        }
    }
}
