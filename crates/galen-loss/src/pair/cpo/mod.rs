//! Contrastive preference optimisation (Xu et al., arXiv 2401.08417, Eq. 3) and what shares its form: a loss
//! of the difference of two rewards without a reference, plus `cpo_alpha` times the chosen answer's
//! likelihood.
//!
//! `alpha` is AlphaPO's (Gupta et al., arXiv 2501.03884): the reward `(1 - p^-alpha)/alpha` instead of
//! `log p`. TRL's `loss_type: alphapo` is `simpo` with `cpo_alpha: 0`.

mod simpo;

use super::batch::PairBatch;
use super::{PairLoss, PairObjective, pair_metrics};
use crate::error::{not_negative, positive_beta};
use crate::numeric::{constant, log_sigmoid, mean, sigmoid, sum};
use crate::registry::named;
use crate::{LossError, Result, Totals, find};

/// Settings of CPO and `SimPO`, by TRL's names and with its defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cpo {
    /// `loss_type`.
    pub loss_type: &'static CpoType,
    /// Temperature of the rewards.
    pub beta: f64,
    /// Probability that a label is wrong, in `sigmoid` and `simpo`.
    pub label_smoothing: f64,
    /// Weight of the chosen answer's negative log-likelihood. TRL's default of 1 holds for `simpo` too, whose
    /// paper has no such term: set 0 for the paper's loss.
    pub cpo_alpha: f64,
    /// Margin of `simpo`.
    pub simpo_gamma: f64,
    /// Shape of the reward, 0 for `log p`.
    pub alpha: f64,
}

impl Default for Cpo {
    fn default() -> Self {
        Self {
            loss_type: &SIGMOID,
            beta: 0.1,
            label_smoothing: 0.0,
            cpo_alpha: 1.0,
            simpo_gamma: 0.5,
            alpha: 0.0,
        }
    }
}

impl Cpo {
    /// Defaults with a loss type; `alphapo` is `simpo` without the likelihood.
    pub fn of(loss_type: &str) -> Result<Self> {
        if loss_type == "alphapo" {
            return Ok(Self { loss_type: &simpo::SIMPO, cpo_alpha: 0.0, ..Self::default() });
        }
        Ok(Self { loss_type: find(LOSS_TYPES, loss_type)?, ..Self::default() })
    }

    /// Reward before `beta`, and its derivative, of a log-probability.
    fn reward(&self, logp: f64) -> (f64, f64) {
        if self.alpha == 0.0 {
            (logp, 1.0)
        } else {
            (-(-self.alpha * logp).exp_m1() / self.alpha, (-self.alpha * logp).exp())
        }
    }

    /// `-(1 - e) log sigmoid(z) - e log sigmoid(-z)` of `z = beta x` and its derivative by x: Eq. 3 of the
    /// paper with smoothed labels.
    fn smoothed(&self, x: f64) -> (f64, f64) {
        let (z, e) = (self.beta * x, self.label_smoothing);
        let value = -(1.0 - e) * log_sigmoid(z) - e * log_sigmoid(-z);
        (value, self.beta * (e * sigmoid(z) - (1.0 - e) * sigmoid(-z)))
    }
}

/// A loss of the difference of two rewards.
pub struct CpoType {
    /// Value of `loss_type`.
    pub name: &'static str,
    /// What it is, with its paper.
    pub doc: &'static str,
    /// Whether an answer's log-probability is the mean over its tokens, not the sum.
    pub(crate) averages: bool,
    /// Loss and derivative by the difference of the rewards before `beta`.
    pub(crate) of: fn(f64, &Cpo) -> (f64, f64),
}

named!(CpoType, "loss_type");

/// Every loss type of CPO. Adding one is its function and its line here.
pub static LOSS_TYPES: &[&CpoType] = &[&SIGMOID, &HINGE, &IPO, &simpo::SIMPO];

