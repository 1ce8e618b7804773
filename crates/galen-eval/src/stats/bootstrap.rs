//! Percentile bootstrap (Efron 1979): resample the items with replacement, take the 2.5 % and 97.5 % points.

use super::percentile;
use rayon::prelude::*;

/// Resamples of an interval.
pub const RESAMPLES: usize = 10_000;

/// 95 % interval of the mean of `values`. `None` when empty. The same seed gives the same bits on any number of
/// threads: random numbers are a function of (seed, resample, draw).
pub fn bootstrap_mean(values: &[f64], seed: u64) -> Option<[f64; 2]> {
    let mut means = resampled(values.len(), seed, |i| values[i]);
    interval(&mut means)
}

/// 95 % interval of `mean(b) - mean(a)` over the same items: pairs are drawn, so that what both share cancels.
/// `None` when empty or of different lengths.
pub fn bootstrap_paired_difference(a: &[f64], b: &[f64], seed: u64) -> Option<[f64; 2]> {
    if a.len() != b.len() {
        return None;
    }
    let mut means = resampled(a.len(), seed, |i| b[i] - a[i]);
    interval(&mut means)
}

fn resampled(n: usize, seed: u64, value: impl Fn(usize) -> f64 + Sync) -> Vec<f64> {
    if n == 0 {
        return Vec::new();
    }
    let mean_of = |resample: u64| {
        let key = mix(seed ^ mix(resample));
        let sum: f64 =
            (0..n as u64).map(|draw| value(below(mix(key.wrapping_add(draw.wrapping_mul(GOLDEN))), n))).sum();
        sum / n as f64
    };
    (0..RESAMPLES as u64).into_par_iter().map(mean_of).collect()
}

fn interval(means: &mut [f64]) -> Option<[f64; 2]> {
    means.sort_by(f64::total_cmp);
    Some([percentile(means, 0.025)?, percentile(means, 0.975)?])
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function (Steele, Lea and Flood 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(GOLDEN);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// An index below `n` from 64 random bits (bias below n / 2^64).
fn below(random: u64, n: usize) -> usize {
    ((u128::from(random) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::golden;

    fn values(n: usize, ones: usize) -> Vec<f64> {
        (0..n).map(|i| f64::from(u8::from(i < ones))).collect()
    }

    /// Against the exact percentiles of the bootstrap distribution of a share, Binomial(n, p)/n, by scipy.
    #[test]
    fn intervals_of_shares_are_binomial() {
        for case in golden()["bootstrap_share"].as_array().unwrap() {
            let number = |key: &str| case[key].as_f64().unwrap();
            let (n, ones) = (number("n"), number("ones"));
            let [lo, hi] = bootstrap_mean(&values(n as usize, ones as usize), 7).unwrap();
            // 10,000 resamples find the percentile of a discrete distribution to about a step.
            let step = 1.01 / n;
            assert!(
                (lo - number("lo")).abs() <= step && (hi - number("hi")).abs() <= step,
                "{case}: {lo} {hi}"
            );
        }
    }

    /// Against scipy.stats.bootstrap (paired, percentile, 99,999 resamples) on the same items.
    #[test]
    fn paired_intervals_are_scipys() {
        for case in golden()["bootstrap_paired"].as_array().unwrap() {
            let list = |key: &str| serde_json::from_value::<Vec<f64>>(case[key].clone()).unwrap();
            let (a, b) = (list("a"), list("b"));
            let [lo, hi] = bootstrap_paired_difference(&a, &b, 7).unwrap();
            let (expect_lo, expect_hi) = (case["lo"].as_f64().unwrap(), case["hi"].as_f64().unwrap());
            let tolerance = 0.03 * (expect_hi - expect_lo) + 1e-12;
            assert!(
                (lo - expect_lo).abs() <= tolerance && (hi - expect_hi).abs() <= tolerance,
                "{lo} {hi} {case}"
            );
        }
    }

    #[test]
    fn degenerate_and_repeatable() {
        assert_eq!(bootstrap_mean(&[], 1), None);
        assert_eq!(bootstrap_mean(&[1.0; 30], 1), Some([1.0, 1.0]));
        assert_eq!(bootstrap_paired_difference(&[1.0], &[], 1), None);
        let values = values(100, 37);
        assert_eq!(bootstrap_mean(&values, 5), bootstrap_mean(&values, 5));
        assert_ne!(bootstrap_mean(&values, 5), bootstrap_mean(&self::values(100, 36), 5));
    }

    #[test]
    fn one_thread_gives_the_same_bits() {
        let values = values(333, 100);
        let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        assert_eq!(
            pool(1).install(|| bootstrap_mean(&values, 3)),
            pool(3).install(|| bootstrap_mean(&values, 3))
        );
    }
}
