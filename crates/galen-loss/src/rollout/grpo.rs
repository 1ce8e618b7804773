//! Group relative policy optimisation (Shao et al., arXiv 2402.03300, Eq. 3) and its variants, which differ
//! in how a token's loss comes from the ratio `w = pi / pi_old` and in what the sum over tokens is divided by
//! ([`GrpoType`]). The KL to the reference is the estimate k3, `e^x - x - 1` of `x = log pi_ref - log pi`
//! (Eq. 4).
//!
//! Defaults are TRL 1.16's: `dapo`, `beta` 0, the KL weighed by the ratio (`use_bias_correction_kl`,
//! DeepSeek-V3.2, arXiv 2512.02556). Where TRL normalises by a micro-batch's tokens (`bnpo`) or by the tokens
//! of all answers that were sampled together (`dapo`, `cispo`, `vespo`), the loop's [`Totals`] decide: the
//! totals of the optimiser step make `bnpo` and `dapo` the same.

use super::loss_type::{Answer, DAPO, GrpoType, LOSS_TYPES, Logs, Mean, Policy};
use super::{Clip, RolloutBatch, clip_metrics};
use crate::error::not_negative;
use crate::registry::named;
use crate::{LossError, Metrics, Result, SequenceLoss, Totals, find};

/// Settings of GRPO, by TRL's names and with its defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grpo {
    /// `loss_type`.
    pub loss_type: &'static GrpoType,
    /// What a ratio is taken of.
    pub importance_sampling_level: &'static Level,
    /// Weight of the KL to the reference; 0 needs no reference.
    pub beta: f64,
    /// How far the ratio may move down, and up unless `epsilon_high` is set.
    pub epsilon: f64,
    /// How far up; in `cispo` the greatest ratio itself.
    pub epsilon_high: Option<f64>,
    /// Greatest ratio of the unclipped side too (INTELLECT-2, arXiv 2505.07291); above `1 + epsilon_high`.
    pub delta: Option<f64>,
    /// Whether the KL is weighed by the ratio.
    pub use_bias_correction_kl: bool,
    /// Length limit of sampled answers, the divisor of `dr_grpo`.
    pub max_completion_length: usize,
    /// Drops answers of negative advantage whose mean log ratio to the sampling policy is below minus this
    /// (DeepSeek-V3.2, arXiv 2512.02556).
    pub off_policy_mask_threshold: Option<f64>,
    /// Temperature of `sapo` for positive advantages.
    pub sapo_temperature_pos: f64,
    /// And for the others.
    pub sapo_temperature_neg: f64,
    /// Exponent of `vespo` for advantages of at least 0.
    pub vespo_k_pos: f64,
    /// Its rate there.
    pub vespo_lambda_pos: f64,
    /// Exponent of `vespo` for negative advantages.
    pub vespo_k_neg: f64,
    /// Its rate there.
    pub vespo_lambda_neg: f64,
}

impl Default for Grpo {
    fn default() -> Self {
        Self {
            loss_type: &DAPO,
            importance_sampling_level: &TOKEN,
            beta: 0.0,
            epsilon: 0.2,
            epsilon_high: None,
            delta: None,
            use_bias_correction_kl: true,
            max_completion_length: 512,
            off_policy_mask_threshold: None,
            sapo_temperature_pos: 1.0,
            sapo_temperature_neg: 1.05,
            vespo_k_pos: 2.0,
            vespo_lambda_pos: 3.0,
            vespo_k_neg: 3.0,
            vespo_lambda_neg: 2.0,
        }
    }
}

/// What a ratio is taken of.
pub struct Level {
    /// Value of `importance_sampling_level`.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    whole: bool,
}

named!(Level, "importance_sampling_level");

static TOKEN: Level = Level { name: "token", doc: "each token's probability", whole: false };
static SEQUENCE: Level = Level {
    name: "sequence",
    doc: "the geometric mean over an answer's tokens (GSPO, arXiv 2507.18071, Eq. 7)",
    whole: true,
};

impl Level {
    /// Every level.
    pub const ALL: &'static [&'static Self] = &[&TOKEN, &SEQUENCE];
}

impl Grpo {
    /// Defaults with a loss type and a level.
    pub fn of(loss_type: &str, importance_sampling_level: &str) -> Result<Self> {
        let loss_type = find(LOSS_TYPES, loss_type)?;
        let importance_sampling_level = find(Level::ALL, importance_sampling_level)?;
        Ok(Self { loss_type, importance_sampling_level, ..Self::default() })
    }

