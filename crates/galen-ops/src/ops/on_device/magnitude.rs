//! DoRA's magnitude, and the norms that it divides by.

use super::{only, take, wanted};
use crate::device::{
    self, Accelerator, DeviceTensor, MagnitudeOperands, Memory, magnitude_backward, magnitude_forward,
    row_squares,
};
use crate::error::{Result, shape_error};
use crate::ops::{Frozen, Magnitude};
use crate::tape::Launched;

/// Squares of a weight's rows, kept as long as the weight.
struct RowSquares(Memory);

/// As [`crate::ops::adapted_norms`], of A and B on an accelerator: `[1, out]` f32. Without a way back.
pub fn adapted_norms(
    on: &Accelerator,
    weight: &Frozen,
    a: &DeviceTensor,
    b: &DeviceTensor,
    scale: f32,
) -> Result<DeviceTensor> {
    let matrix = weight.matrix();
    let placed = on.weight(matrix)?;
    let squares = on.resident(matrix, || Ok(RowSquares(row_squares(on, &placed)?)))?;
    let norms = device::adapted_norms(on, (&placed, &squares.0), (&a.matrix, &b.matrix), scale)?;
    Ok(DeviceTensor::new(on, norms))
}

/// `g (h - b) + b`; m's gradient is added where m says.
pub fn magnitude(op: &Magnitude, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
    let [h, m, norms] = take("magnitude", inputs)?;
    let bias = op.bias.as_ref().map(|b| on.vector(b)).transpose()?;
    let (y, h) = magnitude_forward(on, &MagnitudeOperands { bias: bias.as_deref(), m, norms }, h)?;
    let Some(gradient) = inputs.get(1).map(|m| m.gradient.clone()) else {
        return shape_error("magnitude", "takes three inputs");
    };
    let (place, m, norms) = (on.clone(), m.clone(), norms.clone());
    let back = move |grads, needs: &[bool]| {
        let Some(dy) = only(grads) else { return Ok(vec![None, None, None]) };
        let x = MagnitudeOperands { bias: bias.as_deref(), m: &m, norms: &norms };
        let dh = magnitude_backward(&place, &x, (&h, &dy), gradient.as_ref())?;
        let mut found = wanted(&place, vec![dh], needs);
        found.resize(3, None);
        Ok(found)
    };
    Ok((vec![DeviceTensor::new(on, y)], Box::new(back)))
}
