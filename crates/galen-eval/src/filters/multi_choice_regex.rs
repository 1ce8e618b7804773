//! The letter of the choice an answer names: by pattern, by the choice's text, or as `: (A)`.

use super::{Filter, FilterEntry, Row, find_match, regex_options};
use crate::metrics::{flag, known_options};
use crate::python_regex::python_regex;
use fancy_regex::{Regex, escape};
use serde_json::Value;

pub(super) const ENTRY: FilterEntry = FilterEntry {
    name: "multi_choice_regex",
    about: "the letter `(A)` of the choice an answer names; the row lists them in its field `choices`",
    build: |kwargs| {
        let known = [
            "regex_pattern",
            "group_select",
            "fallback",
            "ignore_case",
            "ignore_punctuation",
            "regexes_to_ignore",
        ];
        known_options(kwargs, &known)?;
        let (regex, select, fallback) = regex_options(kwargs)?;
        let patterns = match kwargs.get("regexes_to_ignore") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => list.clone(),
            Some(one) => vec![one.clone()],
        };
        let ignored = patterns
            .iter()
            .map(|p| {
                let pattern = p.as_str().ok_or_else(|| format!("`regexes_to_ignore`: `{p}` is not text"))?;
                python_regex(pattern).map_err(|e| format!("`{pattern}`: {e}"))
            })
            .collect::<Result<_, _>>()?;
        let (case, punctuation) = (flag(kwargs, "ignore_case")?, flag(kwargs, "ignore_punctuation")?);
        let punctuation = punctuation.then(|| Regex::new(r"\p{P}")).transpose().map_err(|e| e.to_string())?;
        Ok(Box::new(MultiChoice { regex, select, fallback, ignored, case, punctuation }) as Box<dyn Filter>)
    },
};

/// More choices than letters are not a question of this kind.
const MAX_CHOICES: usize = 26;

#[derive(Debug)]
struct MultiChoice {
    regex: Regex,
    select: i64,
    fallback: String,
    ignored: Vec<Regex>,
    case: bool,
    /// Unicode's category P, where it is left out: as the harness has it.
    punctuation: Option<Regex>,
}

impl MultiChoice {
    fn normal(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for regex in &self.ignored {
            text =
                regex.try_replacen(&text, 0, "").map_or_else(|_| text.clone(), std::borrow::Cow::into_owned);
        }
        if self.case {
            text = text.to_lowercase();
        }
        if let Some(punctuation) = &self.punctuation {
            text = punctuation.replace_all(&text, "").into_owned();
        }
        text
    }
}

impl Filter for MultiChoice {
    fn apply(&self, answers: Vec<String>, row: &Row) -> Result<Vec<String>, String> {
        let choices: Option<Vec<String>> = row
            .get("choices")
            .and_then(Value::as_array)
            .map(|list| list.iter().map(|c| c.as_str().unwrap_or_default().trim().to_owned()).collect());
        let choices = choices.ok_or("filter `multi_choice_regex` needs the row's list `choices`")?;
        if choices.is_empty() || choices.len() > MAX_CHOICES {
            return Err(format!("{} choices, expected 1 to {MAX_CHOICES}", choices.len()));
        }
        let normal: Vec<String> = choices.iter().map(|c| self.normal(c)).collect();
        let letter = |i: usize| format!("({})", char::from(b'A' + i as u8));
        let texts = normal.iter().map(|c| escape(c).into_owned()).collect::<Vec<_>>().join("|");
        let letters: String = (0..choices.len()).map(|i| char::from(b'A' + i as u8)).collect();
        let build = |pattern: String| Regex::new(&pattern).map_err(|e| format!("`{pattern}`: {e}"));
        let (texts, letters) = (build(texts)?, build(format!(r":[\s]*([{letters}])"))?);

        let find = |answer: &String| {
            let some = |found: Option<String>| found.filter(|f| !f.is_empty());
            if let Some(found) = some(find_match(&self.regex, answer, self.select)) {
                return found;
            }
            if let Some(found) = some(find_match(&texts, &self.normal(answer), self.select)) {
                // The last of equal texts, as a mapping from text to letter keeps it.
                return normal.iter().rposition(|c| *c == found).map_or(found, letter);
            }
            match some(find_match(&letters, answer, self.select)) {
                Some(found) => format!("({found})"),
                None => self.fallback.clone(),
            }
        };
        Ok(answers.iter().map(find).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use serde_json::json;

    #[test]
    fn pattern_then_text_then_letter() {
        let options = json!({"function": "multi_choice_regex", "regex_pattern": "(\\([A-Z]\\))", "group_select": -1,
            "ignore_case": true, "ignore_punctuation": true});
        let row = json!({"choices": ["Red.", "Green", "Blue"]});
        let answers = ["not (A) but (C)", "It is GREEN!", "Answer: B", "who knows"];
        check(options, row, &answers, &["(C)", "(B)", "(B)", "[invalid]"]);
    }
}