    /// Refuses settings that have no meaning.
    pub fn check(&self) -> Result<()> {
        not_negative("beta", self.beta)?;
        not_negative("epsilon", self.epsilon)?;
        self.epsilon_high.map_or(Ok(()), |e| not_negative("epsilon_high", e))?;
        let above = 1.0 + self.epsilon_high.unwrap_or(self.epsilon);
        let hint = "leave `delta` out for one-sided clipping";
        let delta = self.delta.unwrap_or(f64::INFINITY);
        LossError::unless(delta > above, "delta", delta, "it must be above 1 + `epsilon_high`", hint)?;
        let hint = "it is the limit that answers are sampled with";
        let fine = self.max_completion_length > 0;
        LossError::unless(fine, "max_completion_length", "0", "it must be 1 or more", hint)?;
        let temperatures = [
            ("sapo_temperature_pos", self.sapo_temperature_pos),
            ("sapo_temperature_neg", self.sapo_temperature_neg),
        ];
        let hint = "the defaults are 1 and 1.05";
        for (key, temperature) in temperatures {
            LossError::unless(temperature > 0.0, key, temperature, "it must be above 0", hint)?;
        }
        Ok(())
    }

    /// Whether the loss needs the reference policy's log-probabilities.
    pub fn needs_reference(&self) -> bool {
        self.beta != 0.0
    }

    /// What an answer of so many unmasked tokens adds to a step's totals.
    pub fn totals(tokens: usize) -> Totals {
        Totals { items: 1, tokens }
    }

    pub(super) fn clip(&self) -> Clip {
        Clip::new(self.epsilon, self.epsilon_high)
    }

    /// What each of an answer's `tokens` counts for.
    fn share(&self, tokens: f64, totals: Totals) -> f64 {
        match self.loss_type.mean {
            Mean::AnswerThenAnswers => 1.0 / (tokens.max(1.0) * totals.items()),
            Mean::Tokens => 1.0 / totals.tokens(),
            Mean::Limit => 1.0 / (totals.items() * self.max_completion_length as f64),
            Mean::Answers => 1.0 / totals.items(),
        }
    }

    /// Ratio that each token is weighed with.
    fn ratios(&self, log_ratios: &[f64]) -> Vec<f64> {
        if self.importance_sampling_level.whole {
            let mean = log_ratios.iter().sum::<f64>() / log_ratios.len().max(1) as f64;
            vec![mean.exp(); log_ratios.len()]
        } else {
            log_ratios.iter().map(|l| l.exp()).collect()
        }
    }

    /// The loss of a micro-batch of a step with these totals, and its gradient.
    ///
    /// # Errors
    /// [`LossError::Batch`] where the parts of the batch do not fit together.
    pub fn loss(&self, batch: &RolloutBatch, totals: Totals) -> Result<SequenceLoss> {
        batch.check()?;
        let reference = match batch.reference {
            Some(reference) if self.needs_reference() => Some(reference),
            None if self.needs_reference() => {
                return Err(LossError::batch("reference", "its log-probabilities are missing"));
            }
            _ => None,
        };
        let mut tally = Tally::default();
        let (mut loss, mut gradient) = (0.0, Vec::new());
        for (i, (tokens, advantage)) in batch.completions.iter().zip(batch.advantages).enumerate() {
            let old = batch.old()[i];
            let share = self.share(tokens.len() as f64, totals);
            let reference = reference.map(|r| r[i]);
            let (value, slopes) = self.answer(tokens, old, reference, *advantage, &mut tally);
            loss += share * value;
            gradient.push(slopes.into_iter().map(|s| (share * s) as f32).collect());
        }
        Ok(SequenceLoss { loss, gradient, metrics: tally.metrics(self) })
    }

    /// Sum of an answer's token losses and its derivative by each log-probability.
    fn answer(
        &self,
        tokens: &[f32],
        old: &[f32],
        reference: Option<&[f32]>,
        advantage: f64,
        tally: &mut Tally,
    ) -> (f64, Vec<f64>) {
        let log_ratios: Vec<f64> =
            tokens.iter().zip(old).map(|(p, o)| f64::from(*p) - f64::from(*o)).collect();
        let ratios = self.ratios(&log_ratios);
        let mut sums = Slopes::new(tokens.len());
        if !self.drops(&log_ratios, advantage) {
            self.policy(tokens, &ratios, &Answer::new(advantage, &log_ratios), &mut sums);
        }
        if let Some(reference) = reference {
            tally.kl.0 += self.kl(tokens, reference, &ratios, &mut sums);
            tally.kl.1 += tokens.len() as f64;
        }
        tally.stopped.push(self.stopped(&ratios, advantage));
        if let Policy::Weighted(weight) = self.loss_type.policy {
            let answer = Answer::new(advantage, &log_ratios);
            let total: f64 = ratios.iter().map(|ratio| weight(*ratio, &answer, self)).sum();
            tally.weights.push(total / tokens.len().max(1) as f64);
        }
        // d w / d log p: w of its own token, w / length of every token of the answer.
        let whole = self.importance_sampling_level.whole;
        let shared = sums.by_ratio.iter().sum::<f64>() / tokens.len().max(1) as f64;
        let slope =
            |(t, direct): (usize, &f64)| direct + ratios[t] * if whole { shared } else { sums.by_ratio[t] };
        (sums.value, sums.direct.iter().enumerate().map(slope).collect())
    }

