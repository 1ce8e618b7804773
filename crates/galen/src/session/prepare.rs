//! From dataset entries to tokenised rows.

use super::base::{Base, TemplateChoice};
use super::rows::{Parts, Row, Rows, RowsReport};
use crate::config::{Alignment, Config};
use galen_data::order::epoch_order;
use galen_data::preference::mismatched;
use galen_data::template::{ChatTemplate, RenderOptions};
use galen_data::tokenize::{TokenizeOptions, tokenize};
use galen_data::{DatasetSpec, Loaded, OnBadRow, reader::Limits};
use galen_types::{Conversation, Rendered, Tokenized, TokenizedAnswer, TokenizedLabelled};
use rayon::prelude::*;
use std::collections::HashSet;
use std::path::PathBuf;

/// Rows ready to train and validate on.
pub struct Prepared {
    /// The rows.
    pub rows: Rows,
    /// What reading them gave.
    pub read: Read,
    /// SHA-256 of all tokens and masks, training then validation.
    pub sha256: String,
}

/// What reading the entries gave beside rows.
#[derive(Debug, Default)]
pub struct Read {
    /// What became of the rows, by entry.
    pub reports: Vec<RowsReport>,
    /// Rows that could not be read and were skipped.
    pub bad_rows: Vec<String>,
}

/// Turns dataset entries into rows by one configuration.
pub struct Preparer<'a> {
    /// Tokenizer and template.
    pub base: &'a Base,
    /// The keys.
    pub config: &'a Config,
    /// Open no socket.
    pub offline: bool,
    /// What templates that write the date write; a run keeps its own, so that resuming sees the same text.
    pub date: chrono::NaiveDate,
}

/// Turns rows of one entry into text.
pub struct Renderer {
    template: Option<ChatTemplate>,
    options: RenderOptions,
}

impl Renderer {
    /// One row.
    pub fn render(&self, row: &Conversation) -> anyhow::Result<Rendered> {
        match &self.template {
            Some(template) => Ok(template.render(row, &self.options)?),
            None => Ok(galen_data::template::render_pieces(row)?),
        }
    }
}

