//! Multiple choice: a right answer among its relatives in the taxonomy.

use super::each;
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::row::random;
use crate::taxonomy::Taxonomy;
use galen_reward::{ConfigError, Kind, Param};
use serde_json::Value;
use std::sync::Arc;

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "distractors",
    about: "wrong options for a right answer: its relatives in the taxonomy",
    doc: "Draws `n` wrong answers by the seed from the row's siblings in the taxonomy, then from cousins of its depth ever further off, none of them \
          the same as the answer; shuffles them with it. Writes `options` (the list), `letters` (`A`, `B` ...), `answer_letter`, \
          `answer_index`, and `choices` (lines `A. ...`). A row with fewer than `n` relatives is filtered.",
    params: &[PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("id", Kind::Text, "\"id\"", "the field with the row's id in the taxonomy"),
    Param::with("answer", Kind::Text, "\"text\"", "the field with the right answer"),
    Param::with("from", Kind::Text, "\"text\"", "the field of the taxonomy's rows with their answers"),
    Param::optional(
        "differs_in",
        Kind::Text,
        "a field of the taxonomy's rows in which wrong ones must differ from the right one",
    ),
    Param::with("n", Kind::Count, "3", "wrong options, at most 25"),
];

struct Distractors {
    taxonomy: Arc<Taxonomy>,
    id: String,
    answer: String,
    from: String,
    differs_in: Option<String>,
    n: usize,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    let n = o.positive("n")?;
    if n > 25 {
        return Err(o.wrong("n", "takes at most 25: there are 26 letters"));
    }
    let (id, answer, from) = (o.filled("id")?, o.filled("answer")?, o.filled("from")?);
    let differs_in = o.maybe_text("differs_in")?;
    let Some(taxonomy) = setup.taxonomy else {
        let hint = "`taxonomy: {path: facts.jsonl, id: code, parent: parent}` at the top";
        return Err(o.wrong("id", "there is no taxonomy").hint(hint));
    };
    Ok(Box::new(Distractors { taxonomy: Arc::clone(taxonomy), id, answer, from, differs_in, n }))
}

impl Step for Distractors {
    fn start<'a>(&'a self, cx: &'a Context<'a>, _: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |tally, _, row| {
            let (id, answer) = (row.text(&self.id)?, row.text(&self.answer)?);
            let Some(node) = self.taxonomy.find(&id) else {
                return Err(Stop::failed("not in the taxonomy", format!("`{id}`")));
            };
            let mut random = random(cx.seed_of(&row), 0);
            let mut seen = vec![galen_data::normalized(&answer)];
            let mut wrong: Vec<String> = Vec::new();
            let mut distance = 0;
            while let Some(mut ring) =
                self.taxonomy.relatives(node, distance).filter(|_| wrong.len() < self.n)
            {
                random.shuffle(&mut ring);
                for other in ring {
                    if wrong.len() == self.n {
                        break;
                    }
                    let other = self.taxonomy.row(other);
                    let differs = self.differs_in.as_ref().is_none_or(|f| {
                        let (theirs, ours) = (&other[f], row.fields.get(f).unwrap_or(&Value::Null));
                        !theirs.is_null() && theirs != ours
                    });
                    let Some(text) = other[&self.from].as_str().filter(|_| differs) else { continue };
                    let normal = galen_data::normalized(text);
                    if !normal.is_empty() && !seen.contains(&normal) {
                        seen.push(normal);
                        wrong.push(text.to_owned());
                        tally.figure("distance", distance as f64);
                    }
                }
                distance += 1;
            }
            if wrong.len() < self.n {
                return Err(Stop::filtered("too few relatives", format!("{} of {}", wrong.len(), self.n)));
            }
            let at = random.below(self.n as u64 + 1) as usize;
            wrong.insert(at, answer);
            let letters: Vec<String> = ('A'..='Z').take(wrong.len()).map(String::from).collect();
            let choices: Vec<String> = letters.iter().zip(&wrong).map(|(l, t)| format!("{l}. {t}")).collect();
            let row = row.with("answer_letter", letters[at].as_str()).with("answer_index", at);
            let row = row.with("letters", letters).with("choices", choices.join("\n"));
            Ok(vec![row.with("options", wrong.into_iter().map(Value::from).collect::<Vec<_>>())])
        }))
    }
}
