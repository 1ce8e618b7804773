//! Projections of one x, with their prologue and low-rank branches.

use super::elementwise::{norm_backward, norm_forward};
use super::{Matrix, unsupported, wanted};
use crate::device::{
    Accelerator, Backend as _, DeviceBranch, DeviceDropout, DeviceMatrix, DeviceTensor, DeviceWeight, Memory,
    Number, dropout, gated_backward, gated_forward, projection_backward, projection_forward, to_bf16,
};
use crate::error::{Result, shape_error};
use crate::ops::{Dropout, DroppedPart, Projections, Prologue};
use crate::tape::Launched;
use std::sync::Arc;

/// A branch's leaves, its factor and `s x A^T`.
struct Branch {
    a: DeviceTensor,
    b: DeviceTensor,
    scale: f32,
    dropout: Option<DeviceDropout<Memory>>,
    u: Matrix,
}

struct Member {
    weight: Arc<DeviceWeight<Memory>>,
    branch: Option<Branch>,
}

/// What the way back holds: x is formed again where a branch reads it.
struct Kept {
    on: Accelerator,
    prologue: Prologue,
    own: Vec<Matrix>,
    members: Vec<Member>,
}

pub fn projections(op: &Projections, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
    let Some((own, mut leaves)) = inputs.split_at_checked(op.prologue.inputs()) else {
        return shape_error("projections", format!("{} inputs", inputs.len()));
    };
    let own: Vec<Matrix> = own.iter().map(|t| t.matrix.clone()).collect();
    let x = forward(&op.prologue, on, &own)?;
    if op.members.iter().any(|(base, _)| base.is_known()) {
        return Err(unsupported("a product that is known already", on, ""));
    }
    let steps = op.members.iter().all(|(base, _)| base.is_stepping());
    let (mut ys, mut members) = (Vec::new(), Vec::new());
    for (base, branch) in &op.members {
        let weight = on.weight(base.weight().matrix())?;
        let bias = base.bias().map(|b| on.vector(b)).transpose()?;
        let frozen = (&*weight, bias.as_deref());
        let (y, branch) = match (branch, leaves) {
            (None, _) => (projection_forward(on, &x, frozen, None, (Number::Bf16, steps))?.0, None),
            (Some(branch), [a, b, rest @ ..]) => {
                leaves = rest;
                let dropout = branch.dropout.as_ref().map(|d| mask(on, d)).transpose()?;
                let scale = branch.scale;
                let pair = DeviceBranch { a: &a.matrix, b: &b.matrix, scale, dropout: dropout.as_ref() };
                let number = if branch.unrounded { Number::F32 } else { Number::Bf16 };
                let (y, u) = projection_forward(on, &x, frozen, Some(&pair), (number, steps))?;
                let (a, b) = ((*a).clone(), (*b).clone());
                (y, u.map(|u| Branch { a, b, scale, dropout, u }))
            }
            _ => return shape_error("projections", "a branch without its matrices"),
        };
        ys.push(DeviceTensor::new(on, y));
        members.push(Member { weight, branch });
    }
    if !leaves.is_empty() {
        return shape_error("projections", format!("{} matrices are left over", leaves.len()));
    }
    let kept = Kept { on: on.clone(), prologue: op.prologue.clone(), own, members };
    Ok((ys, Box::new(move |grads, needs| kept.backward(&grads, needs))))
}

/// Keys are uploaded once a batch.
fn mask(on: &Accelerator, dropout: &Dropout) -> Result<DeviceDropout<Memory>> {
    let (base, threshold, keep) = dropout.numbers();
    let (rows, positions) = (&dropout.key.rows, &dropout.key.positions);
    let tokens = rows.len();
    if positions.len() != tokens {
        return shape_error("dropout", format!("{tokens} rows and {} positions", positions.len()));
    }
    let of = |bytes: Vec<u8>| on.upload(&bytes);
    Ok(DeviceDropout {
        rows: on.resident(rows, || of(rows.iter().flat_map(|r| r.to_le_bytes()).collect()))?,
        positions: on.resident(positions, || of(positions.iter().flat_map(|p| p.to_le_bytes()).collect()))?,
        tokens,
        base,
        threshold,
        keep,
        drop: 0.0,
    })
}

