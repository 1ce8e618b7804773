//! A task's rows as plain text, for what compares other data with them: without description, examples and choices.

use crate::EvalError;
use crate::doc::{Reader, Text};
use crate::task::{OutputType, Task};
use crate::template::Templates;
use galen_types::RawRow;

/// What a row asks, and what is right.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The row.
    pub row: RawRow,
    /// The question; several where the choices are the contexts (`doc_to_text` gives an index).
    pub questions: Vec<String>,
    /// The right answers; none where the row hides them.
    pub answers: Vec<String>,
}

impl Task {
    /// The rows of a split as text.
    ///
    /// Errors: a split that there is not, rows that cannot be read, and a row whose `doc_to_text` fails.
    pub fn questions(&self, split: &str) -> Result<Vec<Question>, EvalError> {
        let templates = Templates::new();
        let one = |row: RawRow| {
            let reader =
                Reader { templates: &templates, row: &row, has_choices: self.doc_to_choice.is_some() };
            let choices = self.doc_to_choice.as_ref().map(|doc| reader.choices(doc)).transpose()?;
            let target = reader.target(&self.doc_to_target).ok();
            let (questions, labelled) = match (reader.text(&self.doc_to_text)?, &choices) {
                (Text::Text(question), choices) => (vec![question], choices.as_deref()),
                (Text::Index(_), Some(contexts)) if self.output_type == OutputType::MultipleChoice => {
                    (contexts.clone(), None)
                }
                (Text::Index(i), choices) => (vec![i.to_string()], choices.as_deref()),
            };
            let answers = target.and_then(|t| reader.gold_texts(&t, labelled).ok()).unwrap_or_default();
            Ok(Question { row, questions, answers })
        };
        self.dataset.rows(split)?.into_iter().map(one).collect()
    }

    /// A split to learn from: the examples', or the training split, that is not the one evaluated.
    pub fn example_split(&self) -> Option<&str> {
        let named = self.fewshot.split.as_deref().unwrap_or(self.dataset.default_fewshot_split());
        let others = [Some(named), self.dataset.training.as_deref(), self.dataset.validation.as_deref()];
        others.into_iter().flatten().find(|split| *split != self.dataset.evaluated_split())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(folder: &std::path::Path, rest: &str) -> Task {
        let text = format!(
            "task: t\ndataset_path: json\ndataset_kwargs: {{data_files: {{train: train.jsonl, test: test.jsonl}}}}\n\
             test_split: test\ndescription: Answer well.\nnum_fewshot: 1\n{rest}"
        );
        Task::from_yaml(&text, "t.yaml", folder).unwrap()
    }

    #[test]
    fn rows_without_what_surrounds_them() {
        let dir = tempfile::tempdir().unwrap();
        let row = |i: usize| format!("{{\"q\": \"What is {i}?\", \"a\": \"no\", \"label\": {}}}\n", i % 2);
        std::fs::write(dir.path().join("test.jsonl"), (0..3).map(row).collect::<String>()).unwrap();
        std::fs::write(dir.path().join("train.jsonl"), row(7)).unwrap();
        let chosen = task(
            dir.path(),
            "output_type: multiple_choice\ndoc_to_text: \"Q: {{q}}\"\ndoc_to_choice: [even, odd]\ndoc_to_target: label\n\
             training_split: train\n",
        );
        let rows = chosen.questions("test").unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(
            (&rows[1].questions[..], &rows[1].answers[..]),
            (&["Q: What is 1?".into()][..], &["odd".into()][..])
        );
        assert_eq!(rows[1].row.origin.line(), 2);
        assert_eq!(chosen.example_split(), Some("train"));
        assert_eq!(chosen.questions("train").unwrap()[0].questions, ["Q: What is 7?"]);
        assert!(chosen.questions("dev").is_err());
        let written = task(dir.path(), "output_type: generate_until\ndoc_to_text: q\ndoc_to_target: a\n");
        assert_eq!(written.questions("test").unwrap()[0].answers, ["no"]);
        // The files are named, no key says what they are for.
        assert_eq!(written.example_split(), None);
        let contexts = task(
            dir.path(),
            "output_type: multiple_choice\ndoc_to_text: label\ndoc_to_choice: [\"a b\", \"a c\"]\ndoc_to_target: a\n",
        );
        let rows = contexts.questions("test").unwrap();
        assert_eq!(
            (&rows[0].questions[..], &rows[0].answers[..]),
            (&["a b".into(), "a c".into()][..], &["no".into()][..])
        );
    }
}
