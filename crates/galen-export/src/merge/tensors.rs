//! Tensors of one shape made one: sparsified, weighed, added or averaged over those of the elected sign.

use super::{MajoritySign, MergeOptions, Sparsify};
use galen_adapter::uniform;

/// One adapter's tensor.
pub(super) struct Task {
    pub(super) values: Vec<f32>,
    pub(super) weight: f32,
    /// Of its random choices.
    pub(super) key: [u64; 5],
}

/// The merged tensor.
pub(super) fn merged(mut tasks: Vec<Task>, options: &MergeOptions) -> Vec<f32> {
    let density = options.density.unwrap_or(1.0);
    for task in &mut tasks {
        match options.method.sparsify {
            _ if density >= 1.0 => {}
            Sparsify::Nothing => {}
            Sparsify::Magnitude => keep_largest(&mut task.values, density),
            Sparsify::Random => keep_random(&mut task.values, density, &task.key),
        }
    }
    let n = tasks.first().map_or(0, |t| t.values.len());
    let entry = |i: usize| {
        if !options.method.elect {
            return tasks.iter().map(|t| t.values[i] * t.weight).sum();
        }
        let of = |t: &Task| match options.majority_sign {
            MajoritySign::Total => t.values[i],
            MajoritySign::Frequency => sign(t.values[i]),
        };
        let majority = if tasks.iter().map(of).sum::<f32>() >= 0.0 { 1.0 } else { -1.0 };
        let agree = tasks.iter().filter(|t| sign(t.values[i]) == majority);
        let (sum, count) = agree.fold((0f32, 0f32), |(s, n), t| (s + t.values[i] * t.weight, n + 1.0));
        sum / count.max(1.0)
    };
    (0..n).map(entry).collect()
}

/// -1, 0 or 1, where `f32::signum` knows no zero.
fn sign(x: f32) -> f32 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

/// Leaves the share `density` of largest magnitude; of equal ones the first.
fn keep_largest(values: &mut [f32], density: f64) {
    let keep = (density * values.len() as f64) as usize;
    let mut order: Vec<usize> = (0..values.len()).collect();
    let by = |a: &usize, b: &usize| values[*b].abs().total_cmp(&values[*a].abs()).then(a.cmp(b));
    if keep > 0 && keep < order.len() {
        order.select_nth_unstable_by(keep - 1, by);
    }
    let gone: Vec<usize> = order.split_off(keep.min(order.len()));
    gone.into_iter().for_each(|i| values[i] = 0.0);
}

/// Leaves each entry with the chance `density`, and divides by it, so that the expectation stays.
fn keep_random(values: &mut [f32], density: f64, key: &[u64]) {
    for (i, v) in values.iter_mut().enumerate() {
        *v = if uniform(key, i as u64) < density { *v / density as f32 } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merge::find;

    fn options(name: &str, density: f64) -> MergeOptions {
        let method = find(name).unwrap();
        MergeOptions {
            method,
            density: Some(density),
            majority_sign: MajoritySign::Total,
            svd_rank: None,
            t: None,
            seed: 1,
        }
    }

    fn task(values: &[f32], weight: f32) -> Task {
        Task { values: values.to_vec(), weight, key: [0; 5] }
    }

    #[test]
    fn ties_by_hand() {
        let tasks = || vec![task(&[3.0, -1.0, 0.5, 0.0], 1.0), task(&[-1.0, -2.0, 0.1, 4.0], 0.5)];
        // Both keep two; the first column's majority is positive, the second's negative.
        assert_eq!(merged(tasks(), &options("ties", 0.5)), [3.0, -1.0, 0.0, 2.0]);
        let frequency = MergeOptions { majority_sign: MajoritySign::Frequency, ..options("ties", 1.0) };
        assert_eq!(merged(tasks(), &frequency)[0], 3.0, "a tie counts as positive");
    }

    #[test]
    fn dare_keeps_a_share_and_the_expectation() {
        let ones = vec![1f32; 20_000];
        let kept = merged(vec![task(&ones, 1.0)], &options("dare_linear", 0.25));
        assert!(kept.iter().all(|v| *v == 0.0 || *v == 4.0));
        let mean = kept.iter().sum::<f32>() / kept.len() as f32;
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
        assert_eq!(kept, merged(vec![task(&ones, 1.0)], &options("dare_linear", 0.25)));
        let mut other = task(&ones, 1.0);
        other.key[3] = 1;
        assert_ne!(kept, merged(vec![other], &options("dare_linear", 0.25)));
    }

    #[test]
    fn nothing_stays_at_density_0() {
        assert_eq!(merged(vec![task(&[1.0, 2.0], 1.0)], &options("magnitude_prune", 0.0)), [0.0, 0.0]);
    }
}
