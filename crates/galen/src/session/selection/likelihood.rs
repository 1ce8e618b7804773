//! By how much likelier the base finds a row behind examples of the target.

use super::{Asks, Inputs, Method};
use crate::progress::{counted, say};
use galen_data::order::SplitMix64;

pub(super) const METHOD: Method = Method {
    name: "likelihood",
    about: "how much likelier, nats a token, the base finds a row behind `--shots` examples of the target (`--model`)",
    score: "gain in log-likelihood of a token",
    asks: Asks::BehindExamples,
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
    Ok(alone.iter().zip(&behind).map(|((alone, n), (behind, _))| gain(*alone, *behind, *n)).collect())
}

/// A text of one token has none that is predicted, and so no score: not the 0 of one that examples neither help nor harm.
fn gain(alone: f64, behind: f64, predicted: usize) -> f64 {
    if predicted == 0 { f64::NAN } else { (behind - alone) / predicted as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_predicted_has_no_score() {
        assert_eq!(gain(-6.0, -3.0, 2), 1.5);
        assert!(gain(0.0, 0.0, 0).is_nan());
    }
}
