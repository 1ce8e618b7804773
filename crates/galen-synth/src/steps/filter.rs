//! Rows of which an expression holds.

use super::each;
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::registry::{EachRow, Setup, Step, StepEntry};
use galen_reward::{ConfigError, Kind, Param};

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "filter",
    about: "rows of which an expression holds",
    doc: "`expression` is a Jinja expression over `row` and `id`, such as `row.score >= 4 and row.text|length < 500`. A field that a row does \
          not have is an error of that row: `row.x is defined` asks first.",
    params: &[PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::required("expression", Kind::Text, "what must hold"),
    Param::with("reason", Kind::Text, "\"expression does not hold\"", "what the report calls it"),
];

struct Filter {
    expression: String,
    reason: String,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let Some(expression) = setup.expression("expression")? else {
        return Err(setup.options.wrong("expression", "is required"));
    };
    Ok(Box::new(Filter { expression, reason: setup.options.filled("reason")? }))
}

impl Step for Filter {
    fn start<'a>(&'a self, cx: &'a Context<'a>, _: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        Ok(each(move |_, _, row| {
            if cx.holds(&self.expression, &row)? {
                Ok(vec![row])
            } else {
                Err(Stop::filtered(self.reason.as_str(), ""))
            }
        }))
    }
}
