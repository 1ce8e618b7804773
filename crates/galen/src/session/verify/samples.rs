//! The texts a run is measured on: its own rows, else answers of its model to prompts.

use super::super::generate::{GenerateOptions, generate_all};
use super::super::rows::Rows;
use galen_adapter::Adapter;
use galen_eval::{Prompt, encode_prompt};
use galen_model::tokenizer::Tokenizer;
use galen_model::{Model, Sampling};
use galen_ops::hook::ProjectionHook;
use galen_types::Tokenized;

/// Longest answer written for a prompt without one, tokens.
const ANSWER_TOKENS: usize = 40;
/// Of longer texts the beginning is taken, which bounds the memory of a pass.
const LONGEST: usize = 2048;

/// A text and which of its tokens are an answer's.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub ids: Vec<u32>,
    pub answer: Vec<bool>,
}

impl Sample {
    fn of(row: &Tokenized) -> Option<Self> {
        let len = row.ids().len().min(LONGEST);
        let sample = Self { ids: row.ids()[..len].to_vec(), answer: row.mask()[..len].to_vec() };
        (len > 1 && sample.answer.iter().skip(1).any(|a| *a)).then_some(sample)
    }
}

/// At most `limit` rows with answers: of validation first, then of training.
pub(super) fn of_rows(rows: &Rows, limit: usize) -> Vec<Sample> {
    rows.samples_of_both(limit).into_iter().filter_map(Sample::of).collect()
}

/// The prompts of a run whose answers are sampled.
pub(super) fn prompts_of(rows: &Rows, limit: usize) -> Vec<Vec<u32>> {
    let parts = rows.prompts();
    let all = parts.validation.iter().chain(&parts.train);
    all.take(limit).map(|p| p.ids().to_vec()).filter(|ids| ids.len() <= LONGEST).collect()
}

/// Prompts with the likeliest answers of a model; an answer that ended is followed by `stop`.
pub(super) fn answered(
    (model, adapter): (&Model, &Adapter),
    tokenizer: &Tokenizer,
    prompts: Vec<Vec<u32>>,
    stop: Option<u32>,
) -> anyhow::Result<Vec<Sample>> {
    let options = GenerateOptions {
        max_tokens: ANSWER_TOKENS,
        stop: &[],
        sampling: Sampling::default(),
        goes_on: false,
    };
    let asked: Vec<_> = prompts.into_iter().map(|ids| (ids, options.clone())).collect();
    let answers = generate_all(model, Some(adapter as &dyn ProjectionHook), tokenizer, &asked)?;
    Ok(asked
        .into_iter()
        .zip(answers)
        .map(|((mut ids, _), (_, answer))| {
            let prompt = ids.len();
            let ended = answer.len() < ANSWER_TOKENS;
            ids.extend(answer);
            ids.extend(stop.filter(|_| ended));
            let answer = (0..ids.len()).map(|i| i >= prompt).collect();
            Sample { ids, answer }
        })
        .filter(|s| s.ids.len() > 1 && s.answer.iter().any(|a| *a))
        .collect())
}

/// Galen's own prompts in tokens, as chats where there is a template.
pub(super) fn own_prompts(
    tokenizer: &Tokenizer,
    render: impl Fn(&str) -> Option<String>,
    limit: usize,
) -> Vec<Vec<u32>> {
    let lines = super::super::samples::PROMPTS.lines().filter(|l| !l.is_empty());
    let prompt = |line: &str| match render(line) {
        Some(text) => Prompt::Chat(text),
        None => Prompt::Plain(line.to_owned()),
    };
    lines.take(limit).filter_map(|line| encode_prompt(tokenizer, &prompt(line)).ok()).collect()
}
