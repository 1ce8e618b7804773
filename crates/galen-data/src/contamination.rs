//! Texts that repeat what a model is to be examined on.
//!
//! A text is contaminated where it is the same as an evaluation text but for case, spacing and punctuation, or shares
//! a run of 13 words with one (Brown et al.: Language Models are Few-Shot Learners, 2020, appendix C). Evaluation
//! texts shorter than that can be looked for as a whole, down to a length one chooses.

use crate::words::{hash, words};
use std::collections::HashMap;

/// Characters of an evaluation text that an example shows.
const SHOWN_CHARS: usize = 160;

/// What counts as contaminated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Words in a row that two texts must share.
    pub ngram: usize,
    /// Evaluation texts with fewer words than `ngram`, but so many at least, count where they occur whole within a
    /// text. As large as `ngram`: only equality counts for them.
    pub whole_from: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { ngram: 13, whole_from: 13 }
    }
}

/// How a text repeats an evaluation text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The same words.
    Exact,
    /// A run of words is the same.
    Ngram,
    /// The whole of a short evaluation text occurs in it.
    Whole,
}

impl Kind {
    /// In a word or two.
    pub fn words(self) -> &'static str {
        match self {
            Self::Exact => "the same text",
            Self::Ngram => "shared words",
            Self::Whole => "contains it",
        }
    }
}

/// A text that repeats an evaluation text.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Hit {
    /// The evaluation set's name.
    pub set: String,
    /// Where its text stands: `file:line`.
    pub origin: String,
    /// How.
    pub kind: Kind,
    /// The words they share; of a long text the beginning.
    pub shared: String,
    /// The beginning of the evaluation text.
    pub text: String,
}

/// Evaluation texts, ready to be looked for.
#[derive(Debug)]
pub struct Index {
    options: Options,
    sets: Vec<String>,
    items: Vec<Item>,
    /// Words of a run -> hash of the run -> item. Few lengths: `ngram`, and those of short texts.
    runs: HashMap<usize, HashMap<u64, u32>>,
    whole: HashMap<u64, u32>,
}

#[derive(Debug)]
struct Item {
    set: u32,
    origin: String,
    text: String,
}

impl Index {
    /// Of nothing yet.
    pub fn new(options: Options) -> Self {
        let ngram = options.ngram.max(1);
        let options = Options { ngram, whole_from: options.whole_from.clamp(1, ngram) };
        Self { options, sets: Vec::new(), items: Vec::new(), runs: HashMap::new(), whole: HashMap::new() }
    }

    /// Evaluation texts held.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// One more text of an evaluation set.
    pub fn add(&mut self, set: &str, origin: &str, text: &str) {
        let words = words(text);
        if words.is_empty() {
            return;
        }
        let place = self.sets.iter().position(|s| s == set).unwrap_or_else(|| {
            self.sets.push(set.to_owned());
            self.sets.len() - 1
        });
        let item = self.items.len() as u32;
        let shown = text.chars().take(SHOWN_CHARS).collect();
        self.items.push(Item { set: place as u32, origin: origin.to_owned(), text: shown });
        self.whole.entry(hash(&words)).or_insert(item);
        let n = if words.len() >= self.options.ngram {
            self.options.ngram
        } else if words.len() >= self.options.whole_from {
            words.len()
        } else {
            return;
        };
        let runs = self.runs.entry(n).or_default();
        for run in words.windows(n) {
            runs.entry(hash(run)).or_insert(item);
        }
    }

    /// The first evaluation text that this one repeats.
    pub fn find(&self, text: &str) -> Option<Hit> {
        let words = words(text);
        if words.is_empty() {
            return None;
        }
        if let Some(item) = self.whole.get(&hash(&words)) {
            return Some(self.hit(*item, Kind::Exact, &words));
        }
        let mut lengths: Vec<usize> = self.runs.keys().copied().filter(|n| *n <= words.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        for n in lengths {
            let kind = if n == self.options.ngram { Kind::Ngram } else { Kind::Whole };
            let found = words.windows(n).find_map(|run| Some((self.runs.get(&n)?.get(&hash(run))?, run)));
            if let Some((item, run)) = found {
                return Some(self.hit(*item, kind, run));
            }
        }
        None
    }

    fn hit(&self, item: u32, kind: Kind, shared: &[String]) -> Hit {
        let Item { set, origin, text } = &self.items[item as usize];
        let shared = shared.join(" ").chars().take(SHOWN_CHARS).collect();
        Hit {
            set: self.sets[*set as usize].clone(),
            origin: origin.clone(),
            kind,
            shared,
            text: text.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "A 54 year old man with a history of smoking has had chest pain for three days.";

    fn kind(index: &Index, text: &str) -> Option<Kind> {
        index.find(text).map(|h| h.kind)
    }

    #[test]
    fn thirteen_words_are_too_many_and_twelve_are_not() {
        let mut index = Index::new(Options::default());
        index.add("test", "t.jsonl:1", LONG);
        index.add("test", "t.jsonl:2", "Cholera, unspecified");
        assert_eq!((index.len(), index.is_empty()), (2, false));
        let words: Vec<&str> = LONG.split(' ').collect();
        for (from, n, expect) in
            [(0, 13, Some(Kind::Ngram)), (0, 12, None), (3, 13, Some(Kind::Ngram)), (3, 12, None)]
        {
            let text = format!("Before it, {} and after.", words[from..from + n].join(" ").to_uppercase());
            assert_eq!(kind(&index, &text), expect, "{text}");
        }
        assert_eq!(kind(&index, "cholera (UNSPECIFIED)"), Some(Kind::Exact));
        assert_eq!(kind(&index, "She has cholera, unspecified"), None);
        let hit = index.find(&LONG.to_lowercase()).unwrap();
        assert_eq!((hit.set.as_str(), hit.origin.as_str(), hit.kind), ("test", "t.jsonl:1", Kind::Exact));
        assert!(hit.shared.starts_with("a 54 year old") && hit.text == LONG);
    }

    #[test]
    fn short_texts_within_others() {
        let mut index = Index::new(Options { ngram: 13, whole_from: 2 });
        index.add("test", "t.jsonl:1", "Cholera, unspecified");
        index.add("test", "t.jsonl:2", "Plague");
        assert_eq!(kind(&index, "She has cholera; unspecified so far"), Some(Kind::Whole));
        assert_eq!(kind(&index, "unspecified cholera"), None);
        assert_eq!(kind(&index, "the plague"), None);
        assert_eq!(kind(&index, "PLAGUE"), Some(Kind::Exact));
        assert_eq!(index.find("..."), None);
    }
}
