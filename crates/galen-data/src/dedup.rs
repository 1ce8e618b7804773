//! Rows that say the same: exact duplicates, and near ones by the words they share.
//!
//! Texts are compared as sets of word n-grams (shingles); two are near when the sets' Jaccard similarity reaches the
//! threshold. Candidates come from MinHash signatures cut into bands (Broder: On the resemblance and containment of
//! documents, 1997; Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, chapter 3), and each candidate is then
//! compared by the sets themselves, so that nothing is taken for a duplicate by an estimate. Own code: the crates for
//! this are either unmaintained or estimate only.

use crate::words::{hash, mix, words};
use std::collections::HashMap;

/// Hash functions of a signature.
const FUNCTIONS: usize = 128;
/// Chance that a pair exactly at the threshold becomes a candidate, at least.
const RECALL: f64 = 0.995;
/// Of a bucket, so many texts are compared, the last ones: so that texts which are all alike without being the same do not take
/// for ever. [`Dedup::cut`] says where that was not the whole bucket.
const MAX_COMPARED: usize = 4096;

/// What counts as a duplicate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Jaccard similarity from which two texts are near duplicates, above 0; more than 1 finds exact ones only.
    pub threshold: f64,
    /// Words of a shingle. A shorter text is one shingle.
    pub ngram: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { threshold: 0.8, ngram: 3 }
    }
}

/// A text that says what an earlier one does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Duplicate {
    /// The earlier text, counted from 0 over everything that was added; of exact ones the first, which may be a near duplicate itself.
    pub of: usize,
    /// Jaccard similarity of their shingles; 1 where they are the same.
    pub similarity: f64,
    /// Whether the words are the same, in the same order.
    pub exact: bool,
}

/// Takes texts one after the other and says of each whether it is a duplicate of one before that was none.
#[derive(Debug)]
pub struct Dedup {
    options: Options,
    bands: usize,
    rows: usize,
    added: usize,
    cut: usize,
    /// Hash of all words -> the first text that had them, kept or not.
    exact: HashMap<u64, usize>,
    /// Hash of a band of the signature -> the kept text that had it last.
    heads: HashMap<u64, u32>,
    /// For each kept text and band: the kept text before it in the same bucket, plus 1; 0 ends the chain.
    chain: Vec<u32>,
    kept: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    number: usize,
    /// Sorted, each once.
    shingles: Box<[u64]>,
}

