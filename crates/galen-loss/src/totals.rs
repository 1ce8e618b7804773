//! What the means of an optimiser step run over.

use std::iter::Sum;
use std::ops::Add;

/// Numbers that a step's means are divided by, summed over all rows of all its micro-batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Pairs, answers or completions.
    pub items: usize,
    /// Tokens that a mean over tokens runs over: the chosen answers' (with the prompts' where the objective
    /// reads them), or all completions'.
    pub tokens: usize,
}

impl Totals {
    /// These totals `n` times: what makes the sum of `n` micro-batches' losses the mean of their means.
    #[must_use]
    pub fn times(self, n: usize) -> Self {
        Self { items: self.items * n, tokens: self.tokens * n }
    }

    pub(crate) fn items(self) -> f64 {
        self.items.max(1) as f64
    }

    pub(crate) fn tokens(self) -> f64 {
        self.tokens.max(1) as f64
    }
}

impl Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { items: self.items + other.items, tokens: self.tokens + other.tokens }
    }
}

impl Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(totals: I) -> Self {
        totals.fold(Self::default(), Add::add)
    }
}
