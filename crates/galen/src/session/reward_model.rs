//! A trained reward model at work: what an answer is worth by a run of `rl: reward`.
//!
//! It shares the weights of the policy's base; only its adapter and head are its own.

use super::adapters::{open_any_adapter, saved_template};
use super::base::{Base, TemplateChoice};
use super::run_dir::date_of;
use crate::progress::say;
use anyhow::Context as _;
use galen_adapter::Adapter;
use galen_data::preference::encode_answer;
use galen_data::template::{ChatTemplate, RenderOptions, render_answer};
use galen_model::Model;
use galen_reward::{Completion, Finish, Outside, Prompt, Reward, RewardError};
use galen_types::{Answer, Boundary, Message, Origin, Rendered, RenderedAnswer, Tokenized};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Its name in `reward_funcs`.
pub const NAME: &str = "reward_model";
/// Its one parameter.
const PATH: &str = "path";
/// Tokens of a pass: more sequences go into further passes.
const PASS_TOKENS: usize = 4096;

/// The base that the policy and a reward model both stand on.
#[derive(Clone, Copy)]
pub struct SharedBase<'a> {
    /// Its files and tokenizer.
    pub base: &'a Base,
    /// Its weights.
    pub model: &'a Model,
    /// SHA-256 of its files, as `run.json` records it.
    pub sha256: &'a str,
    /// Open no socket.
    pub offline: bool,
}

/// A reward model.
pub struct RewardModel<'a> {
    shared: SharedBase<'a>,
    adapter: Adapter,
    template: Option<ChatTemplate>,
    options: RenderOptions,
}

impl<'a> RewardModel<'a> {
    /// Opens a reward run's directory, or a PEFT folder of task type `SEQ_CLS`, by path or hub name.
    ///
    /// Errors: another base than `shared`, or the same held otherwise than it was in training; an adapter without a head.
    pub fn open(name: &str, shared: SharedBase<'a>) -> anyhow::Result<Self> {
        let (adapter, folder) = open_any_adapter(name, shared.model, 0, shared.offline)?;
        let width = shared.model.config.hidden_size;
        anyhow::ensure!(
            adapter.score_head().is_some_and(|head| head.len() == width),
            "{}: the adapter has no score head of `{width}` values: it is no reward model of this base\nhint: train one with `rl: reward`",
            folder.display()
        );
        same_base(&folder, &shared)?;
        let saved = saved_template(name, shared.offline)?;
        let choice = TemplateChoice { jinja: saved.as_deref(), ..TemplateChoice::default() };
        let options = RenderOptions {
            kwargs: template_kwargs(&folder),
            date: date_of(&folder).and_hms_opt(0, 0, 0),
            ..RenderOptions::default()
        };
        Ok(Self { template: shared.base.template(choice)?, shared, adapter, options })
    }

    /// The reward of each (prompt, completion), given as tokens. The completion should end as answers did in training: with what
    /// the chat template puts behind a turn, or with the end-of-sequence token.
    pub fn score_tokens(&self, answers: &[(&[u32], &[u32])]) -> anyhow::Result<Vec<f32>> {
        let sequences = answers.iter().enumerate().map(|(i, (prompt, completion))| {
            let origin = Origin::new("completion", i as u64 + 1);
            tokenized(origin, i as u64, [*prompt, *completion].concat())
        });
        self.score(&sequences.collect::<anyhow::Result<Vec<_>>>()?)
    }

    /// The reward of each answer, rendered and tokenised as in training.
    pub fn score_answers(&self, answers: &[RenderedAnswer]) -> anyhow::Result<Vec<f32>> {
        let sequences = answers.iter().enumerate().map(|(i, answer)| {
            let ids = encode_answer(answer, &self.shared.base.tokenizer)?;
            tokenized(answer.rendered.origin().clone(), i as u64, ids)
        });
        self.score(&sequences.collect::<anyhow::Result<Vec<_>>>()?)
    }

    fn score(&self, sequences: &[Tokenized]) -> anyhow::Result<Vec<f32>> {
        let mut rewards = Vec::with_capacity(sequences.len());
        let mut rest = sequences;
        while !rest.is_empty() {
            let ends = rest.iter().scan(0, |tokens, s| {
                *tokens += s.ids().len();
                Some(*tokens)
            });
            let (pass, later) = rest.split_at(ends.take_while(|end| *end <= PASS_TOKENS).count().max(1));
            let pass: Vec<&Tokenized> = pass.iter().collect();
            rewards.extend(galen_train::preference::rewards(self.shared.model, &self.adapter, &pass)?);
            rest = later;
        }
        Ok(rewards)
    }

    /// A sampled completion behind its prompt. A turn is closed by the template always, as TRL does; text ends with the
    /// end-of-sequence token where the completion ended by itself.
    fn render(&self, completion: &Completion<'_>) -> anyhow::Result<RenderedAnswer> {
        let origin = completion.origin;
        match completion.prompt {
            Prompt::Text(prompt) => {
                let text = format!("{prompt}{}", completion.text);
                let span = (prompt.len() < text.len()).then_some(prompt.len()..text.len());
                let ended = completion.finish == Finish::Stop;
                let rendered = Rendered::new(origin.clone(), text, span.into_iter().collect(), ended)?;
                Ok(RenderedAnswer { rendered, boundary: Boundary::Cut })
            }
            Prompt::Messages(turns) => {
                let prompt = galen_types::Prompt::Chat {
                    messages: turns.to_vec(),
                    tools: None,
                    template_kwargs: Map::new(),
                };
                let answer = Answer::Turns(vec![assistant(completion.text)]);
                Ok(render_answer(origin, &prompt, &answer, self.template.as_ref(), &self.options)?)
            }
        }
    }
}

