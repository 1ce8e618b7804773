//! Functions of the logistic family that lose no digits at either end, and sums in f64.

/// `1 / (1 + e^-x)`.
pub(crate) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// `log(1 / (1 + e^-x))`: finite for every finite x. Its derivative is `sigmoid(-x)`.
pub(crate) fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

/// `log(1 - e^x)` for `x < 0`, in the branch that does not cancel (split at -ln 2). Its derivative is
/// `-e^x / (1 - e^x)`.
pub(crate) fn log1mexp(x: f64) -> f64 {
    if x < -std::f64::consts::LN_2 { (-x.exp()).ln_1p() } else { (-x.exp_m1()).ln() }
}

/// Sum in f64, in order.
pub(crate) fn sum(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v)).sum()
}

/// Mean in f64; 0 of nothing.
pub(crate) fn mean(values: &[f32]) -> f64 {
    sum(values) / values.len().max(1) as f64
}

/// A gradient that is the same for every token of a sequence.
pub(crate) fn constant(value: f64, len: usize) -> Vec<f32> {
    vec![value as f32; len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_keep_their_digits() {
        assert!((log_sigmoid(0.0) + std::f64::consts::LN_2).abs() < 1e-15);
        assert_eq!(log_sigmoid(-1e5), -1e5);
        assert!((log_sigmoid(40.0) + (-40.0f64).exp()).abs() < 1e-30);
        assert!((sigmoid(-700.0) / (-700.0f64).exp() - 1.0).abs() < 1e-12);
        assert_eq!(sigmoid(-1e4), 0.0);
        assert_eq!(sigmoid(1e4), 1.0);
        assert!((log1mexp(-1e-12) - 1e-12f64.ln()).abs() < 1e-9);
        assert!((log1mexp(-50.0) + (-50.0f64).exp()).abs() < 1e-30);
    }
}
