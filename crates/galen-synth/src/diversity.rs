//! How different texts are: distinct n-grams (Li et al.: A Diversity-Promoting Objective Function for Neural Conversation
//! Models, 2016).

use galen_data::words;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;

/// n-grams counted at most: what is beyond is not looked at, so that memory is bounded.
const MAX_NGRAMS: usize = 2_000_000;

/// Distinct n-grams over all n-grams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Diversity {
    /// Texts counted.
    pub texts: usize,
    /// Texts that are the same as no other but for case and punctuation.
    pub distinct_texts: usize,
    /// Words of all texts.
    pub words: usize,
    /// Distinct 1-, 2- and 3-grams over all of them.
    pub distinct: [f64; 3],
}

/// Counts texts.
#[derive(Default)]
pub(crate) struct Counter {
    texts: usize,
    words: usize,
    whole: HashSet<u64>,
    seen: [HashSet<u64>; 3],
    all: [usize; 3],
}

impl Counter {
    pub fn add(&mut self, text: &str) {
        let words = words(text);
        self.texts += 1;
        self.words += words.len();
        self.whole.insert(hash(&words));
        if self.seen.iter().map(HashSet::len).sum::<usize>() > MAX_NGRAMS {
            return;
        }
        for n in 1..=3 {
            for gram in words.windows(n) {
                self.seen[n - 1].insert(hash(gram));
                self.all[n - 1] += 1;
            }
        }
    }

    pub fn figures(&self) -> Diversity {
        let share =
            |n: usize| if self.all[n] == 0 { 0.0 } else { self.seen[n].len() as f64 / self.all[n] as f64 };
        Diversity {
            texts: self.texts,
            distinct_texts: self.whole.len(),
            words: self.words,
            distinct: [share(0), share(1), share(2)],
        }
    }
}

fn hash(words: &[String]) -> u64 {
    let digest = Sha256::digest(words.join(" "));
    let mut bytes = [0_u8; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let mut counter = Counter::default();
        counter.add("a b a b");
        counter.add("A, b a. B");
        counter.add("c");
        let found = counter.figures();
        assert_eq!((found.texts, found.distinct_texts, found.words), (3, 2, 9));
        // 1-grams a b c of 9; 2-grams ab ba of 6; 3-grams aba bab of 4.
        let expect = [3.0 / 9.0, 2.0 / 6.0, 2.0 / 4.0];
        assert!(found.distinct.iter().zip(expect).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        assert_eq!(Counter::default().figures(), Diversity::default());
    }
}
