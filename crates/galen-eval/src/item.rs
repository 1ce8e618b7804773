//! From a row to the prompts a model is asked about: examples, question, choices, right answers.

use crate::EvalError;
use crate::doc::{Reader, Target, Text};
use crate::fewshot::Examples;
use crate::scorer::{ChatMessage, ChoiceRequest, Prompt, ScoreError};
use crate::task::{OutputType, Task};
use crate::template::Templates;
use galen_types::RawRow;

/// How prompts are made, beyond what the task says.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptOptions {
    /// Examples before each question; overrides the task's `num_fewshot`, except that a task's explicit 0 stays.
    pub num_fewshot: Option<usize>,
    /// Prompts are chat turns rendered by the model's template.
    pub apply_chat_template: bool,
    /// With the chat template: each example a turn of its own, rather than all in one user turn.
    pub fewshot_as_multiturn: bool,
    /// Comes first, before the task's description.
    pub system_instruction: Option<String>,
    /// Keys the draw of examples; lm-evaluation-harness's default is 1234.
    pub fewshot_seed: u32,
}

impl Default for PromptOptions {
    fn default() -> Self {
        Self {
            num_fewshot: None,
            apply_chat_template: false,
            fewshot_as_multiturn: true,
            system_instruction: None,
            fewshot_seed: 1234,
        }
    }
}

/// What is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gold {
    /// Indices of choices, at least one.
    Choices(Vec<usize>),
    /// Texts, at least one.
    Texts(Vec<String>),
}

/// One question, ready to be asked.
#[derive(Debug, Clone)]
pub struct Item {
    /// 0-based place in the evaluated split.
    pub index: usize,
    /// The row it came from.
    pub row: RawRow,
    /// One prompt; several where the choices are the contexts (`doc_to_text` gives an index).
    pub prompts: Vec<Prompt>,
    /// The choices' texts, without delimiter; empty for `generate_until`.
    pub choices: Vec<String>,
    /// What is scored after the prompt: the choices with their delimiter, or the one continuation of all contexts.
    pub continuations: Vec<String>,
    /// What is right.
    pub gold: Gold,
}

impl Item {
    /// The requests that score the choices: one with all of them, or one a context.
    pub fn choice_requests(&self) -> Vec<ChoiceRequest> {
        self.prompts
            .iter()
            .map(|p| ChoiceRequest { prompt: p.clone(), choices: self.continuations.clone() })
            .collect()
    }
}

/// One part of a prompt; `delimiter` follows it in plain text only.
#[derive(Debug, Clone)]
struct Turn {
    role: &'static str,
    content: String,
    delimiter: String,
}

/// Renders chat turns; `true` adds the assistant's header.
pub(crate) type ChatTemplate<'a> = &'a mut dyn FnMut(&[ChatMessage], bool) -> Result<String, ScoreError>;

/// Makes a task's items.
pub(crate) struct Builder<'a> {
    pub task: &'a Task,
    pub options: &'a PromptOptions,
    templates: Templates,
    examples: Option<Examples>,
    shots: usize,
}

impl<'a> Builder<'a> {
    /// Reads the examples' rows, where examples are asked for.
    pub fn new(task: &'a Task, options: &'a PromptOptions) -> Result<Self, EvalError> {
        let shots = match (task.num_fewshot, options.num_fewshot) {
            (Some(0), _) => 0,
            (_, Some(n)) => n,
            (own, None) => own.unwrap_or(0),
        };
        let examples = if shots == 0 { None } else { Some(examples(task, options.fewshot_seed)?) };
        Ok(Self { task, options, templates: Templates::new(), examples, shots })
    }

    /// Examples before each question.
    pub fn shots(&self) -> usize {
        self.shots
    }

