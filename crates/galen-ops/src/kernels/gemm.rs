//! `C[m, n] (+)= A[m, k] B[k, n]` with B given panel by panel, so that frozen quantised weights are dequantised
//! straight into the second-level cache and never stored in full.

use super::micro::{CHAIN, MR, NR, tile};
use super::panels::Panels;
use rayon::prelude::*;
use std::cell::RefCell;

/// Rows of a panel held at once: `KC * NR` floats are 256 KiB, a quarter of a second-level cache.
const KC: usize = 2048;

/// The left operand, a matrix `[m, k]` whose element (i, p) is at `i * row + p * col`.
#[derive(Clone, Copy)]
pub(crate) struct Lhs<'a> {
    pub values: &'a [f32],
    pub row: usize,
    pub col: usize,
}

impl<'a> Lhs<'a> {
    /// Row-major `[m, k]`.
    pub fn rows(values: &'a [f32], k: usize) -> Self {
        Self { values, row: k, col: 1 }
    }

    /// The transpose of a row-major `[k, m]`.
    pub fn transposed(values: &'a [f32], m: usize) -> Self {
        Self { values, row: 1, col: m }
    }

    /// Packs `[k0, k0 + kc)` of every row block into `[block][kc][MR]`, zeros below the last row.
    fn pack(&self, m: usize, k0: usize, kc: usize, out: &mut [f32]) {
        for (block, out) in out.chunks_exact_mut(kc * MR).enumerate() {
            let rows = (m - block * MR).min(MR);
            let start = block * MR * self.row + k0 * self.col;
            if rows == MR && self.col == 1 {
                // Twelve rows read side by side, written without a gap.
                let rows: [&[f32]; MR] = std::array::from_fn(|i| {
                    let first = start + i * self.row;
                    &self.values[first..first + kc]
                });
                for (p, out) in out.as_chunks_mut::<MR>().0.iter_mut().enumerate() {
                    *out = std::array::from_fn(|i| rows[i][p]);
                }
            } else if self.row == 1 {
                for (p, out) in out.chunks_exact_mut(MR).enumerate() {
                    let first = start + p * self.col;
                    out[..rows].copy_from_slice(&self.values[first..first + rows]);
                    out[rows..].fill(0.0);
                }
            } else {
                out.fill(0.0);
                for i in 0..rows {
                    let first = start + i * self.row;
                    let values = &self.values[first..=first + (kc - 1) * self.col];
                    for (p, x) in values.iter().step_by(self.col).enumerate() {
                        out[p * MR + i] = *x;
                    }
                }
            }
        }
    }
}

/// C, shared by the tasks that write it.
#[derive(Clone, Copy)]
pub(crate) struct Out(pub(crate) *mut f32);
// SAFETY: tasks write disjoint tiles of C.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    /// Element `i` of C. Through a method, so that a task holds the whole wrapper rather than its pointer.
    pub(crate) fn at(self, i: usize) -> *mut f32 {
        self.0.wrapping_add(i)
    }
}

thread_local! {
    static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static PACKED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

fn grown(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// The product over all threads of the current pool. `c` is row-major `[m, n]`.
pub(crate) fn gemm(m: usize, n: usize, k: usize, a: Lhs, b: &dyn Panels, c: &mut [f32], accumulate: bool) {
    assert!(c.len() >= m * n, "C holds {} of {m} x {n}", c.len());
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            c[..m * n].fill(0.0);
        }
        return;
    }
    let (blocks, panels) = (m.div_ceil(MR), n.div_ceil(NR));
    // With few panels the rows are split too; each element is computed whole either way.
    let threads = rayon::current_num_threads();
    let groups = if panels >= 2 * threads { 1 } else { blocks.div_ceil(4).min(threads * 2).max(1) };
    let group_blocks = blocks.div_ceil(groups);
    let mut packed = vec![0f32; blocks * MR * k.min(KC)];
    let out = Out(c.as_mut_ptr());
    for k0 in (0..k).step_by(KC) {
        let kc = (k - k0).min(KC);
        let packed = &mut packed[..blocks * MR * kc];
        packed.par_chunks_mut(group_of(blocks, threads) * MR * kc).enumerate().for_each(|(i, part)| {
            let first = i * group_of(blocks, threads) * MR;
            let rest = Lhs { values: &a.values[first * a.row..], ..a };
            rest.pack(m - first, k0, kc, part);
        });
        let packed = &*packed;
        let accumulate = accumulate || k0 > 0;
        (0..panels * groups).into_par_iter().for_each(|task| {
            let (panel, group) = (task % panels, task / panels);
            let (j0, cols) = (panel * NR, (n - panel * NR).min(NR));
            PANEL.with_borrow_mut(|buffer| {
                let buffer = grown(buffer, kc * NR);
                b.fill(j0, cols, k0, kc, buffer);
                for block in group * group_blocks..((group + 1) * group_blocks).min(blocks) {
                    let i0 = block * MR;
                    let rows = (m - i0).min(MR);
                    for c0 in (0..kc).step_by(CHAIN) {
                        // SAFETY: the packed block and panel are full; tile (i0, j0) of C is this task's alone.
                        unsafe {
                            let a = packed.as_ptr().add((block * kc + c0) * MR);
                            let b = buffer.as_ptr().add(c0 * NR);
                            let c = out.at(i0 * n + j0);
                            tile((kc - c0).min(CHAIN), a, b, c, n, rows, cols, accumulate || c0 > 0);
                        }
                    }
                }
            });
        });
    }
}