fn forward(prologue: &Prologue, on: &Accelerator, own: &[Matrix]) -> Result<Matrix> {
    match (prologue, own) {
        (Prologue::Plain, [x]) => Ok(x.clone()),
        (Prologue::Norm(norm), [x]) => norm_forward(norm, on, x),
        (Prologue::Gated(gated), [gate, up]) => gated_forward(on, gated.activation, gate, up),
        (Prologue::Dropped { inner, dropout, part }, own) => {
            part_of(on, &mask(on, dropout)?, *part, &forward(inner, on, own)?)
        }
        _ => shape_error("prologue", format!("{} inputs", own.len())),
    }
}

/// The part of x, or of a gradient on its way back.
fn part_of(on: &Accelerator, mask: &DeviceDropout<Memory>, part: DroppedPart, x: &Matrix) -> Result<Matrix> {
    match part {
        DroppedPart::Kept => dropout(on, x, mask),
        DroppedPart::Taken => dropout(on, x, &mask.taken()),
    }
}

/// Gradients of the prologue's inputs from that of x.
fn backward(prologue: &Prologue, on: &Accelerator, own: &[Matrix], dx: Matrix) -> Result<Vec<Matrix>> {
    Ok(match (prologue, own) {
        (Prologue::Norm(norm), [x]) => vec![norm_backward(norm, on, x, &dx)?],
        (Prologue::Gated(gated), [gate, up]) => gated_backward(on, gated.activation, (gate, up), &dx)?.into(),
        (Prologue::Dropped { inner, dropout, part }, own) => {
            backward(inner, on, own, part_of(on, &mask(on, dropout)?, *part, &dx)?)?
        }
        _ => vec![dx],
    })
}

impl Kept {
    fn backward(self, grads: &[Option<DeviceTensor>], needs: &[bool]) -> Result<Vec<Option<DeviceTensor>>> {
        let on = &self.on;
        let branches = self.members.iter().any(|m| m.branch.is_some());
        let wants_x = needs.iter().take(self.own.len()).any(|n| *n);
        let (used, width) =
            (grads.iter().flatten().count(), self.members.first().map_or(0, |m| m.weight.cols()));
        let tokens = self.own.first().map_or(0, |x| x.rows);
        let mut out: Vec<Option<DeviceTensor>> = vec![None; needs.len()];
        if used == 0 || !(wants_x || branches) {
            return Ok(out);
        }
        let x = branches.then(|| forward(&self.prologue, on, &self.own)).transpose()?;
        // Sums of several parts are not rounded in between.
        let dropped = self.members.iter().any(|m| m.branch.as_ref().is_some_and(|b| b.dropout.is_some()));
        let number = if used > 1 || dropped { Number::F32 } else { Number::Bf16 };
        // Behind the first block's norm nobody learns from it.
        let dx = wants_x.then(|| DeviceMatrix::new(on, tokens, width, number)).transpose()?;
        let mut written = false;
        for (member, dy) in self.members.iter().zip(grads) {
            let Some(dy) = dy else { continue };
            let to = dx.as_ref().map(|dx| (dx, written));
            match (&member.branch, &x) {
                (Some(Branch { a, b, scale, dropout, u }), Some(x)) => {
                    let dropout = dropout.as_ref();
                    let pair = DeviceBranch { a: &a.matrix, b: &b.matrix, scale: *scale, dropout };
                    let places = a.gradient.as_ref().zip(b.gradient.as_ref());
                    projection_backward(on, &dy.matrix, &member.weight, Some((&pair, u, x)), to, places)?;
                }
                _ => projection_backward(on, &dy.matrix, &member.weight, None, to, None)?,
            }
            written = true;
        }
        if let Some(dx) = dx {
            let dx = if number == Number::F32 { to_bf16(on, &dx, 1.0)? } else { dx };
            let found = backward(&self.prologue, on, &self.own, dx)?;
            for (out, found) in out.iter_mut().zip(wanted(on, found, needs)) {
                *out = found;
            }
        }
        Ok(out)
    }
}
