//! The search for a block's scale and minimum.

/// Candidate scales on either side of the one that just covers the range, and the step between them in codes.
const CANDIDATES: i32 = 10;
const STEP: f32 = 0.1;
/// Rounds of rounding and fitting after the best candidate.
const ROUNDS: usize = 2;
const LANES: usize = 8;

/// The nearest integer for magnitudes below 2^22: adding and taking away 1.5 * 2^23 leaves no fraction. Vectorises where
/// `f32::round` is a call.
#[inline]
pub(super) fn nearest(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC) - MAGIC
}

/// Sums over a block in eight interleaved chains.
#[inline]
fn sums<const N: usize, const K: usize>(term: impl Fn(usize) -> [f32; K]) -> [f64; K] {
    let mut lanes = [[0f32; LANES]; K];
    for start in (0..N).step_by(LANES) {
        for i in 0..LANES {
            let terms = term(start + i);
            for k in 0..K {
                lanes[k][i] += terms[k];
            }
        }
    }
    lanes.map(|lane| lane.iter().map(|v| f64::from(*v)).sum())
}

/// Squared error of `scale * q + min` with the best codes `q` in `0..=top`.
#[inline]
pub(super) fn affine_error<const N: usize>(x: &[f32; N], top: f32, scale: f32, min: f32) -> f64 {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let [error] = sums::<N, 1>(|i| {
        let q = nearest((x[i] - min) * inverse).clamp(0.0, top);
        let e = x[i] - (scale * q + min);
        [e * e]
    });
    error
}

/// Codes in `0..=top` of `(x - min) / scale`.
#[inline]
pub(super) fn affine_codes<const N: usize>(x: &[f32; N], top: f32, scale: f32, min: f32) -> [u8; N] {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut codes = [0u8; N];
    for (code, x) in codes.iter_mut().zip(x) {
        *code = nearest((x - min) * inverse).clamp(0.0, top) as u8;
    }
    codes
}

/// Scale and minimum of `x ~ scale q + min`, `q` in `0..=top`, with little squared error. `min` is at most zero where
/// `below_zero` says so (k-quants subtract it).
#[inline]
pub(super) fn affine<const N: usize>(x: &[f32; N], top: f32, below_zero: bool) -> (f32, f32) {
    let low = x.iter().copied().fold(f32::INFINITY, f32::min);
    let high = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let low = if below_zero { low.min(0.0) } else { low };
    if high <= low {
        return (0.0, low);
    }
    // The least-squares fit to the codes that a scale and minimum give.
    let refit = |inverse: f32, min: f32| {
        let [l, ll, xl, sum] = sums::<N, 4>(|i| {
            let q = nearest((x[i] - min) * inverse).clamp(0.0, top);
            [q, q * q, x[i] * q, x[i]]
        });
        let n = N as f64;
        let determinant = n * ll - l * l;
        if determinant <= 0.0 {
            return None;
        }
        let (mut scale, mut min) = ((n * xl - sum * l) / determinant, (ll * sum - l * xl) / determinant);
        if below_zero && min > 0.0 {
            (scale, min) = (xl / ll, 0.0);
        }
        Some((scale as f32, min as f32))
    };
    let span = high - low;
    let mut best = (span / top, low);
    let mut least = affine_error(x, top, best.0, best.1);
    let mut consider = |fit: Option<(f32, f32)>| {
        let (scale, min) = fit?;
        if scale.is_nan() || scale <= 0.0 {
            return None;
        }
        let error = affine_error(x, top, scale, min);
        if error < least {
            (least, best) = (error, (scale, min));
        }
        Some((scale, min))
    };
    for i in -CANDIDATES..=CANDIDATES {
        let mut at = consider(refit((top + STEP * i as f32) / span, low));
        for _ in 1..ROUNDS {
            at = at.and_then(|(scale, min)| consider(refit(1.0 / scale, min)));
        }
    }
    best
}

/// Squared error of `scale * q` with the best codes `q` in `-half..=half - 1`.
#[inline]
pub(super) fn symmetric_error<const N: usize>(x: &[f32; N], half: f32, scale: f32) -> f64 {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let [error] = sums::<N, 1>(|i| {
        let q = nearest(x[i] * inverse).clamp(-half, half - 1.0);
        let e = x[i] - scale * q;
        [e * e]
    });
    error
}

/// Codes of `x / scale` in `-half..=half - 1`, counted from zero.
#[inline]
pub(super) fn symmetric_codes<const N: usize>(x: &[f32; N], half: f32, scale: f32) -> [u8; N] {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut codes = [0u8; N];
    for (code, x) in codes.iter_mut().zip(x) {
        *code = (nearest(x * inverse).clamp(-half, half - 1.0) + half) as u8;
    }
    codes
}

/// The signed scale of `x ~ scale q`, `q` in `-half..=half - 1`, with little squared error. The sign is the one that puts
/// the value of largest magnitude on the side with a code more.
#[inline]
pub(super) fn symmetric<const N: usize>(x: &[f32; N], half: f32) -> f32 {
    let largest = x.iter().copied().fold(0f32, |a, b| if b.abs() > a.abs() { b } else { a });
    if largest == 0.0 {
        return 0.0;
    }
    let refit = |inverse: f32| {
        let [xl, ll] = sums::<N, 2>(|i| {
            let q = nearest(x[i] * inverse).clamp(-half, half - 1.0);
            [x[i] * q, q * q]
        });
        // The fit takes (xl)^2 / ll off the error.
        (ll > 0.0).then(|| ((xl / ll) as f32, xl * xl / ll))
    };
    let mut best = (-largest / half, f64::NEG_INFINITY);
    for i in -CANDIDATES..=CANDIDATES {
        let mut at = -(half + STEP * i as f32) / largest;
        for _ in 0..ROUNDS {
            let Some((scale, gain)) = refit(at).filter(|(scale, _)| *scale != 0.0) else { break };
            if gain > best.1 {
                best = (scale, gain);
            }
            at = 1.0 / scale;
        }
    }
    best.0
}

/// Half precision, as a value again: codes are chosen for the scale that is stored.
#[inline]
pub(super) fn half_precision(x: f32) -> (f32, [u8; 2]) {
    let h = half::f16::from_f32(x);
    (h.to_f32(), h.to_le_bytes())
}
