//! From dataset entries to tokenised rows.

use super::base::{Base, TemplateChoice};
use super::record::hex;
use crate::config::Config;
use crate::config::types::ExcessLength as ConfigExcess;
use galen_data::order::epoch_order;
use galen_data::template::{ChatTemplate, RenderOptions};
use galen_data::tokenize::{ExcessLength, TokenizeOptions, TokenizeReport, tokenize};
use galen_data::{DatasetSpec, Loaded, reader::Limits};
use galen_hub::Options;
use galen_types::{Conversation, Rendered, Tokenized};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// Rows ready to train and validate on.
pub struct Prepared {
    /// Training rows.
    pub train: Vec<Tokenized>,
    /// Validation rows.
    pub validation: Vec<Tokenized>,
    /// What became of the training rows, by entry.
    pub reports: Vec<(String, TokenizeReport)>,
    /// Rows that could not be read and were skipped.
    pub bad_rows: Vec<String>,
    /// SHA-256 of all tokens and masks, training then validation.
    pub sha256: String,
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
    pub fn load(&self, spec: &DatasetSpec, on_bad_row: galen_data::OnBadRow) -> anyhow::Result<Loaded> {
        let options = Options::from_env(self.offline, super::base::hub_bars());
        let resolve = |spec: &DatasetSpec| -> Result<PathBuf, String> {
            let query = galen_hub::DatasetQuery {
                name: spec.name.clone(),
                revision: spec.revision.clone(),
                ..galen_hub::DatasetQuery::default()
            };
            galen_hub::resolve_dataset(&spec.path, &query, &options)
                .map(|r| r.path)
                .map_err(|e| e.to_string())
        };
        Ok(galen_data::load(spec, &resolve, on_bad_row, Limits::default())?)
    }

    /// Renders rows with the entry's template.
    pub fn render(&self, spec: &DatasetSpec, rows: &[Conversation]) -> anyhow::Result<Vec<Rendered>> {
        let renderer = self.renderer(spec, rows)?;
        rows.par_iter().map(|row| renderer.render(row)).collect()
    }

    /// What renders the rows of an entry. Errors where there are chats and no template.
    pub fn renderer(&self, spec: &DatasetSpec, rows: &[Conversation]) -> anyhow::Result<Renderer> {
        let chats = rows.iter().any(|r| matches!(r, Conversation::Chat { .. }));
        let template = if chats { Some(self.base.required_template(self.choice(Some(spec)))?) } else { None };
        Ok(Renderer { template, options: self.render_options(spec) })
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
            excess: match self.config.excess_length_strategy {
                ConfigExcess::Drop => ExcessLength::Drop,
                ConfigExcess::Truncate => ExcessLength::Truncate,
                ConfigExcess::Raise => ExcessLength::Raise,
            },
            train_on_inputs: self.config.train_on_inputs,
        }
    }

    /// All entries of the configuration.
    pub fn prepare(&self) -> anyhow::Result<Prepared> {
        let (train_specs, test_specs) = self.config.dataset_specs()?;
        let mut out = Prepared {
            train: Vec::new(),
            validation: Vec::new(),
            reports: Vec::new(),
            bad_rows: Vec::new(),
            sha256: String::new(),
        };
        for spec in &train_specs {
            let rows = self.entry(spec, &mut out)?;
            out.train.extend(rows);
        }
        for spec in &test_specs {
            let rows = self.entry(spec, &mut out)?;
            out.validation.extend(rows);
        }
        self.set_aside(&mut out);
        // Row numbers key dropout masks: they run through all entries.
        for rows in [&mut out.train, &mut out.validation] {
            for (i, row) in rows.iter_mut().enumerate() {
                *row =
                    Tokenized::new(row.origin().clone(), i as u64, row.ids().to_vec(), row.mask().to_vec())?;
            }
        }
        let mut hasher = Sha256::new();
        for row in out.train.iter().chain(&out.validation) {
            hasher.update((row.ids().len() as u64).to_le_bytes());
            for (id, m) in row.ids().iter().zip(row.mask()) {
                hasher.update(id.to_le_bytes());
                hasher.update([u8::from(*m)]);
            }
        }
        out.sha256 = hex(&hasher.finalize());
        Ok(out)
    }

    fn entry(&self, spec: &DatasetSpec, out: &mut Prepared) -> anyhow::Result<Vec<Tokenized>> {
        let loaded = self.load(spec, self.config.bad_rows())?;
        out.bad_rows.extend(loaded.bad_rows.iter().map(|b| b.text.clone()));
        let rendered = self.render(spec, &loaded.rows)?;
        let (rows, report) = tokenize(&rendered, &self.base.tokenizer, self.tokenize_options())?;
        out.reports.push((spec.path.clone(), report));
        Ok(rows)
    }

    /// `val_set_size`: rows drawn by the seed alone.
    fn set_aside(&self, out: &mut Prepared) {
        let size = self.config.val_set_size;
        if size <= 0.0 {
            return;
        }
        let n = out.train.len();
        let wanted = if size < 1.0 { (n as f64 * size).ceil() as usize } else { size as usize };
        let mut chosen = epoch_order(n, self.config.seed, u64::MAX);
        chosen.truncate(wanted.min(n.saturating_sub(1)));
        chosen.sort_unstable();
        for i in chosen.into_iter().rev() {
            out.validation.push(out.train.remove(i));
        }
        out.validation.reverse();
    }
}
