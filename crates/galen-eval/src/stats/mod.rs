//! How sure a number is: standard errors, bootstrap intervals, McNemar's test.

mod bootstrap;
mod mcnemar;

pub use bootstrap::{RESAMPLES, bootstrap_mean, bootstrap_paired_difference};
pub use mcnemar::{McNemar, mcnemar};

/// Arithmetic mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Standard error of the mean, from the sample's deviation (divisor `n - 1`), as lm-evaluation-harness computes it.
/// `None` for fewer than two values.
pub fn mean_stderr(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let n = values.len() as f64;
    let mean = mean(values);
    let squares: f64 = values.iter().map(|x| (x - mean) * (x - mean)).sum();
    Some((squares / (n - 1.0)).sqrt() / n.sqrt())
}

/// The value a share `q` of sorted `values` lies below, interpolated linearly (numpy's default). `None` when empty.
pub fn percentile(values: &[f64], q: f64) -> Option<f64> {
    let at = q.clamp(0.0, 1.0) * values.len().checked_sub(1)? as f64;
    let (below, above) = (values.get(at.floor() as usize)?, values.get(at.ceil() as usize)?);
    Some(below + (above - below) * at.fract())
}

#[cfg(test)]
fn golden() -> serde_json::Value {
    serde_json::from_str(include_str!("../../tests/goldens/stats.json")).expect("the golden file is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stderr_and_percentile_are_numpys() {
        for case in golden()["mean_stderr"].as_array().unwrap() {
            let values: Vec<f64> = serde_json::from_value(case["values"].clone()).unwrap();
            let stderr = mean_stderr(&values).unwrap();
            let expect = case["stderr"].as_f64().unwrap();
            assert!((stderr - expect).abs() <= 1e-12, "{stderr} {expect}");
            let mut sorted = values;
            sorted.sort_by(f64::total_cmp);
            for (q, expect) in case["percentiles"].as_object().unwrap() {
                let (q, expect) = (q.parse().unwrap(), expect.as_f64().unwrap());
                let found = percentile(&sorted, q).unwrap();
                assert!((found - expect).abs() <= 1e-12, "{q}: {found} {expect}");
            }
        }
        assert_eq!(mean_stderr(&[1.0]), None);
        assert_eq!(percentile(&[], 0.5), None);
    }
}
