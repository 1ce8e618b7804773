//! The loops: a task takes a few panels, holds them in the second-level cache and runs all rows through them.

use super::lines::Lines;
use super::pack::PackedA;
use super::panels::Panels16;
use super::tile::{Layout, NR, Segment, Target, Tiler};
use crate::kernels::gemm::Out;
use rayon::prelude::*;
use std::cell::RefCell;

/// Longest inner dimension held at once, elements: long against the register tile's start and end, yet such that panels stay in the
/// second-level cache; the register tile's start and end are small against.
fn longest(layout: Layout) -> usize {
    match layout {
        Layout::Interleaved => 4096,
        Layout::Tiled => 1024,
    }
}

/// Bytes of panels a task holds at once: half of the second-level cache (processors with tiles have 2 MiB).
fn held(layout: Layout) -> usize {
    match layout {
        Layout::Interleaved => 512 << 10,
        Layout::Tiled => 1 << 20,
    }
}

/// A stretch of the inner dimension, with its own operands: `y = [x u] [W B]^T` is one product of two pieces.
pub(crate) struct Piece<'a> {
    pub a: &'a PackedA,
    pub b: &'a dyn Panels16,
}

/// What the sums are added to.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Start<'a> {
    /// Nothing: C is written.
    Zero,
    /// A value for each column.
    Bias(&'a [f32]),
}

thread_local! {
    static PANELS: RefCell<Lines> = RefCell::default();
}

/// A part of a piece: `[k0, k0 + kc)`.
#[derive(Clone, Copy)]
struct Part {
    piece: usize,
    k0: usize,
    kc: usize,
}

/// Cuts the pieces into stretches of at most `longest` in sum.
fn stretches(pieces: &[Piece], longest: usize) -> Vec<Vec<Part>> {
    let (mut all, mut now, mut room) = (Vec::new(), Vec::new(), longest);
    for (piece, Piece { a, .. }) in pieces.iter().enumerate() {
        let mut k0 = 0;
        while k0 < a.k() {
            let kc = (a.k() - k0).min(room);
            now.push(Part { piece, k0, kc });
            k0 += kc;
            // A part is padded to, or cut at, a whole panel's rows.
            room = room.saturating_sub(kc.next_multiple_of(NR));
            if room < NR || k0 < a.k() {
                all.push(std::mem::take(&mut now));
                room = longest;
            }
            room = room / NR * NR;
        }
    }
    if !now.is_empty() {
        all.push(now);
    }
    all
}

/// Panels a task takes: as many as fit, but so that the threads end together.
fn group(panels: usize, threads: usize, depth: usize, layout: Layout) -> usize {
    let fit = (held(layout) / (depth * NR * 2).max(1)).clamp(1, 16);
    let turns = |np: usize| panels.div_ceil(np).div_ceil(threads) * np;
    (1..=fit).rev().min_by_key(|np| turns(*np)).unwrap_or(1)
}

/// A new `C[m, n] = sum of the pieces`, row-major.
pub(crate) fn product16(m: usize, n: usize, pieces: &[Piece]) -> Vec<f32> {
    if pieces.iter().all(|p| p.a.k() == 0) {
        return vec![0.0; m * n];
    }
    // Not filled first: at these sizes that would take a twentieth of a training step.
    let mut c = Vec::with_capacity(m * n);
    // SAFETY: C has room for `m` rows of `n`, and as the sums are not empty every element of them is written.
    unsafe {
        run(m, n, pieces, Start::Zero, c.as_mut_ptr(), n);
        c.set_len(m * n);
    }
    c
}

/// `C[m, n] = start + sum of the pieces`, C row-major with row stride `ldc`, over all threads of the current pool.
pub(crate) fn gemm16(m: usize, n: usize, pieces: &[Piece], start: Start, c: &mut [f32], ldc: usize) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(n <= ldc && c.len() >= (m - 1) * ldc + n, "C holds {} of {m} x {n} at stride {ldc}", c.len());
    if let Start::Bias(bias) = start {
        c.chunks_mut(ldc).take(m).for_each(|row| row[..n].copy_from_slice(&bias[..n]));
    } else if pieces.iter().all(|p| p.a.k() == 0) {
        c.chunks_mut(ldc).take(m).for_each(|row| row[..n].fill(0.0));
    }
    // SAFETY: C was just seen to hold the rows.
    unsafe { run(m, n, pieces, start, c.as_mut_ptr(), ldc) }
}

