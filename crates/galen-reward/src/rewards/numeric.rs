//! Whether the answer is the row's number.

use crate::answer::{ANSWER, Answer, GOLD, Gold, one_if};
use crate::numbers::{Separators, numbers};
use crate::options::{Kind, Param};
use crate::{Completion, ConfigError, Options, Reward, RewardEntry, RewardError};
use serde_json::Value;

pub(crate) const ENTRY: RewardEntry = RewardEntry {
    name: "numeric",
    about: "1 where the answer's number equals the row's within a tolerance, else 0",
    doc: "The first number after the last `marker`; without a marker in the text, the last number. Right when it \
          differs by at most `absolute` or by at most `relative` times the right one. The field holds a number, or a \
          text read by the same rule (so the `... #### 72` of GSM8K serves as it is). Signs, digits grouped in threes, \
          fractions and exponents are read; units and currencies may stand beside; a code such as `E11.9` is no number.",
    params: &[GOLD, ANSWER, PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("marker", Kind::Text, "\"####\"", "what the answer stands after; empty: there is none"),
    Param::with("absolute", Kind::Number, "0", "largest difference"),
    Param::with("relative", Kind::Number, "0", "largest difference as a share of the right number"),
    Param::with("thousands", Kind::Text, "\",\"", "what groups digits; empty: nothing does"),
    Param::with("decimal", Kind::Text, "\".\"", "what begins the fraction"),
];

fn build(options: &Options<'_>) -> Result<Box<dyn Reward>, ConfigError> {
    let tolerance = |name| match options.number(name)? {
        t if t < 0.0 => Err(options.wrong(name, format!("takes 0 or more, not `{t}`"))),
        t => Ok(t),
    };
    let character = |name| {
        let text = options.text(name)?;
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (first, None) if !first.is_some_and(|c| c.is_alphanumeric() || "+-".contains(c)) => Ok(first),
            _ => Err(options
                .wrong(name, format!("takes one character that is no letter, digit or sign, not `{text}`"))),
        }
    };
    let thousands = character("thousands")?;
    let decimal = character("decimal")?.ok_or_else(|| options.wrong("decimal", "is empty"))?;
    if thousands == Some(decimal) {
        return Err(options.wrong("decimal", "is `thousands` too"));
    }
    Ok(Box::new(Numeric {
        gold: Gold::new(options)?,
        answer: Answer::new(options)?,
        marker: options.text("marker")?,
        absolute: tolerance("absolute")?,
        relative: tolerance("relative")?,
        separators: Separators { thousands, decimal },
    }))
}

struct Numeric {
    gold: Gold,
    answer: Answer,
    marker: String,
    absolute: f64,
    relative: f64,
    separators: Separators,
}

impl Numeric {
    fn number(&self, text: &str) -> Option<f64> {
        let marked = (!self.marker.is_empty()).then(|| text.rsplit_once(self.marker.as_str())).flatten();
        match marked {
            Some((_, after)) => numbers(after, self.separators).first().copied(),
            None => numbers(text, self.separators).last().copied(),
        }
    }

    fn equal(&self, number: f64, gold: f64) -> bool {
        let difference = (number - gold).abs();
        difference <= self.absolute || difference <= self.relative * gold.abs()
    }
}

impl Reward for Numeric {
    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        let gold = |value: &Value| match value {
            Value::Number(n) => n.as_f64().filter(|n| n.is_finite()),
            Value::String(text) => self.number(text),
            _ => None,
        };
        let one = |c: &Completion<'_>| {
            let Some(golds) = self.gold.read(c, "a number", gold)? else { return Ok(None) };
            let number = self.answer.of(c.text).and_then(|a| self.number(a));
            Ok(Some(one_if(number.is_some_and(|n| golds.iter().any(|g| self.equal(n, *g))))))
        };
        completions.iter().map(one).collect()
    }
}
