//! Starting values.

use crate::config::Init;
use crate::random::{normal, uniform};

/// A `[r, in]` and B `[out, r]`, keyed by (seed, layer, module number).
pub(crate) fn lora(
    init: Init,
    r: usize,
    inputs: usize,
    outputs: usize,
    key: [u64; 3],
) -> (Vec<f32>, Vec<f32>) {
    let [seed, layer, module] = key;
    let key = |which| [seed, layer, module, which];
    let symmetric = |n: usize, bound: f64, which: u64| -> Vec<f32> {
        (0..n as u64).map(|i| ((2.0 * uniform(&key(which), i) - 1.0) * bound) as f32).collect()
    };
    let kaiming = || symmetric(r * inputs, 1.0 / (inputs as f64).sqrt(), 0);
    match init {
        Init::Kaiming => (kaiming(), vec![0.0; outputs * r]),
        Init::Gaussian => {
            let a = (0..(r * inputs) as u64).map(|i| (normal(&key(0), i) / r as f64) as f32).collect();
            (a, vec![0.0; outputs * r])
        }
        Init::Random => (kaiming(), symmetric(outputs * r, 1.0 / (r as f64).sqrt(), 1)),
    }
}