    /// The item of a row. `chat` renders turns when `apply_chat_template` is on.
    pub fn item(&mut self, index: usize, row: RawRow, chat: ChatTemplate<'_>) -> Result<Item, EvalError> {
        let task = self.task;
        let mut turns = self.opening(&row)?;
        let reader =
            Reader { templates: &self.templates, row: &row, has_choices: task.doc_to_choice.is_some() };
        let text = reader.text(&task.doc_to_text)?;
        let choices = task.doc_to_choice.as_ref().map(|doc| reader.choices(doc)).transpose()?;
        let target = reader.target(&task.doc_to_target)?;
        let prefix = match &task.gen_prefix {
            Some(source) => Some(reader.text_of("gen_prefix", source)?).filter(|p| !p.is_empty()),
            None => None,
        };
        let prefix = prefix.as_deref();

        let (questions, continuations, gold) = match (task.output_type, text) {
            (OutputType::MultipleChoice, Text::Text(question)) => {
                let choices = choices.as_deref().unwrap_or_default();
                let gold = Gold::Choices(reader.gold_choices(&target, choices)?);
                (vec![(question, task.target_delimiter.as_str())], choices.to_vec(), gold)
            }
            (OutputType::MultipleChoice, Text::Index(right)) => {
                let contexts = choices.clone().unwrap_or_default();
                let gold = Gold::Choices(reader.gold_choices(&Target::Index(right), &contexts)?);
                let continuation = reader.gold_texts(&target, None)?.swap_remove(0);
                (contexts.into_iter().map(|c| (c, "")).collect(), vec![continuation], gold)
            }
            (OutputType::GenerateUntil, text) => {
                let question = match text {
                    Text::Text(question) => question,
                    Text::Index(i) => i.to_string(),
                };
                let gold = Gold::Texts(reader.gold_texts(&target, choices.as_deref())?);
                (vec![(question, task.target_delimiter.as_str())], Vec::new(), gold)
            }
        };
        let delimiter = self.continuation_delimiter(prefix);
        let continuations = continuations.into_iter().map(|c| format!("{delimiter}{c}")).collect();
        let choices = match task.output_type {
            OutputType::MultipleChoice => choices.unwrap_or_default(),
            OutputType::GenerateUntil => Vec::new(),
        };
        let opening = turns.len();
        let mut prompts = Vec::with_capacity(questions.len());
        for (question, delimiter) in questions {
            turns.truncate(opening);
            push_turns(&mut turns, question, None, prefix, delimiter, "");
            let prompt = self.prompt(&turns, prefix.is_some(), chat);
            prompts.push(prompt.map_err(|source| EvalError::Scorer { task: task.name.clone(), source })?);
        }
        Ok(Item { index, row, prompts, choices, continuations, gold })
    }

    /// System prompt and examples.
    fn opening(&mut self, row: &RawRow) -> Result<Vec<Turn>, EvalError> {
        let task = self.task;
        let reader = Reader { templates: &self.templates, row, has_choices: task.doc_to_choice.is_some() };
        let description = if task.description.is_empty() {
            String::new()
        } else {
            reader.text_of("description", &task.description)?
        };
        let instruction = self.options.system_instruction.as_deref().unwrap_or_default();
        let system = delimited(instruction, &description, &task.fewshot.delimiter);
        let mut turns = Vec::new();
        if !system.is_empty() {
            turns.push(Turn { role: "system", content: system, delimiter: String::new() });
        }
        let Some(examples) = &mut self.examples else { return Ok(turns) };
        let config = &task.fewshot;
        for example in examples.draw(self.shots, row)? {
            let reader = Reader {
                templates: &self.templates,
                row: example,
                has_choices: config.doc_to_choice.is_some(),
            };
            let choices = config.doc_to_choice.as_ref().map(|doc| reader.choices(doc)).transpose()?;
            let target = reader.target(&config.doc_to_target)?;
            let (question, answers) = match (reader.text(&config.doc_to_text)?, choices) {
                (Text::Index(i), Some(contexts)) => {
                    let right = reader.gold_choices(&Target::Index(i), &contexts)?;
                    let context = right.first().and_then(|i| contexts.get(*i)).cloned().unwrap_or_default();
                    (context, reader.gold_texts(&target, None)?)
                }
                (Text::Index(i), None) => (i.to_string(), reader.gold_texts(&target, None)?),
                (Text::Text(text), choices) => (text, reader.gold_texts(&target, choices.as_deref())?),
            };
            let prefix = match &config.gen_prefix {
                Some(source) => Some(reader.text_of("gen_prefix", source)?).filter(|p| !p.is_empty()),
                None => None,
            };
            let answer = answers.into_iter().next().filter(|a| !a.is_empty());
            push_turns(
                &mut turns,
                question,
                answer,
                prefix.as_deref(),
                &config.target_delimiter,
                &config.delimiter,
            );
        }
        Ok(turns)
    }

