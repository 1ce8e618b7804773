//! The kinds of steps there are. A new one is one file under `steps/` and one line in [`STEPS`].

use crate::context::{Context, Tally};
use crate::engines::EngineSpec;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::row::Row;
use crate::steps;
use crate::text::TextOf;
use galen_data::template::prompt::Prompts;
use galen_reward::{ConfigError, Options, Param};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// What a step makes of one row of its input (its number, itself). Called from several threads, in any order.
pub(crate) type EachRow<'a> =
    Box<dyn Fn(&mut Tally, usize, Row) -> Result<Vec<Row>, Stop> + Send + Sync + 'a>;

/// A step, built.
pub trait Step: Send + Sync {
    /// Looks at all rows of the input where it has to, and says what is made of each.
    #[expect(private_interfaces, reason = "steps lie in this crate")]
    fn start<'a>(&'a self, cx: &'a Context<'a>, rows: &'a Rows) -> Result<EachRow<'a>, SynthError>;

    /// The prompt of a row, for `--render`; `None` where it has none.
    fn prompt(&self, cx: &Context<'_>, rows: &Rows, at: usize) -> Result<Option<String>, String> {
        let _ = (cx, rows, at);
        Ok(None)
    }
}

/// Makes a step from its parameters.
pub type Build = fn(&Setup<'_>) -> Result<Box<dyn Step>, ConfigError>;

/// A step kind's registration.
#[derive(Debug)]
pub struct StepEntry {
    /// Its name in `steps`.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// What it does in full, Markdown.
    pub doc: &'static str,
    /// Its parameters, in groups that several share.
    pub params: &'static [&'static [Param]],
    /// From parameters to the step.
    pub build: Build,
}

impl StepEntry {
    /// Its parameters, in order.
    pub fn params(&self) -> impl Iterator<Item = &'static Param> {
        self.params.iter().copied().flatten()
    }
}

/// Every kind of step.
pub static STEPS: &[StepEntry] = &[
    steps::render::ENTRY,
    steps::generate::ENTRY,
    steps::rewrite::ENTRY,
    steps::paraphrase::ENTRY,
    steps::evolve::ENTRY,
    steps::self_instruct::ENTRY,
    steps::from_document::ENTRY,
    steps::distractors::ENTRY,
    steps::preference_pair::ENTRY,
    steps::judge::ENTRY,
    steps::judge_options::ENTRY,
    steps::rank::ENTRY,
    steps::self_consistency::ENTRY,
    steps::verify::ENTRY,
    steps::sample::ENTRY,
    steps::filter::ENTRY,
    steps::length::ENTRY,
    steps::language::ENTRY,
    steps::refusal::ENTRY,
    steps::dedup::ENTRY,
    steps::contamination::ENTRY,
];

/// A template that a step uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateRef {
    /// Under which it is rendered.
    pub name: String,
    /// Of it and of all it includes.
    pub sha256: String,
}

/// What a step is built from.
pub struct Setup<'a> {
    /// Its parameters.
    pub options: &'a Options<'a>,
    /// Its label.
    pub label: &'a str,
    pub(crate) prompts: &'a RefCell<Prompts>,
    pub(crate) engines: &'a [EngineSpec],
    pub(crate) taxonomy: Option<&'a std::sync::Arc<crate::taxonomy::Taxonomy>>,
    /// What the step uses, for its provenance and its fingerprint.
    pub(crate) used: &'a RefCell<Used>,
}

/// What a step uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Used {
    pub templates: Vec<TemplateRef>,
    pub engines: BTreeSet<String>,
    /// SHA-256 of files it reads.
    pub files: Vec<(String, String)>,
    /// How answers are drawn.
    pub sampling: Option<Value>,
}

