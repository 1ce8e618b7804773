//! Prompts whose answers are sampled, and the judge of those answers.

use super::prepare::{Preparer, Read};
use super::rows::{Parts, RowsReport};
use galen_data::DatasetSpec;
use galen_data::preference::{into_prompts, tokenize_prompts};
use galen_data::template::render_prompt_row;
use galen_model::End;
use galen_model::tokenizer::Tokenizer;
use galen_reward::{Completion, Finish, Prompt as JudgedPrompt, RewardSet};
use galen_train::rollout::{Judge, JudgedAnswer, Part, Scores};
use galen_types::{
    InvariantError, Prompt, PromptRow, RenderedPrompt, TextEncoder as _, Tokenized, TokenizedPrompt,
};
use rayon::prelude::*;
use std::collections::HashMap;

/// A prompt with the row it comes from.
#[derive(Debug)]
pub struct PromptedRow {
    /// Its tokens.
    pub prompt: TokenizedPrompt,
    /// The row, whose fields rewards read.
    pub source: PromptRow,
    /// The prompt with one token behind it, for what looks at sequences.
    pub(super) sequence: Tokenized,
}

impl PromptedRow {
    pub(super) fn new(prompt: TokenizedPrompt, source: PromptRow) -> Result<Self, InvariantError> {
        let sequence = prompt.answered(&prompt.ids()[..1])?.tokens().clone();
        Ok(Self { prompt, source, sequence })
    }
}

impl Preparer<'_> {
    /// A prompt's text, as the model is given it.
    pub fn rendered_prompt(&self, spec: &DatasetSpec, row: &PromptRow) -> anyhow::Result<RenderedPrompt> {
        let chat = matches!(row.prompt, Prompt::Chat { .. });
        let template = if chat { Some(self.entry_template(spec)?) } else { None };
        Ok(render_prompt_row(row, template.as_ref(), &self.render_options(spec))?)
    }

    pub(super) fn prompts(&self, spec: &DatasetSpec, read: &mut Read) -> anyhow::Result<Vec<PromptedRow>> {
        let loaded = self.load_preferences(spec, self.config.bad_rows())?;
        read.bad_rows.extend(loaded.bad_rows.iter().map(|b| b.text.clone()));
        let rows = into_prompts(loaded.rows);
        let chats = rows.iter().any(|r| matches!(r.prompt, Prompt::Chat { .. }));
        let template = if chats { Some(self.entry_template(spec)?) } else { None };
        let options = self.render_options(spec);
        let one = |row: &PromptRow| Ok((row.clone(), render_prompt_row(row, template.as_ref(), &options)?));
        let (rows, rendered): (Vec<_>, Vec<_>) = self.rendered(&rows, one, read)?.into_iter().unzip();
        let (prompts, report) =
            tokenize_prompts(&rendered, &self.base.tokenizer, self.config.length_limits())?;
        read.reports.push(RowsReport::preference(&spec.path, report, 0));
        // Rows that are left out have no prompt; the others are known by their place.
        let mut sources: HashMap<u64, PromptRow> =
            rows.into_iter().enumerate().map(|(i, r)| (i as u64, r)).collect();
        prompts
            .into_iter()
            .filter_map(|prompt| sources.remove(&prompt.row()).map(|source| PromptedRow::new(prompt, source)))
            .map(|row| Ok(row?))
            .collect()
    }
}

/// The reward functions of a run, with what they judge by.
pub(super) struct RowJudge<'a> {
    pub(super) rows: &'a Parts<PromptedRow>,
    pub(super) rewards: RewardSet<'a>,
    pub(super) tokenizer: &'a Tokenizer,
}

impl RowJudge<'_> {
    fn row(&self, part: Part, row: usize) -> &PromptedRow {
        match part {
            Part::Train => &self.rows.train[row],
            Part::Validation => &self.rows.validation[row],
        }
    }
}

impl Judge for RowJudge<'_> {
    fn functions(&self) -> Vec<(String, f64)> {
        self.rewards.functions().map(|(name, weight)| (name.to_owned(), weight)).collect()
    }

    fn score(&self, part: Part, answers: &[JudgedAnswer]) -> Result<Scores, String> {
        let texts = answers
            .par_iter()
            .map(|a| self.tokenizer.decode(a.ids, true))
            .collect::<Result<Vec<String>, String>>()?;
        let completions: Vec<Completion> = answers
            .iter()
            .zip(&texts)
            .map(|(answer, text)| {
                let row = self.row(part, answer.row);
                Completion {
                    prompt: match &row.source.prompt {
                        Prompt::Text { text, .. } => JudgedPrompt::Text(text),
                        Prompt::Chat { messages, .. } => JudgedPrompt::Messages(messages),
                    },
                    text,
                    token_ids: answer.ids,
                    finish: if answer.end == End::Stop { Finish::Stop } else { Finish::Length },
                    origin: row.prompt.origin(),
                    row: &row.source.fields,
                }
            })
            .collect();
        let rewards = self.rewards.score(&completions).map_err(|e| e.to_string())?;
        let values =
            (0..answers.len()).map(|i| rewards.functions.iter().map(|f| f.values[i]).collect()).collect();
        Ok(Scores { values, totals: rewards.total, texts })
    }

    fn prompt(&self, part: Part, row: usize) -> String {
        self.tokenizer.decode(self.row(part, row).prompt.ids(), false).unwrap_or_default()
    }
}
