//! Owns: synthetic data - pipelines of steps over rows: prompts, models' answers, filters, the journal of every row's
//! fate, the report.
//! Takes: a configuration, prompt templates, opened engines, seed facts.
//! Gives: files of training rows with their provenance, counts of everything that was left out and why.
//! Never: loads a model, opens a socket, prints, or trains.
//!
//! A step is one file under `steps/` and one line in [`STEPS`]; its parameters, the errors about them and
//! `docs/synth.md` come from that registration.

mod ask;
mod config;
mod context;
mod diversity;
mod docs;
mod engines;
mod entries;
mod error;
mod figures;
mod journal;
mod outputs;
mod prompt;
mod registry;
mod render;
mod report;
mod retry;
mod row;
mod run;
mod seeds;
mod shape;
mod stage;
mod steps;
mod taxonomy;
mod text;

pub use config::{Pipeline, TOP_KEYS};
pub use context::Context;
pub use docs::page;
pub use engines::{EngineKind, EngineSpec, Teacher};
pub use error::SynthError;
pub use figures::{EngineFigures, Figures, Mean, OutputFigures, Reason, StepFigures};
pub use journal::Rows;
pub use outputs::{OUTPUTS, OutputKind};
pub use registry::{STEPS, Setup, Step, StepEntry, TemplateRef};
pub use render::rendered;
pub use report::html;
pub use row::{Row, Trail};
pub use run::{Run, Show};

/// The templates that come with galen: name and source.
pub static PROMPTS: &[(&str, &str)] = &[
    ("answer_document.jinja", include_str!("../../../prompts/synth/answer_document.jinja")),
    ("answer.jinja", include_str!("../../../prompts/synth/answer.jinja")),
    ("evolve/broaden.jinja", include_str!("../../../prompts/synth/evolve/broaden.jinja")),
    ("evolve/concretize.jinja", include_str!("../../../prompts/synth/evolve/concretize.jinja")),
    ("evolve/constrain.jinja", include_str!("../../../prompts/synth/evolve/constrain.jinja")),
    ("evolve/deepen.jinja", include_str!("../../../prompts/synth/evolve/deepen.jinja")),
    ("evolve/reason.jinja", include_str!("../../../prompts/synth/evolve/reason.jinja")),
    ("judge.jinja", include_str!("../../../prompts/synth/judge.jinja")),
    ("judge_options.jinja", include_str!("../../../prompts/synth/judge_options.jinja")),
    ("judge_pair.jinja", include_str!("../../../prompts/synth/judge_pair.jinja")),
    ("paraphrase.jinja", include_str!("../../../prompts/synth/paraphrase.jinja")),
    ("question_document.jinja", include_str!("../../../prompts/synth/question_document.jinja")),
    ("rewrite.jinja", include_str!("../../../prompts/synth/rewrite.jinja")),
    ("self_instruct.jinja", include_str!("../../../prompts/synth/self_instruct.jinja")),
    ("supported.jinja", include_str!("../../../prompts/synth/supported.jinja")),
];