impl Setup<'_> {
    /// The template of this name. Errors: there is none, or it does not compile.
    pub fn template(&self, param: &str, name: &str) -> Result<TemplateRef, ConfigError> {
        let prompts = self.prompts.borrow();
        let name = prompts.find(name).map_err(|e| self.wrong(param, &e.to_string()))?;
        let sha256 = prompts.sha256(&name);
        drop(prompts);
        Ok(self.uses(TemplateRef { name, sha256 }))
    }

    /// A template written into the configuration.
    pub fn inline(&self, param: &str, text: &str) -> Result<TemplateRef, ConfigError> {
        let name = format!("<{}.{param}>", self.label);
        self.prompts.borrow_mut().add(&name, text);
        let found = self.prompts.borrow().find(&name);
        found.map_err(|e| self.wrong(param, &e.to_string()))?;
        let sha256 = self.prompts.borrow().sha256(&name);
        Ok(self.uses(TemplateRef { name, sha256 }))
    }

    fn uses(&self, template: TemplateRef) -> TemplateRef {
        let mut used = self.used.borrow_mut();
        if !used.templates.contains(&template) {
            used.templates.push(template.clone());
        }
        template
    }

    /// The value of a parameter that is a field's name or, with `{{ }}` in it, a template.
    pub(crate) fn text_of(&self, param: &str) -> Result<Option<TextOf>, ConfigError> {
        match self.options.maybe_text(param)? {
            None => Ok(None),
            Some(text) => self.parse_text(param, &text).map(Some),
        }
    }

    pub(crate) fn must_text_of(&self, param: &str) -> Result<TextOf, ConfigError> {
        self.text_of(param)?.ok_or_else(|| self.options.wrong(param, "is required"))
    }

    pub(crate) fn parse_text(&self, param: &str, text: &str) -> Result<TextOf, ConfigError> {
        if text.contains("{{") || text.contains("{%") {
            Ok(TextOf::Template(self.inline(param, text)?.name))
        } else {
            Ok(TextOf::Field(text.to_owned()))
        }
    }

    /// The name of an expression's parameter, checked.
    pub(crate) fn expression(&self, param: &str) -> Result<Option<String>, ConfigError> {
        let Some(expression) = self.options.maybe_text(param)? else { return Ok(None) };
        self.prompts
            .borrow()
            .check_expression(&expression)
            .map_err(|e| self.wrong(param, &format!("`{expression}`: {e}")))?;
        Ok(Some(expression))
    }

    /// The engine that `engine` names, or the only one there is.
    pub(crate) fn engine(&self) -> Result<String, ConfigError> {
        let names: Vec<&str> = self.engines.iter().map(|e| e.name.as_str()).collect();
        let name = match self.options.maybe_text("engine")? {
            Some(name) if names.contains(&name.as_str()) => name,
            Some(name) => {
                let what = format!("there is no engine `{name}` under `engines`");
                let hint = if names.is_empty() {
                    "`engines: {teacher: {type: native, model: M}}`".to_owned()
                } else {
                    galen_reward::suggestion(&name, &names)
                };
                return Err(self.options.wrong("engine", what).hint(hint));
            }
            None => match names.as_slice() {
                [only] => (*only).to_owned(),
                [] => {
                    let hint = "`engines: {teacher: {type: native, model: M}}`";
                    return Err(self.options.wrong("engine", "no engine is there to ask").hint(hint));
                }
                several => {
                    let hint = format!("one of `{}`", several.join("`, `"));
                    return Err(self.options.wrong("engine", "is needed with several engines").hint(hint));
                }
            },
        };
        self.used.borrow_mut().engines.insert(name.clone());
        Ok(name)
    }

    /// Whether the engine of that name gives log-probabilities.
    pub(crate) fn gives_logprobs(&self, engine: &str) -> bool {
        self.engines.iter().any(|e| e.name == engine && e.logprobs)
    }

    /// An error about a parameter whose text may end with a hint.
    pub(crate) fn wrong(&self, param: &str, text: &str) -> ConfigError {
        let (what, hint) =
            text.split_once("\nhint: ").map_or((text, None), |(what, hint)| (what, Some(hint)));
        let error = self.options.wrong(param, what);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use galen_reward::{Absent, Network};
    use serde_json::{Map, json};

    /// Parameters under which a kind reads what it declares; several where no one set reads all.
    fn enough(name: &str) -> Vec<Value> {
        match name {
            "render" => vec![json!({"prompt": "x"}), json!({"variants": ["x"]})],
            "generate" | "self_consistency" => vec![json!({"prompt": "x"})],
            "distractors" => vec![json!({"id": "code"})],
            "preference_pair" => vec![
                json!({"prompt": "x", "by": "options"}),
                json!({"prompt": "x", "by": "candidates"}),
                json!({"prompt": "x", "by": "samples", "checks": ["exact_match"]}),
            ],
            "judge" => vec![json!({"choices": ["a", "b"], "known": "k"})],
            "judge_options" => vec![json!({"known": "k"})],
            "verify" => vec![json!({"checks": ["exact_match"]})],
            "sample" => vec![json!({"n": 1})],
            "filter" => vec![json!({"expression": "true"})],
            "length" => vec![json!({"min_words": 1})],
            "dedup" | "contamination" => vec![json!({"against": ["../../datasets/fixtures/rows.jsonl"]})],
            _ => vec![json!({})],
        }
    }

    #[test]
    fn every_declared_parameter_is_read_and_every_default_is_of_its_kind() {
        let mut prompts = Prompts::new(|_| ());
        crate::PROMPTS.iter().for_each(|(name, source)| prompts.add(name, source));
        let prompts = RefCell::new(prompts);
        let engines = [EngineSpec { name: "t".into(), kind: "native", logprobs: true, given: Map::new() }];
        let taxonomy = std::sync::Arc::new(crate::taxonomy::Taxonomy::default());
        for entry in STEPS {
            let mut read: Vec<&str> = Vec::new();
            for given in enough(entry.name) {
                let given = given.as_object().unwrap();
                let options = Options::new("x", Network::Allowed, "steps[0]", given, entry.params).unwrap();
                let setup = Setup {
                    options: &options,
                    label: "x",
                    prompts: &prompts,
                    engines: &engines,
                    taxonomy: Some(&taxonomy),
                    used: &RefCell::default(),
                };
                if let Err(e) = (entry.build)(&setup) {
                    panic!("{}: {e}", entry.name);
                }
                read.extend(options.read.borrow().iter());
            }
            for param in entry.params() {
                assert!(read.contains(&param.name), "{}: `{}` is never read", entry.name, param.name);
                if let Absent::Json(text) = param.absent {
                    let given = json!({param.name: serde_json::from_str::<Value>(text).unwrap()});
                    let given = given.as_object().unwrap();
                    Options::new("x", Network::Allowed, "p", given, entry.params)
                        .unwrap_or_else(|e| panic!("{}: {e}", entry.name));
                }
            }
        }
        let names: BTreeSet<&str> = STEPS.iter().map(|e| e.name).collect();
        assert_eq!(names.len(), STEPS.len());
    }
}
