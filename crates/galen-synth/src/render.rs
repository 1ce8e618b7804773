//! The first prompts of a pipeline, without asking a model.

use crate::config::Pipeline;
use crate::context::Context;
use crate::error::SynthError;
use crate::journal::{Head, Journal, Rows};
use crate::seeds;
use crate::stage::Stage;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// Seeds that examples are drawn from beside the rows shown.
const AROUND: usize = 64;

/// For each step that has prompts: its label, and row id with prompt (or why there is none yet) of the first `n` rows.
/// Steps that ask no model are run on the first seeds; one that asks leaves rows as they are, so that a later prompt may
/// lack what it would have made. `folder`: for files that are needed meanwhile.
#[expect(clippy::type_complexity, reason = "a list of lists")]
pub fn rendered(
    pipeline: &Pipeline,
    n: usize,
    folder: &Path,
) -> Result<Vec<(String, Vec<(String, Result<String, String>)>)>, SynthError> {
    let (teachers, stop) = (BTreeMap::new(), AtomicBool::new(false));
    let first = folder.join("seeds.jsonl");
    seeds::write(&pipeline.seeds, &pipeline.prompts, &first, n.saturating_add(AROUND))?;
    let mut rows = Rows::open(&first)?;
    let mut out = Vec::new();
    for (number, planned) in pipeline.steps.iter().enumerate() {
        let context = || Context {
            prompts: &pipeline.prompts,
            teachers: &teachers,
            seed: pipeline.seed,
            label: &planned.label,
            stop: &stop,
        };
        let cx = context();
        let mut prompts = Vec::new();
        for at in 0..rows.len().min(n) {
            let row = rows.get(at)?;
            match planned.step.prompt(&cx, &rows, at) {
                Ok(None) => {}
                Ok(Some(prompt)) => prompts.push((row.id, Ok(prompt))),
                Err(why) => prompts.push((row.id, Err(why))),
            }
        }
        if !prompts.is_empty() {
            out.push((planned.label.clone(), prompts));
        }
        if planned.used.engines.is_empty() {
            let path = folder.join(format!("{number}.jsonl"));
            let journal = Journal::open(&path, &Head::new(&planned.label, ""), rows.len())?;
            let stage = Stage {
                cx: context(),
                planned,
                number,
                input: &rows,
                journal: &journal,
                threads: 1,
                max_engine_failures: usize::MAX,
                show: &|_| (),
            };
            stage.run()?;
            let next = journal.finish()?;
            // What a step takes out for want of a model's answer would leave nothing to show.
            if !next.is_empty() {
                rows = next;
            }
        }
    }
    Ok(out)
}
