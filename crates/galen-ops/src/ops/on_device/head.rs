//! The head.

use super::{only, take, wanted};
use crate::device::{Accelerator, DeviceTensor, log_prob_backward, log_prob_forward};
use crate::error::shape_error;
use crate::ops::LogProbHead;
use crate::tape::Launched;

/// The output is one row, in the order of the scores, which forward puts beside it: gradients come back in that order
/// ([`crate::device::Scores::gradient`]).
pub fn log_probs(op: &LogProbHead, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
    let [hidden] = take("log_prob_head", inputs)?;
    let weight = on.weight(op.weight.matrix())?;
    let (tokens, temperature) = (hidden.rows, op.temperature.unwrap_or(1.0));
    let (scores, state) = log_prob_forward(on, hidden, &weight, &op.targets, temperature, op.with_gradient)?;
    let y = DeviceTensor::new(on, scores.logps());
    if op.scores.set(scores).is_err() {
        return shape_error("log_prob_head", "ran twice");
    }
    let place = on.clone();
    let back = move |grads, needs: &[bool]| {
        let Some(grad) = only(grads) else { return Ok(vec![None]) };
        let dh = log_prob_backward(&place, &state, &weight, &grad, (tokens, temperature))?;
        Ok(wanted(&place, vec![dh], needs))
    };
    Ok((vec![y], Box::new(back)))
}
