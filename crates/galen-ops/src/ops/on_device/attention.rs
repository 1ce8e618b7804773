//! Attention: descriptors of a batch's segments are made once for all layers of one shape.

use super::{only, take, wanted};
use crate::device::{
    Accelerator, AttentionOperands, AttentionPlan, DeviceTensor, Memory, attention_backward,
    attention_forward,
};
use crate::error::Result;
use crate::ops::{Attention, AttentionShape};
use crate::tape::Launched;
use std::sync::{Arc, Mutex, PoisonError};

/// A batch's plans by shape.
type Plans = Mutex<Vec<(AttentionShape, Arc<AttentionPlan<Memory>>)>>;

fn plan(op: &Attention, on: &Accelerator) -> Result<Arc<AttentionPlan<Memory>>> {
    let plans = on.resident(&op.segments, || Ok(Plans::default()))?;
    let mut plans = plans.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, plan)) = plans.iter().find(|(shape, _)| *shape == op.shape) {
        return Ok(Arc::clone(plan));
    }
    let plan = Arc::new(AttentionPlan::new(on, op.shape, 0.0, &op.segments)?);
    plans.push((op.shape, Arc::clone(&plan)));
    Ok(plan)
}

pub fn attention(op: &Attention, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
    let [q, k, v] = take("attention", inputs)?;
    let plan = plan(op, on)?;
    let (o, lse) = attention_forward(on, &plan, &AttentionOperands { q, k, v })?;
    let (place, kept) = (on.clone(), [q.clone(), k.clone(), v.clone(), o.clone()]);
    let back = move |grads, needs: &[bool]| {
        let Some(d_o) = only(grads) else { return Ok(vec![None, None, None]) };
        let [q, k, v, o] = &kept;
        let found = attention_backward(&place, &plan, &AttentionOperands { q, k, v }, (o, &lse), &d_o)?;
        Ok(wanted(&place, vec![found.q, found.k, found.v], needs))
    };
    Ok((vec![DeviceTensor::new(on, o)], Box::new(back)))
}
