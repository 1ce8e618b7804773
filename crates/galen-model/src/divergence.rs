//! How far one way of decoding is from another, measured on the text at hand.

use crate::generate::Session;
use crate::model::Model;
use crate::sample::argmax;
use galen_ops::Result;
use galen_ops::hook::ProjectionHook;
use galen_ops::ops::softmax_weights;

/// What two ways of decoding predict after the same tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Divergence {
    /// Predictions compared.
    pub positions: usize,
    /// Mean of KL(p, q), nats: p by the first model, q by the second.
    pub mean_kl: f64,
    /// The largest of them.
    pub max_kl: f64,
    /// Predictions whose likeliest token is the same.
    pub same_top: usize,
}

impl Divergence {
    /// Decodes the last `positions` of `ids` token by token by both models, each over its own cache of all that comes
    /// before. Nothing is compared where there are less than two tokens.
    pub fn measure(
        exact: &Model,
        other: &Model,
        hook: Option<&dyn ProjectionHook>,
        ids: &[u32],
        positions: usize,
    ) -> Result<Self> {
        Self::between((exact, hook), (other, hook), ids, positions)
    }

    /// The same of two models each with its own adapter or none.
    pub fn between(
        (exact, hook): (&Model, Option<&dyn ProjectionHook>),
        (other, its_hook): (&Model, Option<&dyn ProjectionHook>),
        ids: &[u32],
        positions: usize,
    ) -> Result<Self> {
        let positions = positions.min(ids.len().saturating_sub(1));
        let (before, compared) = ids.split_at(ids.len() - positions);
        let mut result = Self::default();
        if compared.is_empty() {
            return Ok(result);
        }
        let mut exact = Session::new(exact, hook);
        exact.feed(before)?;
        let mut other = Session::new(other, its_hook);
        other.feed(before)?;
        for id in compared {
            let (p, q) = (exact.feed(&[*id])?, other.feed(&[*id])?);
            result.add(&p, &q);
        }
        Ok(result)
    }

    /// One more prediction, as the logits of both.
    pub(crate) fn add(&mut self, p_logits: &[f32], q_logits: &[f32]) {
        let kl = kl(p_logits, q_logits);
        self.mean_kl = (self.mean_kl * self.positions as f64 + kl) / (self.positions + 1) as f64;
        self.positions += 1;
        self.max_kl = self.max_kl.max(kl);
        self.same_top += usize::from(argmax(p_logits) == argmax(q_logits));
    }

    /// Over the predictions of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let positions = self.positions + other.positions;
        let sum = self.mean_kl * self.positions as f64 + other.mean_kl * other.positions as f64;
        Self {
            positions,
            mean_kl: if positions == 0 { 0.0 } else { sum / positions as f64 },
            max_kl: self.max_kl.max(other.max_kl),
            same_top: self.same_top + other.same_top,
        }
    }
}

/// `sum p (ln p - ln q)`, at least 0.
fn kl(p_logits: &[f32], q_logits: &[f32]) -> f64 {
    let mut weights = Vec::new();
    let q = softmax_weights(q_logits, 1.0, &mut weights);
    let p = softmax_weights(p_logits, 1.0, &mut weights);
    let ln = |norm: &galen_ops::ops::SoftmaxNorm, l: f32| f64::from(l - norm.max) - norm.sum.ln();
    let terms = weights.iter().zip(p_logits).zip(q_logits).filter(|((w, _), _)| **w > 0.0);
    let sum: f64 = terms.map(|((w, pl), ql)| f64::from(*w) / p.sum * (ln(&p, *pl) - ln(&q, *ql))).sum();
    // Rounding may leave it just below.
    if sum < 0.0 { 0.0 } else { sum + 0.0 * p.sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kl_is_the_definition() {
        let (p, q) = ([0.5f64, 0.25, 0.25], [0.25f64, 0.25, 0.5]);
        // Logits are log-probabilities up to a constant.
        let logits = |p: [f64; 3], c: f64| p.map(|p| (p.ln() + c) as f32);
        let want: f64 = p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum();
        assert!((kl(&logits(p, 3.0), &logits(q, -1.0)) - want).abs() <= 1e-6);
        assert!(kl(&logits(p, 0.0), &logits(p, 9.0)) <= 1e-6);
        let mut d = Divergence::default();
        d.add(&logits(p, 0.0), &logits(q, 0.0));
        d.add(&logits(p, 0.0), &logits(p, 0.0));
        assert!((d.positions, d.same_top) == (2, 1) && (d.mean_kl - want / 2.0).abs() <= 1e-6);
        let all = d.and(Divergence { positions: 2, mean_kl: 1.0, max_kl: 1.5, same_top: 2 });
        assert!((all.positions, all.same_top) == (4, 3) && (all.mean_kl - want / 4.0 - 0.5).abs() <= 1e-6);
        assert!(all.max_kl == 1.5 && kl(&[f32::NAN, 0.0], &[0.0, 0.0]).is_nan());
    }
}
