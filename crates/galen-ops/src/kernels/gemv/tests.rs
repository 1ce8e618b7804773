//! Against sums in f64, for every format; run once for each `GALEN_ISA`.

use super::*;
use crate::mmap::Bytes;
use crate::quant::{Dots, FORMATS, WeightDtype, dequantize};
use integer::{Codes, GROUP};

pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// In (-1, 1).
    pub(super) fn value(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }
}

/// Blocks of any bytes whose values are neither huge nor tiny (scales are drawn with them).
pub(super) fn matrix(r: &mut Random, dtype: WeightDtype, rows: usize, cols: usize) -> QuantMatrix {
    if dtype == WeightDtype::Nf4 {
        let values: Vec<f32> = (0..rows * cols).map(|_| r.value()).collect();
        return QuantMatrix::quantize_nf4(rows, cols, &values).unwrap();
    }
    let (size, width) = (dtype.block_size(), dtype.block_bytes());
    let mut bytes = Vec::new();
    let mut values = vec![0f32; size];
    while bytes.len() < rows * cols / size * width {
        let block: Vec<u8> = (0..width).map(|_| r.next() as u8).collect();
        dequantize(dtype, &block, &mut values).unwrap();
        let largest =
            values.iter().fold(0f32, |m, v| if v.is_nan() { f32::INFINITY } else { m.max(v.abs()) });
        if (1e-2..1e3).contains(&largest) {
            bytes.extend(block);
        }
    }
    QuantMatrix::new(dtype, rows, cols, Bytes::from(bytes)).unwrap()
}

/// For each element: the sum in f64, and the sum of magnitudes.
pub(super) fn reference(x: &[f32], w: &[f32], k: usize) -> Vec<(f64, f64)> {
    let mut out = Vec::new();
    for x in x.chunks_exact(k) {
        for w in w.chunks_exact(k) {
            let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
            out.push((products.clone().sum(), products.map(f64::abs).sum()));
        }
    }
    out
}

fn check(what: &str, got: &[f32], want: &[(f64, f64)], before: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, (sum, magnitude))) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - sum - before).abs();
        assert!(error <= 1e-6 * (magnitude + before), "{what} [{i}]: {got} for {sum}");
    }
}

pub(super) fn one(m: usize, x: &[f32], w: Weights, y: &mut [f32], accumulate: bool) {
    gemv(m, &mut [Product { x, w, y, accumulate }]);
}

pub(super) fn on<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

#[test]
fn every_format_and_size_equals_the_reference_whatever_the_rows_and_threads() {
    let r = &mut Random(5);
    for format in FORMATS {
        let sizes: &[(usize, usize)] = match format.block_size {
            1 => &[(1, 1), (5, 16), (3, 7), (37, 48), (6, 100), (300, 333)],
            size @ (32 | 64) => &[(1, size), (7, 3 * size), (130, 18 * size), (515, 9 * size)],
            size => &[(1, size), (6, 2 * size), (131, 3 * size)],
        };
        for (n, k) in sizes.iter().copied() {
            let w = matrix(r, format.dtype, n, k);
            let values = w.to_f32();
            for m in [1, 2, 3, 4, 5, 7, 8, 9, 17] {
                let what = format!("{} m {m} n {n} k {k}", format.name);
                let x: Vec<f32> = (0..m * k).map(|_| r.value()).collect();
                let want = reference(&x, &values, k);
                let run = |threads: usize, accumulate: bool| {
                    let mut y = vec![if accumulate { 1.5 } else { f32::NAN }; m * n];
                    on(threads, || one(m, &x, Weights::Stored(&w), &mut y, accumulate));
                    y
                };
                let y = run(1, false);
                check(&what, &y, &want, 0.0);
                check(&what, &run(1, true), &want, 1.5);
                for threads in [2, 3] {
                    assert!(run(threads, false) == y, "{what}: {threads} threads");
                }
                for (i, x) in x.chunks_exact(k).enumerate() {
                    let mut row = vec![f32::NAN; n];
                    one(1, x, Weights::Stored(&w), &mut row, false);
                    assert!(row == y[i * n..(i + 1) * n], "{what}: row {i} alone");
                }
            }
        }
    }
}

