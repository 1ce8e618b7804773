//! Some of the rows, drawn by the seed.

use super::each;
use crate::context::Context;
use crate::error::{Stop, SynthError};
use crate::journal::Rows;
use crate::registry::{EachRow, Setup, Step, StepEntry};
use crate::row::random;
use crate::text::TextOf;
use galen_reward::{ConfigError, Kind, Param};
use std::collections::HashMap;

pub(crate) const ENTRY: StepEntry = StepEntry {
    name: "sample",
    about: "some of the rows, drawn by the seed, perhaps so many of each group",
    doc: "Keeps `n` rows, or the share `share` of them; with `per` so many of each value of that field. A row's draw depends on the seed and \
          its id alone.",
    params: &[PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::optional("n", Kind::Count, "rows that are kept"),
    Param::optional("share", Kind::Number, "share of the rows that is kept, 0 to 1"),
    Param::optional("per", Kind::Text, "a field's name, or a template: `n` or `share` of each of its values"),
];

struct Sample {
    n: Option<usize>,
    share: Option<f64>,
    per: Option<TextOf>,
}

fn build(setup: &Setup<'_>) -> Result<Box<dyn Step>, ConfigError> {
    let o = setup.options;
    let (n, share) = (o.maybe_count("n")?, o.value("share")?.and_then(|v| v.as_f64()));
    let per = setup.text_of("per")?;
    match (n, share) {
        (Some(_), Some(_)) => return Err(o.wrong("share", "stands beside `n`: one of them")),
        (None, None) => return Err(o.wrong("n", "is required, or `share`")),
        (_, Some(share)) if !(0.0..=1.0).contains(&share) => {
            return Err(o.wrong("share", format!("takes 0 to 1, not `{share}`")));
        }
        _ => {}
    }
    Ok(Box::new(Sample { n, share, per }))
}

impl Step for Sample {
    fn start<'a>(&'a self, cx: &'a Context<'a>, rows: &'a Rows) -> Result<EachRow<'a>, SynthError> {
        let mut groups: HashMap<String, Vec<(u64, usize)>> = HashMap::new();
        for (i, row) in rows.iter().enumerate() {
            let row = row?;
            let group = match &self.per {
                None => Ok(String::new()),
                Some(per) => per.of(cx, &row),
            };
            let draw = random(cx.seed_of(&row), 0).next_u64();
            match group {
                Ok(group) => groups.entry(group).or_default().push((draw, i)),
                // Said of the row itself, below.
                Err(Stop::Run(e)) => return Err(e),
                Err(_) => {}
            }
        }
        let mut keeps = vec![false; rows.len()];
        for mut group in groups.into_values() {
            group.sort_unstable();
            let share = self.share.map(|s| (s * group.len() as f64).round() as usize);
            let n = self.n.or(share).unwrap_or_default();
            group.into_iter().take(n).for_each(|(_, i)| keeps[i] = true);
        }
        Ok(each(move |_, at, row| {
            if let Some(per) = &self.per {
                per.of(cx, &row)?;
            }
            if keeps[at] { Ok(vec![row]) } else { Err(Stop::filtered("not drawn", "")) }
        }))
    }
}