fn group_of(blocks: usize, threads: usize) -> usize {
    blocks.div_ceil(threads).max(1)
}

/// The product on this thread alone, for small operands inside a task. C has row stride `ldc`.
pub(crate) fn gemm_serial(
    m: usize,
    n: usize,
    k: usize,
    a: Lhs,
    b: &dyn Panels,
    c: &mut [f32],
    ldc: usize,
    accumulate: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(c.len() >= (m - 1) * ldc + n, "C holds {} of {m} x {n} at stride {ldc}", c.len());
    if k == 0 {
        if !accumulate {
            (0..m).for_each(|i| c[i * ldc..i * ldc + n].fill(0.0));
        }
        return;
    }
    PACKED.with_borrow_mut(|packed| {
        PANEL.with_borrow_mut(|panel| {
            let blocks = m.div_ceil(MR);
            for k0 in (0..k).step_by(KC) {
                let kc = (k - k0).min(KC);
                let packed = grown(packed, blocks * MR * kc);
                a.pack(m, k0, kc, packed);
                for j0 in (0..n).step_by(NR) {
                    let cols = (n - j0).min(NR);
                    let panel = grown(panel, kc * NR);
                    b.fill(j0, cols, k0, kc, panel);
                    for block in 0..blocks {
                        let i0 = block * MR;
                        let rows = (m - i0).min(MR);
                        for c0 in (0..kc).step_by(CHAIN) {
                            // SAFETY: extents as asserted above; `c` is borrowed mutably.
                            unsafe {
                                let a = packed.as_ptr().add((block * kc + c0) * MR);
                                let b = panel.as_ptr().add(c0 * NR);
                                let c = c.as_mut_ptr().add(i0 * ldc + j0);
                                let accumulate = accumulate || k0 + c0 > 0;
                                tile((kc - c0).min(CHAIN), a, b, c, ldc, rows, cols, accumulate);
                            }
                        }
                    }
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::super::panels::{Rows, Transposed};
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) % 1000) as f32 / 500.0 - 1.0).collect()
    }

    fn reference(m: usize, n: usize, k: usize, a: &[f32], b: &[f32]) -> Vec<f64> {
        let mut c = vec![0f64; m * n];
        for i in 0..m {
            for p in 0..k {
                for j in 0..n {
                    c[i * n + j] += f64::from(a[i * k + p]) * f64::from(b[p * n + j]);
                }
            }
        }
        c
    }

    #[test]
    fn odd_sizes_equal_the_reference_and_any_number_of_rows_gives_the_same_bits() {
        for (m, n, k) in [(1, 1, 1), (13, 33, 5), (12, 32, 64), (25, 70, 2049), (3, 16, 100), (40, 31, 7)] {
            let (a, b) = (values(m * k, 1), values(k * n, 2));
            let mut bt = vec![0f32; n * k];
            for p in 0..k {
                for j in 0..n {
                    bt[j * k + p] = b[p * n + j];
                }
            }
            let mut c = vec![f32::NAN; m * n];
            gemm(m, n, k, Lhs::rows(&a, k), &Rows { values: &b, stride: n }, &mut c, false);
            for (c, r) in c.iter().zip(reference(m, n, k, &a, &b)) {
                let difference = (f64::from(*c) - r).abs();
                assert!(difference <= 1e-4 * (k as f64).sqrt(), "{m} {n} {k}: {c} for {r}");
            }
            let mut c2 = vec![f32::NAN; m * n];
            gemm_serial(m, n, k, Lhs::rows(&a, k), &Transposed { values: &bt, stride: k }, &mut c2, n, false);
            assert_eq!(c, c2);
            for i in 0..m {
                let mut row = vec![f32::NAN; n];
                let a = &a[i * k..(i + 1) * k];
                gemm(1, n, k, Lhs::rows(a, k), &Rows { values: &b, stride: n }, &mut row, false);
                assert_eq!(row, c[i * n..(i + 1) * n]);
            }
        }
    }

    #[test]
    fn accumulates_and_reads_a_transposed_left_operand() {
        let (m, n, k) = (14, 40, 9);
        let (a, b) = (values(m * k, 3), values(k * n, 4));
        let mut at = vec![0f32; m * k];
        for i in 0..m {
            for p in 0..k {
                at[p * m + i] = a[i * k + p];
            }
        }
        let mut c = vec![1f32; m * n];
        gemm(m, n, k, Lhs::transposed(&at, m), &Rows { values: &b, stride: n }, &mut c, true);
        for (c, r) in c.iter().zip(reference(m, n, k, &a, &b)) {
            assert!((f64::from(*c) - r - 1.0).abs() <= 1e-4);
        }
    }
}