    /// Whether the answer is too far from the policy that sampled it.
    fn drops(&self, log_ratios: &[f64], advantage: f64) -> bool {
        let far = -log_ratios.iter().sum::<f64>() / log_ratios.len().max(1) as f64;
        advantage < 0.0 && self.off_policy_mask_threshold.is_some_and(|threshold| far > threshold)
    }

    /// Adds the policy's loss of every token.
    fn policy(&self, tokens: &[f32], ratios: &[f64], answer: &Answer, sums: &mut Slopes) {
        for (t, ratio) in ratios.iter().enumerate() {
            match self.loss_type.policy {
                Policy::OfRatio(of) => {
                    let (value, slope) = of(*ratio, answer.advantage, self);
                    sums.value += value;
                    sums.by_ratio[t] += slope;
                }
                Policy::Weighted(weight) => {
                    let slope = -weight(*ratio, answer, self) * answer.advantage;
                    sums.value += slope * f64::from(tokens[t]);
                    sums.direct[t] += slope;
                }
            }
        }
    }

    /// Adds the KL of every token; returns its sum before `beta`.
    fn kl(&self, tokens: &[f32], reference: &[f32], ratios: &[f64], sums: &mut Slopes) -> f64 {
        let mut total = 0.0;
        for (t, ratio) in ratios.iter().enumerate() {
            let x = f64::from(reference[t]) - f64::from(tokens[t]);
            let (kl, slope) = (x.exp_m1() - x, -x.exp_m1());
            let weight = if self.use_bias_correction_kl { *ratio } else { 1.0 };
            total += kl * weight;
            sums.direct[t] += self.beta * slope * weight;
            sums.by_ratio[t] += if self.use_bias_correction_kl { self.beta * kl } else { 0.0 };
        }
        sums.value += self.beta * total;
        total
    }

    /// How many of an answer's ratios are stopped below and above, and how many there are: one where it is of
    /// the whole answer.
    fn stopped(&self, ratios: &[f64], advantage: f64) -> [f64; 3] {
        let greatest = self.delta.unwrap_or(f64::INFINITY);
        let mut counts = [0.0; 3];
        for ratio in ratios.iter().take(if self.importance_sampling_level.whole { 1 } else { usize::MAX }) {
            let (low, high) = (self.loss_type.stops)(ratio.min(greatest), advantage, self);
            let add = [f64::from(u8::from(low)), f64::from(u8::from(high)), 1.0];
            counts.iter_mut().zip(add).for_each(|(c, a)| *c += a);
        }
        counts
    }
}

/// An answer's loss and what it is differentiated by: each log-probability itself, and each token's ratio.
struct Slopes {
    value: f64,
    direct: Vec<f64>,
    by_ratio: Vec<f64>,
}

impl Slopes {
    fn new(tokens: usize) -> Self {
        Self { value: 0.0, direct: vec![0.0; tokens], by_ratio: vec![0.0; tokens] }
    }
}

/// What metrics are made of: sums and counts.
#[derive(Default)]
struct Tally {
    stopped: Vec<[f64; 3]>,
    kl: (f64, f64),
    /// Mean weight of each answer.
    weights: Vec<f64>,
}

impl Tally {
    fn metrics(&self, settings: &Grpo) -> Metrics {
        let mut metrics = Metrics::default();
        metrics.weighted("kl", self.kl.0, self.kl.1);
        match settings.loss_type.logs {
            Logs::Clip => clip_metrics(&mut metrics, &self.stopped),
            Logs::StoppedAbove(name) => {
                let total = |k: usize| self.stopped.iter().map(|s| s[k]).sum::<f64>();
                metrics.weighted(name, total(1), total(2));
            }
            Logs::Weight(name) => metrics.mean(name, self.weights.iter().copied()),
            Logs::Nothing => {}
        }
        metrics
    }
}
