//! What a verification found: as JSON, as lines, as a section of the model card.

use super::limits::Limits;
use super::texts::TextReport;
use galen_model::Divergence;
use serde::Serialize;

/// Predictions of an artifact against those of the model as trained.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Agreement {
    /// Predictions compared.
    pub positions: usize,
    /// Of the same likeliest token.
    pub same_top1: usize,
    /// Mean of KL(trained, artifact), nats.
    pub mean_kl: f64,
    /// The largest of them.
    pub max_kl: f64,
}

impl Agreement {
    /// Share of the same likeliest token; 1 of nothing.
    pub fn top1(&self) -> f64 {
        if self.positions == 0 { 1.0 } else { self.same_top1 as f64 / self.positions as f64 }
    }
}

impl From<Divergence> for Agreement {
    fn from(d: Divergence) -> Self {
        Self { positions: d.positions, same_top1: d.same_top, mean_kl: d.mean_kl, max_kl: d.max_kl }
    }
}

/// Teacher-forced predictions.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ModelReport {
    /// Texts.
    pub samples: usize,
    /// What they are.
    pub origin: String,
    /// Predictions of answers' tokens: what a server is asked for. The thresholds are for these.
    pub answers: Agreement,
    /// Of prompts' tokens, which no server predicts.
    pub prompts: Agreement,
}

/// The tensors that were written.
#[derive(Debug, Clone, Default, Serialize)]
pub struct WeightsReport {
    /// The coarsest type of a matrix.
    pub dtype: Option<String>,
    /// The tensor furthest from what it should hold.
    pub furthest: Option<String>,
    /// Its relative error.
    pub relative_error: f64,
    /// The first tensor that is further than its type explains, in words.
    pub difference: Option<String>,
}

/// The token that ends an answer.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StopReport {
    /// Its id.
    pub id: Option<u32>,
    /// Its text.
    pub token: Option<String>,
    /// The artifact's template writes it behind an answer; nothing where no template is held.
    pub in_template: Option<bool>,
    /// A server with the artifact's files ends an answer by it.
    pub ends_generation: bool,
    /// Training rows it was under the loss in; nothing where the rows are unknown or answers were sampled.
    pub supervised_rows: Option<usize>,
    /// Of so many.
    pub rows: Option<usize>,
    /// Places of the samples where an answer ends.
    pub ends: usize,
    /// Of these: it is the artifact's likeliest token.
    pub first: usize,
    /// Of these: it was the trained model's.
    pub first_as_trained: usize,
}

/// The result for one artifact.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verdict {
    /// Where it lies.
    pub path: String,
    /// Its last part.
    pub name: String,
    /// `run`, `peft`, `gguf-lora`, `gguf`, `hf` or `ollama`.
    pub format: String,
    /// SHA-256 of the file, or of a folder's weights and configuration.
    pub sha256: Option<String>,
    /// Of the adapter it should be.
    pub adapter_sha256: String,
    /// When.
    pub verified: String,
    /// galen's version.
    pub galen: &'static str,
    /// Whether nothing failed.
    pub passed: bool,
    /// What failed, the first first.
    pub failures: Vec<String>,
    /// The thresholds.
    pub limits: Option<Limits>,
    /// The way to tokens.
    pub text: Option<TextReport>,
    /// The predictions.
    pub model: Option<ModelReport>,
    /// The tensors.
    pub weights: Option<WeightsReport>,
    /// The end.
    pub stop: Option<StopReport>,
}

impl Verdict {
    /// For people, a line each.
    pub fn lines(&self) -> Vec<String> {
        let dtype = self.weights.as_ref().and_then(|w| w.dtype.as_deref()).map(|d| format!(", {d}"));
        let result = if self.passed { "passed" } else { "FAILED" };
        let mut lines =
            vec![format!("{}: {result} ({}{})", self.name, self.format, dtype.unwrap_or_default())];
        if let Some(text) = &self.text {
            let same =
                if text.difference.is_none() { "the same tokens as in training" } else { "other tokens" };
            lines.push(format!("  text     {} chats, {} texts: {same}", text.chats, text.texts));
            lines.extend(text.note.iter().map(|n| format!("           note: {n}")));
        }
        if let (Some(model), Some(limits)) = (&self.model, &self.limits) {
            let of = |a: &Agreement| {
                format!(
                    "{} of {} alike, KL {:.1e} (at most {:.1e})",
                    a.same_top1, a.positions, a.mean_kl, a.max_kl
                )
            };
            lines.push(format!(
                "  answers  {}; wanted {} alike, KL {:.0e}",
                of(&model.answers),
                limits.min_top1,
                limits.max_kl
            ));
            if model.prompts.positions > 0 {
                lines.push(format!("  prompts  {}", of(&model.prompts)));
            }
        }
        if let Some(WeightsReport { furthest: Some(name), relative_error, .. }) = &self.weights {
            lines.push(format!("  weights  furthest `{name}`, relative error {relative_error:.1e}"));
        }
        if let Some(stop) = &self.stop {
            let mut line = match &stop.token {
                Some(token) => format!("  stop     `{token}`"),
                None => "  stop     none".to_owned(),
            };
            if let (Some(n), Some(rows)) = (stop.supervised_rows, stop.rows) {
                line.push_str(&format!(", under the loss in {n} of {rows} rows"));
            }
            if stop.ends > 0 {
                let (n, ends, trained) = (stop.first, stop.ends, stop.first_as_trained);
                line.push_str(&format!(", likeliest at {n} of {ends} ends ({trained} as trained)"));
            }
            lines.push(line);
        }
        lines.extend(self.failures.iter().map(|f| format!("  failed   {f}")));
        lines
    }
}
