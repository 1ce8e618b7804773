//! By how much likelier the base finds a row behind examples of the target.

use super::{Inputs, Method};
use crate::progress::{counted, say};
use galen_data::order::SplitMix64;

pub(super) const METHOD: Method = Method {
    name: "likelihood",
    about: "how much likelier, nats a token, the base finds a row behind `--shots` examples of the target (`--model`)",
    score: "gain in log-likelihood of a token",
    asks_model: true,
    draws: false,
    sums: false,
    run,
};

/// What stands behind each example.
const SEPARATOR: &str = "\n\n";

fn run(inputs: &Inputs<'_>) -> anyhow::Result<Vec<f64>> {
    let model = inputs.model()?;
    let mut examples: Vec<&str> = inputs.target().map(|t| &t.text[..]).collect();
    SplitMix64::keyed(&[inputs.seed, examples.len() as u64]).shuffle(&mut examples);
    let (mut context, room) = (Vec::new(), model.context_tokens());
    let mut taken = 0;
    for example in examples.into_iter().take(inputs.shots) {
        let mut ids = model.encode(example)?;
        ids.extend(model.encode(SEPARATOR)?);
        if context.len() + ids.len() > room && taken > 0 {
            break;
        }
        ids.truncate(room);
        context.extend(ids);
        taken += 1;
    }
    say(&format!(
        "{} of the target before each row, {}",
        counted(taken, "example"),
        counted(context.len() as u64, "token")
    ));
    let ids = model.encode_all(inputs.rows.iter().map(|t| &t.text[..]))?;
    let alone = model.log_likelihoods("rows alone", &[], &ids)?;
    let behind = model.log_likelihoods("rows behind examples", &context, &ids)?;
    let gain =
        |((alone, n), (behind, _)): (&(f64, usize), &(f64, usize))| (behind - alone) / (*n).max(1) as f64;
    Ok(alone.iter().zip(&behind).map(gain).collect())
}
