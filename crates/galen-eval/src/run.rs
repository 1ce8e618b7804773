//! A task from its rows to its numbers.

use crate::item::{Builder, Gold, Item, PromptOptions};
use crate::metrics::{MetricSpec, Outcome, argmax};
use crate::report::{Sample, doc_hash, text_hash};
use crate::scorer::{ChoiceScore, GenerateRequest, QuestionScore, Scorer};
use crate::task::{OutputType, Task};
use crate::{EvalError, stats};
use serde_json::{Map, Value};
use std::str::FromStr;

/// How much of a task is evaluated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// The first so many rows.
    Count(usize),
    /// The first share of the rows, rounded up; above 0, below 1.
    Share(f64),
}

impl FromStr for Limit {
    type Err = String;

    /// `--limit`: a number below 1 is a share, any other a count.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(share) if share > 0.0 && share < 1.0 => Ok(Self::Share(share)),
            Ok(count) if count >= 1.0 && count.fract() == 0.0 && count < 1e9 => {
                Ok(Self::Count(count as usize))
            }
            _ => Err(format!("`{text}` is neither a count of rows nor a share below 1")),
        }
    }
}

impl Limit {
    fn of(self, rows: usize) -> usize {
        match self {
            Self::Count(n) => n.min(rows),
            Self::Share(share) => ((rows as f64 * share).ceil() as usize).min(rows),
        }
    }
}

/// How a task is evaluated.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalOptions {
    /// How prompts are made.
    pub prompt: PromptOptions,
    /// `None`: all rows.
    pub limit: Option<Limit>,
    /// Items handed to the scorer at once; progress is told between.
    pub chunk: usize,
    /// Keys the bootstrap and sampled generation.
    pub seed: u64,
}

impl Default for EvalOptions {
    fn default() -> Self {
        Self { prompt: PromptOptions::default(), limit: None, chunk: 16, seed: 0 }
    }
}

/// Where an evaluation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The task's name.
    pub task: &'a str,
    /// Items scored.
    pub done: usize,
    /// Items to score.
    pub total: usize,
}

/// One metric of a task under one filter pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricResult {
    /// The metric's name.
    pub metric: String,
    /// The pipeline's name; `none` without `filter_list`.
    pub filter: String,
    /// Mean over the items.
    pub value: f64,
    /// Standard error of the mean; `None` for a single item.
    pub stderr: Option<f64>,
    /// Bootstrap 95 % interval.
    pub ci95: [f64; 2],
    /// Whether more is better.
    pub higher_is_better: bool,
    /// Every item's score, in order.
    pub scores: Vec<f64>,
}

impl MetricResult {
    /// `acc`, or with a named pipeline `exact_match,strict-match`.
    pub fn key(&self) -> String {
        if self.filter == "none" { self.metric.clone() } else { format!("{},{}", self.metric, self.filter) }
    }
}

/// What a task came to.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResult {
    /// The task's name.
    pub task: String,
    /// Its `task_alias`.
    pub alias: Option<String>,
    /// Its `metadata.version`.
    pub version: Option<String>,
    /// Examples before each question.
    pub num_fewshot: usize,
    /// Accuracy of guessing; `None` where answers are free text.
    pub chance: Option<f64>,
    /// One a metric and pipeline; the first is the one items are called correct by.
    pub metrics: Vec<MetricResult>,
    /// One an item.
    pub samples: Vec<Sample>,
}

impl TaskResult {
    /// Items evaluated.
    pub fn n(&self) -> usize {
        self.samples.len()
    }
}

