//! What is done to the inputs on their way into a projection, so that its result need not be kept: backward forms it
//! again from what is kept anyway.

use crate::error::{Result, shape_error};
use crate::ops::{Compute, Dropout, Gated, RmsNorm};
use crate::tensor::{Values, f32_view, keep};
use candle_core::Tensor;

/// Which part of x a dropout gives: `x'`, or what it took away, `x - x'`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DroppedPart {
    /// x after dropout.
    Kept,
    /// x less x after dropout.
    Taken,
}

/// How x `[T, in]` comes from the inputs.
#[derive(Clone)]
pub enum Prologue {
    /// It is the input.
    Plain,
    /// The input normalised.
    Norm(RmsNorm),
    /// `act(gate) * up` of two inputs.
    Gated(Gated),
    /// A part of what another prologue gives. Masks are functions of their keys, so backward forms them again.
    Dropped {
        /// What x comes from.
        inner: Box<Prologue>,
        /// Its dropout.
        dropout: Dropout,
        /// Which part of it.
        part: DroppedPart,
    },
}

/// The part of x, or of a gradient on its way back: both parts are diagonal matrices times x.
fn part_of(dropout: &Dropout, part: DroppedPart, x: &[f32]) -> Result<Vec<f32>> {
    let mut dropped = dropout.apply(x, x.len() / dropout.key.rows.len().max(1))?;
    if part == DroppedPart::Taken {
        dropped.iter_mut().zip(x).for_each(|(d, x)| *d = x - *d);
    }
    Ok(dropped)
}

impl Prologue {
    /// How many inputs it takes.
    pub fn inputs(&self) -> usize {
        match self {
            Self::Gated(_) => 2,
            Self::Dropped { inner, .. } => inner.inputs(),
            Self::Plain | Self::Norm(_) => 1,
        }
    }

    pub(super) fn forward<'a>(&self, inputs: &[&'a Tensor]) -> Result<Values<'a>> {
        match (self, inputs) {
            (Self::Plain, [x]) => Ok(Values::View(f32_view(x)?)),
            (Self::Norm(norm), [x]) => Ok(Values::Own(norm.values(&f32_view(x)?)?)),
            (Self::Gated(gated), [gate, up]) if gate.dims() == up.dims() => {
                Ok(Values::Own(gated.values(&f32_view(gate)?, &f32_view(up)?)))
            }
            (Self::Dropped { inner, dropout, part }, inputs) => {
                Ok(Values::Own(part_of(dropout, *part, &inner.forward(inputs)?)?))
            }
            _ => shape_error(
                "prologue",
                format!("inputs {:?}", inputs.iter().map(|i| i.dims()).collect::<Vec<_>>()),
            ),
        }
    }

    /// What backward needs: without branches a plain x is not needed.
    pub(super) fn keep(&self, inputs: &[&Tensor], compute: Compute, branches: bool) -> Result<Vec<Tensor>> {
        match self {
            Self::Plain if !branches => Ok(vec![]),
            // The residual stream, which lives on in f32.
            Self::Norm(_) => Ok(inputs.iter().map(|i| (*i).clone()).collect()),
            Self::Dropped { inner, .. } => inner.keep(inputs, compute, branches),
            _ => inputs.iter().map(|i| keep(i, compute)).collect(),
        }
    }

    /// x again.
    pub(super) fn values<'a>(&self, own: &'a [Values<'a>]) -> Result<Values<'a>> {
        match (self, own) {
            (Self::Plain, [x]) => Ok(Values::Slice(x)),
            (Self::Norm(norm), [x]) => Ok(Values::Own(norm.values(x)?)),
            (Self::Gated(gated), [gate, up]) => Ok(Values::Own(gated.values(gate, up))),
            (Self::Dropped { inner, dropout, part }, own) => {
                Ok(Values::Own(part_of(dropout, *part, &inner.values(own)?)?))
            }
            _ => shape_error("prologue", format!("{} kept inputs", own.len())),
        }
    }

    /// Gradients of the inputs from that of x.
    pub(super) fn backward(&self, own: &[Values], dx: Vec<f32>) -> Result<Vec<Vec<f32>>> {
        Ok(match (self, own) {
            (Self::Norm(norm), [x]) => vec![norm.gradient(x, &dx)],
            (Self::Gated(gated), [gate, up]) => gated.gradients(gate, up, &dx).into(),
            (Self::Dropped { inner, dropout, part }, own) => {
                inner.backward(own, part_of(dropout, *part, &dx)?)?
            }
            _ => vec![dx],
        })
    }
}
