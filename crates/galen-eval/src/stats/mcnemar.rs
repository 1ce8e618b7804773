//! McNemar's exact test (1947): do two models answer the same items equally often right?

use statrs::distribution::{Binomial, Discrete, DiscreteCDF};

/// What the test found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct McNemar {
    /// Items only the first has right.
    pub only_a: u64,
    /// Items only the second has right.
    pub only_b: u64,
    /// Two-sided exact p: twice the smaller binomial tail, at most 1.
    pub p: f64,
    /// Mid-p (Fagerland, Lydersen and Laake 2013): the exact p less the probability of what was seen; less timid.
    pub mid_p: f64,
}

/// `a[i]`, `b[i]`: whether each model has item `i` right (a score of at least 0.5). Items beyond the shorter are left out.
pub fn mcnemar(a: &[f64], b: &[f64]) -> McNemar {
    let right = |x: f64| x >= 0.5;
    let pairs = || a.iter().zip(b).map(|(a, b)| (right(*a), right(*b)));
    let only_a = pairs().filter(|p| *p == (true, false)).count() as u64;
    let only_b = pairs().filter(|p| *p == (false, true)).count() as u64;
    let (p, mid_p) = p_values(only_a, only_b);
    McNemar { only_a, only_b, p, mid_p }
}

fn p_values(only_a: u64, only_b: u64) -> (f64, f64) {
    let fewer = only_a.min(only_b);
    // Without a difference there is nothing to test.
    let Some(binomial) = Some(only_a + only_b).filter(|n| *n > 0).and_then(|n| Binomial::new(0.5, n).ok())
    else {
        return (1.0, 1.0);
    };
    let exact = (2.0 * binomial.cdf(fewer)).min(1.0);
    let mid = if only_a == only_b {
        1.0 - 0.5 * binomial.pmf(fewer)
    } else {
        2.0 * binomial.cdf(fewer) - binomial.pmf(fewer)
    };
    (exact, mid.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::golden;

    #[test]
    fn p_values_are_scipys() {
        for case in golden()["mcnemar"].as_array().unwrap() {
            let count = |key: &str| case[key].as_u64().unwrap();
            let (p, mid) = p_values(count("b"), count("c"));
            for (found, key) in [(p, "p"), (mid, "mid_p")] {
                let expect = case[key].as_f64().unwrap();
                assert!((found - expect).abs() <= 1e-9 * expect.max(1e-300), "{case}: {key} {found}");
            }
        }
    }

    #[test]
    fn counts_discordant_pairs() {
        let test = mcnemar(&[1.0, 1.0, 0.0, 0.0, 1.0], &[1.0, 0.0, 1.0, 0.0, 0.0]);
        assert_eq!((test.only_a, test.only_b), (2, 1));
        assert_eq!(mcnemar(&[], &[]).p, 1.0);
    }
}
