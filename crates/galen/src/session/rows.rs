//! Rows of a run, ready for the model: of supervised fine-tuning, of pairs, of labelled answers.

use super::record::hex;
use super::rollout::PromptedRow;
use galen_data::check::LengthBias;
use galen_data::pack::{Sharing, packed_tokens};
use galen_data::preference::PreferenceReport;
use galen_data::tokenize::TokenizeReport;
use galen_types::{
    InvariantError, Tokenized, TokenizedAnswer, TokenizedLabelled, TokenizedPair, TokenizedPrompt,
};
use sha2::{Digest, Sha256};

/// Training and validation rows.
#[derive(Debug)]
pub struct Parts<R> {
    /// Rows to train on.
    pub train: Vec<R>,
    /// Rows to validate on.
    pub validation: Vec<R>,
}

impl<R> Default for Parts<R> {
    fn default() -> Self {
        Self { train: Vec::new(), validation: Vec::new() }
    }
}

impl<R> Parts<R> {
    fn all(&self) -> impl Iterator<Item = &R> {
        self.train.iter().chain(&self.validation)
    }

    /// Those to show: of validation where there are any.
    fn shown(&self, n: usize) -> &[R] {
        let rows = if self.validation.is_empty() { &self.train } else { &self.validation };
        &rows[..rows.len().min(n)]
    }
}

/// The rows of a run.
#[derive(Debug)]
pub enum Rows {
    /// Supervised fine-tuning.
    Supervised(Parts<Tokenized>),
    /// Pairs.
    Pairs(Parts<TokenizedPair>),
    /// Labelled answers, and each prompt with another row's answer where the loss estimates a KL term.
    Labelled(Parts<TokenizedLabelled>, Parts<TokenizedAnswer>),
    /// Prompts whose answers are sampled.
    Prompts(Parts<PromptedRow>),
}

impl Rows {
    /// Number of training rows.
    pub fn n_train(&self) -> usize {
        match self {
            Self::Supervised(parts) => parts.train.len(),
            Self::Pairs(parts) => parts.train.len(),
            Self::Labelled(parts, _) => parts.train.len(),
            Self::Prompts(parts) => parts.train.len(),
        }
    }

    /// Number of validation rows.
    pub fn n_validation(&self) -> usize {
        match self {
            Self::Supervised(parts) => parts.validation.len(),
            Self::Pairs(parts) => parts.validation.len(),
            Self::Labelled(parts, _) => parts.validation.len(),
            Self::Prompts(parts) => parts.validation.len(),
        }
    }

    /// The sequences of a training row; of a pair the chosen, then the rejected one.
    pub fn sequences(&self, row: usize) -> Vec<&Tokenized> {
        match self {
            Self::Supervised(parts) => parts.train[row].sequences(),
            Self::Pairs(parts) => Row::sequences(&parts.train[row]),
            Self::Labelled(parts, _) => parts.train[row].sequences(),
            Self::Prompts(parts) => parts.train[row].sequences(),
        }
    }

    /// Tokens that each training row adds to a batch.
    pub fn lengths(&self, sharing: Sharing) -> Vec<usize> {
        fn of<R: Row>(rows: &[R], sharing: Sharing) -> Vec<usize> {
            rows.iter().map(|row| packed_tokens(&Row::sequences(row), sharing)).collect()
        }
        match self {
            Self::Supervised(parts) => of(&parts.train, Sharing::Apart),
            Self::Pairs(parts) => of(&parts.train, sharing),
            Self::Labelled(parts, _) => of(&parts.train, sharing),
            Self::Prompts(parts) => parts.train.iter().map(|row| row.prompt.ids().len()).collect(),
        }
    }

    /// Prompts to learn on and to validate on, where answers are sampled.
    pub(super) fn prompts(&self) -> Parts<&TokenizedPrompt> {
        let Self::Prompts(parts) = self else { return Parts::default() };
        fn all(rows: &[PromptedRow]) -> Vec<&TokenizedPrompt> {
            rows.iter().map(|row| &row.prompt).collect()
        }
        Parts { train: all(&parts.train), validation: all(&parts.validation) }
    }

    /// Whether the better answers of pairs are the longer ones.
    pub fn length_bias(&self) -> Option<LengthBias> {
        let Self::Pairs(parts) = self else { return None };
        let lengths =
            |pair: &TokenizedPair| (pair.chosen().answer_ids().len(), pair.rejected().answer_ids().len());
        LengthBias::of(&parts.train.iter().map(lengths).collect::<Vec<_>>())
    }

    /// The first rows as prompts with their (better) answers: of validation where there are any.
    pub fn samples(&self, n: usize) -> Vec<&Tokenized> {
        match self {
            Self::Supervised(parts) => parts.shown(n).iter().collect(),
            Self::Pairs(parts) => parts.shown(n).iter().map(|pair| pair.chosen().tokens()).collect(),
            Self::Labelled(parts, _) => parts.shown(n).iter().map(|row| row.answer.tokens()).collect(),
            Self::Prompts(parts) => parts.shown(n).iter().map(|row| &row.sequence).collect(),
        }
    }

