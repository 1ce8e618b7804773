//! Questions and answers from a text, each answer held against the part it comes from.

use super::{each, shown};
use crate::ask::{Ask, ENGINE};
use crate::context::{Context, Tally, variables};
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::row::Row;
use galen_reward::{ConfigError, Kind, Param};
use std::collections::HashSet;

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "from_document",
    about: "a text in parts; a question about each, and an answer that its part supports",
    doc: "Cuts the text at paragraphs (at sentences where a paragraph is too long) into parts of about `chunk_chars`. For each part the \
          template `question_document` sees it as `chunk` and asks a question, `answer_document` sees `chunk` and `question`. An answer \
          is supported when at least `min_support` of its words of four letters or more stand in the part; with `check: model` the \
          template `supported` is asked too, and must be answered with yes. Each question is a row with `question`, `answer`, `chunk` \
          and `support`. A document with no supported answer is filtered.",
    params: &[ENGINE, PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("field", Kind::Text, "\"text\"", "the text"),
    Param::with("chunk_chars", Kind::Count, "1500", "characters of a part, about"),
    Param::with("max_chunks", Kind::Count, "64", "parts of a document that are looked at"),
    Param::with("questions", Kind::Count, "1", "questions a part"),
    Param::with("question_template", Kind::Text, "\"question_document\"", "how a question is asked for"),
    Param::with("answer_template", Kind::Text, "\"answer_document\"", "how an answer is asked for"),
    Param::with("min_support", Kind::Number, "0.6", "share of the answer's words that its part must have"),
    Param::with(
        "check",
        Kind::OneOf(&["words", "model"]),
        "\"words\"",
        "what says that an answer is supported",
    ),
];

struct FromDocument {
    ask: Ask,
    field: String,
    chunk_chars: usize,
    max_chunks: usize,
    questions: usize,
    question: String,
    answer: String,
    supported: Option<String>,
    min_support: f64,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    let supported = match o.text("check")?.as_str() {
        "model" => Some(setup.template("check", "supported")?.name),
        _ => None,
    };
    Ok(Box::new(FromDocument {
        ask: Ask::new(setup)?,
        field: o.filled("field")?,
        chunk_chars: o.positive("chunk_chars")?.max(100),
        max_chunks: o.positive("max_chunks")?,
        questions: o.positive("questions")?,
        question: setup.template("question_template", &o.filled("question_template")?)?.name,
        answer: setup.template("answer_template", &o.filled("answer_template")?)?.name,
        supported,
        min_support: o.number("min_support")?,
    }))
}

/// What ends a sentence without a space behind it.
const WIDE_ENDS: [char; 3] = ['。', '！', '？'];

/// Parts of about `chars` characters: whole paragraphs, or whole sentences of a paragraph that is longer.
fn chunks(text: &str, chars: usize) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for paragraph in text.split("\n\n").map(str::trim).filter(|p| !p.is_empty()) {
        if paragraph.chars().count() <= chars {
            pieces.push(paragraph.to_owned());
            continue;
        }
        let mut sentence = String::new();
        for word in paragraph.split_inclusive(|c: char| c.is_whitespace() || WIDE_ENDS.contains(&c)) {
            let mut word = word;
            // What has no spaces is cut where it is as long as a part.
            while let Some((at, _)) = word.char_indices().nth(chars) {
                pieces
                    .extend(Some(std::mem::take(&mut sentence).trim().to_owned()).filter(|s| !s.is_empty()));
                pieces.push(word[..at].to_owned());
                word = &word[at..];
            }
            sentence.push_str(word);
            let ends = word.trim_end().ends_with(['.', '!', '?']) || word.ends_with(WIDE_ENDS);
            if ends || sentence.chars().count() >= chars {
                pieces.push(std::mem::take(&mut sentence).trim().to_owned());
            }
        }
        pieces.extend(Some(sentence.trim().to_owned()).filter(|s| !s.is_empty()));
    }
    let mut out: Vec<String> = Vec::new();
    let mut length = 0;
    for piece in pieces {
        let n = piece.chars().count();
        if let Some(last) = out.last_mut().filter(|_| length + n < chars) {
            last.push_str("\n\n");
            last.push_str(&piece);
            length += n + 2;
        } else {
            out.push(piece);
            length = n;
        }
    }
    out
}

