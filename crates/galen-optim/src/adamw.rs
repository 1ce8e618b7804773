//! AdamW (Loshchilov and Hutter 2019, algorithm 2), as PyTorch computes it.

use galen_types::AdamWStep;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Hyper-parameters besides the learning rate. Defaults are PyTorch's, but for the weight decay, which is the
/// trainers' (0).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root.
    pub eps: f64,
    /// Decoupled decay of the values.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// Values that learn at a multiple of the rate, of which their decay is a multiple too: B of a low-rank pair in "LoRA+:
/// Efficient Low Rank Adaptation of Large Models" (Hayou et al. 2024).
#[derive(Debug, Clone, PartialEq)]
pub struct Faster {
    /// Their rate over the others'.
    pub ratio: f64,
    /// Where they lie, by buffer, in order.
    pub ranges: Vec<Vec<Range<usize>>>,
}

/// The optimiser's state: both moments in f32, one buffer a block.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    /// Hyper-parameters.
    pub config: AdamWConfig,
    /// Values that learn faster, if any do.
    pub faster: Option<Faster>,
    /// Steps done.
    pub steps: u64,
    /// First moments.
    pub m: Vec<Vec<f32>>,
    /// Second moments.
    pub v: Vec<Vec<f32>>,
}

impl AdamW {
    /// Zero state for buffers of these lengths.
    pub fn new(config: AdamWConfig, lengths: impl IntoIterator<Item = usize>) -> Self {
        let m: Vec<Vec<f32>> = lengths.into_iter().map(|n| vec![0.0; n]).collect();
        Self { config, faster: None, steps: 0, v: m.clone(), m }
    }

    /// Counts one step more, and gives its numbers. `factor` multiplies the gradients (clipping).
    pub fn next_step(&mut self, learning_rate: f64, factor: f32) -> AdamWStep {
        self.steps += 1;
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let t = self.steps as i32;
        let ratio = self.faster.as_ref().map_or(1.0, |f| f.ratio);
        let size = |rate: f64| (rate / (1.0 - beta1.powi(t))) as f32;
        let decay = |rate: f64| (1.0 - rate * weight_decay) as f32;
        AdamWStep {
            factor,
            beta1: (beta1 as f32, (1.0 - beta1) as f32),
            beta2: (beta2 as f32, (1.0 - beta2) as f32),
            step_size: size(learning_rate),
            root: (1.0 - beta2.powi(t)).sqrt() as f32,
            eps: eps as f32,
            decay: decay(learning_rate),
            faster: (size(learning_rate * ratio), decay(learning_rate * ratio)),
        }
    }

    /// One step.
    ///
    /// # Panics
    /// When a buffer's length is not the state's.
    pub fn step<'a>(
        &mut self,
        values: impl Iterator<Item = &'a mut [f32]>,
        gradients: &[Vec<f32>],
        learning_rate: f64,
        factor: f32,
    ) {
        let step = self.next_step(learning_rate, factor);
        let faster = AdamWStep { step_size: step.faster.0, decay: step.faster.1, ..step };
        let buffers = values.zip(gradients).zip(&mut self.m).zip(&mut self.v);
        for (i, (((values, gradients), m), v)) in buffers.enumerate() {
            let ranges = self.faster.as_ref().and_then(|f| f.ranges.get(i)).map_or(&[][..], Vec::as_slice);
            let mut part = |range: Range<usize>, step| {
                let [m, v] = [&mut *m, &mut *v].map(|moments| &mut moments[range.clone()]);
                update(step, &mut values[range.clone()], &gradients[range], m, v);
            };
            let mut done = 0;
            for range in ranges {
                part(done..range.start, step);
                part(range.clone(), faster);
                done = range.end;
            }
            part(done..gradients.len(), step);
        }
    }

    /// The last buffer's part of a step that [`AdamW::next_step`] counted: where the others lie elsewhere.
    ///
    /// # Panics
    /// As [`AdamW::step`].
    pub fn step_last(&mut self, step: AdamWStep, values: &mut [f32], gradients: &[f32]) {
        if let (Some(m), Some(v)) = (self.m.last_mut(), self.v.last_mut()) {
            update(step, values, gradients, m, v);
        }
    }
}

