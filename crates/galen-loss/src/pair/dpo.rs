//! Direct preference optimisation (Rafailov et al., arXiv 2305.18290, Eq. 7) and its relatives: losses of the scores
//! of a pair, a score being `log pi(y|x) - log pi_ref(y|x)`.
//!
//! As in TRL 1.16: `label_smoothing` acts in `robust`, `exo_pair`, `aot` and `aot_unpaired` alone, `bco_pair` has no
//! running mean, and there is no `reference_free`. Deviations: `label_smoothing >= 0.5` with `robust` is refused
//! (TRL warns, then divides by a number that is 0 or negative).

use super::batch::{PairBatch, Reference};
use super::f_divergence::{FDivergence, REVERSE_KL};
use super::loss_type::{Form, LOSS_TYPES, LossType, SIGMOID, Scored};
use super::{PairLoss, PairObjective, pair_metrics};
use crate::error::positive_beta;
use crate::numeric::sum;
use crate::{LossError, Result, Totals, find};

/// A loss type and its weight in the sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighted {
    /// The loss type.
    pub loss_type: &'static LossType,
    /// Its weight.
    pub weight: f64,
}

/// Settings of DPO, by TRL's names and with its defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Dpo {
    /// `loss_type` and `loss_weights`: one, or several summed.
    pub losses: Vec<Weighted>,
    /// Strength of the pull to the reference; tau in `ipo`.
    pub beta: f64,
    /// Probability that a label is wrong.
    pub label_smoothing: f64,
    /// Weight of the tokens beyond the shorter answer's length (LD-DPO, Liu et al., arXiv 2409.06411).
    pub ld_alpha: Option<f64>,
    /// Divergence that the score is derived from.
    pub f_divergence: &'static FDivergence,
    /// Its exponent where it is `alpha_divergence`.
    pub f_alpha_divergence_coef: f64,
    /// Temperature of `discopop`.
    pub discopop_tau: f64,
}

impl Default for Dpo {
    fn default() -> Self {
        Self {
            losses: vec![Weighted { loss_type: &SIGMOID, weight: 1.0 }],
            beta: 0.1,
            label_smoothing: 0.0,
            ld_alpha: None,
            f_divergence: &REVERSE_KL,
            f_alpha_divergence_coef: 0.5,
            discopop_tau: 0.05,
        }
    }
}

impl Dpo {
    /// Defaults with these loss types; `weights` of `None` are all 1.
    ///
    /// # Errors
    /// An unknown name; another number of weights than of names.
    pub fn of(loss_type: &[&str], weights: Option<&[f64]>) -> Result<Self> {
        let number = weights.map_or(loss_type.len(), <[f64]>::len);
        let hint = "give one weight for each `loss_type`, or none";
        LossError::unless(
            number == loss_type.len(),
            "loss_weights",
            number,
            "another number of weights",
            hint,
        )?;
        let weight = |i| weights.map_or(1.0, |w| w[i]);
        let weighted = |(i, name): (usize, &&str)| {
            Ok(Weighted { loss_type: find(LOSS_TYPES, name)?, weight: weight(i) })
        };
        let losses = loss_type.iter().enumerate().map(weighted).collect::<Result<_>>()?;
        Ok(Self { losses, ..Self::default() })
    }

    /// Log-probability of an answer: its first `shared` tokens in full, the rest by `ld_alpha`.
    fn logp(&self, tokens: &[f32], shared: usize) -> f64 {
        let (head, tail) = tokens.split_at(shared.min(tokens.len()));
        sum(head) + self.ld_alpha.unwrap_or(1.0) * sum(tail)
    }

    /// Derivative of [`Self::logp`] times `slope`, a token.
    fn spread(&self, slope: f64, tokens: usize, shared: usize) -> Vec<f32> {
        let tail = slope * self.ld_alpha.unwrap_or(1.0);
        (0..tokens).map(|t| (if t < shared { slope } else { tail }) as f32).collect()
    }

    fn scored(&self, batch: &PairBatch, reference: &Reference, i: usize) -> Scored {
        let [chosen, rejected] = [batch.chosen[i], batch.rejected[i]];
        let shared = chosen.len().min(rejected.len());
        let side = |tokens: &[f32], reference: &[f32]| {
            let logp = self.logp(tokens, shared);
            let ref_logp = self.logp(reference, shared);
            let (score, slope) = (self.f_divergence.score)(logp - ref_logp, self.f_alpha_divergence_coef);
            (logp, ref_logp, score, slope)
        };
        let (chosen_logp, ref_chosen_logp, chosen_score, chosen_slope) = side(chosen, reference.chosen[i]);
        let (rejected_logp, ref_rejected_logp, rejected_score, rejected_slope) =
            side(rejected, reference.rejected[i]);
        Scored {
            logp: [chosen_logp, rejected_logp],
            ref_logp: [ref_chosen_logp, ref_rejected_logp],
            score: [chosen_score, rejected_score],
            slope: [chosen_slope, rejected_slope],
            tokens: [chosen.len() as f64, rejected.len() as f64],
        }
    }
}

