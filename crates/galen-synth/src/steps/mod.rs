//! One file a kind of step: its parameters, what it does, its tests.

pub mod contamination;
pub mod dedup;
pub mod distractors;
pub mod evolve;
pub mod filter;
pub mod from_document;
pub mod generate;
pub mod judge;
pub mod judge_options;
pub mod language;
pub mod length;
pub mod paraphrase;
pub mod preference_pair;
pub mod rank;
pub mod refusal;
pub mod render;
pub mod rewrite;
pub mod sample;
pub mod self_consistency;
pub mod self_instruct;
pub mod verify;

use crate::registry::EachRow;
use crate::row::Row;

/// A step's function, boxed with its type made plain to the compiler.
fn each<'a>(
    f: impl Fn(&mut crate::context::Tally, usize, Row) -> Result<Vec<Row>, crate::error::Stop> + Send + Sync + 'a,
) -> EachRow<'a> {
    Box::new(f)
}

/// A row's prompt, for `--render`.
fn shown(
    rows: &crate::journal::Rows,
    at: usize,
    prompt: impl FnOnce(&Row) -> Result<String, crate::error::Stop>,
) -> Result<Option<String>, String> {
    let row = rows.get(at).map_err(|e| e.to_string())?;
    match prompt(&row) {
        Ok(text) => Ok(Some(text)),
        Err(crate::error::Stop::Filtered { detail, .. } | crate::error::Stop::Failed { detail, .. }) => {
            Err(detail)
        }
        Err(crate::error::Stop::Run(e)) => Err(e.to_string()),
    }
}
