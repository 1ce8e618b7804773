//! Owns: evaluation tasks (lm-evaluation-harness YAML), how their prompts are built, metrics, filters, statistics, reports.
//! Takes: task names or files, local data files, and a [`Scorer`] that knows a model.
//! Gives: an [`EvalReport`] (`galen eval --out`), per-item [`Sample`]s, a terminal table, and what flipped between two runs.
//! Never: loads a model, knows its tokens' meaning, opens a socket, or runs code named by a task.
//!
//! One row's way: `Task::load -> Item (prompt, choices, gold) -> Scorer -> filters -> metrics -> TaskResult -> EvalReport`.

mod doc;
mod encode;
mod error;
mod fewshot;
pub mod filters;
mod item;
mod literal;
pub mod metrics;
mod python_regex;
mod question;
pub mod report;
mod run;
mod scorer;
pub mod stats;
pub mod task;
mod template;

pub use encode::{EncodedChoices, encode_choices, encode_prompt};
pub use error::EvalError;
pub use item::{Gold, Item, PromptOptions};
pub use question::Question;
pub use report::{Comparison, EvalReport, Flips, RunMeta, Sample, compare};
pub use run::{EvalOptions, Limit, MetricResult, Progress, TaskResult, evaluate};
pub use scorer::{
    ChatMessage, ChoiceRequest, ChoiceScore, GenerateRequest, Generation, Prompt, QuestionScore,
    QuestionTokens, ScoreError, Scorer,
};
pub use task::{OutputType, Task};

/// Bytes the unit tests may hold: a parser that sizes a buffer by a number it did not check aborts them.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, 512 << 20);
