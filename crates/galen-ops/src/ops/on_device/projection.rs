//! Projections of one x, with their prologue and low-rank branches.

use super::elementwise::{norm_backward, norm_forward};
use super::{Matrix, unsupported, wanted};
use crate::device::{
    Accelerator, DeviceBranch, DeviceMatrix, DeviceTensor, DeviceWeight, Memory, Number, gated_backward,
    gated_forward, projection_backward, projection_forward, to_bf16,
};
use crate::error::{Result, shape_error};
use crate::ops::{Projections, Prologue};
use crate::tape::Launched;
use std::sync::Arc;

/// A branch's leaves, its factor and `s x A^T`.
struct Branch {
    a: DeviceTensor,
    b: DeviceTensor,
    scale: f32,
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
    let (mut ys, mut members) = (Vec::new(), Vec::new());
    for (base, branch) in &op.members {
        let weight = on.weight(base.weight().matrix())?;
        let bias = base.bias().map(|b| on.vector(b)).transpose()?;
        let (y, branch) = match (branch, leaves) {
            (None, _) => (projection_forward(on, &x, &weight, bias.as_deref(), None)?.0, None),
            (Some(branch), [_, _, ..]) if branch.dropout.is_some() => {
                return Err(unsupported("`lora_dropout`", on, "`lora_dropout: 0`, or "));
            }
            (Some(branch), [a, b, rest @ ..]) => {
                leaves = rest;
                let pair = DeviceBranch { a: &a.matrix, b: &b.matrix, scale: branch.scale };
                let (y, u) = projection_forward(on, &x, &weight, bias.as_deref(), Some(&pair))?;
                let (a, b, scale) = ((*a).clone(), (*b).clone(), branch.scale);
                (y, u.map(|u| Branch { a, b, scale, u }))
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

fn forward(prologue: &Prologue, on: &Accelerator, own: &[Matrix]) -> Result<Matrix> {
    match (prologue, own) {
        (Prologue::Plain, [x]) => Ok(x.clone()),
        (Prologue::Norm(norm), [x]) => norm_forward(norm, on, x),
        (Prologue::Gated(gated), [gate, up]) => gated_forward(on, gated.activation, gate, up),
        (Prologue::Dropped { .. }, _) => {
            Err(unsupported("dropout in front of a projection", on, "`lora_dropout: 0`, or "))
        }
        _ => shape_error("prologue", format!("{} inputs", own.len())),
    }
}

impl Kept {
    fn backward(self, grads: &[Option<DeviceTensor>], needs: &[bool]) -> Result<Vec<Option<DeviceTensor>>> {
        let on = &self.on;
        let branches = self.members.iter().any(|m| m.branch.is_some());
        let wants_x = needs.iter().take(self.own.len()).any(|n| *n);
        let (used, width) = (grads.iter().flatten().count(), self.members.first().map_or(0, |m| m.weight.cols()));
        let tokens = self.own.first().map_or(0, |x| x.rows);
        let mut out: Vec<Option<DeviceTensor>> = vec![None; needs.len()];
        if used == 0 || !(wants_x || branches) {
            return Ok(out);
        }
        let x = branches.then(|| forward(&self.prologue, on, &self.own)).transpose()?;
        // Sums of several members are not rounded in between.
        let number = if used > 1 { Number::F32 } else { Number::Bf16 };
        let dx = DeviceMatrix::new(on, tokens, width, number)?;
        let mut written = false;
        for (member, dy) in self.members.iter().zip(grads) {
            let Some(dy) = dy else { continue };
            let to = (&dx, written);
            match (&member.branch, &x) {
                (Some(Branch { a, b, scale, u }), Some(x)) => {
                    let pair = DeviceBranch { a: &a.matrix, b: &b.matrix, scale: *scale };
                    let places = a.gradient.as_ref().zip(b.gradient.as_ref());
                    projection_backward(on, &dy.matrix, &member.weight, Some((&pair, u, x)), to, places)?;
                }
                _ => projection_backward(on, &dy.matrix, &member.weight, None, to, None)?,
            }
            written = true;
        }
        if wants_x {
            let dx = if number == Number::F32 { to_bf16(on, &dx, 1.0)? } else { dx };
            let found = match (&self.prologue, &self.own[..]) {
                (Prologue::Norm(norm), [x]) => vec![norm_backward(norm, on, x, &dx)?],
                (Prologue::Gated(gated), [gate, up]) => {
                    gated_backward(on, gated.activation, (gate, up), &dx)?.into()
                }
                _ => vec![dx],
            };
            for (out, found) in out.iter_mut().zip(wanted(on, found, needs)) {
                *out = found;
            }
        }
        Ok(out)
    }
}
