//! Pairs as an objective sees them.

use crate::{LossError, Result};

/// Pairs: for each, the log-probabilities of the supervised tokens of its answers under the policy.
#[derive(Debug, Clone, Copy)]
pub struct PairBatch<'a> {
    /// Chosen answers, one slice each, one value a token.
    pub chosen: &'a [&'a [f32]],
    /// Rejected answers, in the same order.
    pub rejected: &'a [&'a [f32]],
    /// The reference policy's log-probabilities of the same tokens, where the objective needs them.
    pub reference: Option<Reference<'a>>,
    /// Log-probabilities of the prompts' tokens, where the objective reads them: every token that has a
    /// predecessor.
    pub prompt: Option<&'a [&'a [f32]]>,
}

/// Log-probabilities of the same answers under the reference policy.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'a> {
    /// Of the chosen answers.
    pub chosen: &'a [&'a [f32]],
    /// Of the rejected answers.
    pub rejected: &'a [&'a [f32]],
}

impl<'a> PairBatch<'a> {
    /// As many rejected as chosen answers, none of them empty, prompts where given one a pair.
    pub(crate) fn check(&self) -> Result<()> {
        same_number("rejected", self.rejected, self.chosen.len())?;
        no_empty("chosen", self.chosen)?;
        no_empty("rejected", self.rejected)?;
        self.prompt.map_or(Ok(()), |prompt| same_number("prompt", prompt, self.chosen.len()))
    }

    /// The reference, of the policy's layout.
    pub(crate) fn reference(&self) -> Result<Reference<'a>> {
        let missing = || LossError::batch("reference", "its log-probabilities are missing");
        let reference = self.reference.ok_or_else(missing)?;
        same_layout("reference.chosen", reference.chosen, self.chosen)?;
        same_layout("reference.rejected", reference.rejected, self.rejected)?;
        Ok(reference)
    }
}

pub(crate) fn same_number(part: &str, sequences: &[&[f32]], n: usize) -> Result<()> {
    let what = || format!("{} sequences, not the `{n}` of the others", sequences.len());
    if sequences.len() == n { Ok(()) } else { Err(LossError::batch(part, what())) }
}

pub(crate) fn no_empty(part: &str, sequences: &[&[f32]]) -> Result<()> {
    match sequences.iter().position(|s| s.is_empty()) {
        Some(i) => Err(LossError::batch(format!("{part}[{i}]"), "it has no supervised token")),
        None => Ok(()),
    }
}

pub(crate) fn same_layout(part: &str, sequences: &[&[f32]], of: &[&[f32]]) -> Result<()> {
    same_number(part, sequences, of.len())?;
    match sequences.iter().zip(of).position(|(a, b)| a.len() != b.len()) {
        Some(i) => {
            let what = format!("{} log-probabilities of a sequence of `{}`", sequences[i].len(), of[i].len());
            Err(LossError::batch(format!("{part}[{i}]"), what))
        }
        None => Ok(()),
    }
}