/// Evaluates a task: builds every prompt first, so that a bad row costs no model time, then asks in chunks.
pub fn evaluate(
    task: &Task,
    scorer: &mut dyn Scorer,
    options: &EvalOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<TaskResult, EvalError> {
    let mut rows = task.dataset.rows(task.dataset.evaluated_split())?;
    rows.truncate(options.limit.map_or(rows.len(), |limit| limit.of(rows.len())));
    let mut builder = Builder::new(task, &options.prompt)?;
    let num_fewshot = builder.shots();
    let mut items = Vec::with_capacity(rows.len());
    for (index, row) in rows.into_iter().enumerate() {
        let chat: &mut dyn FnMut(&[crate::ChatMessage], bool) -> _ =
            &mut |messages, header| scorer.apply_chat_template(messages, header);
        items.push(builder.item(index, row, chat)?);
    }

    let total = items.len();
    let tell = |done| Progress { task: &task.name, done, total };
    progress(tell(0));
    let mut scores: Vec<Vec<f64>> = vec![Vec::with_capacity(total); task.metrics.len() * task.filters.len()];
    let mut samples: Vec<Sample> = Vec::with_capacity(total);
    for chunk in items.chunks(options.chunk.max(1)) {
        let asked = match task.output_type {
            OutputType::MultipleChoice => ask_choices(task, chunk, scorer)?,
            OutputType::GenerateUntil => ask_texts(task, chunk, scorer, options.seed)?,
        };
        for (item, answer) in chunk.iter().zip(asked) {
            let (item_scores, sample) = judge(task, item, answer)?;
            scores.iter_mut().zip(item_scores).for_each(|(list, score)| list.push(score));
            samples.push(sample);
        }
        progress(tell(samples.len()));
    }

    let labels = task.filters.iter().flat_map(|f| task.metrics.iter().map(move |m| (f, m)));
    let metrics = labels
        .zip(scores)
        .map(|(pipeline_and_spec, scores)| {
            let (pipeline, MetricSpec { entry, .. }) = pipeline_and_spec;
            let value = stats::mean(&scores);
            MetricResult {
                metric: entry.name.to_owned(),
                filter: pipeline.name.clone(),
                value,
                stderr: stats::mean_stderr(&scores),
                ci95: stats::bootstrap_mean(&scores, options.seed).unwrap_or([value, value]),
                higher_is_better: entry.higher_is_better,
                scores,
            }
        })
        .collect();
    Ok(TaskResult {
        task: task.name.clone(),
        alias: task.alias.clone(),
        version: task.version.clone(),
        num_fewshot,
        chance: chance(&items),
        metrics,
        samples,
    })
}

/// What the model answered to one item.
enum Answer {
    Choices { scores: Vec<ChoiceScore>, ids: Option<Vec<u32>>, choices_ids: Option<Vec<Vec<u32>>> },
    Texts { texts: Vec<String>, ids: Option<Vec<u32>> },
}

fn wrong_score(task: &Task, item: &Item, what: String) -> EvalError {
    EvalError::Score { task: task.name.clone(), item: item.index, what }
}

fn ask_choices(task: &Task, items: &[Item], scorer: &mut dyn Scorer) -> Result<Vec<Answer>, EvalError> {
    let requests: Vec<_> = items.iter().flat_map(Item::choice_requests).collect();
    let results = scorer
        .score_choices(&requests)
        .map_err(|source| EvalError::Scorer { task: task.name.clone(), source })?;
    let mut results = results.into_iter();
    items
        .iter()
        .map(|item| {
            let mine: Vec<QuestionScore> = results.by_ref().take(item.prompts.len()).collect();
            let found = mine.iter().map(|q| q.choices.len()).sum::<usize>();
            let scores: Vec<_> = mine.iter().flat_map(|q| q.choices.iter().copied()).collect();
            if mine.len() != item.prompts.len() || found != item.choices.len() {
                return Err(wrong_score(
                    task,
                    item,
                    format!("{found} scores for {} choices", item.choices.len()),
                ));
            }
            // A little above 0 is rounding.
            if let Some(bad) = scores.iter().find(|s| s.logprob.is_nan() || s.logprob > 1e-2) {
                return Err(wrong_score(task, item, format!("`{}` is not a log-probability", bad.logprob)));
            }
            // With a context a choice there is no shared prompt to log.
            let tokens = if mine.len() == 1 { mine.into_iter().next().and_then(|q| q.tokens) } else { None };
            let (ids, choices_ids) = tokens.map(|t| (t.ids, t.choices_ids)).unzip();
            Ok(Answer::Choices { scores, ids, choices_ids })
        })
        .collect()
}

fn ask_texts(
    task: &Task,
    items: &[Item],
    scorer: &mut dyn Scorer,
    seed: u64,
) -> Result<Vec<Answer>, EvalError> {
    let config = &task.generation;
    let mut requests = Vec::with_capacity(items.len() * task.repeats);
    for item in items {
        for repeat in 0..task.repeats {
            requests.push(GenerateRequest {
                prompt: item.prompts.first().cloned().unwrap_or(crate::Prompt::Plain(String::new())),
                until: config.until.clone(),
                max_gen_toks: config.max_gen_toks,
                temperature: config.temperature,
                top_k: config.top_k,
                top_p: config.top_p,
                seed: seed.wrapping_add((item.index as u64) << 16).wrapping_add(repeat as u64),
            });
        }
    }
    let results = scorer
        .generate_until(&requests)
        .map_err(|source| EvalError::Scorer { task: task.name.clone(), source })?;
    if results.len() != requests.len() {
        let what = format!("{} answers to {} prompts", results.len(), requests.len());
        return Err(EvalError::Score {
            task: task.name.clone(),
            item: items.first().map_or(0, |i| i.index),
            what,
        });
    }
    let answers = results.chunks(task.repeats.max(1)).map(|repeats| Answer::Texts {
        texts: repeats.iter().map(|g| cut(&g.text, &config.until).to_owned()).collect(),
        ids: repeats.first().and_then(|g| g.ids.clone()),
    });
    Ok(answers.collect())
}

/// `text` up to the first of the stop texts.
fn cut<'a>(text: &'a str, until: &[String]) -> &'a str {
    let ends = until.iter().filter(|stop| !stop.is_empty()).filter_map(|stop| text.find(stop.as_str()));
    &text[..ends.min().unwrap_or(text.len())]
}

