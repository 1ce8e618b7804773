//! From dataset entries to pairs and labelled answers.

use super::prepare::{Preparer, Read};
use super::rows::RowsReport;
use galen_data::preference::{into_labelled, into_pairs, tokenize_labelled, tokenize_pairs};
use galen_data::template::{ChatTemplate, RenderOptions, render_answer, render_labelled, render_pair};
use galen_data::{DatasetSpec, Loaded, OnBadRow, reader::Limits};
use galen_types::{Answer, Origin, Preference, Prompt, RenderedAnswer, TokenizedLabelled, TokenizedPair};

/// Turns a prompt with an answer into text.
pub struct AnswerRenderer {
    template: Option<ChatTemplate>,
    options: RenderOptions,
}

impl AnswerRenderer {
    /// One answer.
    pub fn render(
        &self,
        origin: &Origin,
        prompt: &Prompt,
        answer: &Answer,
    ) -> anyhow::Result<RenderedAnswer> {
        Ok(render_answer(origin, prompt, answer, self.template.as_ref(), &self.options)?)
    }
}

impl Preparer<'_> {
    /// Reads an entry's rows of preference data.
    pub fn load_preferences(
        &self,
        spec: &DatasetSpec,
        on_bad_row: OnBadRow,
    ) -> anyhow::Result<Loaded<Preference>> {
        Ok(galen_data::load_preferences(spec, &|s| self.resolve(s), on_bad_row, Limits::default())?)
    }

    /// What renders the answers of an entry. Errors where there are chats and no template.
    pub fn answer_renderer(&self, spec: &DatasetSpec, rows: &[Preference]) -> anyhow::Result<AnswerRenderer> {
        let chats = rows.iter().any(|r| matches!(r.prompt(), Prompt::Chat { .. }));
        let template = if chats { Some(self.entry_template(spec)?) } else { None };
        Ok(AnswerRenderer { template, options: self.render_options(spec) })
    }

    pub(super) fn pairs(&self, spec: &DatasetSpec, read: &mut Read) -> anyhow::Result<Vec<TokenizedPair>> {
        let loaded = self.load_preferences(spec, self.config.bad_rows())?;
        read.bad_rows.extend(loaded.bad_rows.iter().map(|b| b.text.clone()));
        let renderer = self.answer_renderer(spec, &loaded.rows)?;
        let made = into_pairs(loaded.rows, self.config.ranked())?;
        let (template, options) = (renderer.template.as_ref(), &renderer.options);
        let rendered = self.rendered(&made.pairs, |pair| Ok(render_pair(pair, template, options)?), read)?;
        let (pairs, report) = tokenize_pairs(&rendered, &self.base.tokenizer, self.config.length_limits())?;
        read.reports.push(RowsReport::preference(&spec.path, report, made.tied.len() as u64));
        Ok(pairs)
    }

    pub(super) fn labelled(
        &self,
        spec: &DatasetSpec,
        read: &mut Read,
    ) -> anyhow::Result<Vec<TokenizedLabelled>> {
        let loaded = self.load_preferences(spec, self.config.bad_rows())?;
        read.bad_rows.extend(loaded.bad_rows.iter().map(|b| b.text.clone()));
        let renderer = self.answer_renderer(spec, &loaded.rows)?;
        let (rows, tied) = into_labelled(loaded.rows)?;
        let (template, options) = (renderer.template.as_ref(), &renderer.options);
        let rendered = self.rendered(&rows, |row| Ok(render_labelled(row, template, options)?), read)?;
        let (rows, report) = tokenize_labelled(&rendered, &self.base.tokenizer, self.config.length_limits())?;
        read.reports.push(RowsReport::preference(&spec.path, report, tied.len() as u64));
        Ok(rows)
    }
}
