//! The head: log-probabilities of target tokens from hidden states, the vocabulary in chunks.
//!
//! Logits exist for one chunk at a time and only for rows that predict something. The gradient is formed in the
//! same pass: with a running maximum m and sum z, the expectation of the head's rows under the softmax is
//! accumulated like attention's output, so that backward is a scaling.

use crate::device::{Accelerator, DeviceTensor, Memory, Scores};
use crate::error::{Result, shape_error};
use crate::kernels::bf16::{self, PackedA, Piece, Start, gemm16};
use crate::kernels::gemm::{Lhs, gemm};
use crate::kernels::gemv::{Product, Weights, gemv};
use crate::kernels::isa::multiversion;
use crate::kernels::math::{exp, largest, sum_of};
use crate::kernels::panels::{Weight, WeightTransposed};
use crate::ops::{Compute, Frozen, on_device};
use crate::quant::QuantMatrix;
use crate::tape::{Launched, Op, Saved};
use crate::tensor::{dims2, f32_tensor, f32_view};
use candle_core::Tensor;
use galen_types::Target;
use rayon::prelude::*;
use std::sync::{Arc, Mutex, OnceLock};

/// Vocabulary entries whose logits exist at once.
const CHUNK: usize = 4096;

/// Input hidden `[T, C]`, output `[N]`: `log softmax(W h[index] / temperature)[token]` of each target. W `[V, C]` is frozen.
pub struct LogProbHead {
    /// The output embedding.
    pub weight: Frozen,
    /// What is predicted from where.
    pub targets: Arc<[Target]>,
    /// Divides the logits; nothing for 1.
    pub temperature: Option<f32>,
    /// Form the gradient too.
    pub with_gradient: bool,
    /// Filled by forward: for each target, whether no other token is more likely.
    pub correct: Arc<Mutex<Vec<bool>>>,
    /// Filled by forward on an accelerator instead: both, where they lie.
    pub scores: Arc<OnceLock<Scores<Memory>>>,
}

/// What a head gives without a tape.
pub struct LogProbs {
    /// One a target, in nats.
    pub logps: Vec<f32>,
    /// Whether the target is the most likely token.
    pub correct: Vec<bool>,
}

multiversion! {
    // One row of a chunk's logits: updates (max, sum), turns the row into e^(logit - max) and gives the factor
    // by which what was summed before must be scaled.
    fn online_row(row: &mut [f32], max: &mut f32, sum: &mut f32, weights: bool) -> f32 {
        let own = largest(row);
        let top = if own > *max || own.is_nan() { own } else { *max };
        let factor = if *max == f32::NEG_INFINITY { 0.0 } else { exp::<F>(*max - top) };
        if weights {
            for x in row.iter_mut() {
                *x = exp::<F>(*x - top);
            }
            *sum = *sum * factor + sum_of(row, |w| w);
        } else {
            *sum = *sum * factor + sum_of(row, |x| exp::<F>(x - top));
        }
        *max = top;
        factor
    }
}

impl LogProbHead {
    /// Distinct hidden rows, and for each target the one it reads.
    fn rows(&self) -> (Vec<usize>, Vec<usize>) {
        let mut rows: Vec<usize> = self.targets.iter().map(|t| t.index as usize).collect();
        rows.sort_unstable();
        rows.dedup();
        let of = self.targets.iter().map(|t| rows.binary_search(&(t.index as usize)).unwrap_or(0)).collect();
        (rows, of)
    }
}