impl PairObjective for Dpo {
    fn check(&self) -> Result<()> {
        positive_beta(self.beta)?;
        let hint = "there is `sigmoid`, the plain DPO loss";
        LossError::unless(!self.losses.is_empty(), "loss_type", "[]", "none is given", hint)?;
        if let Some(alpha) = self.ld_alpha {
            let hint = "1 is plain DPO, 0 leaves the longer answer's tail out";
            LossError::unless((0.0..=1.0).contains(&alpha), "ld_alpha", alpha, "it must be of [0, 1]", hint)?;
        }
        for Weighted { loss_type, weight } in &self.losses {
            let hint = "leave `loss_weights` out for weights of 1";
            LossError::unless(weight.is_finite(), "loss_weights", weight, "it must be a number", hint)?;
            let fine = loss_type.any_divergence || *self.f_divergence == REVERSE_KL;
            let what = "only losses of the difference of two scores can have another than `reverse_kl`";
            let hint = "drop `f_divergence_type`, or take `loss_type: sigmoid`";
            LossError::unless(fine, "f_divergence_type", self.f_divergence.name, what, hint)?;
            (loss_type.check)(self)?;
        }
        Ok(())
    }

    fn needs_reference(&self) -> bool {
        true
    }

    fn loss(&self, batch: &PairBatch, totals: Totals) -> Result<PairLoss> {
        batch.check()?;
        let reference = batch.reference()?;
        let pairs: Vec<Scored> = (0..batch.chosen.len()).map(|i| self.scored(batch, &reference, i)).collect();
        let mut loss = 0.0;
        // By score, by pair; and by chosen token, for what is not a function of scores.
        let mut slopes = vec![[0.0; 2]; pairs.len()];
        let mut chosen_token_slope = 0.0;
        for Weighted { loss_type, weight } in &self.losses {
            let scale = weight / totals.items();
            match loss_type.form {
                Form::Pair(of) => {
                    for (pair, slope) in pairs.iter().zip(&mut slopes) {
                        let (value, by_score) = of(pair, self);
                        loss += scale * value;
                        (slope[0], slope[1]) =
                            (slope[0] + scale * by_score[0], slope[1] + scale * by_score[1]);
                    }
                }
                Form::Batch(of) => {
                    let (value, by_score) = of(&pairs, self);
                    loss += scale * value;
                    for (slope, by_score) in slopes.iter_mut().zip(by_score) {
                        (slope[0], slope[1]) =
                            (slope[0] + scale * by_score[0], slope[1] + scale * by_score[1]);
                    }
                }
                Form::ChosenTokens => {
                    let per_token = weight / totals.tokens();
                    loss -= per_token * batch.chosen.iter().map(|tokens| sum(tokens)).sum::<f64>();
                    chosen_token_slope -= per_token;
                }
            }
        }
        let mut d_chosen = Vec::with_capacity(pairs.len());
        let mut d_rejected = Vec::with_capacity(pairs.len());
        for (i, (pair, slope)) in pairs.iter().zip(&slopes).enumerate() {
            let [n_chosen, n_rejected] = [batch.chosen[i].len(), batch.rejected[i].len()];
            let shared = n_chosen.min(n_rejected);
            let mut chosen = self.spread(slope[0] * pair.slope[0], n_chosen, shared);
            if chosen_token_slope != 0.0 {
                let add = |d: &mut f32| *d = (f64::from(*d) + chosen_token_slope) as f32;
                chosen.iter_mut().for_each(add);
            }
            d_chosen.push(chosen);
            d_rejected.push(self.spread(slope[1] * pair.slope[1], n_rejected, shared));
        }
        let rewards = [0, 1].map(|side| -> Vec<f64> {
            pairs.iter().map(|p| self.beta * (p.logp[side] - p.ref_logp[side])).collect()
        });
        let logps = [0, 1].map(|side| pairs.iter().map(|p| p.logp[side]).collect::<Vec<f64>>());
        let metrics = pair_metrics([&rewards[0], &rewards[1]], [&logps[0], &logps[1]]);
        Ok(PairLoss { loss, d_chosen, d_rejected, d_prompt: Vec::new(), metrics })
    }
}
