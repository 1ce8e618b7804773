//! Texts that repeat what a model is to be examined on.
//!
//! A text is contaminated where it is the same as an evaluation text but for case, spacing and punctuation, or shares
//! a run of 13 words with one (Brown et al.: Language Models are Few-Shot Learners, 2020, appendix C). Evaluation
//! texts shorter than that can be looked for as a whole, down to a length one chooses.

use crate::words::{hash, words};
use std::collections::{HashMap, HashSet};

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
    /// What occurs in more rows of an evaluation set than this tells none of them from the others (an instruction that
    /// stands before every question, a label) and does not count.
    pub common: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { ngram: 13, whole_from: 13, common: usize::MAX }
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
    /// Rows of all sets.
    rows: u32,
    /// Words of a run -> hash of the run -> its last place. Few lengths: `ngram`, and those of short texts.
    runs: HashMap<usize, HashMap<u64, u32>>,
    whole: HashMap<u64, u32>,
    /// Where each run and each whole text occurs, chained.
    places: Vec<Place>,
}

#[derive(Debug)]
struct Item {
    set: u32,
    row: u32,
    origin: String,
    text: String,
}

/// Where a run of words occurs.
#[derive(Default)]
struct Occurs {
    /// In these items, in order.
    items: Vec<u32>,
    /// And in more than `common` rows of each of these sets, whose items are left out.
    common: Vec<u32>,
}

/// A chain's places of one set stand together, since sets are added one after the other.
#[derive(Debug, Clone, Copy)]
struct Place {
    item: u32,
    /// The place before it plus 1; 0 ends the chain.
    before: u32,
    /// The last place of another set before it plus 1, so that a set with very many is passed over at once; 0 where there is none.
    other: u32,
    /// Rows of its set that have it, up to this one.
    rows: u32,
}

impl Index {
    /// Of nothing yet.
    pub fn new(options: Options) -> Self {
        let ngram = options.ngram.max(1);
        let options = Options { ngram, whole_from: options.whole_from.clamp(1, ngram), ..options };
        Self {
            options,
            sets: Vec::new(),
            items: Vec::new(),
            rows: 0,
            runs: HashMap::new(),
            whole: HashMap::new(),
            places: Vec::new(),
        }
    }

    /// Evaluation texts held.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Rows that texts were added of.
    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    /// One more text of an evaluation set. Texts of a row follow one another, under one origin.
    pub fn add(&mut self, set: &str, origin: &str, text: &str) {
        self.insert(set, origin, text, true);
    }

    /// One more text that is no question but what answers one: being the same as it is no sign of having seen the question,
    /// sharing a run of words with it is.
    pub fn add_answer(&mut self, set: &str, origin: &str, text: &str) {
        self.insert(set, origin, text, false);
    }

    fn insert(&mut self, set: &str, origin: &str, text: &str, question: bool) {
        let words = words(text);
        if words.is_empty() {
            return;
        }
        let place = self.sets.iter().position(|s| s == set).unwrap_or_else(|| {
            self.sets.push(set.to_owned());
            self.sets.len() - 1
        });
        let set = place as u32;
        if self.items.last().is_none_or(|last| last.set != set || last.origin != origin) {
            self.rows += 1;
        }
        let shown = text.chars().take(SHOWN_CHARS).collect();
        self.items.push(Item { set, row: self.rows - 1, origin: origin.to_owned(), text: shown });
        let (items, places) = (&self.items, &mut self.places);
        if question {
            occurs(&mut self.whole, items, places, hash(&words));
        }
        let n = if words.len() >= self.options.ngram {
            self.options.ngram
        } else if words.len() >= self.options.whole_from && question {
            words.len()
        } else {
            return;
        };
        let runs = self.runs.entry(n).or_default();
        words.windows(n).for_each(|run| occurs(runs, items, places, hash(run)));
    }

    /// The first evaluation text that this one repeats.
    pub fn find(&self, text: &str) -> Option<Hit> {
        let mut first = None;
        self.look(text, |items, kind, run| {
            first = items.first().map(|item| self.hit(*item, kind, run));
            first.is_none()
        });
        first
    }

