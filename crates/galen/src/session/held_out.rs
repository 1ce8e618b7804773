//! Accuracy on a task's questions at every validation (`eval_task`): what is wanted, beside what is optimised.

use super::base::Base;
use super::scorer::ModelScorer;
use crate::config::Config;
use galen_data::template::ChatTemplate;
use galen_eval::{EvalOptions, Limit, PromptOptions, Task, evaluate};
use galen_model::tokenizer::Tokenizer;
use galen_train::{Error, HeldOut, Place, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// A task's questions.
pub(super) struct TaskHeldOut<'a> {
    task: Task,
    tokenizer: &'a Tokenizer,
    template: Option<&'a ChatTemplate>,
    options: EvalOptions,
}

impl<'a> TaskHeldOut<'a> {
    /// The task of the configuration; nothing where it names none. Errors: the task cannot be read.
    pub(super) fn open(
        config: &Config,
        base: &'a Base,
        template: Option<&'a ChatTemplate>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(name) = &config.eval_task else { return Ok(None) };
        let folder = Path::new(name).parent().filter(|folder| !folder.as_os_str().is_empty());
        let task = Task::load(name, folder)?;
        let prompt = PromptOptions { apply_chat_template: template.is_some(), ..PromptOptions::default() };
        let limit = config.eval_task_limit.map(|n| Limit::Count(n as usize));
        let options = EvalOptions { prompt, limit, seed: config.seed, ..EvalOptions::default() };
        Ok(Some(Self { task, tokenizer: &base.tokenizer, template, options }))
    }
}

impl HeldOut for TaskHeldOut<'_> {
    fn measure(&self, at: &Place) -> Result<BTreeMap<String, f64>> {
        let mut scorer = ModelScorer {
            model: at.model,
            adapter: Some(at.adapter),
            tokenizer: self.tokenizer,
            template: self.template,
            fast: None,
        };
        let what = |e: String| Error::Run { origin: self.task.origin().to_owned(), what: e };
        let result =
            evaluate(&self.task, &mut scorer, &self.options, &mut |_| ()).map_err(|e| what(e.to_string()))?;
        let Some(metric) = result.metrics.first() else { return Ok(BTreeMap::new()) };
        let figures = [("acc", Some(metric.value)), ("acc_stderr", metric.stderr)];
        Ok(figures.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
    }
}