impl Dedup {
    /// Nothing seen yet.
    pub fn new(options: Options) -> Self {
        let (bands, rows) = bands(options.threshold);
        Self {
            options: Options { ngram: options.ngram.max(1), ..options },
            bands,
            rows,
            added: 0,
            cut: 0,
            exact: HashMap::new(),
            heads: HashMap::new(),
            chain: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// The next text. A text without words is never a duplicate.
    pub fn add(&mut self, text: &str) -> Option<Duplicate> {
        let number = self.added;
        self.added += 1;
        let words = words(text);
        if words.is_empty() {
            return None;
        }
        let whole = hash(&words);
        if let Some(of) = self.exact.get(&whole) {
            return Some(Duplicate { of: *of, similarity: 1.0, exact: true });
        }
        self.exact.insert(whole, number);
        let near = self.options.threshold <= 1.0;
        let shingles = if near { shingles(&words, self.options.ngram) } else { Box::default() };
        let keys = if near { self.keys(&shingles) } else { Vec::new() };
        if let Some(duplicate) = self.nearest(&shingles, &keys) {
            return Some(duplicate);
        }
        let place = self.kept.len() as u32;
        for key in keys {
            let before = self.heads.insert(key, place);
            self.chain.push(before.map_or(0, |b| b + 1));
        }
        self.kept.push(Kept { number, shingles });
        None
    }

    /// Texts that were not compared with all that may be near them, since too many are alike.
    pub fn cut(&self) -> usize {
        self.cut
    }

    /// The kept text most like this one, if any reaches the threshold; the earliest of equals.
    fn nearest(&mut self, shingles: &[u64], keys: &[u64]) -> Option<Duplicate> {
        let (mut candidates, mut cut) = (Vec::new(), false);
        for (band, key) in keys.iter().enumerate() {
            let mut at = self.heads.get(key).map_or(0, |h| h + 1);
            for _ in 0..MAX_COMPARED {
                if at == 0 {
                    break;
                }
                candidates.push(at - 1);
                at = self.chain[(at as usize - 1) * self.bands + band];
            }
            cut |= at != 0;
        }
        self.cut += usize::from(cut);
        candidates.sort_unstable();
        candidates.dedup();
        let mut best: Option<Duplicate> = None;
        for candidate in candidates {
            let kept = &self.kept[candidate as usize];
            // Sets of such sizes cannot have more in common.
            let (a, b) = (shingles.len(), kept.shingles.len());
            if (a.min(b) as f64 / a.max(b) as f64) < self.options.threshold {
                continue;
            }
            let similarity = jaccard(shingles, &kept.shingles);
            if similarity >= self.options.threshold && best.is_none_or(|b| similarity > b.similarity) {
                best = Some(Duplicate { of: kept.number, similarity, exact: false });
            }
        }
        best
    }

    /// A key for each band of the signature.
    fn keys(&self, shingles: &[u64]) -> Vec<u64> {
        let minimum = |function: usize| {
            let salt = mix(function as u64 + 1);
            shingles.iter().map(|s| mix(s ^ salt)).min().unwrap_or_default()
        };
        let key = |band: usize| {
            let first = band * self.rows;
            (first..first + self.rows).fold(mix(band as u64), |key, i| mix(key ^ minimum(i)))
        };
        (0..self.bands).map(key).collect()
    }
}

/// Bands and functions of a band: the longest bands that still find a pair at the threshold with [`RECALL`].
fn bands(threshold: f64) -> (usize, usize) {
    let found = |rows: usize| {
        let bands = FUNCTIONS / rows;
        1.0 - (1.0 - threshold.clamp(0.0, 1.0).powi(rows as i32)).powi(bands as i32)
    };
    let rows = (1..=FUNCTIONS / 2).rev().find(|rows| found(*rows) >= RECALL).unwrap_or(1);
    (FUNCTIONS / rows, rows)
}

fn shingles(words: &[String], n: usize) -> Box<[u64]> {
    let mut out: Vec<u64> = words.windows(n.min(words.len())).map(hash).collect();
    out.sort_unstable();
    out.dedup();
    out.into()
}

/// Of two sorted sets.
fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let (mut i, mut j, mut both) = (0, 0, 0_usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                both += 1;
                i += 1;
                j += 1;
            }
        }
    }
    let either = a.len() + b.len() - both;
    if either == 0 { 0.0 } else { both as f64 / either as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::SplitMix64;
    use std::collections::BTreeSet;

    /// The slow, obvious twin: sets of joined words, every pair compared.
    fn reference(texts: &[String], options: Options) -> Vec<Option<(usize, f64)>> {
        let set = |text: &String| -> BTreeSet<String> {
            let words = words(text);
            words.windows(options.ngram.min(words.len()).max(1)).map(|w| w.join(" ")).collect()
        };
        let mut kept: Vec<(usize, BTreeSet<String>)> = Vec::new();
        let mut out = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            let same = texts[..number].iter().position(|t| words(t) == words(text));
            if let Some(first) = same {
                out.push(Some((first, 1.0)));
                continue;
            }
            let this = set(text);
            let mut best: Option<(usize, f64)> = None;
            for (of, other) in &kept {
                let similarity = this.intersection(other).count() as f64 / this.union(other).count() as f64;
                if similarity >= options.threshold && best.is_none_or(|(_, s)| similarity > s) {
                    best = Some((*of, similarity));
                }
            }
            if best.is_none() {
                kept.push((number, this));
            }
            out.push(best);
        }
        out
    }

    #[test]
    fn as_every_pair_compared() {
        let mut random = SplitMix64::keyed(&[3]);
        let mut texts: Vec<String> = Vec::new();
        for i in 0..600 {
            let text = if i > 0 && random.below(2) == 0 {
                // An earlier text with a few words changed.
                let from = texts[random.below(i) as usize].clone();
                let mut words: Vec<String> = from.split(' ').map(str::to_owned).collect();
                for _ in 0..random.below(6) {
                    let at = random.below(words.len() as u64) as usize;
                    words[at] = format!("w{}", random.below(400));
                }
                words.join(" ")
            } else {
                let n = 5 + random.below(60);
                (0..n).map(|_| format!("w{}", random.below(400))).collect::<Vec<_>>().join(" ")
            };
            texts.push(text);
        }
        for options in [Options::default(), Options { threshold: 0.5, ngram: 2 }] {
            let expect = reference(&texts, options);
            let mut dedup = Dedup::new(options);
            let found: Vec<_> = texts.iter().map(|t| dedup.add(t)).collect();
            let duplicates = expect.iter().flatten().count();
            assert!(duplicates > 50 && duplicates < 500, "{duplicates}");
            for (i, (found, expect)) in found.iter().zip(&expect).enumerate() {
                let found = found.map(|d| (d.of, d.similarity));
                assert_eq!(found.is_some(), expect.is_some(), "{options:?} {i} {found:?} {expect:?}");
                if let (Some((of, s)), Some((expect_of, expect_s))) = (found, *expect) {
                    assert_eq!((of, (s - expect_s).abs() < 1e-12), (expect_of, true), "{i}");
                }
            }
        }
    }

    #[test]
    fn a_copy_of_a_near_duplicate_is_exact() {
        let text = |last: &str| format!("one two three four five six seven eight nine ten eleven {last}");
        let mut dedup = Dedup::new(Options::default());
        assert_eq!(dedup.add(&text("twelve")), None);
        let near = dedup.add(&text("dozen")).unwrap();
        assert!(near.of == 0 && !near.exact && near.similarity < 1.0);
        assert_eq!(dedup.add(&text("Dozen!")), Some(Duplicate { of: 1, similarity: 1.0, exact: true }));
        assert_eq!(dedup.add(&text("twelve")), Some(Duplicate { of: 0, similarity: 1.0, exact: true }));
    }

    /// Texts of one frame share buckets by the hundreds without being near.
    #[test]
    fn large_buckets_are_compared_whole() {
        let frame: Vec<String> = (0..38).map(|i| format!("f{i}")).collect();
        let text = |i: usize, changed: usize| {
            let own = (0..5).map(|k| format!("{}{i}x{k}", if k < changed { "c" } else { "w" }));
            frame.iter().cloned().chain(own).collect::<Vec<_>>().join(" ")
        };
        // 38 of 48 words in common: below the threshold. With one of five own ones, 39 of 47: above it.
        let mut dedup = Dedup::new(Options { threshold: 0.8, ngram: 1 });
        (0..1500).for_each(|i| assert_eq!(dedup.add(&text(i, 0)), None, "{i}"));
        for i in 0..100 {
            let found = dedup.add(&text(i, 4)).map(|d| (d.of, d.exact));
            assert_eq!(found, Some((i, false)), "{i}");
        }
        assert_eq!(dedup.cut(), 0);
    }

    #[test]
    fn exact_ones_alone_and_texts_without_words() {
        let mut dedup = Dedup::new(Options { threshold: 2.0, ngram: 3 });
        assert_eq!(dedup.add("..."), None);
        assert_eq!(dedup.add("A b c d"), None);
        assert_eq!(dedup.add("a b c e"), None);
        assert_eq!(dedup.add("a  B, c d!"), Some(Duplicate { of: 1, similarity: 1.0, exact: true }));
        assert_eq!(dedup.add("..."), None);
    }

    #[test]
    fn bands_find_what_they_should() {
        for threshold in [0.3, 0.5, 0.7, 0.8, 0.9, 0.99] {
            let (bands, rows) = bands(threshold);
            assert!(bands * rows <= FUNCTIONS && bands > 1);
            assert!(1.0 - (1.0 - threshold.powi(rows as i32)).powi(bands as i32) >= RECALL, "{threshold}");
        }
        assert_eq!(bands(0.0).1, 1);
    }
}