/// # Safety
/// `c` has room for `m` rows of `n` with stride `ldc`, and holds their start unless that is [`Start::Zero`].
unsafe fn run(m: usize, n: usize, pieces: &[Piece], start: Start, c: *mut f32, ldc: usize) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(pieces.iter().all(|p| p.a.m() == m), "left operands of other than {m} rows");
    let layout = Layout::current();
    let stretches = stretches(pieces, longest(layout));
    let len = |stretch: &[Part]| stretch.iter().map(|p| layout.pairs(p.kc) * NR).sum::<usize>();
    let depth = stretches.iter().map(|s| 2 * len(s) / NR).max().unwrap_or(0);
    let (mr, panels) = (layout.rows(), n.div_ceil(NR));
    let blocks = m.div_ceil(mr);
    let threads = rayon::current_num_threads();
    let np = group(panels, threads, depth, layout);
    let tasks = panels.div_ceil(np);
    // With few panels the rows are split too; each element is computed whole either way.
    let row_tasks = if tasks >= threads { 1 } else { threads.div_ceil(tasks).min(blocks.div_ceil(4)).max(1) };
    let row_blocks = blocks.div_ceil(row_tasks);
    let out = Out(c);
    let task = |task: usize| {
        let (first, rows) = (task % tasks * np, task / tasks);
        let held = first..(first + np).min(panels);
        let cols = |panel: usize| (n - panel * NR).min(NR);
        PANELS.with_borrow_mut(|buffer| {
            let tiler = Tiler::new();
            for (s, stretch) in stretches.iter().enumerate() {
                let len = len(stretch);
                if buffer.len() < len * np {
                    buffer.resize(len * np);
                }
                for (panel, buffer) in held.clone().zip(buffer.chunks_exact_mut(len.max(1))) {
                    let mut rest = buffer;
                    for part in stretch {
                        let (now, later) = rest.split_at_mut(layout.pairs(part.kc) * NR);
                        let b = pieces[part.piece].b;
                        if b.ready(panel * NR, part.k0).is_none() {
                            b.fill(panel * NR, cols(panel), part.k0, part.kc, now);
                            now[part.kc.div_ceil(2) * NR..].fill(0);
                        }
                        rest = later;
                    }
                }
                let add = s > 0 || start != Start::Zero;
                for block in rows * row_blocks..((rows + 1) * row_blocks).min(blocks) {
                    for (panel, buffer) in held.clone().zip(buffer.chunks_exact(len.max(1))) {
                        let mut segments =
                            [Segment { a: std::ptr::null(), b: std::ptr::null(), pairs: 0 }; MAX_PARTS];
                        let mut offset = 0;
                        for (segment, part) in segments.iter_mut().zip(stretch) {
                            let piece = &pieces[part.piece];
                            let pairs = layout.pairs(part.kc);
                            let own = &buffer[offset..offset + pairs * NR];
                            let b = piece.b.ready(panel * NR, part.k0).map_or(own, |b| &b[..pairs * NR]);
                            let a = &piece.a.block(block, part.k0)[..pairs * mr];
                            *segment = Segment { a: a.as_ptr(), b: b.as_ptr(), pairs };
                            offset += pairs * NR;
                        }
                        let target = Target {
                            c: out.at(block * mr * ldc + panel * NR),
                            stride: ldc,
                            rows: (m - block * mr).min(mr),
                            cols: cols(panel),
                            add,
                        };
                        // SAFETY: the segments' slices have just been cut to size; the tile of C is this task's alone.
                        unsafe { tiler.tile(&segments[..stretch.len()], target) };
                    }
                }
            }
        });
    };
    assert!(stretches.iter().all(|s| s.len() <= MAX_PARTS), "more than {MAX_PARTS} pieces in a product");
    if threads == 1 || tasks * row_tasks == 1 {
        (0..tasks * row_tasks).for_each(task);
    } else {
        (0..tasks * row_tasks).into_par_iter().with_max_len(1).for_each(task);
    }
}

