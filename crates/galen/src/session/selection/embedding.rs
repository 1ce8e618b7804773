//! By what the base makes of a text: the mean of its last hidden states.

use super::{Asks, Inputs, Method};

pub(super) const METHOD: Method = Method {
    name: "embedding",
    about: "cosine of a row's mean last hidden state to the target's mean, both from the mean of all rows (`--model`)",
    score: "cosine",
    asks: Asks::Rows,
    draws: false,
    sums: false,
    run,
};

fn run(inputs: &Inputs<'_>) -> anyhow::Result<Vec<f64>> {
    let model = inputs.model()?;
    let width = model.width();
    let rows = model.means("rows", inputs.rows.iter().map(|t| &t.text[..]))?;
    // Hidden states of all texts share a large part; what tells them apart is the rest.
    let center = mean(&rows, width);
    let mut towards = Vec::new();
    for target in inputs.targets {
        let states = model.means("target", target.iter().map(|t| &t.text[..]))?;
        towards.push(mean(&states, width).iter().zip(&center).map(|(t, c)| t - c).collect::<Vec<f64>>());
    }
    let score = |row: &[f32]| {
        let from: Vec<f64> = row.iter().zip(&center).map(|(x, c)| f64::from(*x) - c).collect();
        towards.iter().map(|to| cosine(&from, to)).fold(f64::NEG_INFINITY, f64::max)
    };
    Ok(rows.chunks_exact(width).map(score).collect())
}

fn mean(states: &[f32], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    for state in states.chunks_exact(width) {
        sums.iter_mut().zip(state).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let n = (states.len() / width).max(1) as f64;
    sums.into_iter().map(|sum| sum / n).collect()
}

/// 0 where one has no direction.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_cosines() {
        assert_eq!(mean(&[1.0, 2.0, 3.0, 6.0], 2), [2.0, 4.0]);
        assert_eq!(mean(&[], 2), [0.0, 0.0]);
        assert!((cosine(&[3.0, 4.0], &[4.0, 3.0]) - 0.96).abs() < 1e-15);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert_eq!(cosine(&[0.0], &[1.0]), 0.0);
    }
}
