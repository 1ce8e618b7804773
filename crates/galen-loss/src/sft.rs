//! Supervised fine-tuning: mean negative log-likelihood of the supervised tokens.

use galen_types::TokenLogProbs;

/// `L = -1/N sum_t log p_t`. N is the number of supervised tokens of the whole optimiser step, not of this
/// micro-batch, so that accumulation gives exactly the larger batch's loss. Returns this micro-batch's share
/// of L in nats and dL/dlogp.
pub fn sft(logps: &TokenLogProbs, n: usize) -> (f64, Vec<f32>) {
    let loss = -logps.0.iter().map(|l| f64::from(*l)).sum::<f64>() / n.max(1) as f64;
    (loss, sft_gradient(logps.0.len(), n))
}

/// dL/dlogp of `tokens` log-probabilities, which it does not depend on: backward need not wait for them.
pub fn sft_gradient(tokens: usize, n: usize) -> Vec<f32> {
    vec![(-1.0 / n.max(1) as f64) as f32; tokens]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_by_hand_and_by_halves() {
        let logps = [-1.0f32, -2.0, -0.5, -0.5];
        let (whole, gradient) = sft(&TokenLogProbs(logps.to_vec()), 4);
        assert!((whole - 1.0).abs() < 1e-12);
        assert!(gradient.iter().all(|g| *g == -0.25));
        let halves = [&logps[..1], &logps[1..]].map(|part| sft(&TokenLogProbs(part.to_vec()), 4).0);
        assert!((halves[0] + halves[1] - whole).abs() < 1e-12);
    }
}
