//! Elementary functions and row reductions in plain f32 arithmetic: the same bits in every lane and position.

use super::isa::Fma;

/// `e^x` to about 2 ulp (Cody-Waite reduction, degree 6 polynomial); 0 below -87.3, infinity above 88.7.
#[inline(always)]
pub(crate) fn exp<F: Fma>(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to the nearest integer
    let clamped = x.clamp(-87.336_54, 88.722_83);
    let shifted = F::fma(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = F::fma(n, -0.693_359_4, clamped);
    let r = F::fma(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    p = F::fma(p, r, 1.398_199_9e-3);
    p = F::fma(p, r, 8.333_452e-3);
    p = F::fma(p, r, 4.166_579_6e-2);
    p = F::fma(p, r, 1.666_666_5e-1);
    p = F::fma(p, r, 0.5);
    let y = F::fma(p, r * r, r) + 1.0;
    // 2^n in two steps, so that n = 128 does not overflow the exponent field.
    // The integer is the shifted number's last bits: a cast would be checked lane by lane.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()).cast_signed();
    let half = n >> 1;
    let scaled = y
        * f32::from_bits((half.wrapping_add(127) << 23).cast_unsigned())
        * f32::from_bits((n.wrapping_sub(half).wrapping_add(127) << 23).cast_unsigned());
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

/// Sum of `f` over index pairs in sixteen interleaved partial sums, folded in a fixed order. Element `i` always
/// falls into partial sum `i % 16`: trailing zeros change nothing.
#[inline(always)]
pub(crate) fn lane_sum(n: usize, mut f: impl FnMut(usize) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(i + lane);
        }
        i += LANES;
    }
    for (lane, sum) in lanes.iter_mut().enumerate().take(n - whole) {
        *sum += f(whole + lane);
    }
    fold(lanes)
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

/// The largest of `values` and `start`; a NaN among them wins.
#[inline(always)]
pub(crate) fn max_of(start: f32, values: &[f32]) -> f32 {
    // A NaN that is there already stays, as no comparison with it holds.
    let larger = |max: f32, x: f32| if x > max || x.is_nan() { x } else { max };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole {
        for (lane, x) in lanes.iter_mut().zip(values) {
            *lane = larger(*lane, *x);
        }
    }
    let all = lanes.into_iter().chain(rest.iter().copied());
    all.fold(start, larger)
}

/// `sum a_i b_i` in the order of [`lane_sum`].
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
        assert_eq!(exp::<Fused>(-200.0), 0.0);
        assert_eq!(exp::<Fused>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<Fused>(0.0), 1.0);
        assert!(exp::<Fused>(f32::NAN).is_nan());
        assert_eq!(exp::<Fused>(100.0), f32::INFINITY);
    }

    #[test]
    fn the_largest_is_found_wherever_it_is_and_a_nan_wins() {
        let mut values: Vec<f32> = (0..37u8).map(|i| f32::from(i % 7) - 9.0).collect();
        assert_eq!(max_of(f32::NEG_INFINITY, &values), -3.0);
        assert_eq!(max_of(1.5, &values), 1.5);
        for i in 0..values.len() {
            let kept = std::mem::replace(&mut values[i], 2.5);
            assert_eq!(max_of(f32::NEG_INFINITY, &values), 2.5, "at {i}");
            values[i] = f32::NAN;
            assert!(max_of(3.5, &values).is_nan(), "at {i}");
            values[i] = kept;
        }
        assert!(max_of(f32::NAN, &values).is_nan());
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
