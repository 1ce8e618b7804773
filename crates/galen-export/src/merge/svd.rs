//! The best approximation of a matrix by two of a rank: `B = U S`, `A = V'` of the singular value decomposition.
//!
//! By the eigenvectors of the smaller Gram matrix in f64, whose squared condition costs half the digits of 16: singular
//! values above 1e-7 of the largest are right to f32. A sum of low-rank branches is first brought to a small core
//! (`Q_b (R_b R_a') Q_a'`), so that no large matrix is decomposed.

use galen_adapter::LowRank;
use nalgebra::{DMatrix, SymmetricEigen};

/// A and B `[r, m]`, `[n, r]`, row-major; zero where the rank is less than `r`.
type Factors = (Vec<f32>, Vec<f32>);

/// `scale B A`, row-major.
pub(super) fn product(l: &LowRank, n: usize, m: usize) -> Vec<f32> {
    let mut out = vec![0f32; n * m];
    for (row, b) in out.chunks_exact_mut(m).zip(l.b.chunks_exact(l.r)) {
        for (a, b) in l.a.chunks_exact(m).zip(b) {
            row.iter_mut().zip(a).for_each(|(o, a)| *o += b * a);
        }
        row.iter_mut().for_each(|o| *o *= l.scale);
    }
    out
}

/// Of a sum of branches, each with its weight.
pub(super) fn of_branches(branches: &[(LowRank, f64)], n: usize, m: usize, r: usize) -> Factors {
    let total: usize = branches.iter().map(|(l, _)| l.r).sum();
    if total >= n.min(m) {
        let mut sum = vec![0f32; n * m];
        for (l, w) in branches {
            sum.iter_mut().zip(product(l, n, m)).for_each(|(s, v)| *s += v * *w as f32);
        }
        return of_matrix(&sum, n, m, r);
    }
    let (mut b, mut a) = (DMatrix::<f64>::zeros(n, total), DMatrix::<f64>::zeros(m, total));
    let mut at = 0;
    for (l, w) in branches {
        let weight = w * f64::from(l.scale);
        for k in 0..l.r {
            (0..n).for_each(|i| b[(i, at + k)] = weight * f64::from(l.b[i * l.r + k]));
            (0..m).for_each(|j| a[(j, at + k)] = f64::from(l.a[k * m + j]));
        }
        at += l.r;
    }
    let (b, a) = (b.qr(), a.qr());
    let (u, v) = decomposed(&(b.r() * a.r().transpose()), r);
    rows(&(b.q() * u), &(a.q() * v), r)
}

/// Of a matrix `[n, m]`, row-major.
pub(super) fn of_matrix(matrix: &[f32], n: usize, m: usize, r: usize) -> Factors {
    let matrix = DMatrix::from_row_iterator(n, m, matrix.iter().map(|v| f64::from(*v)));
    let (u, v) = decomposed(&matrix, r);
    rows(&u, &v, r)
}

/// `U S` and `V`, the `r` columns of largest singular values.
fn decomposed(matrix: &DMatrix<f64>, r: usize) -> (DMatrix<f64>, DMatrix<f64>) {
    let (n, m) = matrix.shape();
    if n > m {
        // From the other side: the columns come out scaled on V.
        let (v, u) = decomposed(&matrix.transpose(), r);
        let (mut u, mut v) = (u, v);
        for k in 0..v.ncols() {
            let s = v.column(k).norm();
            u.column_mut(k).scale_mut(s);
            v.column_mut(k).scale_mut(if s > 0.0 { 1.0 / s } else { 0.0 });
        }
        return (u, v);
    }
    let eigen = SymmetricEigen::new(matrix * matrix.transpose());
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
    order.truncate(r);
    let largest = order.first().map_or(0.0, |k| eigen.eigenvalues[*k].max(0.0));
    let (mut u, mut v) = (DMatrix::zeros(n, order.len()), DMatrix::zeros(m, order.len()));
    for (to, from) in order.into_iter().enumerate() {
        let column = eigen.eigenvectors.column(from);
        let right = matrix.tr_mul(&column);
        let s = right.norm();
        if s * s > 1e-14 * largest && s > 0.0 {
            u.set_column(to, &(column * s));
            v.set_column(to, &(right / s));
        }
    }
    (u, v)
}

fn rows(u: &DMatrix<f64>, v: &DMatrix<f64>, r: usize) -> Factors {
    let (n, m) = (u.nrows(), v.nrows());
    let (mut a, mut b) = (vec![0f32; r * m], vec![0f32; n * r]);
    for k in 0..u.ncols().min(r) {
        (0..m).for_each(|j| a[k * m + j] = v[(j, k)] as f32);
        (0..n).for_each(|i| b[i * r + k] = u[(i, k)] as f32);
    }
    (a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, key: u64) -> Vec<f32> {
        (0..n as u64).map(|i| (galen_adapter::uniform(&[key], i) - 0.5) as f32).collect()
    }

    fn back(factors: &Factors, n: usize, m: usize, r: usize) -> Vec<f32> {
        product(&LowRank { a: &factors.0, b: &factors.1, r, scale: 1.0 }, n, m)
    }

    #[test]
    fn full_rank_gives_the_matrix_back_whatever_its_shape() {
        for (n, m) in [(5, 9), (9, 5), (6, 6)] {
            let matrix = values(n * m, 3);
            let r = n.min(m) + 1;
            let got = back(&of_matrix(&matrix, n, m, r), n, m, r);
            for (a, b) in got.iter().zip(&matrix) {
                assert!((a - b).abs() < 1e-6, "{a} {b}");
            }
        }
    }

    #[test]
    fn branches_give_what_their_sum_gives() {
        let (n, m, r) = (12, 17, 3);
        let (a, b, c, d) = (values(2 * m, 1), values(2 * n, 2), values(3 * m, 3), values(3 * n, 4));
        let one = LowRank { a: &a, b: &b, r: 2, scale: 2.0 };
        let two = LowRank { a: &c, b: &d, r: 3, scale: 0.5 };
        let weigh =
            |l: &LowRank, w: f32| product(l, n, m).into_iter().map(move |v| v * w).collect::<Vec<_>>();
        let sum: Vec<f32> = weigh(&one, 0.7).iter().zip(weigh(&two, -0.4)).map(|(x, y)| x + y).collect();
        let thin = back(&of_branches(&[(one, 0.7), (two, -0.4)], n, m, r), n, m, r);
        let whole = back(&of_matrix(&sum, n, m, r), n, m, r);
        for (x, y) in thin.iter().zip(&whole) {
            assert!((x - y).abs() < 1e-6, "{x} {y}");
        }
    }
}
