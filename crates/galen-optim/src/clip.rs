//! Clipping by the global norm (Pascanu et al. 2013), as PyTorch does it.

/// L2 norm over all buffers, summed in f64 in order. NaN or infinite where a gradient is.
pub fn global_norm(gradients: &[Vec<f32>]) -> f64 {
    gradients.iter().flatten().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt()
}

/// What the gradients are multiplied by so that their norm is at most `max_norm` (0 or less: never clip).
pub fn clip_factor(norm: f64, max_norm: f64) -> f32 {
    if max_norm > 0.0 { (max_norm / (norm + 1e-6)).min(1.0) as f32 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_only_above_the_limit() {
        let g = vec![vec![3.0f32], vec![4.0]];
        assert!((global_norm(&g) - 5.0).abs() < 1e-12);
        assert!((clip_factor(5.0, 1.0) - 0.2).abs() < 1e-6);
        assert!((clip_factor(0.5, 1.0) - 1.0).abs() < f32::EPSILON);
        assert!((clip_factor(5.0, 0.0) - 1.0).abs() < f32::EPSILON);
        assert!(global_norm(&[vec![f32::NAN]]).is_nan());
    }
}
