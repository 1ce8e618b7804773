//! Which examples stand before a question.

use crate::error::EvalError;
use crate::task::{Fewshot, Sampler};
use galen_types::RawRow;
use rand_mt::Mt;

/// Draws examples question by question, in the order of the questions: with the same seed and rows the same draws as
/// lm-evaluation-harness, which uses Python's `random.Random(seed).sample`.
pub(crate) struct Examples {
    pool: Vec<RawRow>,
    sampler: Sampler,
    /// Examples of the evaluated split: the question itself must not be among them.
    excludes_question: bool,
    rng: Mt,
}

impl Examples {
    pub fn new(
        pool: Vec<RawRow>,
        config: &Fewshot,
        excludes_question: bool,
        seed: u32,
    ) -> Result<Self, EvalError> {
        let pool = match &config.indices {
            None => pool,
            Some(indices) => indices
                .iter()
                .map(|i| {
                    let what = || format!("`fewshot_indices`: no row {i} among {}", pool.len());
                    pool.get(*i).cloned().ok_or_else(|| EvalError::task("fewshot_config", what()))
                })
                .collect::<Result<_, _>>()?,
        };
        Ok(Self { pool, sampler: config.sampler, excludes_question, rng: Mt::new_with_key([seed]) })
    }

    /// `n` examples for `question`.
    pub fn draw(&mut self, n: usize, question: &RawRow) -> Result<Vec<&RawRow>, EvalError> {
        let wanted = n + usize::from(self.excludes_question);
        if n == 0 {
            return Ok(Vec::new());
        }
        if wanted > self.pool.len() {
            let what = format!(
                "{n} examples asked for, {} rows to draw from\nhint: lower `num_fewshot`",
                self.pool.len()
            );
            return Err(EvalError::task("num_fewshot", what));
        }
        let indices = match self.sampler {
            Sampler::Random => sample(&mut self.rng, self.pool.len(), wanted),
            Sampler::FirstN => (0..self.pool.len()).collect(),
        };
        let rows = indices.into_iter().filter_map(|i| self.pool.get(i));
        Ok(rows.filter(|row| !(self.excludes_question && row.fields == question.fields)).take(n).collect())
    }
}

/// CPython's `random.sample(range(n), k)` for `k <= n`: a pool for small `n`, else a set of those drawn.
fn sample(rng: &mut Mt, n: usize, k: usize) -> Vec<usize> {
    let mut set_size = 21;
    if k > 5 {
        // 4 to the power of ceil(log4(3k)).
        let mut power = 1usize;
        while power < k.saturating_mul(3) {
            power = power.saturating_mul(4);
        }
        set_size += power;
    }
    let mut result = Vec::with_capacity(k);
    if n <= set_size {
        let mut pool: Vec<usize> = (0..n).collect();
        for i in 0..k {
            let j = below(rng, n - i);
            result.push(pool[j]);
            pool[j] = pool[n - i - 1];
        }
    } else {
        let mut seen = std::collections::HashSet::new();
        while result.len() < k {
            let j = below(rng, n);
            if seen.insert(j) {
                result.push(j);
            }
        }
    }
    result
}

/// CPython's `_randbelow(n)`: `bit_length(n)` random bits until they are below `n`. `n` is at least 1, below 2^32.
fn below(rng: &mut Mt, n: usize) -> usize {
    let bits = u32::BITS - (n as u32).leading_zeros();
    loop {
        let r = (rng.next_u32() >> (u32::BITS - bits)) as usize;
        if r < n {
            return r;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From CPython 3.11: `r = random.Random(1234)`, then these calls in turn.
    #[test]
    fn the_draws_of_cpython() {
        let rng = &mut Mt::new_with_key([1234]);
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../tests/goldens/stats.json")).unwrap();
        for case in golden["random_sample"].as_array().unwrap() {
            let number = |key: &str| case[key].as_u64().unwrap() as usize;
            let expect: Vec<usize> = serde_json::from_value(case["sample"].clone()).unwrap();
            assert_eq!(sample(rng, number("n"), number("k")), expect, "{case}");
        }
    }
}
