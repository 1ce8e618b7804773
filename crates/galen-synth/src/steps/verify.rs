//! Rows held against what is known: an answer, a pattern, a schema, a program. The checks are the reward functions.

use super::each;
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::row::Row;
use crate::text::{FIELD, TextOf};
use galen_reward::{Completion, ConfigError, Finish, Kind, Param, Prompt, RewardSet};
use galen_types::Origin;
use serde_json::{Value, json};

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "verify",
    about: "held against a known answer, a pattern, a schema, a program (the functions of `docs/rewards.md`)",
    doc: "Each entry of `checks` is a reward function with its parameters (`docs/rewards.md`): `exact_match`, `choice`, `numeric` compare \
          with a field of the row; `regex`, `format`, `length`, `json_schema` look at the text; `command` and `http` ask a program. A row \
          passes when the weighted sum is at least `min`; a row to which no check applies is filtered. The means are in the report.",
    params: &[CHECKS, &[FIELD], PARAMS],
    build,
};

/// The parameters that make a set of checks.
pub(crate) const CHECKS: &[Param] = &[
    Param::with(
        "checks",
        Kind::Value("reward functions"),
        "null",
        "what judges: as `reward_funcs` in `docs/rewards.md`",
    ),
    Param::with("weights", Kind::Value("a list of numbers"), "null", "as `reward_weights`; default: 1 each"),
];

const PARAMS: &[Param] = &[
    Param::with("min", Kind::Number, "1", "the sum from which a row passes"),
    Param::optional(
        "to",
        Kind::Text,
        "a field that takes the sum; no row is filtered then, unless `min` is given",
    ),
    Param::with(
        "prompt_field",
        Kind::Text,
        "\"prompt\"",
        "the field that checks are told is the prompt; may be missing",
    ),
];

/// Reward functions, ready.
pub(crate) struct Checks {
    set: RewardSet<'static>,
}

impl Checks {
    /// `None` where there is no `checks`.
    pub fn new(setup: &Setup<'_>) -> Result<Option<Self>, ConfigError> {
        let o = setup.options;
        let (funcs, weights) = (o.value("checks")?, o.value("weights")?);
        let Some(funcs) = funcs.filter(|f| !f.is_null()) else { return Ok(None) };
        let set = galen_reward::parse(&funcs, &weights.unwrap_or_default(), o.network, &mut []);
        let set = set.map_err(|e| {
            let error = o.wrong(
                &e.key.replacen("reward_funcs", "checks", 1).replacen("reward_weights", "weights", 1),
                e.what,
            );
            match e.hint {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })?;
        if let Some(label) = set.reads_tokens() {
            let error = o.wrong("checks", format!("`{label}` looks at tokens, and texts of rows have none"));
            return Err(error.hint(
                "`length` takes `unit: characters`, `repetition` takes `unit: words`; or `max_tokens` where it is asked for",
            ));
        }
        Ok(Some(Self { set }))
    }

    /// Starts programs: what cannot start is known before anything is asked.
    pub fn start(&self, label: &str) -> Result<(), SynthError> {
        self.set.start().map_err(|e| SynthError::step(label, e.to_string()))
    }

    /// The sum for each text as a completion of the row's prompt, with how it ended; `None` where no function applies.
    pub fn score(
        &self,
        cx: &Context<'_>,
        row: &Row,
        prompt: &str,
        texts: &[(&str, Finish)],
    ) -> Result<Vec<Option<f64>>, Stop> {
        let origin = Origin::new(row.id.as_str(), 1);
        let completions: Vec<Completion<'_>> = texts
            .iter()
            .map(|(text, finish)| Completion {
                prompt: Prompt::Text(prompt),
                text,
                token_ids: &[],
                finish: *finish,
                origin: &origin,
                row: &row.fields,
            })
            .collect();
        match self.set.score(&completions) {
            Ok(rewards) => Ok(rewards.total),
            Err(e @ (galen_reward::RewardError::Row { .. } | galen_reward::RewardError::Answer { .. })) => {
                Err(Stop::failed("check", e.to_string()))
            }
            Err(e) => Err(Stop::Run(SynthError::step(cx.label, e.to_string()))),
        }
    }
}

struct Verify {
    checks: Checks,
    text: TextOf,
    min: Option<f64>,
    to: Option<String>,
    prompt_field: String,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    let Some(checks) = Checks::new(setup)? else {
        return Err(o.wrong("checks", "is required").hint("`checks: [{exact_match: {field: answer}}]`"));
    };
    let (min, to) = (o.number("min")?, o.maybe_text("to")?);
    Ok(Box::new(Verify {
        checks,
        text: setup.must_text_of("field")?,
        min: Some(min).filter(|_| to.is_none() || o.given("min")),
        to,
        prompt_field: o.filled("prompt_field")?,
    }))
}

impl Step for Verify {
    fn start<'a>(&'a self, cx: &'a Context<'a>, _: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        self.checks.start(cx.label)?;
        Ok(each(move |tally, _, row| {
            let text = self.text.of(cx, &row)?;
            let prompt =
                row.fields.get(&self.prompt_field).and_then(Value::as_str).unwrap_or_default().to_owned();
            let sum = self.checks.score(cx, &row, &prompt, &[(&text, Finish::Stop)])?;
            let Some(sum) = sum.into_iter().next().flatten() else {
                return Err(Stop::filtered("no check applies", text));
            };
            tally.figure("sum", sum);
            if let Some(min) = self.min {
                tally.figure("passes", f64::from(u8::from(sum >= min)));
                if sum < min {
                    return Err(Stop::filtered(
                        "not verified",
                        format!("{sum} below {min}: {}", super::generate::beginning(&text)),
                    ));
                }
            }
            Ok(vec![match &self.to {
                Some(to) => row.with(to, json!(sum)),
                None => row,
            }])
        }))
    }
}
