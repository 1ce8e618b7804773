//! Importance weights of rows by their hashed n-grams (Xie et al.: Data Selection for Language Models via Importance
//! Resampling, 2023, section 3).
//!
//! Target and rows are each a bag of n-grams with one probability a bucket. A row's importance is the ratio of its
//! likelihoods under the two, its logarithm a sum over its n-grams:
//!
//! ```text
//! log w(x) = sum over n-grams b of x: log(p_target[b] + 1e-8) - log(p_rows[b] + 1e-8)
//! ```

use crate::ngrams::{BUCKETS, Counts};

/// What keeps the logarithm of a bucket that was never seen finite, as DSIR's authors have it.
const UNSEEN: f64 = 1e-8;

/// Log ratio of each bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Importance {
    log_ratios: Vec<f64>,
}

impl Importance {
    /// Of a target, over the rows to choose from.
    pub fn new(target: &Counts, rows: &Counts) -> Self {
        let ratio = |(target, rows): (f64, f64)| (target + UNSEEN).ln() - (rows + UNSEEN).ln();
        let log_ratios: Vec<f64> = target.shares().zip(rows.shares()).map(ratio).collect();
        debug_assert_eq!(log_ratios.len(), BUCKETS);
        Self { log_ratios }
    }

    /// Log importance weight of a row with these [`crate::ngrams::buckets`]. It grows with the row's length, in either
    /// direction.
    pub fn log_weight(&self, buckets: &[u32]) -> f64 {
        buckets.iter().map(|b| self.log_ratios[*b as usize]).sum()
    }

    /// The same for each n-gram, so that long and short rows compare; 0 without any.
    pub fn per_ngram(&self, buckets: &[u32]) -> f64 {
        self.log_weight(buckets) / buckets.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ngrams::buckets;
    use serde_json::Value;
    use std::path::Path;

    /// Against Python's own arithmetic: `tests/goldens/dsir.py` wrote the texts and their weights.
    #[test]
    fn weights_as_computed_in_python() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/dsir.json");
        let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let texts = |name: &str| -> Vec<Vec<u32>> {
            golden[name].as_array().unwrap().iter().map(|t| buckets(t.as_str().unwrap())).collect()
        };
        let (target, rows) = (texts("target"), texts("rows"));
        let counts = |texts: &[Vec<u32>]| Counts::of(texts.iter().map(|t| &t[..]));
        let (target, all) = (counts(&target), counts(&rows));
        let importance = Importance::new(&target, &all);
        let expect = golden["log_weights"].as_array().unwrap();
        let ngrams = golden["ngrams"].as_array().unwrap();
        assert!(rows.len() == expect.len() && rows.len() >= 10);
        for (i, row) in rows.iter().enumerate() {
            assert_eq!(row.len() as u64, ngrams[i].as_u64().unwrap(), "row {i}");
            let (found, expect) = (importance.log_weight(row), expect[i].as_f64().unwrap());
            assert!((found - expect).abs() <= 1e-9 * expect.abs().max(1.0), "row {i}: {found} for {expect}");
            let each = importance.per_ngram(row) * row.len() as f64;
            assert!((each - expect).abs() <= 1e-9 * expect.abs().max(1.0), "row {i}: {each} for {expect}");
        }
        let (found, expect) = (target.divergence(&all), golden["divergence"].as_f64().unwrap());
        assert!((found - expect).abs() <= 1e-12, "{found} for {expect}");
        assert_eq!(importance.log_weight(&[]), 0.0);
        assert_eq!(importance.per_ngram(&[]), 0.0);
    }
}
