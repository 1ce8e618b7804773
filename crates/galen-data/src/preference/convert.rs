//! Rows of any preference kind as the kind an objective takes.

use crate::{DataError, Fault};
use galen_types::{Answer, Labelled, Pair, Preference, PromptRow, Ranked};
use serde_json::Map;

/// Which pairs a ranked list becomes. Answers of equal score are never paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RankedPairs {
    /// One: the best over the worst.
    #[default]
    BestWorst,
    /// Each over the next worse: at most one less than there are answers.
    Adjacent,
    /// Each over every worse one.
    All,
}

/// Pairs, and what could not become one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PairsMade {
    /// The pairs, in the order of their rows.
    pub pairs: Vec<Pair>,
    /// Ranked rows without a pair, since all their answers have one score, as `file:line`.
    pub tied: Vec<String>,
}

/// Pairs of rows (DPO and its family, ORPO, SimPO, CPO, reward models).
///
/// Error: the first row without two answers to compare.
pub fn into_pairs(rows: Vec<Preference>, ranked: RankedPairs) -> Result<PairsMade, DataError> {
    let mut out = PairsMade::default();
    for row in rows {
        match row {
            Preference::Pair(pair) => out.pairs.push(pair),
            Preference::Ranked(row) => {
                let before = out.pairs.len();
                let origin = row.origin.to_string();
                ranked_pairs(row, ranked, &mut out.pairs);
                if out.pairs.len() == before {
                    out.tied.push(origin);
                }
            }
            Preference::Labelled(row) => {
                let e = DataError::row(&row.origin, Fault::MissingField, "it has one answer, a pair has two");
                return Err(e.with_hint("labelled answers are for `rl: kto`"));
            }
            Preference::Prompt(row) => {
                let e = DataError::row(&row.origin, Fault::MissingField, "it has no answers, a pair has two");
                return Err(
                    e.with_hint("an answer is text or messages: docs/preference-data.md has the shapes")
                );
            }
        }
    }
    Ok(out)
}

fn ranked_pairs(row: Ranked, ranked: RankedPairs, out: &mut Vec<Pair>) {
    let Ranked { origin, prompt, mut answers } = row;
    // A stable sort: answers of one score stay in the order of the file.
    answers.sort_by(|a, b| b.1.total_cmp(&a.1));
    let n = answers.len();
    let places: Vec<(usize, usize)> = match ranked {
        RankedPairs::BestWorst => (n > 1).then(|| (0, n - 1)).into_iter().collect(),
        RankedPairs::Adjacent => (1..n).map(|i| (i - 1, i)).collect(),
        RankedPairs::All => (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect(),
    };
    for (better, worse) in places {
        let ((chosen, high), (rejected, low)) = (&answers[better], &answers[worse]);
        if high > low {
            let (origin, prompt) = (origin.clone(), prompt.clone());
            let (chosen, rejected) = (chosen.clone(), rejected.clone());
            out.push(Pair { origin, prompt, chosen, rejected, margin: None });
        }
    }
}

/// Rows of pairs that are unpaired together: TRL's batch of `map`, and so its order of rows.
const UNPAIRED_TOGETHER: usize = 1000;

/// Labelled answers (KTO). Pairs come apart into a good and a bad answer: of each thousand rows first the chosen, then
/// the rejected ones, as TRL orders them. A ranked list gives its best and its worst; also gives where rows stand whose answers
/// are all tied.
///
/// Error: the first row without an answer.
pub fn into_labelled(rows: Vec<Preference>) -> Result<(Vec<Labelled>, Vec<String>), DataError> {
    let mut out = Vec::with_capacity(rows.len());
    let mut all_tied = Vec::new();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for row in rows {
        if good.len() == UNPAIRED_TOGETHER || matches!(row, Preference::Labelled(_)) {
            out.append(&mut good);
            out.append(&mut bad);
        }
        match row {
            Preference::Labelled(row) => out.push(row),
            Preference::Prompt(row) => {
                let e = DataError::row(&row.origin, Fault::MissingField, "it has no answer");
                return Err(
                    e.with_hint("an answer is text or messages: docs/preference-data.md has the shapes")
                );
            }
            row => {
                let PairsMade { pairs, tied } = into_pairs(vec![row], RankedPairs::BestWorst)?;
                all_tied.extend(tied);
                for pair in pairs {
                    let Pair { origin, prompt, chosen, rejected, .. } = pair;
                    let labelled = |completion: Answer, label| Labelled {
                        origin: origin.clone(),
                        prompt: prompt.clone(),
                        completion,
                        label,
                    };
                    good.push(labelled(chosen, true));
                    bad.push(labelled(rejected, false));
                }
            }
        }
    }
    out.append(&mut good);
    out.append(&mut bad);
    Ok((out, all_tied))
}

/// Prompts to sample answers for (GRPO, RLOO); the answers of other rows are left out.
pub fn into_prompts(rows: Vec<Preference>) -> Vec<PromptRow> {
    let prompt = |row| match row {
        Preference::Prompt(row) => row,
        row => PromptRow { origin: row.origin().clone(), prompt: row.prompt().clone(), fields: Map::new() },
    };
    rows.into_iter().map(prompt).collect()
}
