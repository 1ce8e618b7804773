//! Spherical linear interpolation (Shoemake 1985) of two changes, as mergekit has it: with theta the angle between them as vectors,
//! `sin((1 - t) theta) / sin(theta) D_0 + sin(t theta) / sin(theta) D_1`, straight interpolation where they point almost the same way.
//!
//! The result is a sum of both branches, so that neither change is formed: their angle comes from the factors,
//! `<B_0 A_0, B_1 A_1>` being the sum over `(B_0' B_1)` times `(A_0 A_1')`, elementwise.

use super::{MergeOptions, On};
use crate::error::{Result, cannot};
use galen_adapter::{Adapter, LowRank, ModuleShape};

/// mergekit's: a cosine beyond this counts as the same direction.
const SAME_DIRECTION: f64 = 0.9995;
/// mergekit's: no length below this is divided by.
const EPS: f64 = 1e-8;
/// `t` where nothing is said.
pub(super) const HALF_WAY: f64 = 0.5;

/// Errors: another number of adapters than two, weights beside `t`, a `t` off the arc or for another method.
pub(super) fn check(adapters: &[(&Adapter, f64)], options: &MergeOptions) -> Result<()> {
    if options.method.on != On::Arc {
        return match options.t {
            Some(_) => cannot(
                format!("`--t`, and `{}` knows no arc", options.method.name),
                "leave it out, or `--method slerp`",
            ),
            None => Ok(()),
        };
    }
    if adapters.len() != 2 {
        return cannot(
            format!("`slerp` is between two adapters, not {}", adapters.len()),
            "merge two at a time",
        );
    }
    if adapters.iter().any(|(_, weight)| *weight != 1.0) {
        return cannot("`slerp` takes no weights", "`--t 0.3` is nearer to the first adapter");
    }
    match options.t {
        Some(t) if !(0.0..=1.0).contains(&t) => {
            cannot(format!("`--t {t}`"), "0 is the first adapter, 1 the second")
        }
        _ => Ok(()),
    }
}

/// The branches of one projection with the factors that slerp gives them.
pub(super) fn weighed<'a>(
    adapters: &[(&'a Adapter, f64)],
    shape: &ModuleShape,
    t: f64,
) -> Vec<(LowRank<'a>, f64)> {
    let branches: Vec<Option<LowRank>> =
        adapters.iter().map(|(a, _)| a.low_rank(shape.layer, shape.module)).collect();
    let inner = |x: usize, y: usize| match (&branches.get(x), &branches.get(y)) {
        (Some(Some(x)), Some(Some(y))) => inner(x, y, shape.inputs),
        _ => 0.0,
    };
    let lengths = [inner(0, 0).max(0.0).sqrt(), inner(1, 1).max(0.0).sqrt()];
    // A change of no length stays as it is under mergekit's normalisation.
    let unit = lengths.map(|l| if l > EPS { l } else { 1.0 });
    let factors = factors(inner(0, 1) / (unit[0] * unit[1]), t);
    branches.into_iter().zip(factors).filter_map(|(branch, factor)| Some((branch?, factor))).collect()
}

/// Of both, by the cosine of their angle.
fn factors(cosine: f64, t: f64) -> [f64; 2] {
    if cosine.abs() > SAME_DIRECTION {
        return [1.0 - t, t];
    }
    let theta = cosine.acos();
    [((1.0 - t) * theta).sin() / theta.sin(), (t * theta).sin() / theta.sin()]
}

/// The inner product of two changes.
fn inner(x: &LowRank, y: &LowRank, inputs: usize) -> f64 {
    let mut sum = 0f64;
    for i in 0..x.r {
        for j in 0..y.r {
            let a: f64 = x.a[i * inputs..(i + 1) * inputs]
                .iter()
                .zip(&y.a[j * inputs..(j + 1) * inputs])
                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                .sum();
            let (left, right) = (x.b.iter().skip(i).step_by(x.r), y.b.iter().skip(j).step_by(y.r));
            let b: f64 = left.zip(right).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            sum += a * b;
        }
    }
    sum * f64::from(x.scale) * f64::from(y.scale)
}

#[cfg(test)]
mod tests {
    use super::factors;

    #[test]
    fn the_arc_between_unit_vectors() {
        let close = |got: [f64; 2], want: [f64; 2]| {
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12), "{got:?} for {want:?}");
        };
        let half = std::f64::consts::FRAC_1_SQRT_2;
        close(factors(0.0, 0.5), [half, half]);
        close(factors(0.0, 0.0), [1.0, 0.0]);
        close(factors(-0.5, 1.0), [0.0, 1.0]);
        close(factors(0.9996, 0.25), [0.75, 0.25]);
        close(factors(-1.0, 0.25), [0.75, 0.25]);
    }
}
