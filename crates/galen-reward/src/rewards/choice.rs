//! Whether the answer names the right letter of a multiple-choice question.

use crate::answer::{ANSWER, Answer, GOLD, Gold, one_if};
use crate::options::{Kind, Param};
use crate::{Completion, ConfigError, Options, Reward, RewardEntry, RewardError};
use fancy_regex::Regex;
use serde_json::Value;

pub(crate) const ENTRY: RewardEntry = RewardEntry {
    name: "choice",
    about: "1 where the answer names the right letter of a multiple-choice question, else 0",
    doc: "The letter after the last `answer is`, `answer:` or the like; without one, the first letter that stands \
          alone (`B`, `(B)`, `B.`, `**B**`). `A` and `I` before a word in lower case are words of English and count \
          only where nothing else is found. The field holds the letter (`B`, `(B)`) or the choice's number from 0.",
    params: &[GOLD, ANSWER, PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("letters", Kind::Text, "\"ABCD\"", "the letters, in order"),
    Param::with("ignore_case", Kind::Flag, "false", "`b` names `B`"),
];

fn build(options: &Options<'_>) -> Result<Box<dyn Reward>, ConfigError> {
    let ignore_case = options.flag("ignore_case")?;
    let fold = |c: char| if ignore_case { c.to_ascii_uppercase() } else { c };
    let letters: Vec<char> = options.filled("letters")?.chars().map(fold).collect();
    if !letters.iter().all(char::is_ascii_alphabetic) {
        return Err(options.wrong("letters", "takes letters from `a` to `z` and `A` to `Z`"));
    }
    if (1..letters.len()).any(|i| letters[..i].contains(&letters[i])) {
        return Err(options.wrong("letters", "has a letter twice"));
    }
    let marker = options.regex("letters", MARKER)?;
    let (gold, answer) = (Gold::new(options)?, Answer::new(options)?);
    Ok(Box::new(Choice { gold, answer, find: Letters { known: letters, ignore_case, marker } }))
}

/// What a letter after it is the answer by: `the answer is`, `Answer:`, `correct answer would be option (`.
const MARKER: &str = r"(?i)\banswer\b[\s*_`]*(?:(?:is|would be|should be|must be)\b|[:=])[\s:*_`'\x22]*(?:option|choice|letter)?[\s:*_`'\x22(\[{$]*(?:\\[(\[][\s(\[{$]*)?(?:\\(?:boxed|text|mathbf|textbf)\{[\s(]*)*";

struct Letters {
    known: Vec<char>,
    ignore_case: bool,
    marker: Regex,
}

impl Letters {
    /// The letter a text names.
    fn of(&self, text: &str) -> Option<char> {
        let marked = self.marker.find_iter(text).map_while(Result::ok);
        let after = marked.filter_map(|m| self.standalone(text, m.end())).last();
        after.or_else(|| {
            let alone = || text.char_indices().filter_map(|(at, _)| Some((at, self.standalone(text, at)?)));
            let is_word = |(at, letter): &(usize, char)| {
                "AaIi".contains(*letter) && {
                    let mut rest = text[at + 1..].chars();
                    rest.next() == Some(' ') && rest.next().is_some_and(char::is_lowercase)
                }
            };
            alone().find(|found| !is_word(found)).or_else(|| alone().next()).map(|(_, letter)| letter)
        })
    }

    /// The letter at byte `at`, where it is one of ours and no part of a word.
    fn standalone(&self, text: &str, at: usize) -> Option<char> {
        let letter = self.ours(text.get(at..)?.chars().next()?)?;
        let joins = |c: char| c.is_alphanumeric() || c == '_';
        let apostrophe = |c: char| "'’".contains(c);
        let before = text[..at].chars().next_back();
        let mut after = text[at + 1..].chars();
        let next = after.next();
        // `A's` and `I'm` are words, `'A'` is a letter in quotes.
        let contracted = next.is_some_and(apostrophe) && after.next().is_some_and(joins);
        (!before.is_some_and(joins) && !next.is_some_and(joins) && !contracted).then_some(letter)
    }

    fn ours(&self, c: char) -> Option<char> {
        let c = if self.ignore_case { c.to_ascii_uppercase() } else { c };
        self.known.contains(&c).then_some(c)
    }

    /// The letter a row's field holds.
    fn gold(&self, value: &Value) -> Option<char> {
        match value {
            Value::Number(n) => self.known.get(usize::try_from(n.as_u64()?).ok()?).copied(),
            Value::String(text) => {
                let bare = text.trim_matches(|c: char| c.is_whitespace() || "().:[]".contains(c));
                let mut chars = bare.chars();
                chars.next().filter(|_| chars.next().is_none()).and_then(|c| self.ours(c))
            }
            _ => None,
        }
    }
}

struct Choice {
    gold: Gold,
    answer: Answer,
    find: Letters,
}

impl Reward for Choice {
    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        let one = |c: &Completion<'_>| {
            let letters: String = self.find.known.iter().collect();
            let what = format!("one of the letters `{letters}` or a number from 0");
            let Some(golds) = self.gold.read(c, &what, |v| self.find.gold(v))? else { return Ok(None) };
            let named = self.answer.of(c.text).and_then(|a| self.find.of(a));
            Ok(Some(one_if(named.is_some_and(|n| golds.contains(&n)))))
        };
        completions.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn letters(set: &str, ignore_case: bool) -> Letters {
        Letters { known: set.chars().collect(), ignore_case, marker: Regex::new(MARKER).unwrap() }
    }

    #[test]
    fn letters_of_texts() {
        let cases = [
            ("B", Some('B')),
            (" (C) because", Some('C')),
            ("**D**", Some('D')),
            ("B.", Some('B')),
            ("B) Diabetes", Some('B')),
            ("'A'", Some('A')),
            ("A patient has B", Some('B')),
            ("A patient has diabetes", Some('A')),
            ("A, not B", Some('A')),
            ("A's not it: C", Some('C')),
            ("E11.9", None),
            ("ABCD", None),
            ("b", None),
            ("", None),
            ("Not A. The answer is C.", Some('C')),
            ("The answer is B? No, the correct answer is: **(D)**", Some('D')),
            ("Answer: B\nA is wrong", Some('B')),
            ("answer = $\\boxed{\\text{C}}$", Some('C')),
            ("The answer is Diabetes. So D", Some('D')),
            ("The answer is option B", Some('B')),
            ("answer: Choice A", Some('A')),
            ("Option B is wrong. **Answer**: C", Some('C')),
            ("B is not it.\n**Final Answer**: C", Some('C')),
            ("B? The answer is \\(C\\).", Some('C')),
            ("B? The answer is \\(\\boxed{C}\\)", Some('C')),
            ("答案B", None),
            ("答案：B。", Some('B')),
        ];
        let find = letters("ABCD", false);
        for (text, expect) in cases {
            assert_eq!(find.of(text), expect, "{text}");
        }
        assert_eq!(letters("ABCDE", false).of("E"), Some('E'));
        assert_eq!(letters("ABCD", true).of("answer: b"), Some('B'));
    }

    #[test]
    fn golds() {
        let find = letters("ABCD", false);
        for (value, expect) in [
            (Value::from("B"), Some('B')),
            (" (C). ".into(), Some('C')),
            (0.into(), Some('A')),
            (3.into(), Some('D')),
            (4.into(), None),
            ((-1).into(), None),
            ("1".into(), None),
            ("BC".into(), None),
            ("".into(), None),
            (true.into(), None),
        ] {
            assert_eq!(find.gold(&value), expect, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_names_a_letter_of_ours_that_is_in_it(
            text in "\\PC*", dense in "(answer|is|:|\\(|\\)| |[A-Ea-e]|'|é|\\*|\\\\boxed\\{|\n){0,30}",
        ) {
            for text in [&text, &dense] {
                if let Some(letter) = letters("ABCD", false).of(text) {
                    prop_assert!("ABCD".contains(letter) && text.contains(letter));
                }
                if let Some(letter) = letters("ABCD", true).of(text) {
                    prop_assert!("ABCD".contains(letter) && text.to_ascii_uppercase().contains(letter));
                }
            }
        }

        #[test]
        fn a_stated_answer_is_found(letter in "[A-D]", before in "[a-z ]{0,40}") {
            let expect = letter.chars().next();
            for text in [format!("{before}. The answer is {letter}."), format!("{before}\nAnswer: ({letter})")] {
                prop_assert_eq!(letters("ABCD", false).of(&text), expect, "{}", text);
            }
        }
    }
}
