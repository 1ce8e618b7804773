//! The prompt of a step: a template with what it sees beside the row.

use crate::context::{Context, variables};
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::registry::Setup;
use crate::row::{Row, random};
use galen_reward::{ConfigError, Kind, Param};
use serde_json::{Map, Value, json};

/// Most examples of a prompt.
const MAX_EXAMPLES: usize = 64;

/// The prompt.
pub(crate) const PROMPT: &[Param] = &[
    Param::optional(
        "template",
        Kind::Text,
        "the prompt: a template's name in `prompts_dir` or among galen's own",
    ),
    Param::optional("prompt", Kind::Text, "the prompt, written here in place of `template`"),
    Param::optional("args", Kind::Value("a map"), "what the template sees as `args`"),
    Param::with(
        "examples",
        Kind::Count,
        "0",
        "other rows of the step's input, drawn by the seed, that the template sees as `examples`",
    ),
];

/// The prompting half: a template with what it sees beside the row.
pub(crate) struct Prompt {
    pub template: String,
    args: Value,
    examples: usize,
}

impl Prompt {
    /// From [`PROMPT`]. `default`: the template without one.
    pub fn new(setup: &Setup<'_>, default: Option<&str>) -> Result<Self, ConfigError> {
        let o = setup.options;
        let template = match (o.maybe_text("template")?, o.maybe_text("prompt")?, default) {
            (Some(_), Some(_), _) => return Err(o.wrong("prompt", "stands beside `template`: one of them")),
            (Some(name), None, _) => setup.template("template", &name)?,
            (None, Some(text), _) => setup.inline("prompt", &text)?,
            (None, None, Some(name)) => setup.template("template", name)?,
            (None, None, None) => {
                return Err(o
                    .wrong("template", "is required")
                    .hint("a template's name, or `prompt` with its text"));
            }
        };
        Self::named(setup, template.name)
    }

    /// The same with a template that was found already.
    pub fn named(setup: &Setup<'_>, template: String) -> Result<Self, ConfigError> {
        let o = setup.options;
        let args = match o.value("args")? {
            None => json!({}),
            Some(map @ Value::Object(_)) => map,
            Some(other) => {
                return Err(o.wrong("args", format!("takes a map, not {}", galen_reward::shown(&other))));
            }
        };
        let examples = o.count("examples")?;
        if examples > MAX_EXAMPLES {
            return Err(o.wrong("examples", format!("takes at most {MAX_EXAMPLES}")));
        }
        Ok(Self { template, args, examples })
    }

    /// The prompt for a row, with further variables.
    pub fn of(
        &self,
        cx: &Context<'_>,
        rows: &Rows,
        at: usize,
        row: &Row,
        more: Map<String, Value>,
    ) -> Result<String, Stop> {
        let mut variables = variables(row);
        variables.insert("args".into(), self.args.clone());
        if self.examples > 0 {
            let drawn = others(rows, at, self.examples, cx.seed_of(row))?;
            variables.insert("examples".into(), drawn.into_iter().map(|r| Value::Object(r.fields)).collect());
        }
        variables.extend(more);
        cx.render(&self.template, &variables)
    }
}

/// `n` rows of the input other than the one at `at`, drawn by the seed.
pub(crate) fn others(rows: &Rows, at: usize, n: usize, seed: u64) -> Result<Vec<Row>, SynthError> {
    let mut random = random(seed, u64::from_le_bytes(*b"examples"));
    let mut drawn: Vec<usize> = Vec::new();
    let n = n.min(rows.len().saturating_sub(1));
    // Few are wanted of many; where they are nearly all, it takes a few draws more.
    while drawn.len() < n {
        let i = random.below(rows.len() as u64) as usize;
        if i != at && !drawn.contains(&i) {
            drawn.push(i);
        }
    }
    drawn.into_iter().map(|i| rows.get(i)).collect()
}
