//! Interleaved rows against sums in f64 and against the products without a copy. The portable path has no
//! kernels for them: there a matrix takes no copy, and that is what is tested.

use super::tests::{Random, matrix, on, one, reference, rounded_reference};
use super::*;
use crate::quant::{Dots, WeightDtype};
use half::f16;

const FORMATS: [WeightDtype; 3] = [WeightDtype::Q4_0, WeightDtype::Q4_1, WeightDtype::Q8_0];
const SIZES: [(usize, usize); 6] = [(1, 32), (7, 96), (8, 64), (130, 576), (37, 1536), (515, 288)];

/// For each element the sum of magnitudes of what is added: largest code times scale, and minimum, times |x|.
fn magnitudes(x: &[f32], w: &QuantMatrix) -> Vec<f64> {
    let width = w.dtype().block_bytes();
    let half =
        |bytes: &[u8], i: usize| f64::from(f16::from_le_bytes([bytes[i], bytes[i + 1]]).to_f32()).abs();
    let of_block = |block: &[u8]| match w.dtype() {
        WeightDtype::Q4_0 => 23.0 * half(block, 0),
        WeightDtype::Q4_1 => 15.0 * half(block, 0) + half(block, 2),
        _ => 128.0 * half(block, 0),
    };
    let mut out = Vec::new();
    for x in x.chunks_exact(w.cols()) {
        for row in 0..w.rows() {
            let blocks = w.row_bytes(row).chunks_exact(width).zip(x.chunks_exact(32));
            let sum = |x: &[f32]| x.iter().map(|x| f64::from(x.abs())).sum::<f64>();
            out.push(blocks.map(|(block, x)| of_block(block) * sum(x)).sum());
        }
    }
    out
}

/// Y by 1, 2 and 3 threads and row by row: the same bits.
fn product(what: &str, m: usize, x: &[f32], w: &QuantMatrix) -> Vec<f32> {
    let run = |threads: usize, accumulate: bool| {
        let mut y = vec![if accumulate { 1.5 } else { f32::NAN }; m * w.rows()];
        on(threads, || one(m, x, Weights::Stored(w), &mut y, accumulate));
        y
    };
    let y = run(1, false);
    assert!(run(2, false) == y && run(3, false) == y, "{what}: threads");
    assert!(run(2, true).iter().zip(&y).all(|(sum, y)| *sum == 1.5 + y), "{what}: added");
    for (i, x) in x.chunks_exact(w.cols()).enumerate() {
        let mut row = vec![f32::NAN; w.rows()];
        one(1, x, Weights::Stored(w), &mut row, false);
        assert!(row == y[i * w.rows()..(i + 1) * w.rows()], "{what}: row {i} alone");
    }
    y
}

#[test]
fn exact_products_equal_the_reference_whatever_the_rows_and_threads() {
    let r = &mut Random(21);
    for dtype in FORMATS {
        for (n, k) in SIZES {
            let plain = matrix(r, dtype, n, k);
            let copied = plain.clone().with_interleaved();
            assert_eq!(copied.interleaved().is_some(), group_rows().is_some());
            for m in [1, 2, 3, 4, 5, 8, 9, 17] {
                let what = format!("{dtype} m {m} n {n} k {k}");
                let x: Vec<f32> = (0..m * k).map(|_| r.value()).collect();
                let (want, bounds) = (reference(&x, &plain.to_f32(), k), magnitudes(&x, &plain));
                for (i, y) in product(&what, m, &x, &copied).iter().enumerate() {
                    let error = (f64::from(*y) - want[i].0).abs();
                    assert!(error <= 1e-6 * bounds[i], "{what} [{i}]: {y} for {}", want[i].0);
                }
            }
        }
    }
}

#[test]
fn integer_products_round_x_alone_for_any_number_of_rows() {
    let r = &mut Random(22);
    for dtype in FORMATS {
        for (n, k) in SIZES {
            let plain = matrix(r, dtype, n, k).with_dots(Dots::Integer);
            let copied = plain.clone().with_interleaved();
            assert_eq!(copied.integer_copy(), group_rows().is_some() && dtype != WeightDtype::Q8_0);
            for m in [1, 2, 3, 5, 8, 9, 70] {
                let what = format!("{dtype} m {m} n {n} k {k}");
                let mut x: Vec<f32> = (0..m * k).map(|_| r.value()).collect();
                x[..32].fill(0.0);
                let values = plain.to_f32();
                let exact = reference(&x, &values, k);
                let (rounded, bounds) = rounded_reference(&x, &values, k);
                let magnitudes = magnitudes(&x, &plain);
                for (i, y) in product(&what, m, &x, &copied).iter().enumerate() {
                    let (y, rounding) = (f64::from(*y), 1e-6 * magnitudes[i]);
                    let off = (y - exact[i].0).abs();
                    assert!(off <= bounds[i] + rounding, "{what} [{i}]: {y} for {}", exact[i].0);
                    if copied.integer_copy() {
                        let off = (y - rounded[i].0).abs();
                        assert!(off <= rounding, "{what} [{i}]: {y} for {} rounded", rounded[i].0);
                    }
                }
            }
        }
    }
}

#[test]
fn largest_codes_do_not_overflow() {
    // Every nibble 15, d = 1, m = 0; every x at its group's largest: 15 x 127 in each of 32 products.
    let block = [&[0, 0x3c, 0, 0][..], &[0xff; 16]].concat();
    let w = QuantMatrix::new(WeightDtype::Q4_1, 9, 64, block.repeat(18).into()).unwrap();
    for sign in [1.0f32, -1.0] {
        for dots in [Dots::Float, Dots::Integer] {
            let y = product("largest", 2, &[sign; 128], &w.clone().with_dots(dots).with_interleaved());
            assert!(y.iter().all(|y| (y - sign * 960.0).abs() <= 1e-3), "{y:?}");
        }
    }
}

#[test]
fn what_is_no_number_is_seen() {
    let r = &mut Random(23);
    for dtype in FORMATS {
        for dots in [Dots::Float, Dots::Integer] {
            let w = matrix(r, dtype, 11, 64).with_dots(dots).with_interleaved();
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = vec![0.25; 128];
                x[100] = bad;
                let mut y = vec![0.0; 22];
                one(2, &x, Weights::Stored(&w), &mut y, false);
                assert!(y[..11].iter().all(|y| y.is_finite()), "{dtype} {dots:?}");
                assert!(y[11..].iter().all(|y| !y.is_finite()), "{dtype} {dots:?} {bad}: {y:?}");
            }
        }
    }
}
