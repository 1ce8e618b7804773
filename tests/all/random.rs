//! Numbers for made-up inputs, the same everywhere.

pub use galen_testkit::fuzz::Random;

/// Uniform in [-1, 1), on a grid that f32 holds exactly.
pub fn number(random: &mut Random) -> f32 {
    (random.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
}

pub fn numbers(random: &mut Random, n: usize) -> Vec<f32> {
    (0..n).map(|_| number(random)).collect()
}

/// A direction to differentiate along.
pub fn direction(random: &mut Random, n: usize) -> Vec<f64> {
    (0..n).map(|_| f64::from(number(random))).collect()
}

/// `n` token ids of a vocabulary of `v`.
pub fn ids(random: &mut Random, n: usize, v: usize) -> Vec<u32> {
    (0..n).map(|_| random.below(v) as u32).collect()
}

pub fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
