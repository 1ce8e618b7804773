//! Whether a pattern matches, or what it captures is the row's.

use crate::answer::{COMPARISON, Comparison, Gold, MISSING, captured, one_if, plain_text};
use crate::options::{Kind, Param};
use crate::{Completion, ConfigError, Options, Reward, RewardEntry, RewardError};
use fancy_regex::Regex;

pub(crate) const ENTRY: RewardEntry = RewardEntry {
    name: "regex",
    about: "1 where a pattern matches, or where what it captures equals the row's field, else 0",
    doc: "Without `field`: whether the pattern matches somewhere; `^` and `$` tie it to the ends, `(?s)` lets `.` match \
          line ends. With `field`: whether group 1 (without groups the whole match) of the first or last match equals the \
          field. Python's look-around is understood. A pattern that needs more than 200,000 steps of backtracking on a \
          completion counts as not matching it; patterns without look-around and back-references never backtrack.",
    params: &[PARAMS, MISSING, COMPARISON],
    build,
};

const PARAMS: &[Param] = &[
    Param::required("pattern", Kind::Text, "the pattern"),
    Param::optional("field", Kind::Text, "the row's field that is compared, or a list of right answers"),
    Param::with("match", Kind::OneOf(&["first", "last"]), "\"last\"", "which match is compared"),
];

fn build(options: &Options<'_>) -> Result<Box<dyn Reward>, ConfigError> {
    let regex = options.regex("pattern", &options.filled("pattern")?)?;
    let comparison = Comparison::new(options)?;
    let which = if options.text("match")? == "first" { Which::First } else { Which::Last };
    let gold = Gold::of_field(options, options.maybe_text("field")?)?;
    Ok(match gold {
        None => Box::new(Matches(regex)),
        Some(gold) => Box::new(Captures { regex, which, gold, comparison }),
    })
}

struct Matches(Regex);

impl Reward for Matches {
    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        Ok(completions.iter().map(|c| Some(one_if(self.0.is_match(c.text).unwrap_or(false)))).collect())
    }
}

enum Which {
    First,
    Last,
}

struct Captures {
    regex: Regex,
    which: Which,
    gold: Gold,
    comparison: Comparison,
}

impl Captures {
    fn captured<'t>(&self, text: &'t str) -> Option<&'t str> {
        let mut found = captured(&self.regex, text);
        match self.which {
            Which::First => found.next(),
            Which::Last => found.last(),
        }
    }
}

impl Reward for Captures {
    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        let one = |c: &Completion<'_>| {
            let Some(golds) = self.gold.read(c, "text or a number", plain_text)? else { return Ok(None) };
            let captured = self.captured(c.text);
            let right = captured.is_some_and(|a| golds.iter().any(|g| self.comparison.equal(a, g)));
            Ok(Some(one_if(right)))
        };
        completions.iter().map(one).collect()
    }
}
