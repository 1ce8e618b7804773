//! By hashed n-grams: DSIR's importance weights, and the same for each n-gram.

use super::{Asks, Inputs, Method};
use galen_data::dsir::Importance;
use galen_data::ngrams::Counts;

pub(super) const DSIR: Method = Method {
    name: "dsir",
    about: "DSIR: importance weights of hashed words and pairs of words, rows drawn by them; for rows of like length",
    score: "log importance weight",
    asks: Asks::Nothing,
    draws: true,
    sums: true,
    run: |inputs| Ok(scores(inputs, Importance::log_weight)),
};

pub(super) const NGRAMS: Method = Method {
    name: "ngrams",
    about: "the same weights, as a mean over a row's n-grams; the highest are kept, whatever the rows' lengths",
    score: "mean log importance of an n-gram",
    asks: Asks::Nothing,
    draws: false,
    sums: false,
    run: |inputs| Ok(scores(inputs, Importance::per_ngram)),
};

fn scores(inputs: &Inputs<'_>, of: fn(&Importance, &[u32]) -> f64) -> Vec<f64> {
    let target = Counts::of(inputs.target().map(|t| &t.buckets[..]));
    let rows = Counts::of(inputs.rows.iter().map(|t| &t.buckets[..]));
    let importance = Importance::new(&target, &rows);
    inputs.rows.iter().map(|row| of(&importance, &row.buckets)).collect()
}
