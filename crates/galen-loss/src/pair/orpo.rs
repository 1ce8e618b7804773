//! ORPO (Hong et al., arXiv 2403.07691): likelihood of the chosen answer and the log odds ratio of both.
//!
//! Eq. 4 and 7: `L = L_NLL - beta mean log sigmoid(log odds(y_w) - log odds(y_l))`, where `odds(y) = P/(1 -
//! P)` and `P` is the geometric mean of the answer's token probabilities. As in TRL, `L_NLL` is the mean over
//! the tokens of chosen answer *and prompt*; a batch that brings no prompts has it over the answer alone.

use super::batch::PairBatch;
use super::{PairLoss, PairObjective, pair_metrics};
use crate::error::not_negative;
use crate::numeric::{constant, log_sigmoid, log1mexp, mean, sigmoid, sum};
use crate::{Result, Totals};

/// Settings of ORPO, by TRL's names and with its defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Orpo {
    /// Weight of the odds ratio, lambda in the paper.
    pub beta: f64,
}

impl Default for Orpo {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

/// A mean log-probability of 0 (every token certain) has infinite odds. It counts as this much less: the odds
/// of a probability one f32 step below 1, so that loss and gradient stay finite.
const CERTAIN: f64 = -6e-8;

/// Log odds of `P = e^x` and their derivative `1 / (1 - P)`.
fn log_odds(x: f64) -> (f64, f64) {
    let x = x.min(CERTAIN);
    (x - log1mexp(x), -1.0 / x.exp_m1())
}

impl PairObjective for Orpo {
    fn check(&self) -> Result<()> {
        not_negative("beta", self.beta)
    }

    fn needs_reference(&self) -> bool {
        false
    }

    fn reads_prompt(&self) -> bool {
        true
    }

    fn loss(&self, batch: &PairBatch, totals: Totals) -> Result<PairLoss> {
        batch.check()?;
        let prompts = batch.prompt.unwrap_or_default();
        let nll = -batch.chosen.iter().chain(prompts).map(|tokens| sum(tokens)).sum::<f64>();
        let d_nll = -1.0 / totals.tokens();
        let logps = [batch.chosen, batch.rejected]
            .map(|side| side.iter().map(|tokens| mean(tokens)).collect::<Vec<f64>>());
        let mut loss = nll / totals.tokens();
        let (mut d_chosen, mut d_rejected) = (Vec::new(), Vec::new());
        let (mut ratios, mut log_odds_ratios) = (Vec::new(), Vec::new());
        for (i, (chosen, rejected)) in logps[0].iter().zip(&logps[1]).enumerate() {
            let (odds_chosen, slope_chosen) = log_odds(*chosen);
            let (odds_rejected, slope_rejected) = log_odds(*rejected);
            let difference = odds_chosen - odds_rejected;
            loss -= self.beta * log_sigmoid(difference) / totals.items();
            let slope = -self.beta * sigmoid(-difference) / totals.items();
            let [n_chosen, n_rejected] = [batch.chosen[i].len(), batch.rejected[i].len()];
            d_chosen.push(constant(d_nll + slope * slope_chosen / n_chosen as f64, n_chosen));
            d_rejected.push(constant(-slope * slope_rejected / n_rejected as f64, n_rejected));
            ratios.push(log_sigmoid(difference));
            log_odds_ratios.push(difference);
        }
        let rewards = logps.each_ref().map(|side| side.iter().map(|l| self.beta * l).collect::<Vec<f64>>());
        let mut metrics = pair_metrics([&rewards[0], &rewards[1]], [&logps[0], &logps[1]]);
        let tokens = batch.chosen.iter().chain(prompts).map(|tokens| tokens.len()).sum::<usize>();
        metrics.weighted("nll_loss", nll, tokens as f64);
        metrics.mean("log_odds_ratio", ratios);
        metrics.mean("log_odds_chosen", log_odds_ratios);
        let d_prompt = prompts.iter().map(|tokens| constant(d_nll, tokens.len())).collect();
        Ok(PairLoss { loss, d_chosen, d_rejected, d_prompt, metrics })
    }
}
