//! The Cholesky factor of a positive definite matrix.

use rayon::prelude::*;

/// Columns whose entries are computed together, so that threads have something to do.
const PANEL: usize = 32;
const LANES: usize = 8;

/// L `[n, n]`, row-major, lower triangular, of `L L' = matrix`; none where the matrix is not positive definite. Columns by
/// panels: what earlier panels take away from a row is a product for each column, in any order of rows.
pub(super) fn factor(n: usize, matrix: impl Fn(usize, usize) -> f64 + Sync) -> Option<Vec<f64>> {
    let mut l = vec![0f64; n * n];
    l.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, row)| (0..=i).for_each(|j| row[j] = matrix(i, j)));
    for first in (0..n).step_by(PANEL) {
        let last = (first + PANEL).min(n);
        // The panel's own rows, one after the other.
        for i in first..last {
            let (above, row) = l.split_at_mut(i * n);
            let row = &mut row[..n];
            for j in first..i {
                let other = &above[j * n..(j + 1) * n];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
            let pivot = row[i] - dot(&row[..i], &row[..i]);
            if !(pivot > 0.0 && pivot.is_finite()) {
                return None;
            }
            row[i] = pivot.sqrt();
        }
        // Rows below.
        let (panel, below) = l.split_at_mut(last * n);
        below.par_chunks_mut(n).for_each(|row| {
            for j in first..last {
                let other = &panel[j * n..(j + 1) * n];
                row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
            }
        });
    }
    Some(l)
}

/// In eight interleaved chains.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a8, a_rest) = a.as_chunks::<LANES>();
    let (b8, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0f64; LANES];
    for (a, b) in a8.iter().zip(b8) {
        for k in 0..LANES {
            lanes[k] += a[k] * b[k];
        }
    }
    lanes.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_times_itself_is_the_matrix() {
        let n = 75;
        let x: Vec<f64> = (0..n * 100).map(|i| galen_adapter::uniform(&[5], i as u64) - 0.5).collect();
        let entry = |i: usize, j: usize| -> f64 { (0..100).map(|k| x[i * 100 + k] * x[j * 100 + k]).sum() };
        let l = factor(n, entry).expect("positive definite");
        for (i, j) in (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))) {
            let got: f64 = (0..=j).map(|k| l[i * n + k] * l[j * n + k]).sum();
            assert!((got - entry(i, j)).abs() <= 1e-10, "{i} {j}: {got}");
        }
        assert!(factor(2, |i, j| if i == j { 1.0 } else { 2.0 }).is_none());
        assert!(factor(1, |_, _| f64::NAN).is_none());
    }
}