impl Op for LogProbHead {
    fn name(&self) -> &'static str {
        "log_prob_head"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        let [hidden] = inputs else { return shape_error("log_prob_head", "takes one input") };
        let (tokens, c) = dims2("log_prob_head", hidden)?;
        let (vocabulary, width) = (self.weight.matrix().rows(), self.weight.matrix().cols());
        if c != width {
            return shape_error(
                "log_prob_head",
                format!("hidden `{:?}` for `[{vocabulary}, {width}]`", hidden.dims()),
            );
        }
        for t in self.targets.iter() {
            if t.index as usize >= tokens || t.token as usize >= vocabulary {
                return shape_error(
                    "log_prob_head",
                    format!("target {t:?} in {tokens} tokens, {vocabulary} ids"),
                );
            }
        }
        let (rows, of) = self.rows();
        let n = rows.len();
        let view = f32_view(hidden)?;
        let mut h = Vec::with_capacity(n * c);
        rows.iter().for_each(|r| h.extend_from_slice(&view[r * c..(r + 1) * c]));
        let rounded = self.weight.compute() == Compute::Bf16;
        let packed = rounded.then(|| PackedA::rows(&h, c, n, c, 1.0));
        let mut max = vec![f32::NEG_INFINITY; n];
        let mut sum = vec![0f32; n];
        let mut target_logits = vec![0f32; self.targets.len()];
        let mut expectation = vec![0f32; if self.with_gradient { n * c } else { 0 }];
        let mut part = vec![0f32; expectation.len()];
        let mut factors = vec![0f32; n];
        let mut logits = vec![0f32; n * CHUNK.min(vocabulary)];
        for v0 in (0..vocabulary).step_by(CHUNK) {
            let chunk = (vocabulary - v0).min(CHUNK);
            let logits = &mut logits[..n * chunk];
            if let Some(h) = &packed {
                let (weight, copy) = (self.weight.matrix(), self.weight.packed_copy());
                let b = bf16::Forward { weight, packed: copy, first: v0 };
                gemm16(n, chunk, &[Piece { a: h, b: &b }], Start::Zero, logits, chunk);
            } else {
                let panels = WeightTransposed { weight: self.weight.matrix(), first: v0 };
                gemm(n, chunk, c, Lhs::rows(&h, c), &panels, logits, false);
            }
            if let Some(temperature) = self.temperature {
                logits.par_iter_mut().for_each(|l| *l /= temperature);
            }
            for (i, t) in self.targets.iter().enumerate() {
                if let Some(j) = (t.token as usize).checked_sub(v0).filter(|j| *j < chunk) {
                    target_logits[i] = logits[of[i] * chunk + j];
                }
            }
            let sums = max.par_iter_mut().zip(&mut sum).zip(&mut factors);
            logits.par_chunks_exact_mut(chunk).zip(sums).for_each(|(row, ((max, sum), factor))| {
                *factor = online_row(row, max, sum, self.with_gradient);
            });
            if self.with_gradient {
                // Each chunk's part by itself: in one chain over the whole vocabulary the many small probabilities
                // would be lost against what is summed already.
                if rounded {
                    let (weight, copy) = (self.weight.matrix(), self.weight.packed_copy());
                    let b = bf16::Backward { weight, packed: copy, first: v0 };
                    let a = PackedA::rows(logits, chunk, n, chunk, 1.0);
                    gemm16(n, c, &[Piece { a: &a, b: &b }], Start::Zero, &mut part, c);
                } else {
                    let weight = Weight { weight: self.weight.matrix(), first: v0 };
                    gemm(n, c, chunk, Lhs::rows(logits, chunk), &weight, &mut part, false);
                }
                let rows = expectation.par_chunks_exact_mut(c.max(1)).zip(part.par_chunks_exact(c.max(1)));
                rows.zip(&factors).for_each(|((e, part), factor)| {
                    e.iter_mut().zip(part).for_each(|(e, part)| *e = *e * factor + part);
                });
            }
        }
        let log_prob = |(i, logit): (usize, &f32)| logit - max[of[i]] - sum[of[i]].ln();
        let logps: Vec<f32> = target_logits.iter().enumerate().map(log_prob).collect();
        if let Ok(mut correct) = self.correct.lock() {
            *correct = target_logits.iter().enumerate().map(|(i, l)| *l >= max[of[i]]).collect();
        }
        for (e, sum) in expectation.chunks_exact_mut(c.max(1)).zip(&sum) {
            let inverse = 1.0 / sum;
            e.iter_mut().for_each(|e| *e *= inverse);
        }
        let saved = if self.with_gradient { vec![f32_tensor(expectation, (n, c))?] } else { vec![] };
        let mut saved = saved;
        saved.push(f32_tensor(vec![0.0; 0], (0, tokens))?); // remembers T
        Ok((vec![f32_tensor(logps, self.targets.len())?], saved))
    }

    /// `dh[index] += g / temperature (W[token] - E_softmax[W])`.
    fn backward(&self, saved: &Saved, grads: Vec<Option<Tensor>>, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let [Some(grad)] = &grads[..] else { return Ok(vec![None]) };
        let [expectation, shape] = &saved[..] else {
            return shape_error("log_prob_head", "forward ran without its gradient");
        };
        let (_, tokens) = dims2("log_prob_head", shape)?;
        let c = self.weight.matrix().cols();
        let (grad, expectation) = (f32_view(grad)?, f32_view(expectation)?);
        let (_, of) = self.rows();
        let temperature = self.temperature.unwrap_or(1.0);
        let mut dh = vec![0f32; tokens * c];
        let mut row = vec![0f32; c];
        for (i, t) in self.targets.iter().enumerate() {
            self.weight.matrix().dequantize_block(t.token as usize, 0, &mut row);
            let out = &mut dh[t.index as usize * c..(t.index as usize + 1) * c];
            for ((d, w), e) in out.iter_mut().zip(&row).zip(&expectation[of[i] * c..(of[i] + 1) * c]) {
                *d += grad[i] / temperature * (w - e);
            }
        }
        Ok(vec![Some(f32_tensor(dh, (tokens, c))?)])
    }

    fn on_device(&self, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
        on_device::log_probs(self, on, inputs)
    }
}

/// Logits `[rows, V]` of hidden rows `[rows, C]`: for generation, a row or a few.
pub fn logits(weight: &QuantMatrix, hidden: &[f32]) -> Result<Vec<f32>> {
    let (vocabulary, c) = (weight.rows(), weight.cols());
    if c == 0 || !hidden.len().is_multiple_of(c) {
        return shape_error("logits", format!("{} values in rows of {c}", hidden.len()));
    }
    let rows = hidden.len() / c;
    let mut out = vec![0f32; rows * vocabulary];
    let y = &mut out[..];
    gemv(rows, &mut [Product { x: hidden, w: Weights::Stored(weight), y, accumulate: false }]);
    Ok(out)
}
