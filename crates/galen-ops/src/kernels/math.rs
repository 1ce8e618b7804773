//! Elementary functions and row reductions in plain f32 arithmetic: the same bits in every lane and position.

use super::isa::Fma;

/// Adding it rounds to the nearest integer, which lies in the low bits then: 1.5 * 2^23.
const ROUND: f32 = 12_582_912.0;

/// `x = n ln 2 + r` and `e^r` (Cody-Waite reduction, degree 6 polynomial): n as [`ROUND`] leaves it, and `e^r`.
#[inline(always)]
fn reduced<F: Fma>(x: f32) -> (f32, f32) {
    let shifted = F::fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = F::fma(n, -0.693_359_4, x);
    let r = F::fma(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    p = F::fma(p, r, 1.398_199_9e-3);
    p = F::fma(p, r, 8.333_452e-3);
    p = F::fma(p, r, 4.166_579_6e-2);
    p = F::fma(p, r, 1.666_666_5e-1);
    p = F::fma(p, r, 0.5);
    (shifted, F::fma(p, r * r, r) + 1.0)
}

/// `e^x` to about 2 ulp; 0 below -87.3, infinity above 88.7.
#[inline(always)]
pub(crate) fn exp<F: Fma>(x: f32) -> f32 {
    let (shifted, y) = reduced::<F>(x.clamp(-87.336_54, 88.722_83));
    // 2^n in two steps, so that n = 128 does not overflow the exponent field. A cast of n would have to heed numbers that
    // no integer equals, one lane at a time.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) << 23) as u32);
    let scaled = y * power(half) * power(n.wrapping_sub(half));
    if x < -87.336_54 {
        0.0
    } else if x > 88.722_83 {
        f32::INFINITY
    } else if x.is_nan() {
        f32::NAN
    } else {
        scaled
    }
}

/// `e^x` for x at most a little above zero, as softmax has it: [`exp`] without what larger ones need.
#[inline(always)]
pub(crate) fn exp_of_negative<F: Fma>(x: f32) -> f32 {
    let (shifted, y) = reduced::<F>(if x < -87.0 { -87.0 } else { x });
    // n added to the exponent of one; of what is no number, y is none either.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x < -87.0 { 0.0 } else { y * power }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid<F: Fma>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<F>(-x))
}

/// `tanh x`, from the sigmoid; absolute error about 1e-7.
#[inline(always)]
pub(crate) fn tanh<F: Fma>(x: f32) -> f32 {
    2.0 * sigmoid::<F>(2.0 * x) - 1.0
}

pub(crate) const LANES: usize = 16;

/// Sum of a function of each value in sixteen interleaved partial sums, folded in a fixed order. Element `i` always
/// falls into partial sum `i % 16`: trailing zeros change nothing.
#[inline(always)]
pub(crate) fn sum_of(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (rows, rest) = values.as_chunks::<LANES>();
    for row in rows {
        for (sum, v) in lanes.iter_mut().zip(row) {
            *sum += f(*v);
        }
    }
    for (sum, v) in lanes.iter_mut().zip(rest) {
        *sum += f(*v);
    }
    fold(lanes)
}

/// [`sum_of`] the values themselves.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    sum_of(values, |v| v)
}

/// The largest value; NaN where one of them is.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let larger = |max: f32, v: f32| if v > max || v.is_nan() { v } else { max };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (rows, rest) = values.as_chunks::<LANES>();
    for row in rows {
        for (max, v) in lanes.iter_mut().zip(row) {
            *max = larger(*max, *v);
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, larger)
}

/// Sum of the lanes, halves onto halves.
#[inline(always)]
pub(crate) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `sum a_i b_i` in the order of [`sum_of`].
#[inline(always)]
pub(crate) fn dot<F: Fma>(a: &[f32], b: &[f32]) -> f32 {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let mut lanes = [0f32; LANES];
    let (ac, bc) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (ar, br) = (ac.remainder(), bc.remainder());
    for (a, b) in ac.zip(bc) {
        for lane in 0..LANES {
            lanes[lane] = F::fma(a[lane], b[lane], lanes[lane]);
        }
    }
    for (lane, (a, b)) in ar.iter().zip(br).enumerate() {
        lanes[lane] = F::fma(*a, *b, lanes[lane]);
    }
    fold(lanes)
}

#[cfg(test)]
mod tests {
    use super::super::isa::{Fused, Split};
    use super::*;

    #[test]
    fn exp_is_accurate_over_its_range() {
        let mut x = -87.0f32;
        while x < 88.5 {
            let exact = f64::from(x).exp();
            for y in [exp::<Fused>(x), exp::<Split>(x)] {
                let error = (f64::from(y) - exact).abs() / exact;
                assert!(error <= 4e-7, "exp({x}) = {y}, relative error {error:e}");
            }
            x += 0.0137;
        }
        let mut x = -87.0f32;
        while x < 1.0 {
            let exact = f64::from(x).exp();
            for y in [exp_of_negative::<Fused>(x), exp_of_negative::<Split>(x)] {
                let error = (f64::from(y) - exact).abs() / exact;
                assert!(error <= 4e-7, "exp_of_negative({x}) = {y}, relative error {error:e}");
            }
            x += 0.0137;
        }
        assert_eq!(exp_of_negative::<Fused>(0.0), 1.0);
        assert_eq!(exp_of_negative::<Fused>(-87.5), 0.0);
        assert_eq!(exp_of_negative::<Fused>(f32::NEG_INFINITY), 0.0);
        assert!(
            exp_of_negative::<Fused>(f32::NAN).is_nan() && exp_of_negative::<Fused>(f32::INFINITY).is_nan()
        );
        assert_eq!(exp::<Fused>(-200.0), 0.0);
        assert_eq!(exp::<Fused>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<Fused>(0.0), 1.0);
        assert!(exp::<Fused>(f32::NAN).is_nan());
        assert_eq!(exp::<Fused>(100.0), f32::INFINITY);
    }

    #[test]
    fn the_largest_and_the_sum_are_those_of_plain_loops() {
        for n in [1, 15, 16, 17, 40, 333] {
            let values: Vec<f32> = (0..n).map(|i| ((i * 7919) % 101) as f32 / 7.0 - 9.0).collect();
            assert_eq!(largest(&values), values.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let mut lanes = [0f32; LANES];
            values.iter().enumerate().for_each(|(i, v)| lanes[i % LANES] += v * v);
            assert_eq!(sum_of(&values, |v| v * v).to_bits(), fold(lanes).to_bits());
            for i in [0, n / 2, n - 1] {
                let mut bad = values.clone();
                bad[i] = f32::NAN;
                assert!(largest(&bad).is_nan(), "{n} values, the {i}th is none");
            }
        }
        assert_eq!(largest(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn tanh_is_accurate() {
        let mut x = -10f32;
        while x < 10.0 {
            assert!((tanh::<Fused>(x) - x.tanh()).abs() <= 3e-7, "tanh({x})");
            x += 0.011;
        }
    }
}
