//! Direct preference optimisation (Rafailov et al., arXiv 2305.18290, Eq. 7) and its relatives: losses of the
//! scores of a pair, a score being `log pi(y|x) - log pi_ref(y|x)`.
//!
//! As in TRL 1.16: `label_smoothing` acts in `robust`, `exo_pair`, `aot` and `aot_unpaired` alone, `bco_pair`
//! has no running mean, and there is no `reference_free`. Deviations: `label_smoothing >= 0.5` with `robust`
//! is refused (TRL warns, then divides by a number that is 0 or negative). `use_weighting` (WPO) is not built: it needs
//! the sum of squared probabilities of every token.

use super::batch::{PairBatch, Reference};
use super::f_divergence::{FDivergence, REVERSE_KL};
use super::loss_type::{BySide, Form, LOSS_TYPES, LossType, SIGMOID, Scored};
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

    /// Derivative of [`Self::logp`] times `slope`, and `each` more a token.
    fn spread(&self, slope: f64, each: f64, tokens: usize, shared: usize) -> Vec<f32> {
        let tail = slope * self.ld_alpha.unwrap_or(1.0);
        (0..tokens).map(|t| (each + if t < shared { slope } else { tail }) as f32).collect()
    }

    /// The weighted sum of the loss types.
    fn combine(&self, pairs: &[Scored], chosen: &[&[f32]], totals: Totals) -> Combined {
        let mut sum_of = Combined { loss: 0.0, slopes: vec![[0.0; 2]; pairs.len()], by_chosen_token: 0.0 };
        for Weighted { loss_type, weight } in &self.losses {
            let scale = weight / totals.items();
            match loss_type.form {
                Form::Pair(of) => {
                    for (i, pair) in pairs.iter().enumerate() {
                        let (value, slopes) = of(pair, self);
                        sum_of.loss += scale * value;
                        sum_of.add(i, scale, slopes);
                    }
                }
                Form::Batch(of) => {
                    let (value, slopes) = of(pairs, self);
                    sum_of.loss += scale * value;
                    slopes.into_iter().enumerate().for_each(|(i, slopes)| sum_of.add(i, scale, slopes));
                }
                Form::ChosenTokens => {
                    let scale = weight / totals.tokens();
                    sum_of.loss -= scale * chosen.iter().map(|tokens| sum(tokens)).sum::<f64>();
                    sum_of.by_chosen_token -= scale;
                }
            }
        }
        sum_of
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

/// A loss and its derivatives: by both scores of every pair, and by each chosen token for what is not a function
/// of scores.
struct Combined {
    loss: f64,
    slopes: Vec<BySide>,
    by_chosen_token: f64,
}

impl Combined {
    fn add(&mut self, pair: usize, scale: f64, slopes: BySide) {
        self.slopes[pair].iter_mut().zip(slopes).for_each(|(sum, slope)| *sum += scale * slope);
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
        let Combined { loss, slopes, by_chosen_token } = self.combine(&pairs, batch.chosen, totals);
        let mut d_chosen = Vec::with_capacity(pairs.len());
        let mut d_rejected = Vec::with_capacity(pairs.len());
        for (i, (pair, slope)) in pairs.iter().zip(&slopes).enumerate() {
            let [n_chosen, n_rejected] = [batch.chosen[i].len(), batch.rejected[i].len()];
            let shared = n_chosen.min(n_rejected);
            let by_chosen = slope[0] * pair.slope[0];
            d_chosen.push(self.spread(by_chosen, by_chosen_token, n_chosen, shared));
            d_rejected.push(self.spread(slope[1] * pair.slope[1], 0.0, n_rejected, shared));
        }
        let rewards = [0, 1].map(|side| -> Vec<f64> {
            pairs.iter().map(|p| self.beta * (p.logp[side] - p.ref_logp[side])).collect()
        });
        let logps = [0, 1].map(|side| pairs.iter().map(|p| p.logp[side]).collect::<Vec<f64>>());
        let metrics = pair_metrics([&rewards[0], &rewards[1]], [&logps[0], &logps[1]]);
        Ok(PairLoss { loss, d_chosen, d_rejected, d_prompt: Vec::new(), metrics })
    }
}
