//! The model as evaluation sees it.

use super::fast_decode;
use super::generate::{GenerateOptions, generate_all};
use crate::progress::say;
use galen_adapter::Adapter;
use galen_data::template::{ChatTemplate, RenderOptions};
use galen_eval::{
    ChatMessage, ChoiceRequest, ChoiceScore, GenerateRequest, Generation, QuestionScore, QuestionTokens,
    ScoreError, Scorer, encode_choices, encode_prompt,
};
use galen_model::{Model, Pass, PassOptions, Sampling, tokenizer::Tokenizer};
use galen_ops::hook::ProjectionHook;
use galen_types::{PackedBatch, Segment, Target};
use serde_json::json;
use std::sync::Once;

/// A shared beginning shorter than this is not worth a segment.
const MIN_SHARED_TOKENS: usize = 8;

/// A model with or without an adapter.
pub struct ModelScorer<'a> {
    /// The base.
    pub model: &'a Model,
    /// Over it.
    pub adapter: Option<&'a Adapter>,
    /// Text to tokens.
    pub tokenizer: &'a Tokenizer,
    /// For `--apply_chat_template`.
    pub template: Option<&'a ChatTemplate>,
    /// For `--fast-decode`.
    pub fast: Option<FastDecoder<'a>>,
}

/// The same model loaded to decode in integers; tells once how far that is from exact decoding.
pub struct FastDecoder<'a> {
    /// Decodes.
    pub model: &'a Model,
    /// Whether it has told.
    pub told: bool,
}

/// Prompts at whose ends fast decoding is compared with exact.
const COMPARED: usize = 4;

impl ModelScorer<'_> {
    fn hook(&self) -> Option<&dyn ProjectionHook> {
        self.adapter.map(|a| a as &dyn ProjectionHook)
    }

    /// Questions in one pass.
    fn score_together(&self, questions: Vec<QuestionTokens>) -> Result<Vec<QuestionScore>, ScoreError> {
        let batch = lay_out(&questions)?;
        let pass = Pass::forward(self.model, self.hook(), &batch, PassOptions::default())?;
        let mut scored = batch.targets().iter().zip(&pass.logps.0).zip(&pass.correct).peekable();
        let mut row = 0;
        let mut out = Vec::with_capacity(questions.len());
        for question in questions {
            let mut choices = Vec::with_capacity(question.choices_ids.len());
            for _ in &question.choices_ids {
                let mut score = ChoiceScore { logprob: 0.0, n_tokens: 0, is_greedy: true };
                while let Some(((_, logp), correct)) = scored.next_if(|((t, _), _)| t.row == row) {
                    score.logprob += f64::from(*logp);
                    score.n_tokens += 1;
                    score.is_greedy &= correct;
                }
                choices.push(score);
                row += 1;
            }
            out.push(QuestionScore { choices, tokens: Some(question) });
        }
        Ok(out)
    }
}

/// Tokens of a pass over questions, about: what it holds grows with them.
const PASS_TOKENS: usize = 16_384;

fn tokens_of(question: &QuestionTokens) -> usize {
    question.ids.len() + question.choices_ids.iter().map(Vec::len).sum::<usize>()
}

/// What the model's context has room for of a prompt: its end, as lm-evaluation-harness has it.
fn keep_end(ids: &mut Vec<u32>, room: usize) {
    static TOLD: Once = Once::new();
    let over = ids.len().saturating_sub(room.max(1));
    if over > 0 {
        ids.drain(..over);
        let what = format!(
            "note: a prompt is {over} tokens longer than the model's context: its beginning is cut off"
        );
        TOLD.call_once(|| say(&format!("{what} (told once)")));
    }
}

/// Questions laid out so that everything shared is computed once: what all prompts begin with, then each prompt's
/// rest, then each choice but its last token (which predicts nothing that is asked for).
fn lay_out(questions: &[QuestionTokens]) -> Result<PackedBatch, galen_types::InvariantError> {
    let mut ids: Vec<u32> = Vec::new();
    let mut segments: Vec<Segment> = Vec::new();
    let mut targets = Vec::new();
    let mut add = |tokens: &[u32], parent: Option<u32>, position: usize| {
        let start = ids.len() as u32;
        ids.extend_from_slice(tokens);
        segments.push(Segment { start, len: tokens.len() as u32, parent, position: position as u32 });
        (segments.len() as u32 - 1, start)
    };
    let first = questions.first().map_or(&[][..], |q| &q.ids);
    let agree =
        |q: &QuestionTokens| q.ids.iter().zip(first).take_while(|(a, b)| a == b).count().min(q.ids.len() - 1);
    let shared = questions.iter().map(agree).min().unwrap_or(0);
    let shared = if shared < MIN_SHARED_TOKENS || questions.len() < 2 { 0 } else { shared };
    let root = (shared > 0).then(|| add(&first[..shared], None, 0).0);
    let mut row = 0;
    for question in questions {
        let rest = &question.ids[shared..];
        let (segment, start) = add(rest, root, shared);
        let last = start + rest.len() as u32 - 1;
        for choice in &question.choices_ids {
            targets.push(Target { index: last, token: choice[0], row });
            if choice.len() > 1 {
                let (_, start) = add(&choice[..choice.len() - 1], Some(segment), question.ids.len());
                let next = choice[1..].iter().enumerate();
                targets.extend(next.map(|(i, token)| Target { index: start + i as u32, token: *token, row }));
            }
            row += 1;
        }
    }
    let n = ids.len();
    PackedBatch::new(ids, segments, targets, vec![0; n])
}