    /// What stands before a choice. In a chat the assistant's header has just ended, so nothing does, unless the
    /// answer has already begun with a prefix.
    fn continuation_delimiter(&self, prefix: Option<&str>) -> &str {
        let open = prefix.is_some_and(|p| !p.ends_with(char::is_whitespace));
        if self.options.apply_chat_template && !open { "" } else { &self.task.target_delimiter }
    }

    fn prompt(&self, turns: &[Turn], has_prefix: bool, chat: ChatTemplate<'_>) -> Result<Prompt, ScoreError> {
        if !self.options.apply_chat_template {
            return Ok(Prompt::Plain(plain(turns)));
        }
        let message = |t: &Turn| ChatMessage { role: t.role, content: t.content.clone() };
        let messages = if self.options.fewshot_as_multiturn {
            turns.iter().map(message).collect::<Vec<_>>()
        } else {
            let (system, rest) = match turns.split_first() {
                Some((first, rest)) if first.role == "system" => (Some(first), rest),
                _ => (None, turns),
            };
            let (rest, last) = match rest.split_last() {
                Some((last, rest)) if last.role == "assistant" => (rest, Some(last)),
                _ => (rest, None),
            };
            let mut user = plain(rest);
            let end = rest.last().map_or(0, |t| t.delimiter.len());
            user.truncate(user.len() - end);
            let user = ChatMessage { role: "user", content: user };
            system.map(message).into_iter().chain([user]).chain(last.map(message)).collect()
        };
        Ok(Prompt::Chat(chat(&messages, !has_prefix)?))
    }
}

fn examples(task: &Task, seed: u32) -> Result<Examples, EvalError> {
    let config = &task.fewshot;
    let evaluated = task.dataset.evaluated_split();
    let (pool, excludes) = match &config.split {
        None if !config.samples.is_empty() => {
            let origin = |i: usize| galen_types::Origin::new("fewshot_config.samples", i as u64 + 1);
            let rows = config.samples.iter().enumerate();
            (rows.map(|(i, fields)| RawRow { origin: origin(i), fields: fields.clone() }).collect(), false)
        }
        split => {
            let split = split.as_deref().unwrap_or(task.dataset.default_fewshot_split());
            (task.dataset.rows(split)?, split == evaluated)
        }
    };
    Examples::new(pool, config, excludes, seed)
}

/// A question and, of an example or where the answer has a prefix, what the assistant said.
fn push_turns(
    turns: &mut Vec<Turn>,
    question: String,
    answer: Option<String>,
    prefix: Option<&str>,
    target_delimiter: &str,
    fewshot_delimiter: &str,
) {
    let delimiter = match (&answer, prefix) {
        (Some(_), None) => target_delimiter,
        (_, Some(prefix)) if needs_delimiter(&question, prefix) => target_delimiter,
        _ => "",
    };
    turns.push(Turn { role: "user", content: question, delimiter: delimiter.to_owned() });
    let said = match (answer, prefix) {
        (Some(answer), prefix) => {
            Some((delimited(prefix.unwrap_or_default(), &answer, " "), fewshot_delimiter))
        }
        (None, Some(prefix)) => Some((prefix.to_owned(), "")),
        (None, None) => None,
    };
    if let Some((content, delimiter)) = said {
        turns.push(Turn { role: "assistant", content, delimiter: delimiter.to_owned() });
    }
}

fn plain(turns: &[Turn]) -> String {
    turns.iter().flat_map(|t| [t.content.as_str(), t.delimiter.as_str()]).collect()
}

fn needs_delimiter(before: &str, after: &str) -> bool {
    !before.is_empty() && !before.ends_with(char::is_whitespace) && !after.starts_with(char::is_whitespace)
}

/// Both texts, the delimiter between them unless one is empty or white space is there already.
fn delimited(before: &str, after: &str, delimiter: &str) -> String {
    if before.is_empty() || after.is_empty() || !needs_delimiter(before, after) {
        return format!("{before}{after}");
    }
    format!("{before}{delimiter}{after}")
}