static SIGMOID: CpoType =
    CpoType { name: "sigmoid", doc: "CPO, arXiv 2401.08417, Eq. 3", averages: false, of: sigmoid_loss };
static HINGE: CpoType = CpoType {
    name: "hinge",
    doc: "SLiC-HF's hinge, arXiv 2305.10425: max(0, 1 - beta x)",
    averages: false,
    of: hinge,
};
static IPO: CpoType = CpoType {
    name: "ipo",
    doc: "IPO, arXiv 2310.12036, Eq. 17: (x - 1/(2 beta))^2",
    averages: true,
    of: ipo,
};

fn sigmoid_loss(x: f64, settings: &Cpo) -> (f64, f64) {
    settings.smoothed(x)
}

fn hinge(x: f64, settings: &Cpo) -> (f64, f64) {
    let short = 1.0 - settings.beta * x;
    (short.max(0.0), if short > 0.0 { -settings.beta } else { 0.0 })
}

fn ipo(x: f64, settings: &Cpo) -> (f64, f64) {
    let off = x - 0.5 / settings.beta;
    (off * off, 2.0 * off)
}

impl PairObjective for Cpo {
    fn check(&self) -> Result<()> {
        positive_beta(self.beta)?;
        let fine = (0.0..=1.0).contains(&self.label_smoothing);
        let hint = "0 trusts the labels";
        LossError::unless(fine, "label_smoothing", self.label_smoothing, "it must be of [0, 1]", hint)?;
        let hint = "0 is the plain log-probability";
        LossError::unless(self.alpha.is_finite(), "alpha", self.alpha, "it must be a number", hint)?;
        not_negative("cpo_alpha", self.cpo_alpha)?;
        not_negative("simpo_gamma", self.simpo_gamma)
    }

    fn needs_reference(&self) -> bool {
        false
    }

    fn loss(&self, batch: &PairBatch, totals: Totals) -> Result<PairLoss> {
        batch.check()?;
        let logp = |tokens: &&[f32]| if self.loss_type.averages { mean(tokens) } else { sum(tokens) };
        let logps = [batch.chosen, batch.rejected].map(|s| s.iter().map(logp).collect::<Vec<f64>>());
        let nll = -batch.chosen.iter().map(|tokens| sum(tokens)).sum::<f64>();
        let d_nll = -self.cpo_alpha / totals.tokens();
        let mut loss = self.cpo_alpha * nll / totals.tokens();
        let (mut d_chosen, mut d_rejected) = (Vec::new(), Vec::new());
        let mut rewards = [Vec::new(), Vec::new()];
        for (i, (chosen, rejected)) in logps[0].iter().zip(&logps[1]).enumerate() {
            let (reward_chosen, slope_chosen) = self.reward(*chosen);
            let (reward_rejected, slope_rejected) = self.reward(*rejected);
            let (value, slope) = (self.loss_type.of)(reward_chosen - reward_rejected, self);
            loss += value / totals.items();
            let slope = slope / totals.items();
            let [n_chosen, n_rejected] = [batch.chosen[i].len(), batch.rejected[i].len()];
            let share = |n: usize| if self.loss_type.averages { 1.0 / n as f64 } else { 1.0 };
            d_chosen.push(constant(d_nll + slope * slope_chosen * share(n_chosen), n_chosen));
            d_rejected.push(constant(-slope * slope_rejected * share(n_rejected), n_rejected));
            rewards[0].push(self.beta * reward_chosen);
            rewards[1].push(self.beta * reward_rejected);
        }
        let mut metrics = pair_metrics([&rewards[0], &rewards[1]], [&logps[0], &logps[1]]);
        let tokens = batch.chosen.iter().map(|tokens| tokens.len()).sum::<usize>();
        metrics.weighted("nll_loss", nll, tokens as f64);
        Ok(PairLoss { loss, d_chosen, d_rejected, d_prompt: Vec::new(), metrics })
    }
}
