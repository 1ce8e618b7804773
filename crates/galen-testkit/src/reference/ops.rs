//! Twins of `galen_ops::ops`, one function each, all operands row-major. Shape letters as there: T tokens, C hidden
//! size, H heads, G key-value heads, D head size, V vocabulary, R rank.

use galen_ops::ops::{Activation, AttentionShape};
use galen_types::{Segment, Target};

/// `y = a + b`.
pub fn add_ref(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// `y_i = w_i x_i / sqrt(mean(x^2) + eps)` over rows of `w.len()` values.
pub fn rms_norm_ref(x: &[f64], w: &[f64], eps: f64) -> Vec<f64> {
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks(w.len()) {
        let mean_square = row.iter().map(|x| x * x).sum::<f64>() / w.len() as f64;
        let rms = (mean_square + eps).sqrt();
        y.extend(row.iter().zip(w).map(|(x, w)| w * x / rms));
    }
    y
}

/// Rotates pairs (i, i + D/2) of every head of `[T, H D]` by `positions[t] * frequencies[i]` radians.
pub fn rope_ref(x: &[f64], positions: &[u32], frequencies: &[f64]) -> Vec<f64> {
    let (width, half) = (x.len() / positions.len(), frequencies.len());
    let mut y = x.to_vec();
    for (t, position) in positions.iter().enumerate() {
        for head in (0..width).step_by(2 * half) {
            for (i, frequency) in frequencies.iter().enumerate() {
                let (sin, cos) = (f64::from(*position) * frequency).sin_cos();
                let (first, second) = (t * width + head + i, t * width + head + i + half);
                y[first] = x[first] * cos - x[second] * sin;
                y[second] = x[second] * cos + x[first] * sin;
            }
        }
    }
    y
}

/// `act(gate) * up`.
pub fn gated_ref(activation: Activation, gate: &[f64], up: &[f64]) -> Vec<f64> {
    let act = |x: f64| match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
    };
    gate.iter().zip(up).map(|(g, u)| act(*g) * u).collect()
}

/// `x W^T + b`: x `[T, in]`, W `[out, in]`, b `[out]` or nothing.
pub fn projection_ref(x: &[f64], w: &[f64], inputs: usize, bias: Option<&[f64]>) -> Vec<f64> {
    let mut y = Vec::new();
    for x in x.chunks(inputs) {
        for (o, w) in w.chunks(inputs).enumerate() {
            let product: f64 = x.iter().zip(w).map(|(x, w)| x * w).sum();
            y.push(product + bias.map_or(0.0, |b| b[o]));
        }
    }
    y
}

/// `s (x A^T) B^T`: x `[T, in]`, A `[R, in]`, B `[out, R]`.
pub fn lora_ref(x: &[f64], a: &[f64], b: &[f64], inputs: usize, scale: f64) -> Vec<f64> {
    let rank = a.len() / inputs;
    let down = projection_ref(x, a, inputs, None);
    projection_ref(&down, b, rank, None).iter().map(|y| scale * y).collect()
}

/// Causal softmax attention: each token of a segment sees the segment's tokens up to itself and all of its
/// ancestors', as far as the window reaches. q `[T, H D]`, k and v `[T, G D]`.
pub fn attention_ref(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    segments: &[Segment],
    shape: &AttentionShape,
) -> Vec<f64> {
    let AttentionShape { n_heads, n_kv_heads, head_dim: d, scale, window } = *shape;
    let mut out = vec![0.0; q.len()];
    for segment in segments {
        for i in 0..segment.len {
            let (t, position) = ((segment.start + i) as usize, segment.position + i);
            // (token, position) of everything this token may see.
            let mut seen: Vec<(usize, u32)> =
                (0..=i).map(|j| ((segment.start + j) as usize, segment.position + j)).collect();
            let mut ancestor = segment.parent;
            while let Some(p) = ancestor {
                let p = segments[p as usize];
                seen.extend((0..p.len).map(|j| ((p.start + j) as usize, p.position + j)));
                ancestor = p.parent;
            }
            seen.retain(|(_, at)| window.is_none_or(|w| ((position - at) as usize) < w));
            for h in 0..n_heads {
                let g = h / (n_heads / n_kv_heads);
                let query = &q[(t * n_heads + h) * d..][..d];
                let row = |of: &[f64], s: usize| of[(s * n_kv_heads + g) * d..][..d].to_vec();
                let weights: Vec<f64> = seen
                    .iter()
                    .map(|(s, _)| f64::from(scale) * dot(query, &row(k, *s)))
                    .map(f64::exp)
                    .collect();
                let total: f64 = weights.iter().sum();
                for ((s, _), weight) in seen.iter().zip(&weights) {
                    for (e, value) in row(v, *s).iter().enumerate() {
                        out[(t * n_heads + h) * d + e] += weight / total * value;
                    }
                }
            }
        }
    }
    out
}

/// `log softmax(W h[index])[token]` of each target: hidden `[T, C]`, W `[V, C]`.
pub fn log_prob_head_ref(hidden: &[f64], w: &[f64], width: usize, targets: &[Target]) -> Vec<f64> {
    let log_prob = |t: &Target| {
        let h = &hidden[t.index as usize * width..][..width];
        let logits: Vec<f64> = w.chunks(width).map(|w| dot(h, w)).collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|l| (l - max).exp()).sum();
        logits[t.token as usize] - max - sum.ln()
    };
    targets.iter().map(log_prob).collect()
}

/// Rows of `[T, C]`, in the order of `rows`.
pub fn select_rows_ref(x: &[f64], rows: &[u32], width: usize) -> Vec<f64> {
    rows.iter().flat_map(|r| x[*r as usize * width..][..width].to_vec()).collect()
}

/// `x m / (1 - p)` with a mask m `[T, C]` of what is kept.
pub fn dropout_ref(x: &[f64], kept: &[bool], p: f64) -> Vec<f64> {
    x.iter().zip(kept).map(|(x, kept)| if *kept { x / (1.0 - p) } else { 0.0 }).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