    /// Every evaluation row that this text repeats, by a number below [`Index::rows`], once and with the first way in which
    /// it does; in the order of the text.
    pub fn find_all(&self, text: &str) -> Vec<(usize, Hit)> {
        let mut found: Vec<(usize, Hit)> = Vec::new();
        let mut seen = HashSet::new();
        self.look(text, |items, kind, run| {
            for item in items {
                let row = self.items[*item as usize].row as usize;
                if seen.insert(row) {
                    found.push((row, self.hit(*item, kind, run)));
                }
            }
            true
        });
        found
    }

    /// Gives what the text repeats to `tell`, equal texts first, then the longest runs, while it says `true`.
    fn look(&self, text: &str, mut tell: impl FnMut(&[u32], Kind, &[String]) -> bool) {
        let words = words(text);
        if words.is_empty() {
            return;
        }
        let Occurs { items, .. } = self.occurrences(&self.whole, hash(&words));
        if !items.is_empty() && !tell(&items, Kind::Exact, &words) {
            return;
        }
        let mut lengths: Vec<usize> = self.runs.keys().copied().filter(|n| *n <= words.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        for n in lengths {
            let Some(runs) = self.runs.get(&n) else { continue };
            let kind = if n == self.options.ngram { Kind::Ngram } else { Kind::Whole };
            let found: Vec<_> = words.windows(n).map(|run| self.occurrences(runs, hash(run))).collect();
            // A run that is mostly of words which many rows of a set have in common, an instruction's end with a word behind
            // it, tells no more of that set than they do.
            let mut common: HashMap<u32, Vec<bool>> = HashMap::new();
            for (at, found) in found.iter().enumerate() {
                for set in &found.common {
                    let words = common.entry(*set).or_insert_with(|| vec![false; words.len()]);
                    words[at..at + n].fill(true);
                }
            }
            for (at, Occurs { mut items, .. }) in found.into_iter().enumerate() {
                if !common.is_empty() {
                    items.retain(|item| {
                        let words = common.get(&self.items[*item as usize].set);
                        let known = words.map_or(0, |w| w[at..at + n].iter().filter(|c| **c).count());
                        2 * known < n
                    });
                }
                if !items.is_empty() && !tell(&items, kind, &words[at..at + n]) {
                    return;
                }
            }
        }
    }

    /// Where a run occurs.
    fn occurrences(&self, of: &HashMap<u64, u32>, hash: u64) -> Occurs {
        let mut out = Occurs::default();
        let mut at = of.get(&hash).map_or(0, |place| place + 1);
        while at != 0 {
            // A set's last place knows how many of its rows there are.
            let Place { item, rows, other, .. } = self.places[at as usize - 1];
            if rows as usize > self.options.common {
                out.common.push(self.items[item as usize].set);
                at = other;
            }
            while at != other {
                let place = self.places[at as usize - 1];
                out.items.push(place.item);
                at = place.before;
            }
        }
        out.items.reverse();
        out
    }

    fn hit(&self, item: u32, kind: Kind, shared: &[String]) -> Hit {
        let Item { set, origin, text, .. } = &self.items[item as usize];
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

/// Notes that the last item has a run or text of that hash, once.
fn occurs(of: &mut HashMap<u64, u32>, items: &[Item], places: &mut Vec<Place>, hash: u64) {
    let item = items.len() as u32 - 1;
    let Item { set, row, .. } = items[item as usize];
    let place = match of.get(&hash).map(|last| (last + 1, places[*last as usize])) {
        None => Place { item, before: 0, other: 0, rows: 1 },
        Some((_, last)) if last.item == item => return,
        Some((before, last)) => match &items[last.item as usize] {
            same if same.set == set => {
                Place { item, before, rows: last.rows + u32::from(same.row != row), ..last }
            }
            _ => Place { item, before, other: before, rows: 1 },
        },
    };
    of.insert(hash, places.len() as u32);
    places.push(place);
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
        let mut index = Index::new(Options { whole_from: 2, ..Options::default() });
        index.add("test", "t.jsonl:1", "Cholera, unspecified");
        index.add("test", "t.jsonl:2", "Plague");
        assert_eq!(kind(&index, "She has cholera; unspecified so far"), Some(Kind::Whole));
        assert_eq!(kind(&index, "unspecified cholera"), None);
        assert_eq!(kind(&index, "the plague"), None);
        assert_eq!(kind(&index, "PLAGUE"), Some(Kind::Exact));
        assert_eq!(index.find("..."), None);
    }

    /// What is common in one set, and so counts for nothing there, says of another what it would alone.
    #[test]
    fn sets_are_counted_apart() {
        let small = |index: &mut Index| {
            index.add("small", "s.jsonl:1", &format!("{LONG} What is it?"));
            index.add("small", "s.jsonl:2", "Something else");
        };
        let large = |index: &mut Index| {
            (0..5).for_each(|i| {
                index.add("large", &format!("l.jsonl:{i}"), &format!("{LONG} Case {i}, what now?"));
            });
        };
        let hits = |parts: &[&dyn Fn(&mut Index)], text: &str| {
            let mut index = Index::new(Options { common: 2, ..Options::default() });
            parts.iter().for_each(|part| part(&mut index));
            let found = index.find_all(text).into_iter();
            let mut found: Vec<_> = found.map(|(_, hit)| (hit.set, hit.origin, hit.kind)).collect();
            found.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
            found
        };
        // The last of them is a run that is mostly common in the large set, and not in the small one.
        for text in [LONG.to_owned(), format!("{LONG} Case 3, and no other"), format!("{LONG} What is it?")] {
            let (alone, nothing) = (hits(&[&small], &text), hits(&[&large], &text));
            assert_eq!((alone.len(), nothing.len()), (1, 0), "{text}");
            assert_eq!(hits(&[&small, &large], &text), alone, "{text}");
            assert_eq!(hits(&[&large, &small], &text), alone, "{text}");
        }
        let whole = format!("{LONG} Case 3, what now?");
        assert_eq!(hits(&[&large, &small], &whole).len(), 2);
        assert_eq!(hits(&[&small, &large], &whole), hits(&[&large, &small], &whole));
    }

    #[test]
    fn every_row_that_is_repeated() {
        let mut index = Index::new(Options { common: 2, ..Options::default() });
        let instruction =
            "Give the first letter of the code that the following diagnosis has in the ICD-10-CM, please: ";
        for i in 0..5 {
            let place = format!("t.jsonl:{i}");
            index.add("test", &place, &format!("{instruction}diagnosis number {i}"));
            index.add_answer("test", &place, "C");
        }
        let passage = LONG.replace("three", "four");
        index.add("test", "t.jsonl:8", &passage);
        index.add("other", "o.jsonl:1", &format!("{passage} What is it?"));
        index.add_answer("other", "o.jsonl:1", "An infarction");
        assert_eq!(index.rows(), 7);
        let rows = |text: &str| -> Vec<(usize, Kind)> {
            index.find_all(text).into_iter().map(|(row, hit)| (row, hit.kind)).collect()
        };
        // What all questions begin with is no contamination, nor is a label or an answer that is the same.
        assert_eq!(rows(&format!("{instruction}cholera")), []);
        assert_eq!(rows("C"), []);
        assert_eq!(rows("An infarction"), []);
        assert_eq!(index.find(&format!("{instruction}cholera")), None);
        // Nor what it ends with, with the beginning of a question.
        assert_eq!(rows("in the ICD-10-CM, please: diagnosis number 3"), []);
        assert_eq!(rows(&format!("{instruction}diagnosis number 3, and no other")), []);
        // The whole of one is.
        assert_eq!(rows(&format!("{instruction}diagnosis number 3")), [(3, Kind::Exact)]);
        // Two sets have it, each once.
        assert_eq!(rows(&passage), [(5, Kind::Exact), (6, Kind::Ngram)]);
        let hits = index.find_all(&passage);
        assert_eq!([&hits[0].1.set, &hits[1].1.set, &hits[1].1.origin], ["test", "other", "o.jsonl:1"]);
    }
}