/// Share of the answer's content words that stand in the part; of an answer without any, of all its words.
fn support(answer: &str, chunk: &str) -> f64 {
    let of: HashSet<String> = galen_data::words(chunk).into_iter().collect();
    let all = galen_data::words(answer);
    let content: Vec<&String> = all.iter().filter(|w| w.chars().count() >= 4).collect();
    let words: Vec<&String> = if content.is_empty() { all.iter().collect() } else { content };
    if words.is_empty() {
        return 0.0;
    }
    words.iter().filter(|w| of.contains(**w)).count() as f64 / words.len() as f64
}

/// A template's text about a part.
fn render(cx: &Context<'_>, row: &Row, name: &str, more: &[(&str, &str)]) -> Result<String, Stop> {
    let mut variables = variables(row);
    variables.extend(more.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())));
    cx.render(name, &variables)
}

impl FromDocument {
    /// A question about a part with its answer; `None` where the part does not support it.
    fn pair(
        &self,
        cx: &Context<'_>,
        tally: &mut Tally,
        row: &Row,
        chunk: &str,
        k: usize,
    ) -> Result<Option<Row>, Stop> {
        let number = (k + 1).to_string();
        let prompt = render(cx, row, &self.question, &[("chunk", chunk), ("number", &number)])?;
        // Each question has draws of its own.
        let own = Row { id: format!("{}#{k}", row.id), ..row.clone() };
        let question = self.ask.one(cx, tally, &own, &prompt)?.text;
        let question = question.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default().to_owned();
        let prompt = render(cx, row, &self.answer, &[("chunk", chunk), ("question", &question)])?;
        let answer = self.ask.one(cx, tally, &own, &prompt)?.text;
        let share = support(&answer, chunk);
        tally.figure("support", share);
        let mut supported = share >= self.min_support;
        if let Some(template) = self.supported.as_ref().filter(|_| supported) {
            let more = [("chunk", chunk), ("question", question.as_str()), ("answer", answer.as_str())];
            let prompt = render(cx, row, template, &more)?;
            let said = self.ask.one(cx, tally, &own, &prompt)?.text;
            supported = galen_data::words(&said).first().is_some_and(|w| w == "yes");
        }
        tally.figure("supported", f64::from(u8::from(supported)));
        let share = (share * 1000.0).round() / 1000.0;
        let made = row.clone().with("question", question).with("answer", answer);
        Ok(supported.then(|| made.with("chunk", chunk).with("support", share)))
    }
}

impl Step for FromDocument {
    fn start<'a>(&'a self, cx: &'a Context<'a>, _: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |tally, _, row| {
            let text = row.text(&self.field)?;
            let mut without = row.clone();
            without.fields.shift_remove(&self.field);
            let mut out = Vec::new();
            for (i, chunk) in chunks(&text, self.chunk_chars).iter().take(self.max_chunks).enumerate() {
                for q in 0..self.questions {
                    let k = i * self.questions + q;
                    match self.pair(cx, tally, &without, chunk, k) {
                        Ok(pair) => out.extend(pair),
                        // One part without an answer is no fault of the others.
                        Err(Stop::Failed { reason, .. }) if reason != crate::ask::ENGINE_FAILED => {}
                        Err(stop) => return Err(stop),
                    }
                }
            }
            if out.is_empty() { Err(Stop::filtered("no supported answer", "")) } else { Ok(out) }
        }))
    }

    fn prompt(&self, cx: &Context<'_>, rows: &Rows, at: usize) -> Result<Option<String>, String> {
        shown(rows, at, |row| {
            let parts = chunks(&row.text(&self.field)?, self.chunk_chars);
            let chunk = parts.first().map_or("", String::as_str);
            render(cx, row, &self.question, &[("chunk", chunk), ("number", "1")])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_support() {
        let text =
            "One two.\n\nThree four.\n\nA long paragraph. It has sentences. They go on and on. And on.";
        assert_eq!(
            chunks(text, 34),
            [
                "One two.\n\nThree four.",
                "A long paragraph.",
                "It has sentences.",
                "They go on and on.\n\nAnd on."
            ]
        );
        assert_eq!(chunks(&"x".repeat(100), 40), ["x".repeat(40), "x".repeat(40), "x".repeat(20)]);
        assert_eq!(
            chunks("发烧持续三天。咳嗽加重！医生怎么说？", 9),
            ["发烧持续三天。", "咳嗽加重！", "医生怎么说？"]
        );
        assert_eq!(chunks("", 40), Vec::<String>::new());
        assert!((support("Fever and chills.", "They had fever.") - 0.5).abs() < 1e-12);
        assert_eq!(support("?", "x"), 0.0);
        assert_eq!(support("No", "no"), 1.0);
    }
}
