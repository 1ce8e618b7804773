//! A reward model: a scalar head over the hidden state of an answer's last token, trained by pairs.
//!
//! ```text
//! pair -> [prompt] <- [chosen], [rejected] -> hidden state h of each one's last token -> reward w h -> Bradley-Terry loss
//! ```
//!
//! The head w is the adapter's ([`Adapter::score_head`]); its gradient is `sum (d loss / d reward) h`, and what flows back into h is
//! `(d loss / d reward) w`. Both are formed in f32 from sums in f64.

use super::pairs::PairRows;
use super::validation;
use crate::error::{Result, run_error};
use crate::objective::{Objective, Place, StepGradient, Validation};
use galen_adapter::Adapter;
use galen_data::pack::{Sharing, pack_to_ends, packed_tokens, plan_batches};
use galen_loss::{Metrics, Reward};
use galen_model::{Model, PassOptions, PooledPass};
use galen_ops::profile::span;
use galen_types::{Tokenized, TokenizedPair};

/// Learns a reward from pairs.
pub struct RewardPairs<'a> {
    /// The rows.
    pub rows: PairRows<'a>,
    /// The loss.
    pub loss: Reward,
    /// What sequences may compute once.
    pub sharing: Sharing,
}

/// Sequences run forward and their rewards.
struct Scored<'m> {
    pass: PooledPass<'m>,
    rewards: Vec<f32>,
}

/// The head of an adapter that scores, of as many values as the model's hidden states have.
fn head_of<'a>(adapter: &'a Adapter, model: &Model) -> Result<&'a [f32]> {
    let width = model.config.hidden_size;
    match adapter.score_head() {
        Some(head) if head.len() == width => Ok(head),
        Some(head) => {
            run_error("score head", format!("it has `{}` values for hidden states of `{width}`", head.len()))
        }
        None => run_error("score head", "the adapter has none: it was not trained with `rl: reward`"),
    }
}

fn score<'m>(
    model: &'m Model,
    adapter: &'m Adapter,
    sequences: &[&Tokenized],
    sharing: Sharing,
    options: PassOptions,
) -> Result<Scored<'m>> {
    let head = head_of(adapter, model)?;
    let (batch, ends) = {
        let _span = span("pack");
        pack_to_ends(sequences, sharing)?
    };
    let pass = PooledPass::forward(model, Some(adapter), &batch, &ends, options)?;
    let dot = |state: &[f32]| state.iter().zip(head).map(|(h, w)| f64::from(*h) * f64::from(*w)).sum::<f64>();
    let rewards = pass.states.chunks_exact(head.len().max(1)).map(|state| dot(state) as f32).collect();
    Ok(Scored { pass, rewards })
}

/// The reward of each sequence by a trained reward model, without dropout. What sequences begin with in common is computed
/// once. Errors: an adapter without a score head.
pub fn rewards(model: &Model, adapter: &Adapter, sequences: &[&Tokenized]) -> Result<Vec<f32>> {
    if sequences.is_empty() {
        return Ok(Vec::new());
    }
    Ok(score(model, adapter, sequences, Sharing::AcrossRows, PassOptions::default())?.rewards)
}

impl RewardPairs<'_> {
    /// A micro-batch run forward, with its share of the mean over `pairs`.
    fn forward<'m>(
        &self,
        at: &Place<'m>,
        rows: &[&TokenizedPair],
        pairs: usize,
        options: PassOptions,
    ) -> Result<(Scored<'m>, galen_loss::RewardLoss)> {
        let sequences: Vec<&Tokenized> = rows.iter().flat_map(|pair| pair.sequences()).collect();
        let scored = score(at.model, at.adapter, &sequences, self.sharing, options)?;
        let _span = span("loss");
        let side = |side: usize| scored.rewards.iter().skip(side).step_by(2).copied().collect::<Vec<f32>>();
        // A pair without a margin has none to keep.
        let margin: Vec<f32> = rows.iter().map(|pair| pair.margin().unwrap_or(0.0) as f32).collect();
        let loss = self.loss.loss(&side(0), &side(1), Some(&margin), Reward::totals(pairs))?;
        Ok((scored, loss))
    }

    fn lengths_of(&self, rows: &[TokenizedPair]) -> Vec<usize> {
        rows.iter().map(|pair| packed_tokens(&pair.sequences(), self.sharing)).collect()
    }
}

impl Objective for RewardPairs<'_> {
    fn lengths(&self) -> Vec<usize> {
        self.lengths_of(self.rows.train)
    }

    fn origin(&self, row: usize) -> String {
        self.rows.train[row].origin().to_string()
    }

    fn step(&mut self, at: &Place, micro_batches: &[Vec<usize>]) -> Result<StepGradient> {
        let options = PassOptions {
            training: true,
            checkpointing: at.settings.gradient_checkpointing,
            epoch: at.epoch,
            ..PassOptions::default()
        };
        let pairs = micro_batches.iter().map(Vec::len).sum();
        let (out, _) = at.each(micro_batches, |at, rows, out| {
            let head = head_of(at.adapter, at.model)?;
            let rows: Vec<&TokenizedPair> = rows.iter().map(|row| &self.rows.train[*row]).collect();
            let (Scored { pass, .. }, loss) = self.forward(at, &rows, pairs, options)?;
            out.loss += loss.loss;
            out.metrics.merge(&loss.metrics);
            for sequence in rows.iter().flat_map(|pair| pair.sequences()) {
                out.tokens += sequence.ids().len() as u64;
                out.supervised_tokens += sequence.supervised_tokens() as u64;
            }
            let slopes: Vec<f32> =
                loss.d_chosen.iter().zip(&loss.d_rejected).flat_map(|(c, r)| [*c, *r]).collect();
            if let Some(gradient) = out.gradients.last_mut() {
                let states = || pass.states.chunks_exact(head.len().max(1)).zip(&slopes);
                for (i, g) in gradient.iter_mut().enumerate() {
                    *g += states().map(|(h, d)| f64::from(h[i]) * f64::from(*d)).sum::<f64>() as f32;
                }
            }
            let flowing = slopes.iter().flat_map(|d| head.iter().map(move |w| d * w)).collect();
            out.add_leaves(at.adapter, |sink| pass.backward(flowing, sink))
        })?;
        Ok(out)
    }

    fn validate(&mut self, at: &Place) -> Result<Option<Validation>> {
        let all = self.rows.validation;
        let order: Vec<usize> = (0..all.len()).collect();
        let (mut loss, mut metrics) = (0.0, Metrics::default());
        let settings = at.settings;
        for rows in plan_batches(&self.lengths_of(all), &order, settings.micro_batch_size, settings.packing) {
            let rows: Vec<&TokenizedPair> = rows.iter().map(|row| &all[*row]).collect();
            let (_, made) = self.forward(at, &rows, all.len(), PassOptions::default())?;
            loss += made.loss;
            metrics.merge(&made.metrics);
        }
        Ok((!all.is_empty()).then(|| validation(loss, 0, 0, &metrics)))
    }
}
