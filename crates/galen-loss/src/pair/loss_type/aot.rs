//! Alignment by optimal transport (Melnyk et al., arXiv 2406.05882): the sorted values of one distribution
//! are asked to exceed those of another, rank by rank. The ranks are those of the batch that is given.

use super::{BySide, Form, LossType, Scored};
use crate::numeric::{log_sigmoid, sigmoid};
use crate::pair::Dpo;
use crate::{LossError, Result};

/// The policy's differences against the reference's.
pub(super) static AOT: LossType = LossType {
    name: "aot",
    doc: "AOT, arXiv 2406.05882, paired: sorted policy differences against sorted reference differences",
    form: Form::Batch(paired),
    any_divergence: false,
    check,
};

/// Chosen scores against rejected scores, of whatever pair.
pub(super) static AOT_UNPAIRED: LossType = LossType {
    name: "aot_unpaired",
    doc: "AOT, arXiv 2406.05882, unpaired: sorted chosen scores against sorted rejected scores",
    form: Form::Batch(unpaired),
    any_divergence: false,
    check,
};

/// Indices in ascending order of value.
fn ranks(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    order
}

/// Loss of one rank's difference, and its derivative.
fn smoothed(difference: f64, settings: &Dpo) -> (f64, f64) {
    let (z, e) = (settings.beta * difference, settings.label_smoothing);
    let value = -(1.0 - e) * log_sigmoid(z) - e * log_sigmoid(-z);
    (value, settings.beta * (e * sigmoid(z) - (1.0 - e) * sigmoid(-z)))
}

fn paired(pairs: &[Scored], settings: &Dpo) -> (f64, Vec<BySide>) {
    let policy: Vec<f64> = pairs.iter().map(|p| p.logp[0] - p.logp[1]).collect();
    let reference: Vec<f64> = pairs.iter().map(|p| p.ref_logp[0] - p.ref_logp[1]).collect();
    let (mut total, mut slopes) = (0.0, vec![[0.0; 2]; pairs.len()]);
    for (i, j) in ranks(&policy).into_iter().zip(ranks(&reference)) {
        let (value, slope) = smoothed(policy[i] - reference[j], settings);
        total += value;
        slopes[i] = [slope, -slope];
    }
    (total, slopes)
}

fn unpaired(pairs: &[Scored], settings: &Dpo) -> (f64, Vec<BySide>) {
    let [chosen, rejected] = [0, 1].map(|side| pairs.iter().map(|p| p.score[side]).collect::<Vec<f64>>());
    let (mut total, mut slopes) = (0.0, vec![[0.0; 2]; pairs.len()]);
    for (i, j) in ranks(&chosen).into_iter().zip(ranks(&rejected)) {
        let (value, slope) = smoothed(chosen[i] - rejected[j], settings);
        total += value;
        slopes[i][0] = slope;
        slopes[j][1] = -slope;
    }
    (total, slopes)
}

fn check(settings: &Dpo) -> Result<()> {
    let fine = (0.0..=1.0).contains(&settings.label_smoothing);
    let what = "it must be of [0, 1]";
    LossError::unless(fine, "label_smoothing", settings.label_smoothing, what, "0 trusts the labels")
}