fn judge(task: &Task, item: &Item, answer: Answer) -> Result<(Vec<f64>, Sample), EvalError> {
    let mut scores = Vec::with_capacity(task.metrics.len() * task.filters.len());
    let mut named = Map::new();
    let mut sample = Sample {
        task: task.name.clone(),
        doc_id: item.index,
        origin: item.row.origin.to_string(),
        doc_hash: doc_hash(&item.row.fields),
        doc: Some(item.row.fields.clone()),
        prompt: item.prompts.first().map(|p| p.text().to_owned()),
        prompt_hash: item.prompts.first().map(|p| text_hash(p.text())).unwrap_or_default(),
        ..Sample::default()
    };
    match (&answer, &item.gold) {
        (Answer::Choices { scores: list, .. }, Gold::Choices(gold)) => {
            sample.pred = argmax(list.iter().map(|s| s.logprob)).map_or(Value::Null, Value::from);
            sample.target = match gold.as_slice() {
                [one] => Value::from(*one),
                many => Value::from(many.to_vec()),
            };
        }
        (_, Gold::Texts(gold)) => {
            sample.target = match gold.as_slice() {
                [one] => Value::from(one.clone()),
                many => Value::from(many.to_vec()),
            };
        }
        (Answer::Texts { .. }, Gold::Choices(_)) => {}
    }
    for pipeline in &task.filters {
        let text = match &answer {
            Answer::Choices { .. } => String::new(),
            Answer::Texts { texts, .. } => {
                pipeline.answer(texts, &item.row.fields).map_err(|e| EvalError::row(&item.row.origin, e))?
            }
        };
        let outcome = match (&answer, &item.gold) {
            (Answer::Choices { scores, .. }, Gold::Choices(gold)) => {
                Outcome::Choices { scores, choices: &item.choices, gold }
            }
            (_, Gold::Texts(gold)) => Outcome::Text { answer: &text, gold },
            (Answer::Texts { .. }, Gold::Choices(_)) => Outcome::Text { answer: &text, gold: &[] },
        };
        for spec in &task.metrics {
            let score = spec.metric.score(outcome);
            let name = spec.entry.name;
            let key =
                if pipeline.name == "none" { name.to_owned() } else { format!("{name},{}", pipeline.name) };
            named.insert(key, Value::from(score));
            scores.push(score);
        }
        if sample.pred.is_null() {
            sample.pred = Value::from(text);
        }
    }
    sample.correct = scores.first().is_some_and(|s| *s >= 0.5);
    sample.metrics = named;
    match answer {
        Answer::Choices { scores, ids, choices_ids } => {
            sample.choices = Some(item.choices.clone());
            sample.logprobs = Some(scores.iter().map(|s| s.logprob).collect());
            sample.n_tokens = Some(scores.iter().map(|s| s.n_tokens).collect());
            sample.is_greedy = Some(scores.iter().map(|s| s.is_greedy).collect());
            (sample.ids, sample.choices_ids) = (ids, choices_ids);
        }
        Answer::Texts { texts, ids } => (sample.answers, sample.ids) = (Some(texts), ids),
    }
    Ok((scores, sample))
}

/// Mean over the items of right choices over choices.
fn chance(items: &[Item]) -> Option<f64> {
    let shares: Option<Vec<f64>> = items
        .iter()
        .map(|item| match &item.gold {
            Gold::Choices(gold) => {
                let distinct = gold.iter().enumerate().filter(|(i, g)| !gold[..*i].contains(g)).count();
                Some(distinct as f64 / item.choices.len() as f64)
            }
            Gold::Texts(_) => None,
        })
        .collect();
    shares.filter(|s| !s.is_empty()).map(|s| stats::mean(&s))
}

#[cfg(test)]
mod tests;