impl Reward for RewardModel<'_> {
    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        let rendered: anyhow::Result<Vec<_>> = completions.iter().map(|c| self.render(c)).collect();
        let rewards = rendered.and_then(|answers| self.score_answers(&answers)).map_err(|e| wrong(&e))?;
        Ok(rewards.into_iter().map(|r| Some(f64::from(r))).collect())
    }
}

fn wrong(error: &anyhow::Error) -> RewardError {
    RewardError::Answer { reward: NAME.into(), what: format!("{error:#}") }
}

fn assistant(text: &str) -> Message {
    let fields = json!({"role": "assistant", "content": text}).as_object().cloned().unwrap_or_default();
    Message { role: "assistant".into(), fields, train: true }
}

fn tokenized(origin: Origin, row: u64, ids: Vec<u32>) -> anyhow::Result<Tokenized> {
    let mask = vec![true; ids.len()];
    Ok(Tokenized::new(origin, row, ids, mask)?)
}

/// `chat_template_kwargs` of the run in this folder.
fn template_kwargs(folder: &Path) -> Map<String, Value> {
    let (config, _) = crate::config::check(&folder.join("config.yaml"), &[]);
    config.chat_template_kwargs
}

/// Whether a reward model was trained on this base, held as it is now.
fn same_base(folder: &Path, shared: &SharedBase<'_>) -> anyhow::Result<()> {
    let read = |file: &str| -> Option<Value> {
        serde_json::from_str(&std::fs::read_to_string(folder.join(file)).ok()?).ok()
    };
    let hint =
        "a reward model shares the policy's base: train it on this one, or align on the reward model's base";
    let ours = shared.base.resolved.hf_id.as_deref();
    let Some(run) = read("run.json") else {
        // An adapter that galen has no record of: its base's name is all there is to go by.
        let config = read("adapter_config.json").context("adapter_config.json")?;
        let named = config["base_model_name_or_path"].as_str().unwrap_or_default().to_owned();
        let same = [ours, Some(shared.base.name.as_str())].contains(&Some(named.as_str()));
        anyhow::ensure!(
            same || ours.is_none(),
            "{}: the reward model's base is `{named}`, the policy's `{}`\nhint: {hint}",
            folder.display(),
            ours.unwrap_or_default()
        );
        if !same {
            say(&format!(
                "note: {}: its base is `{named}`; whether that is `{}` cannot be told",
                folder.display(),
                shared.base.name
            ));
        }
        return Ok(());
    };
    anyhow::ensure!(
        run["sha256"]["model"].as_str() == Some(shared.sha256),
        "{}: the reward model's base is `{}`, another than the policy's `{}`\nhint: {hint}",
        folder.display(),
        run["base_model"].as_str().unwrap_or("not recorded"),
        shared.base.name
    );
    let held = shared.model.options().precision.over(&shared.base.weights).name();
    let trained = run["base_precision"].as_str().unwrap_or("stored");
    anyhow::ensure!(
        trained == held,
        "{}: the reward model was trained over the base held as `{trained}`, the policy holds it as `{held}`\nhint: set `adapter`, `load_in_4bit` and `load_in_8bit` alike in both runs",
        folder.display()
    );
    Ok(())
}

/// The run named by the parameters of a `reward_model` entry. Errors say what is wrong with them.
pub fn path_of(given: &Map<String, Value>) -> Result<String, String> {
    if let Some(other) = given.keys().find(|key| *key != PATH) {
        return Err(format!(
            "`{NAME}` has no parameter `{other}`\nhint: it takes `{PATH}`, a reward run's directory"
        ));
    }
    match given.get(PATH) {
        Some(Value::String(path)) if !path.trim().is_empty() => Ok(path.clone()),
        _ => Err(format!("`{NAME}` needs `{PATH}`, the directory of a run with `rl: reward`")),
    }
}

/// `reward_model` for [`galen_reward::parse`], over the policy's own base.
pub fn outside(shared: SharedBase<'_>) -> Outside<'_> {
    Outside {
        name: NAME,
        build: Box::new(move |given| {
            let model = RewardModel::open(&path_of(given)?, shared).map_err(|e| format!("{e:#}"))?;
            Ok(Box::new(model))
        }),
    }
}

/// The same where only the configuration is checked and no model is there: looks at the parameters and opens nothing.
pub fn outside_unopened() -> Outside<'static> {
    Outside {
        name: NAME,
        build: Box::new(|given| {
            path_of(given)?;
            Ok(Box::new(Unopened))
        }),
    }
}

/// Of a configuration that is only checked.
struct Unopened;

impl Reward for Unopened {
    fn score(&self, _: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        let what = "the reward model was not opened".into();
        Err(RewardError::Answer { reward: NAME.into(), what })
    }
}

#[cfg(test)]
mod tests;