impl Scorer for ModelScorer<'_> {
    fn score_choices(&mut self, requests: &[ChoiceRequest]) -> Result<Vec<QuestionScore>, ScoreError> {
        let mut questions = Vec::with_capacity(requests.len());
        for request in requests {
            let encoded = encode_choices(self.tokenizer, request)?;
            questions.push(QuestionTokens { ids: encoded.prompt, choices_ids: encoded.choices });
        }
        let limit = self.model.config.max_position_embeddings;
        for question in &mut questions {
            let longest = question.choices_ids.iter().map(Vec::len).max().unwrap_or(1);
            // Of the last token nothing is asked.
            keep_end(&mut question.ids, (limit + 1).saturating_sub(longest));
        }
        let mut out = Vec::with_capacity(questions.len());
        let mut rest = questions.into_iter().peekable();
        while rest.peek().is_some() {
            let (mut part, mut tokens) = (Vec::new(), 0);
            while let Some(question) =
                rest.next_if(|q| part.is_empty() || tokens + tokens_of(q) <= PASS_TOKENS)
            {
                tokens += tokens_of(&question);
                part.push(question);
            }
            out.extend(self.score_together(part)?);
        }
        Ok(out)
    }

    fn generate_until(&mut self, requests: &[GenerateRequest]) -> Result<Vec<Generation>, ScoreError> {
        let mut asked = Vec::with_capacity(requests.len());
        for request in requests {
            let options = GenerateOptions {
                max_tokens: request.max_gen_toks,
                stop: &request.until,
                sampling: Sampling {
                    temperature: request.temperature as f32,
                    top_k: request.top_k,
                    top_p: request.top_p as f32,
                    seed: request.seed,
                    ..Sampling::default()
                },
                // As lm-evaluation-harness decodes what was generated: alone.
                goes_on: false,
            };
            let mut ids = encode_prompt(self.tokenizer, &request.prompt)?;
            keep_end(
                &mut ids,
                self.model.config.max_position_embeddings.saturating_sub(request.max_gen_toks),
            );
            asked.push((ids, options));
        }
        if let Some(FastDecoder { model, told: false }) = self.fast {
            let prompts: Vec<&[u32]> = asked.iter().take(COMPARED).map(|(ids, _)| &ids[..]).collect();
            fast_decode::say(fast_decode::measure(self.model, model, self.hook(), &prompts)?);
            self.fast = Some(FastDecoder { model, told: true });
        }
        let model = self.fast.as_ref().map_or(self.model, |f| f.model);
        let texts = generate_all(model, self.hook(), self.tokenizer, &asked)?;
        let prompts = asked.into_iter().map(|(ids, _)| Some(ids));
        let answer = |(ids, (text, gen_ids))| Generation { text, ids, gen_ids: Some(gen_ids) };
        Ok(prompts.zip(texts).map(answer).collect())
    }

    fn apply_chat_template(
        &mut self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String, ScoreError> {
        let template =
            self.template.ok_or("the model has no chat template\nhint: name one with `--chat-template`")?;
        let turns: Vec<_> = messages.iter().map(|m| json!({"role": m.role, "content": m.content})).collect();
        let text = template.render_prompt(&turns, None, add_generation_prompt, &RenderOptions::default())?;
        if add_generation_prompt {
            return Ok(text);
        }
        // The last turn stays open: what the template puts behind its text goes.
        let last = messages.last().map_or("", |m| m.content.trim());
        match text.rfind(last) {
            Some(at) => Ok(text[..at + last.len()].to_owned()),
            None => Err("the template does not show the last turn's text".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_laid_out_once() {
        let question = |last: u32, choices: &[&[u32]]| QuestionTokens {
            ids: (0..10).chain([last, last + 1]).collect(),
            choices_ids: choices.iter().map(|c| c.to_vec()).collect(),
        };
        let batch = lay_out(&[question(20, &[&[1], &[2, 3, 4]]), question(30, &[&[5]])]).unwrap();
        assert_eq!(batch.ids(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 21, 2, 3, 30, 31]);
        let positions: Vec<u32> = batch.segments().iter().map(|s| s.position).collect();
        assert_eq!(positions, [0, 10, 12, 10]);
        let targets: Vec<_> = batch.targets().iter().map(|t| (t.index, t.token, t.row)).collect();
        assert_eq!(targets, [(11, 1, 0), (11, 2, 1), (12, 3, 1), (13, 4, 1), (15, 5, 2)]);
    }

    #[test]
    fn equal_prompts_keep_a_token_each() {
        let q = QuestionTokens { ids: (0..10).collect(), choices_ids: vec![vec![1]] };
        let batch = lay_out(&[q.clone(), q]).unwrap();
        assert_eq!(batch.segments().len(), 3);
        assert_eq!(batch.targets()[1].index, 10);
    }
}
