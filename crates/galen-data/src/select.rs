//! Which rows are kept, by their scores.

use crate::order::SplitMix64;

/// The `n` rows of the highest scores, earlier ones first among equals; row numbers in order. A score that is no number is
/// the lowest.
pub fn top(scores: &[f64], n: usize) -> Vec<usize> {
    let rank = |i: usize| if scores[i].is_nan() { f64::NEG_INFINITY } else { scores[i] };
    let mut rows: Vec<usize> = (0..scores.len()).collect();
    rows.sort_by(|a, b| rank(*b).total_cmp(&rank(*a)));
    rows.truncate(n);
    rows.sort_unstable();
    rows
}

/// `n` rows drawn without replacement, each time one with a probability proportional to its weight: the top `n` of the log
/// weights with Gumbel noise (Vieira: Gumbel-max trick and weighted reservoir sampling, 2014). A row's noise follows from
/// the seed and its number alone.
pub fn draw(log_weights: &[f64], n: usize, seed: u64) -> Vec<usize> {
    let noised: Vec<f64> = log_weights
        .iter()
        .enumerate()
        .map(|(i, w)| w + gumbel(&mut SplitMix64::keyed(&[seed, i as u64])))
        .collect();
    top(&noised, n)
}

fn gumbel(random: &mut SplitMix64) -> f64 {
    // 52 bits and a half: never 0 nor 1.
    let unit = ((random.next_u64() >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    -(-unit.ln()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_in_their_order() {
        let scores = [1.0, f64::NAN, 3.0, 2.0, 3.0, f64::NEG_INFINITY];
        assert_eq!(top(&scores, 2), [2, 4]);
        assert_eq!(top(&scores, 3), [2, 3, 4]);
        assert_eq!(top(&scores, 5), [0, 1, 2, 3, 4]);
        assert_eq!(top(&scores, 99).len(), 6);
        assert_eq!(top(&[], 1), [0; 0]);
    }

    /// Draws of one row fall on each in proportion to its weight, draws of two as drawing one after the other does.
    #[test]
    fn draws_follow_the_weights() {
        let weights: [f64; 4] = [8.0, 4.0, 2.0, 1.0];
        let logs = weights.map(f64::ln);
        let total: f64 = weights.iter().sum();
        let draws = 40_000;
        let (mut one, mut two) = ([0; 4], [0; 4]);
        for seed in 0..draws {
            draw(&logs, 1, seed).iter().for_each(|i| one[*i] += 1);
            draw(&logs, 2, seed).iter().for_each(|i| two[*i] += 1);
        }
        for i in 0..4 {
            let first = weights[i] / total;
            let second: f64 = (0..4)
                .filter(|j| *j != i)
                .map(|j| weights[j] / total * weights[i] / (total - weights[j]))
                .sum();
            for (found, expect) in [(one[i], first), (two[i], first + second)] {
                let error = (f64::from(found) / draws as f64 - expect).abs();
                // Four standard errors.
                assert!(
                    error <= 4.0 * (expect * (1.0 - expect) / draws as f64).sqrt(),
                    "{i}: {found} for {expect}"
                );
            }
        }
    }

    #[test]
    fn a_seed_gives_the_same_rows() {
        let weights = [0.0; 50];
        assert_eq!(draw(&weights, 9, 1), draw(&weights, 9, 1));
        assert_ne!(draw(&weights, 9, 1), draw(&weights, 9, 2));
        assert!(draw(&weights, 9, 1).is_sorted());
    }
}
