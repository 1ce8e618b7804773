//! How near a completion's length is to what is wanted.

use crate::options::{Kind, Param};
use crate::{Completion, ConfigError, Options, Reward, RewardEntry, RewardError};

pub(crate) const ENTRY: RewardEntry = RewardEntry {
    name: "length",
    about: "`best` within a range of lengths, falling to `worst` outside it",
    doc: "With d the distance of the length from the range (`min` to `max`, or `target` alone) and s the `slack`, the \
          reward is `worst + (best - worst) f(d / s)`: `linear` f(x) = 1 - x, `cosine` f(x) = (1 + cos(pi x)) / 2, \
          both 0 from x = 1 on. For a penalty take `best: 0, worst: -1`.",
    params: &[PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::with("unit", Kind::OneOf(&["tokens", "characters"]), "\"tokens\"", "what is counted"),
    Param::optional("target", Kind::Count, "the length wanted, instead of `min` and `max`"),
    Param::optional("min", Kind::Count, "the shortest that is not too short"),
    Param::optional("max", Kind::Count, "the longest that is not too long"),
    Param::optional(
        "slack",
        Kind::Count,
        "distance at which the reward is `worst`; left out, the bound's own length (at least 1)",
    ),
    Param::with("decay", Kind::OneOf(&["linear", "cosine"]), "\"linear\"", "how the reward falls"),
    Param::with("best", Kind::Number, "1", "reward within the range"),
    Param::with("worst", Kind::Number, "0", "reward far outside"),
];

fn build(options: &Options<'_>) -> Result<Box<dyn Reward>, ConfigError> {
    let (target, min, max) =
        (options.maybe_count("target")?, options.maybe_count("min")?, options.maybe_count("max")?);
    let range = match (target, min, max) {
        (Some(target), None, None) => (target, Some(target)),
        (Some(_), ..) => return Err(options.wrong("target", "goes without `min` and `max`")),
        (None, None, None) => {
            return Err(options.wrong("target", "is required, or `min` or `max`"));
        }
        (None, Some(min), Some(max)) if min > max => {
            return Err(options.wrong("min", format!("is `{min}`, above `max`, `{max}`")));
        }
        (None, min, max) => (min.unwrap_or(0), max),
    };
    let unit = if options.text("unit")? == "tokens" { Unit::Tokens } else { Unit::Characters };
    let decay = if options.text("decay")? == "linear" { Decay::Linear } else { Decay::Cosine };
    let slack = options.maybe_count("slack")?;
    if slack == Some(0) {
        return Err(options.wrong("slack", "takes 1 or more"));
    }
    let (best, worst) = (options.number("best")?, options.number("worst")?);
    Ok(Box::new(Length { unit, range, slack, decay, best, worst }))
}

enum Unit {
    Tokens,
    Characters,
}

enum Decay {
    Linear,
    Cosine,
}

struct Length {
    unit: Unit,
    range: (usize, Option<usize>),
    slack: Option<usize>,
    decay: Decay,
    best: f64,
    worst: f64,
}

impl Length {
    fn reward(&self, length: usize) -> f64 {
        let (bound, distance) = match self.range {
            (min, _) if length < min => (min, min - length),
            (_, Some(max)) if length > max => (max, length - max),
            _ => return self.best,
        };
        let slack = self.slack.unwrap_or(bound).max(1);
        if distance >= slack {
            return self.worst;
        }
        let x = distance as f64 / slack as f64;
        let share = match self.decay {
            Decay::Linear => 1.0 - x,
            Decay::Cosine => f64::midpoint(1.0, (std::f64::consts::PI * x).cos()),
        };
        self.worst + (self.best - self.worst) * share
    }
}

impl Reward for Length {
    fn reads_tokens(&self) -> bool {
        matches!(self.unit, Unit::Tokens)
    }

    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        let length = |c: &Completion<'_>| match self.unit {
            Unit::Tokens => c.token_ids.len(),
            Unit::Characters => c.text.chars().count(),
        };
        Ok(completions.iter().map(|c| Some(self.reward(length(c)))).collect())
    }
}