    /// Rows as prompts with their (better) answers: of validation first, then of training. Where answers are sampled there
    /// are none.
    pub(super) fn samples_of_both(&self, n: usize) -> Vec<&Tokenized> {
        match self {
            Self::Supervised(parts) => parts.validation.iter().chain(&parts.train).take(n).collect(),
            Self::Pairs(parts) => {
                let all = parts.validation.iter().chain(&parts.train);
                all.take(n).map(|pair| pair.chosen().tokens()).collect()
            }
            Self::Labelled(parts, _) => {
                let all = parts.validation.iter().chain(&parts.train);
                all.take(n).map(|row| row.answer.tokens()).collect()
            }
            Self::Prompts(_) => Vec::new(),
        }
    }

    /// SHA-256 of all tokens, masks and labels, training then validation.
    pub(super) fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        match self {
            Self::Supervised(parts) => parts.all().for_each(|row| hash(row, &mut hasher)),
            Self::Pairs(parts) => parts.all().for_each(|row| {
                hash(row, &mut hasher);
                if let Some(margin) = row.margin() {
                    hasher.update(margin.to_le_bytes());
                }
            }),
            Self::Labelled(parts, _) => parts.all().for_each(|row| {
                hash(row, &mut hasher);
                hasher.update([u8::from(row.label)]);
            }),
            Self::Prompts(parts) => parts.all().for_each(|row| {
                hash(row, &mut hasher);
                hasher.update(serde_json::to_vec(&row.source.fields).unwrap_or_default());
            }),
        }
        hex(&hasher.finalize())
    }
}

fn hash(row: &impl Row, hasher: &mut Sha256) {
    for sequence in row.sequences() {
        hasher.update((sequence.ids().len() as u64).to_le_bytes());
        for (id, m) in sequence.ids().iter().zip(sequence.mask()) {
            hasher.update(id.to_le_bytes());
            hasher.update([u8::from(*m)]);
        }
    }
}

/// A row of any kind.
pub(super) trait Row: Sized {
    /// Its sequences.
    fn sequences(&self) -> Vec<&Tokenized>;
    /// The same row with another number.
    fn numbered(self, number: u64) -> Result<Self, InvariantError>;
}

impl Row for Tokenized {
    fn sequences(&self) -> Vec<&Tokenized> {
        vec![self]
    }
    fn numbered(self, number: u64) -> Result<Self, InvariantError> {
        Self::new(self.origin().clone(), number, self.ids().to_vec(), self.mask().to_vec())
    }
}

fn answer_numbered(answer: &TokenizedAnswer, number: u64) -> Result<TokenizedAnswer, InvariantError> {
    let tokens = answer.tokens();
    TokenizedAnswer::new(tokens.origin().clone(), number, tokens.ids().to_vec(), answer.prompt_tokens())
}

impl Row for TokenizedPair {
    fn sequences(&self) -> Vec<&Tokenized> {
        TokenizedPair::sequences(self).to_vec()
    }
    fn numbered(self, number: u64) -> Result<Self, InvariantError> {
        let [chosen, rejected] = [self.chosen(), self.rejected()].map(|a| answer_numbered(a, number));
        Self::new(chosen?, rejected?, self.margin())
    }
}

impl Row for TokenizedLabelled {
    fn sequences(&self) -> Vec<&Tokenized> {
        vec![self.answer.tokens()]
    }
    fn numbered(self, number: u64) -> Result<Self, InvariantError> {
        Ok(Self { answer: answer_numbered(&self.answer, number)?, label: self.label })
    }
}

impl Row for PromptedRow {
    fn sequences(&self) -> Vec<&Tokenized> {
        vec![&self.sequence]
    }
    fn numbered(self, number: u64) -> Result<Self, InvariantError> {
        let prompt = TokenizedPrompt::new(self.prompt.origin().clone(), number, self.prompt.ids().to_vec())?;
        Self::new(prompt, self.source)
    }
}

/// What became of an entry's rows.
#[derive(Debug, Clone, Default)]
pub struct RowsReport {
    /// The entry.
    pub path: String,
    /// Rows kept.
    pub kept: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Of which supervised.
    pub supervised_tokens: u64,
    /// Counts of what is worth knowing, with words for it; those of 0 are not said.
    pub counts: Vec<(u64, &'static str)>,
    /// The first rows left out, each as `file:line: reason`.
    pub dropped_rows: Vec<String>,
    /// Whether it is an entry of `test_datasets`.
    pub validates: bool,
}

impl RowsReport {
    pub(super) fn supervised(path: &str, r: TokenizeReport) -> Self {
        Self {
            path: path.to_owned(),
            kept: r.kept,
            tokens: r.tokens,
            supervised_tokens: r.supervised_tokens,
            counts: vec![
                (r.truncated, "truncated"),
                (r.dropped_too_long, "dropped as too long"),
                (r.dropped_by_truncation, "dropped: truncation left no supervision"),
                (r.dropped_unsupervised, "dropped: nothing supervised"),
            ],
            dropped_rows: r.dropped_rows,
            validates: false,
        }
    }

    pub(super) fn preference(path: &str, r: PreferenceReport, tied: u64) -> Self {
        Self {
            path: path.to_owned(),
            kept: r.kept,
            tokens: r.tokens,
            supervised_tokens: r.answer_tokens,
            counts: vec![
                (r.truncated, "truncated"),
                (r.dropped_too_long, "dropped as too long"),
                (r.dropped_by_truncation, "dropped: truncation left no answer"),
                (tied, "without a pair, all answers of one score"),
                (r.identical, "with two equal answers, which teach nothing"),
            ],
            dropped_rows: r.dropped_rows,
            validates: false,
        }
    }
}
