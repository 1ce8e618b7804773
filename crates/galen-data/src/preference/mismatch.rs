//! Answers to other prompts, by which KTO estimates its KL term.

use galen_types::{InvariantError, TokenizedAnswer, TokenizedLabelled};

/// Each prompt with the answer of the row before it, within each run of `batch` rows (the first gets the last's):
/// (x1, yn), (x2, y1) ... (Ethayarajh et al. 2024, KTO, section 4.2). Row `i` of the result belongs to `rows[i]`. As
/// TRL does, this goes by the data set's order, so a row's mismatched answer is the same in every epoch; TRL's `batch`
/// is the batch size. Sequences longer than `sequence_len` lose their end.
///
/// Error: nothing of an answer is left within `sequence_len`.
pub fn mismatched(
    rows: &[TokenizedLabelled],
    batch: usize,
    sequence_len: usize,
) -> Result<Vec<TokenizedAnswer>, InvariantError> {
    let mut out = Vec::with_capacity(rows.len());
    for run in rows.chunks(batch.max(1)) {
        for (i, row) in run.iter().enumerate() {
            let other = &run[(i + run.len() - 1) % run.len()];
            let mut ids = [row.answer.prompt_ids(), other.answer.answer_ids()].concat();
            ids.truncate(sequence_len);
            let tokens = row.answer.tokens();
            out.push(TokenizedAnswer::new(
                tokens.origin().clone(),
                tokens.row(),
                ids,
                row.answer.prompt_tokens(),
            )?);
        }
    }
    Ok(out)
}