/// A buffer's step.
fn update(step: AdamWStep, values: &mut [f32], gradients: &[f32], m: &mut [f32], v: &mut [f32]) {
    const CHUNK: usize = 1 << 14;
    let AdamWStep { factor, beta1: (b1, c1), beta2: (b2, c2), step_size, root, eps, decay, .. } = step;
    assert!(values.len() == gradients.len() && values.len() == m.len(), "buffers of different lengths");
    values
        .par_chunks_mut(CHUNK)
        .zip(gradients.par_chunks(CHUNK))
        .zip(m.par_chunks_mut(CHUNK))
        .zip(v.par_chunks_mut(CHUNK))
        .for_each(|(((values, gradients), m), v)| {
            for (((x, g), m), v) in values.iter_mut().zip(gradients).zip(m).zip(v) {
                let g = g * factor;
                *m = b1 * *m + c1 * g;
                *v = b2 * *v + c2 * g * g;
                *x = *x * decay - step_size * (*m / (v.sqrt() / root + eps));
            }
        });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three steps at learning rate 0.1 and decay 0.1 against the algorithm in f64, on x = [1, -2], gradients [0.5, -1], [0.1, 2],
    /// [-0.3, 0.25].
    #[test]
    fn equals_the_algorithm_in_f64() {
        let mut x = [vec![1.0f32, -2.0]];
        let mut optimiser = AdamW::new(AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() }, [2]);
        let mut reference = [1.0f64, -2.0];
        let (mut m, mut v) = ([0f64; 2], [0f64; 2]);
        for (t, g) in [[0.5f32, -1.0], [0.1, 2.0], [-0.3, 0.25]].into_iter().enumerate() {
            optimiser.step(x.iter_mut().map(|x| &mut x[..]), &[g.to_vec()], 0.1, 1.0);
            for i in 0..2 {
                let g = f64::from(g[i]);
                reference[i] *= 1.0 - 0.1 * 0.1;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let (mh, vh) =
                    (m[i] / (1.0 - 0.9f64.powi(t as i32 + 1)), v[i] / (1.0 - 0.999f64.powi(t as i32 + 1)));
                reference[i] -= 0.1 * mh / (vh.sqrt() + 1e-8);
            }
        }
        for (x, r) in x[0].iter().zip(reference) {
            assert!((f64::from(*x) - r).abs() <= 1e-6, "{x} for {r}");
        }
    }

    /// Parts of a buffer at four times the rate are what that rate makes of them alone, and the others what they were.
    #[test]
    fn faster_values_learn_as_at_their_own_rate() {
        let config = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
        let start: Vec<f32> = (0..12).map(|i| i as f32 - 5.5).collect();
        let after = |faster: Option<Faster>, learning_rate: f64| {
            let mut buffers = [start.clone(), start.clone()];
            let mut optimiser = AdamW { faster, ..AdamW::new(config, [12, 12]) };
            for t in 1..4 {
                let gradients: Vec<f32> = start.iter().map(|x| (x * t as f32).sin()).collect();
                let gradients = [gradients.clone(), gradients];
                optimiser.step(buffers.iter_mut().map(|b| &mut b[..]), &gradients, learning_rate, 1.0);
            }
            buffers
        };
        let ranges = vec![vec![2..5, 5..6, 9..12]];
        let mixed = after(Some(Faster { ratio: 4.0, ranges }), 0.01);
        let (slow, fast) = (after(None, 0.01), after(None, 0.04));
        for i in 0..12 {
            let expected = if matches!(i, 2..6 | 9..12) { &fast } else { &slow };
            assert_eq!(mixed[0][i], expected[0][i], "{i}");
            assert_ne!(slow[0][i], fast[0][i], "{i}");
        }
        assert_eq!(mixed[1], slow[1], "a buffer without such values");
    }
}
