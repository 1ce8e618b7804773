//! Slow, obvious f64 twins of what the engine computes: plain loops straight from the equations, nothing shared
//! with the kernels. Values only: derivatives of a twin are central differences.

mod model;
mod ops;

pub use model::{Branches, LoraRef, ModelRef, inverse_frequencies_ref};
pub use ops::*;

/// `(f(x + h d) - f(x - h d)) / 2h`: the derivative of a twin's scalar `f` at `x` along `direction`.
pub fn directional(f: impl Fn(&[f64]) -> f64, x: &[f64], direction: &[f64]) -> f64 {
    // The error is about h^2 from the curvature and 1e-16 / h from rounding: equal near the cube root of 1e-16.
    const H: f64 = 1e-5;
    let moved = |h: f64| x.iter().zip(direction).map(|(x, d)| x + h * d).collect::<Vec<f64>>();
    (f(&moved(H)) - f(&moved(-H))) / (2.0 * H)
}