#[test]
fn dense_weights_are_like_stored_ones() {
    let r = &mut Random(6);
    for (m, n, k) in [(1, 1, 1), (3, 16, 576), (8, 1536, 16), (2, 9, 31), (4, 70, 8), (5, 3, 0)] {
        let values: Vec<f32> = (0..n * k).map(|_| r.value()).collect();
        let x: Vec<f32> = (0..m * k).map(|_| r.value()).collect();
        let w = Weights::Dense { values: &values, n, k };
        let mut y = vec![f32::NAN; m * n];
        one(m, &x, w, &mut y, false);
        let want = if k == 0 { vec![(0.0, 0.0); m * n] } else { reference(&x, &values, k) };
        check(&format!("{m} {n} {k}"), &y, &want, 0.0);
        one(m, &x, w, &mut y, true);
        let twice: Vec<_> = want.iter().map(|(s, a)| (2.0 * s, 2.0 * a)).collect();
        check(&format!("{m} {n} {k} twice"), &y, &twice, 0.0);
    }
}

#[test]
fn products_of_one_call_are_like_calls_of_their_own() {
    let r = &mut Random(7);
    for m in [1, 3] {
        let ws = [(640, 256), (3, 96), (0, 32), (192, 512)].map(|(n, k)| matrix(r, WeightDtype::Q4_1, n, k));
        let xs = ws.each_ref().map(|w| (0..m * w.cols()).map(|_| r.value()).collect::<Vec<f32>>());
        let blank = ws.each_ref().map(|w| vec![0.5f32; m * w.rows()]);
        let (mut apart, mut together) = (blank.clone(), blank);
        for (i, ((w, x), y)) in ws.iter().zip(&xs).zip(&mut apart).enumerate() {
            one(m, x, Weights::Stored(w), y, i % 2 == 1);
        }
        let each = ws.iter().zip(&xs).zip(&mut together).enumerate();
        let mut products: Vec<Product> = each
            .map(|(i, ((w, x), y))| Product { x, w: Weights::Stored(w), y, accumulate: i % 2 == 1 })
            .collect();
        on(3, || gemv(m, &mut products));
        assert!(apart == together);
    }
}

#[test]
fn a_nan_is_seen() {
    let w = QuantMatrix::from_f32(20, 32, &vec![0.5; 640]).unwrap();
    let mut x = vec![1.0; 64];
    x[40] = f32::NAN;
    let mut y = vec![0.0; 40];
    one(2, &x, Weights::Stored(&w), &mut y, false);
    assert!(y[..20].iter().all(|y| *y == 16.0) && y[20..].iter().all(|y| y.is_nan()));
}

/// `y` by a given path of the integer kernel.
fn by_path(m: usize, x: &[f32], w: &QuantMatrix, path: integer::Path) -> Vec<f32> {
    let codes = Codes::new(m, x, w.cols(), path);
    let mut y = vec![f32::NAN; m * w.rows()];
    for i0 in (0..m).step_by(MAX_ROWS) {
        let out = Out { values: y.as_mut_ptr(), n: w.rows(), accumulate: false };
        // SAFETY: the whole of Y is this call's.
        unsafe {
            codes.columns(Weights::Stored(w), i0..m.min(i0 + MAX_ROWS), 0..w.rows(), out.below(i0));
        }
    }
    y
}

/// `(sum, magnitude)` of the products with activations rounded to multiples of their group's largest over 127, and
/// how far that rounding may move the sum.
pub(super) fn rounded_reference(x: &[f32], w: &[f32], k: usize) -> (Vec<(f64, f64)>, Vec<f64>) {
    let largest = |group: &[f32]| group.iter().fold(0f32, |m, v| m.max(v.abs()));
    let scale = |group: &[f32]| f64::from(largest(group)) / 127.0;
    let round = |group: &[f32]| -> Vec<f64> {
        let (s, inverse) = (scale(group), 127.0 / largest(group));
        let code = |v: &f32| if s > 0.0 { f64::from((v * inverse).round_ties_even()) } else { 0.0 };
        group.iter().map(|v| code(v) * s).collect()
    };
    let (mut sums, mut bounds) = (Vec::new(), Vec::new());
    for x in x.chunks_exact(k) {
        let rounded: Vec<f64> = x.chunks(GROUP).flat_map(round).collect();
        for w in w.chunks_exact(k) {
            let products = rounded.iter().zip(w).map(|(x, w)| x * f64::from(*w));
            sums.push((products.clone().sum(), products.map(f64::abs).sum()));
            let groups = x.chunks(GROUP).zip(w.chunks(GROUP));
            let moved =
                |(x, w): (&[f32], &[f32])| scale(x) / 2.0 * w.iter().map(|w| f64::from(w.abs())).sum::<f64>();
            bounds.push(groups.map(moved).sum());
        }
    }
    (sums, bounds)
}

