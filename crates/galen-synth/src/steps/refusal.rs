//! Answers that refuse, and words that belong to no answer.

use super::each;
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::registry::{EachRow, Setup, Step, StepEntry};
use galen_reward::{ConfigError, Kind, Param};

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "refusal",
    about: "no refusals, no words about being a model, no boilerplate around answers",
    doc: "A text that says it cannot help, or speaks of itself as a model, is filtered as a refusal. Boilerplate (`Sure! Here is ...:`, `Let me \
          know if ...`) is taken off (`boilerplate: trim`), filtered, or kept. `also` adds phrases of one's own to the refusals. All \
          compare without case.",
    params: &[PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("field", Kind::Text, "\"text\"", "the field with the text"),
    Param::with(
        "boilerplate",
        Kind::OneOf(&["trim", "filter", "keep"]),
        "\"trim\"",
        "what becomes of boilerplate",
    ),
    Param::optional("also", Kind::Texts, "further phrases that make a text a refusal"),
];

/// What refusals say, in lower case, with plain apostrophes.
const REFUSALS: &[&str] = &[
    "as an ai",
    "as a language model",
    "as a large language model",
    "i'm an ai",
    "i am an ai",
    "ai language model",
    "i cannot assist",
    "i can't assist",
    "i cannot help",
    "i can't help",
    "i cannot provide",
    "i can't provide",
    "i'm sorry, but",
    "i am sorry, but",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "i do not have the ability",
    "i don't have the ability",
    "i cannot fulfill",
    "i can't fulfill",
    "i apologize, but",
    "i'm ready to help",
    "i'm here to help",
    "how can i help you",
    "please provide the",
    "please provide more",
];

/// How boilerplate before an answer begins; it ends with the line's colon, or with a sentence's end.
const BEFORE: &[&str] = &[
    "sure",
    "certainly",
    "of course",
    "absolutely",
    "here is",
    "here's",
    "here are",
    "okay",
    "great question",
];

/// How boilerplate behind an answer begins, as a paragraph of its own.
const BEHIND: &[&str] = &[
    "i hope this helps",
    "let me know if",
    "feel free to",
    "if you have any",
    "is there anything else",
    "note: this",
];

struct Refusal {
    field: String,
    boilerplate: String,
    also: Vec<String>,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    Ok(Box::new(Refusal {
        field: o.filled("field")?,
        boilerplate: o.text("boilerplate")?,
        also: o.texts("also")?.iter().map(|t| plain(t)).filter(|t| !t.trim().is_empty()).collect(),
    }))
}

fn plain(text: &str) -> String {
    text.to_lowercase().replace(['’', '‘'], "'")
}

/// The phrase that makes a text a refusal.
fn refuses<'a>(text: &str, also: &'a [String]) -> Option<&'a str> {
    let text = plain(text);
    REFUSALS.iter().copied().chain(also.iter().map(String::as_str)).find(|phrase| text.contains(phrase))
}

/// The text without boilerplate before and behind it.
fn trimmed(text: &str) -> &str {
    let mut rest = text.trim();
    let begins = |text: &str, with: &[&str]| {
        let text = plain(text.chars().take(40).collect::<String>().as_str());
        with.iter().any(|b| {
            text.strip_prefix(b).is_some_and(|after| !after.starts_with(|c: char| c.is_alphanumeric()))
        })
    };
    for _ in 0..3 {
        if !begins(rest, BEFORE) {
            break;
        }
        let line = rest.split('\n').next().unwrap_or_default();
        let end = if line.trim_end().ends_with(':') && line.len() < rest.len() {
            line.len()
        } else if let Some(at) = line.find(['!', ',']).filter(|at| *at < 24 && at + 1 < rest.len()) {
            at + 1
        } else if let Some(at) = line.find(": ").filter(|at| *at < 100) {
            at + 1
        } else {
            break;
        };
        rest = rest[end..].trim_start();
    }
    while let Some((before, _)) = rest.rsplit_once("\n\n").filter(|(_, last)| begins(last.trim(), BEHIND)) {
        rest = before.trim_end();
    }
    rest
}

impl Step for Refusal {
    fn start<'a>(&'a self, _: &'a Context<'a>, _: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |tally, _, row| {
            let text = row.text(&self.field)?;
            if let Some(phrase) = refuses(&text, &self.also) {
                let detail = format!("`{phrase}`: {}", super::generate::beginning(&text));
                return Err(Stop::filtered("refusal", detail));
            }
            let bare = trimmed(&text);
            let wrapped = bare.len() < text.trim().len();
            tally.figure("boilerplate", f64::from(u8::from(wrapped)));
            if wrapped && self.boilerplate == "filter" {
                return Err(Stop::filtered("boilerplate", super::generate::beginning(&text)));
            }
            if bare.is_empty() {
                return Err(Stop::filtered("boilerplate", super::generate::beginning(&text)));
            }
            if wrapped && self.boilerplate == "trim" {
                let bare = bare.to_owned();
                return Ok(vec![row.with(&self.field, bare)]);
            }
            Ok(vec![row])
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_and_boilerplate() {
        let also = vec!["no idea".to_owned()];
        assert_eq!(refuses("I’m sorry, but I can’t.", &also), Some("i'm sorry, but"));
        assert_eq!(refuses("No idea.", &also), Some("no idea"));
        assert_eq!(refuses("She is sorry that the asthma came back.", &also), None);
        for (text, expect) in [
            ("Sure! Here is a vignette:\n\nA man has a cough.", "A man has a cough."),
            ("Here's a paraphrase: a sore throat", "a sore throat"),
            ("A man.\n\nI hope this helps!\n\nLet me know if you need more.", "A man."),
            ("Surely a man has a cough.", "Surely a man has a cough."),
            ("Here is where it hurts.", "Here is where it hurts."),
            ("Sure", "Sure"),
        ] {
            assert_eq!(trimmed(text), expect, "{text}");
        }
    }
}
