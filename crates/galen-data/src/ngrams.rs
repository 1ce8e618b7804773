//! Texts as bags of hashed n-grams: cheap features in which sets of texts can be held against each other.
//!
//! As in DSIR (Xie et al.: Data Selection for Language Models via Importance Resampling, 2023): a text in lower case is
//! cut into runs of letters and digits and runs of other signs, and each of these tokens and each pair of neighbours
//! counts in the bucket that its SHA-256 names.

use sha2::{Digest, Sha256};

/// Buckets that n-grams are hashed into.
pub const BUCKETS: usize = 10_000;

/// The buckets of a text's tokens, then those of its pairs of tokens; one as often as it occurs.
pub fn buckets(text: &str) -> Vec<u32> {
    let lower = text.to_lowercase();
    let tokens = tokens(&lower);
    let pairs = tokens.windows(2).map(|pair| pair.join(" "));
    tokens.iter().map(|t| bucket(t)).chain(pairs.map(|p| bucket(&p))).collect()
}

/// Runs of letters, digits and `_`, and runs of what is neither that nor white space.
fn tokens(text: &str) -> Vec<&str> {
    let class = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' => 2,
        c if c.is_whitespace() => 0,
        _ => 1,
    };
    let mut out = Vec::new();
    let mut begin = (0, 0);
    for (at, kind) in text.char_indices().map(|(at, c)| (at, class(c))).chain([(text.len(), 0)]) {
        if kind != begin.1 {
            out.extend((begin.1 != 0).then(|| &text[begin.0..at]));
            begin = (at, kind);
        }
    }
    out
}

/// A SHA-256 as a big-endian number, modulo [`BUCKETS`].
fn bucket(ngram: &str) -> u32 {
    let digest = Sha256::digest(ngram);
    digest.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % BUCKETS as u32)
}

/// How often each bucket occurs in a set of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    of: Vec<u64>,
    total: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { of: vec![0; BUCKETS], total: 0 }
    }
}

impl Counts {
    /// Adds a text's [`buckets`].
    pub fn add(&mut self, buckets: &[u32]) {
        for bucket in buckets {
            self.of[*bucket as usize] += 1;
        }
        self.total += buckets.len() as u64;
    }

    /// Of several texts.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut counts = Self::default();
        texts.into_iter().for_each(|text| counts.add(text));
        counts
    }

    /// Share of each bucket. All 0 where nothing was counted.
    pub fn shares(&self) -> impl Iterator<Item = f64> {
        let total = self.total.max(1) as f64;
        self.of.iter().map(move |n| *n as f64 / total)
    }

    /// Jensen-Shannon divergence of the shares, in nats: 0 for equal ones, ln 2 (0.693) where no bucket is in both.
    /// Finite without smoothing, which the Kullback-Leibler divergence of small sets is not.
    pub fn divergence(&self, other: &Self) -> f64 {
        let part = |p: f64, mean: f64| if p > 0.0 { p * (p / mean).ln() } else { 0.0 };
        let both = self.shares().zip(other.shares()).map(|(p, q)| {
            let mean = f64::midpoint(p, q);
            f64::midpoint(part(p, mean), part(q, mean))
        });
        both.sum::<f64>().max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_runs() {
        for (text, expect) in [
            (
                "type-2 diabetes, n.o.s.",
                &["type", "-", "2", "diabetes", ",", "n", ".", "o", ".", "s", "."][..],
            ),
            ("  a_b\t<<48/2=24>>24 ", &["a_b", "<<", "48", "/", "2", "=", "24", ">>", "24"]),
            ("糖尿病 é", &["糖尿病", "é"]),
            (" \n", &[]),
        ] {
            assert_eq!(tokens(text), expect, "{text}");
        }
        assert_eq!(buckets("One, two").len(), 3 + 2);
        assert_eq!(buckets(""), [0; 0]);
    }

    #[test]
    fn a_bucket_is_the_hash_as_a_number() {
        // sha256("abc") = ba7816bf 8f01cfea 414140de 5dae2223 b00361a3 96177a9c b410ff61 f20015ad (FIPS 180-2), whose
        // value modulo 10,000 by Python's integers is 9965.
        assert_eq!(bucket("abc"), 9965);
    }

    #[test]
    fn divergence_goes_from_nothing_to_ln_2() {
        let counts = |texts: &[&str]| {
            let buckets: Vec<_> = texts.iter().map(|t| buckets(t)).collect();
            Counts::of(buckets.iter().map(|b| &b[..]))
        };
        let (a, b) = (counts(&["fever and cough", "fever"]), counts(&["seven apples"]));
        assert!(a.divergence(&a).abs() < 1e-15);
        assert!((a.divergence(&b) - std::f64::consts::LN_2).abs() < 1e-12);
        let (half, other) = (counts(&["fever", "apples"]), counts(&["fever"]));
        // Shares (1/2, 1/2) and (1, 0), so a mean of (3/4, 1/4).
        let expect =
            0.5 * (0.5 * (0.5_f64 / 0.75).ln() + 0.5 * (0.5_f64 / 0.25).ln()) + 0.5 * (1.0_f64 / 0.75).ln();
        assert!((half.divergence(&other) - expect).abs() < 1e-12);
        assert!((half.divergence(&other) - other.divergence(&half)).abs() < 1e-15);
        assert_eq!(Counts::default().divergence(&Counts::default()), 0.0);
    }
}