/// Most pieces of one product.
const MAX_PARTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::{Backward, Forward, PackedWeight, Rows16, Transposed16};
    use super::*;
    use crate::quant::QuantMatrix;

    /// Values that bfloat16 holds exactly, so that the reference needs no rounding of its own.
    fn values(n: usize, seed: u32) -> Vec<f32> {
        let step = |i: u32| (i.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(40_503)) >> 13;
        (0..n as u32).map(|i| (step(i) % 255) as f32 / 128.0 - 1.0).collect()
    }

    fn transpose(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
        (0..rows * cols).map(|i| values[i % rows * cols + i / rows]).collect()
    }

    fn assert_product(
        c: &[f32],
        m: usize,
        n: usize,
        parts: &[(usize, &[f32], &[f32])],
        start: f32,
        what: &str,
    ) {
        for i in 0..m {
            for j in 0..n {
                let sum: f64 = parts
                    .iter()
                    .map(|(k, a, b)| {
                        (0..*k).map(|p| f64::from(a[i * k + p]) * f64::from(b[p * n + j])).sum::<f64>()
                    })
                    .sum();
                let difference = (f64::from(c[i * n + j]) - sum - f64::from(start)).abs();
                assert!(difference <= 1e-3, "{what} at {i}, {j}: {} for {sum}", c[i * n + j]);
            }
        }
    }

    #[test]
    fn every_source_of_panels_and_odd_size_equals_the_reference() {
        for (m, n, k) in
            [(1, 1, 1), (13, 33, 5), (12, 32, 64), (25, 70, 4103), (3, 16, 100), (40, 31, 7), (5, 64, 258)]
        {
            let (a, b) = (values(m * k, 1), values(k * n, 2));
            let bt = transpose(&b, k, n);
            let (at, packed) = (transpose(&a, m, k), PackedA::rows(&a, k, m, k, 1.0));
            let forward = QuantMatrix::from_f32(n, k, &bt).unwrap();
            let backward = QuantMatrix::from_f32(k, n, &b).unwrap();
            let (fp, bp) = (PackedWeight::new(&forward), PackedWeight::new(&backward));
            let sources: [(&str, &dyn Panels16); 6] = [
                ("rows", &Rows16 { values: &b, stride: n }),
                ("transposed", &Transposed16 { values: &bt, stride: k }),
                ("forward", &Forward { weight: &forward, packed: None, first: 0 }),
                ("forward packed", &Forward { weight: &forward, packed: Some(&fp), first: 0 }),
                ("backward", &Backward { weight: &backward, packed: None, first: 0 }),
                ("backward packed", &Backward { weight: &backward, packed: Some(&bp), first: 0 }),
            ];
            let mut first: Option<Vec<f32>> = None;
            for (what, source) in sources {
                let mut c = vec![f32::NAN; m * n];
                gemm16(m, n, &[Piece { a: &packed, b: source }], Start::Zero, &mut c, n);
                assert_product(&c, m, n, &[(k, &a, &b)], 0.0, &format!("{what} {m} {n} {k}"));
                let columns = PackedA::columns(&at, m, 0, m, k);
                let mut c2 = vec![f32::NAN; m * n];
                gemm16(m, n, &[Piece { a: &columns, b: source }], Start::Bias(&vec![1.0; n]), &mut c2, n);
                assert_product(&c2, m, n, &[(k, &a, &b)], 1.0, what);
                assert_eq!(*first.get_or_insert(c.clone()), c, "{what}");
                for i in 0..m {
                    let row = PackedA::rows(&a[i * k..(i + 1) * k], k, 1, k, 1.0);
                    let mut alone = vec![f32::NAN; n];
                    gemm16(1, n, &[Piece { a: &row, b: source }], Start::Zero, &mut alone, n);
                    assert_eq!(alone, c[i * n..(i + 1) * n], "{what} row {i}");
                }
            }
        }
    }

    #[test]
    fn pieces_are_one_product_and_a_bias_its_start() {
        let (m, n, k1, k2) = (14, 40, 96, 3);
        let (a1, b1) = (values(m * k1, 3), values(k1 * n, 4));
        let (a2, b2) = (values(m * k2, 5), values(k2 * n, 6));
        let (p1, p2) = (PackedA::rows(&a1, k1, m, k1, 1.0), PackedA::rows(&a2, k2, m, k2, 1.0));
        let pieces = [
            Piece { a: &p1, b: &Rows16 { values: &b1, stride: n } },
            Piece { a: &p2, b: &Rows16 { values: &b2, stride: n } },
        ];
        let mut c = vec![f32::NAN; m * n];
        gemm16(m, n, &pieces, Start::Bias(&vec![0.5; n]), &mut c, n);
        assert_product(&c, m, n, &[(k1, &a1, &b1), (k2, &a2, &b2)], 0.5, "pieces");
    }
}