impl Preparer<'_> {
    /// The run's chat template, where there is one.
    pub fn template(&self) -> anyhow::Result<Option<ChatTemplate>> {
        self.check_special_tokens()?;
        self.base.template(self.choice(None))
    }

    /// `special_tokens` may say what the tokenizer says already; roles are not moved to other tokens.
    fn check_special_tokens(&self) -> anyhow::Result<()> {
        let ours = self.base.tokenizer.special_tokens();
        let given = &self.config.special_tokens;
        for (name, token) in [("bos_token", &given.bos), ("eos_token", &given.eos), ("unk_token", &given.unk)]
        {
            let Some(token) = token else { continue };
            if ours.get(name) != Some(token) {
                let has = ours.get(name).map_or("none", String::as_str);
                let message = format!("`special_tokens: {{{name}: {token}}}`, but the tokenizer has `{has}`");
                let hint = "moving a role to another token is not built: leave the key out";
                return Err(crate::error::UsageError::new(message, hint).into());
            }
        }
        Ok(())
    }

    fn choice<'b>(&'b self, spec: Option<&'b DatasetSpec>) -> TemplateChoice<'b> {
        let own = spec.filter(|s| s.chat_template.is_some() || s.chat_template_jinja.is_some());
        let (name, jinja) = match own {
            Some(s) => (s.chat_template.as_deref(), s.chat_template_jinja.as_deref()),
            None => (self.config.chat_template.as_deref(), self.config.chat_template_jinja.as_deref()),
        };
        TemplateChoice { name, jinja, eot: &self.config.eot_tokens }
    }

    /// Reads an entry's rows.
    pub fn load(&self, spec: &DatasetSpec, on_bad_row: OnBadRow) -> anyhow::Result<Loaded> {
        Ok(galen_data::load(spec, &|s| self.resolve(s), on_bad_row, Limits::default())?)
    }

    /// Where an entry's files lie.
    pub(super) fn resolve(&self, spec: &DatasetSpec) -> Result<PathBuf, String> {
        super::texts::resolve_dataset(spec, self.offline)
    }

    /// Rows as text; one that the template refuses is a bad row.
    pub(super) fn rendered<R: Sync, T: Send>(
        &self,
        rows: &[R],
        render: impl Fn(&R) -> anyhow::Result<T> + Sync + Send,
        read: &mut Read,
    ) -> anyhow::Result<Vec<T>> {
        let all: Vec<anyhow::Result<T>> = rows.par_iter().map(render).collect();
        if self.config.bad_rows() != OnBadRow::Skip {
            // The error is the first row's, whichever thread was first.
            return all.into_iter().collect();
        }
        let mut kept = Vec::with_capacity(all.len());
        for row in all {
            match row {
                Ok(row) => kept.push(row),
                Err(e) => read.bad_rows.push(format!("{e:#}")),
            }
        }
        Ok(kept)
    }

    /// Renders rows with the entry's template.
    pub fn render(&self, spec: &DatasetSpec, rows: &[Conversation]) -> anyhow::Result<Vec<Rendered>> {
        let renderer = self.renderer(spec, rows)?;
        rows.par_iter().map(|row| renderer.render(row)).collect()
    }

    /// What renders the rows of an entry. Errors where there are chats and no template.
    pub fn renderer(&self, spec: &DatasetSpec, rows: &[Conversation]) -> anyhow::Result<Renderer> {
        let chats = rows.iter().any(|r| matches!(r, Conversation::Chat { .. }));
        let template = if chats { Some(self.entry_template(spec)?) } else { None };
        Ok(Renderer { template, options: self.render_options(spec) })
    }

    /// The template of an entry with chats.
    pub(super) fn entry_template(&self, spec: &DatasetSpec) -> anyhow::Result<ChatTemplate> {
        self.base.required_template(self.choice(Some(spec)))
    }

    /// How an entry's rows are rendered.
    pub fn render_options(&self, spec: &DatasetSpec) -> RenderOptions {
        let train_on_eos = spec.train_on_eot.or(spec.train_on_eos).unwrap_or_default();
        let kwargs = self.config.chat_template_kwargs.clone();
        let date = self.date.and_hms_opt(0, 0, 0);
        RenderOptions { train_on_eos, kwargs, date, ..RenderOptions::default() }
    }

    /// How rows become tokens.
    pub fn tokenize_options(&self) -> TokenizeOptions {
        TokenizeOptions {
            sequence_len: self.config.sequence_len as usize,
            excess: self.config.excess(),
            train_on_inputs: self.config.train_on_inputs,
        }
    }

    /// All entries of the configuration.
    pub fn prepare(&self) -> anyhow::Result<Prepared> {
        let mut read = Read::default();
        let rows = match self.config.alignment()? {
            None => Rows::Supervised(self.collect(&mut read, Self::supervised)?),
            Some(Alignment::Pairs(_) | Alignment::Reward(_)) => {
                Rows::Pairs(self.collect(&mut read, Self::pairs)?)
            }
            Some(Alignment::Labelled(kto)) => {
                let rows = self.collect(&mut read, Self::labelled)?;
                let others = if kto.loss_type.needs_kl { self.mismatched(&rows)? } else { Parts::default() };
                Rows::Labelled(rows, others)
            }
            Some(Alignment::Sampled(_)) => Rows::Prompts(self.collect(&mut read, Self::prompts)?),
        };
        let sha256 = rows.sha256();
        Ok(Prepared { rows, read, sha256 })
    }

    /// The rows of all entries, some set aside for validation.
    fn collect<R: Row>(
        &self,
        read: &mut Read,
        entry: impl Fn(&Self, &DatasetSpec, &mut Read) -> anyhow::Result<Vec<R>>,
    ) -> anyhow::Result<Parts<R>> {
        let (train_specs, test_specs) = self.config.dataset_specs()?;
        let mut parts = Parts::default();
        for spec in &train_specs {
            parts.train.extend(entry(self, spec, read)?);
        }
        let trained = read.reports.len();
        for spec in &test_specs {
            parts.validation.extend(entry(self, spec, read)?);
        }
        read.reports.iter_mut().skip(trained).for_each(|r| r.validates = true);
        self.set_aside(&mut parts)?;
        // Row numbers key dropout masks: they run through all entries.
        for rows in [&mut parts.train, &mut parts.validation] {
            let numbered = std::mem::take(rows).into_iter().enumerate();
            *rows = numbered.map(|(i, row)| row.numbered(i as u64)).collect::<Result<_, _>>()?;
        }
        Ok(parts)
    }

    fn supervised(&self, spec: &DatasetSpec, read: &mut Read) -> anyhow::Result<Vec<Tokenized>> {
        let loaded = self.load(spec, self.config.bad_rows())?;
        read.bad_rows.extend(loaded.bad_rows.iter().map(|b| b.text.clone()));
        let renderer = self.renderer(spec, &loaded.rows)?;
        let rendered = self.rendered(&loaded.rows, |row| renderer.render(row), read)?;
        let (rows, report) = tokenize(&rendered, &self.base.tokenizer, self.tokenize_options())?;
        read.reports.push(RowsReport::supervised(&spec.path, report));
        Ok(rows)
    }

    /// Each prompt with the answer of a row beside it, for KTO's KL estimate.
    fn mismatched(&self, rows: &Parts<TokenizedLabelled>) -> anyhow::Result<Parts<TokenizedAnswer>> {
        let (batch, len) = (self.config.micro_batch_size as usize, self.config.sequence_len as usize);
        Ok(Parts {
            train: mismatched(&rows.train, batch, len)?,
            validation: mismatched(&rows.validation, batch, len)?,
        })
    }

    /// `val_set_size`: rows drawn by the seed alone.
    fn set_aside<R>(&self, parts: &mut Parts<R>) -> anyhow::Result<()> {
        let size = self.config.val_set_size;
        if size <= 0.0 {
            return Ok(());
        }
        let n = parts.train.len();
        let wanted = if size < 1.0 { (n as f64 * size).ceil() as usize } else { size as usize };
        let mut chosen = epoch_order(n, self.config.seed, u64::MAX);
        if wanted >= n {
            let what = format!("no row is left to train on: {n} read, {wanted} set aside (`val_set_size`)");
            return Err(crate::error::UsageError::new(what, "set fewer aside").into());
        }
        chosen.truncate(wanted);
        let chosen: HashSet<usize> = chosen.into_iter().collect();
        for (i, row) in std::mem::take(&mut parts.train).into_iter().enumerate() {
            let part = if chosen.contains(&i) { &mut parts.validation } else { &mut parts.train };
            part.push(row);
        }
        Ok(())
    }
}
