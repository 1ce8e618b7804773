//! Counter-based random numbers: each value is a function of its key, so no order of drawing can change it.

fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Uniform in [0, 1) with 53 bits, from splitmix64 (Steele, Lea and Flood 2014) over (key, index).
pub fn uniform(key: &[u64], index: u64) -> f64 {
    let key = key.iter().fold(0x6761_6c65_6e00_0000, |state, k| mix(state ^ k));
    (mix(mix(key ^ mix(index))) >> 11) as f64 / (1u64 << 53) as f64
}

/// Standard normal (Box and Muller 1958).
pub fn normal(key: &[u64], index: u64) -> f64 {
    let (u, v) = (1.0 - uniform(key, 2 * index), uniform(key, 2 * index + 1));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let n = 20_000;
        let mean = |f: &dyn Fn(u64) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
        assert!((mean(&|i| uniform(&[1, 2], i)) - 0.5).abs() < 0.01);
        assert!((mean(&|i| uniform(&[1, 2], i).powi(2)) - 1.0 / 3.0).abs() < 0.01);
        assert!(mean(&|i| normal(&[7], i)).abs() < 0.03);
        assert!((mean(&|i| normal(&[7], i).powi(2)) - 1.0).abs() < 0.05);
        assert_ne!(uniform(&[1, 2], 0), uniform(&[2, 1], 0));
    }
}