#[test]
fn integer_products_are_exact_but_for_the_rounding_of_x_on_every_path() {
    let r = &mut Random(11);
    for format in FORMATS.iter().filter(|f| f.dtype.has_integer_codes()) {
        let sizes = match format.block_size {
            32 => [(1, 32), (7, 96), (130, 18 * 32), (37, 48 * 32)],
            size => [(1, size), (6, 2 * size), (131, 3 * size), (9, 5 * size)],
        };
        for (n, k) in sizes {
            let w = matrix(r, format.dtype, n, k).with_dots(Dots::Integer);
            let values = w.to_f32();
            for m in [1, 2, 3, 4, 5, 8, 9] {
                let mut x: Vec<f32> = (0..m * k).map(|_| r.value()).collect();
                x[..GROUP.min(k)].fill(0.0);
                let exact = reference(&x, &values, k);
                let (rounded, bounds) = rounded_reference(&x, &values, k);
                let mut first: Option<Vec<f32>> = None;
                for path in integer::paths() {
                    let what = format!("{} m {m} n {n} k {k} {path:?}", format.name);
                    let y = by_path(m, &x, &w, path);
                    for (i, got) in y.iter().map(|y| f64::from(*y)).enumerate() {
                        // Offsets of whole blocks cancel: what rounds is larger than the products themselves.
                        let rounding = 4e-6 * (rounded[i].1 + exact[i].1);
                        let off = (got - rounded[i].0).abs();
                        assert!(off <= rounding, "{what} [{i}]: {got} for {}", rounded[i].0);
                        let off = (got - exact[i].0).abs();
                        assert!(off <= bounds[i] + rounding, "{what} [{i}]: {got} for {}", exact[i].0);
                    }
                    if path != integer::Path::Portable {
                        let first = first.get_or_insert_with(|| y.clone());
                        assert!(*first == y, "{what}: not the bits of the first path");
                    }
                    let run = |threads: usize| {
                        let mut y = vec![f32::NAN; m * n];
                        on(threads, || one(m, &x, Weights::Stored(&w), &mut y, false));
                        y
                    };
                    if path == integer::paths()[0] {
                        assert!(run(1) == y && run(3) == y, "{what}: threads");
                        for (i, x) in x.chunks_exact(k).enumerate() {
                            assert!(
                                by_path(1, x, &w, path) == y[i * n..(i + 1) * n],
                                "{what}: row {i} alone"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn integer_products_add_share_x_and_leave_other_formats_exact() {
    let r = &mut Random(12);
    let k = 64;
    let ws = [WeightDtype::Q4_0, WeightDtype::F16, WeightDtype::Q8_0, WeightDtype::Nf4];
    let ws = ws.map(|dtype| matrix(r, dtype, 10, k).with_dots(Dots::Integer));
    let x: Vec<f32> = (0..2 * k).map(|_| r.value()).collect();
    let mut ys = ws.each_ref().map(|_| vec![1.5f32; 20]);
    let each = ws.iter().zip(&mut ys);
    let mut products: Vec<Product> =
        each.map(|(w, y)| Product { x: &x, w: Weights::Stored(w), y, accumulate: true }).collect();
    gemv(2, &mut products);
    for (w, y) in ws.iter().zip(&ys) {
        let alone = if w.dtype().has_integer_codes() {
            by_path(2, &x, w, integer::paths()[0])
        } else {
            let mut y = vec![0.0; 20];
            one(2, &x, Weights::Stored(&w.clone().with_dots(Dots::Float)), &mut y, false);
            y
        };
        assert!(y.iter().zip(&alone).all(|(y, a)| *y == 1.5 + a), "{}", w.dtype());
    }
}

#[test]
fn what_is_no_number_is_seen_in_integers_too() {
    let r = &mut Random(13);
    let w = matrix(r, WeightDtype::Q4_1, 4, 64);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = vec![0.25; 128];
        x[100] = bad;
        for path in integer::paths() {
            let y = by_path(2, &x, &w, path);
            assert!(y[..4].iter().all(|y| y.is_finite()) && y[4..].iter().all(|y| y.is_nan()), "{path:?}");
        }
    }
}
