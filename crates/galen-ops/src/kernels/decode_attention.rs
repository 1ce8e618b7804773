//! Attention of one query over cached keys and values, read where they lie: `o = softmax(scale q K^T) V`.
//!
//! The query heads of one key-value head go together, so that each key and value is read once. A head's result
//! depends on neither the others nor on other sequences.

use super::isa::multiversion;
#[cfg(target_arch = "x86_64")]
use super::isa::{Isa, isa};
#[cfg(target_arch = "x86_64")]
use super::lanes::Pair;
use super::lanes::{Lanes, Plain};
use super::math::{LANES, exp, largest, sum};
use super::micro::CHAIN;
use std::ops::Range;

/// One key-value head of a sequence: row j of its keys and values is at `j * stride` (position j).
#[derive(Clone, Copy)]
pub(crate) struct Cached<'a> {
    pub keys: &'a [f32],
    pub values: &'a [f32],
    pub stride: usize,
    /// Positions seen: `first..end`.
    pub first: usize,
    pub end: usize,
}

/// Rows whose reading is begun ahead: a processor does not foresee all strides.
const AHEAD: usize = 8;
/// Query heads that share a reading of the values.
const HEADS: usize = 4;

/// `q` and `o` hold the query heads `[heads, d]` of the key-value head; `scores` is scratch. There is a position.
pub(crate) fn attend(q: &[f32], cached: Cached, d: usize, scale: f32, scores: &mut Vec<f32>, o: &mut [f32]) {
    let Cached { keys, values, stride, first, end } = cached;
    let (n, needed) = (end - first, (end - 1) * stride + d);
    assert!(
        d > 0 && keys.len() >= needed && values.len() >= needed && q.len() == o.len(),
        "a cache of {n} rows"
    );
    scores.clear();
    scores.resize(q.len() / d * n, 0.0);
    // SAFETY: sizes as asserted; `isa` names a path only after detecting its features.
    unsafe {
        match () {
            #[cfg(target_arch = "x86_64")]
            () if isa() == Isa::Avx2 => avx2(q, cached, d, scale, scores, o),
            #[cfg(target_arch = "x86_64")]
            () if isa() != Isa::Portable => avx512(q, cached, d, scale, scores, o),
            () => body::<Plain>(q, cached, d, scale, scores, o),
        }
    }
}

/// # Safety
/// As [`body`], with AVX-512 F, VL, BW and DQ.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
unsafe fn avx512(q: &[f32], cached: Cached, d: usize, scale: f32, scores: &mut [f32], o: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { body::<std::arch::x86_64::__m512>(q, cached, d, scale, scores, o) }
}

/// # Safety
/// As [`body`], with AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(q: &[f32], cached: Cached, d: usize, scale: f32, scores: &mut [f32], o: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { body::<Pair>(q, cached, d, scale, scores, o) }
}

/// # Safety
/// Sizes as [`attend`] asserts; `scores` holds a row of positions a head; the processor has the features of `V`.
#[inline(always)]
unsafe fn body<V: Lanes>(q: &[f32], cached: Cached, d: usize, scale: f32, scores: &mut [f32], o: &mut [f32]) {
    let n = cached.end - cached.first;
    let whole = d / LANES * LANES;
    for j in 0..n {
        let start = (cached.first + j) * cached.stride;
        let key = &cached.keys[start..start + d];
        prefetch(key, AHEAD * cached.stride, d);
        for (q, scores) in q.chunks_exact(d).zip(scores.chunks_exact_mut(n)) {
            // SAFETY: `q` and `key` hold d values.
            let mut dot = unsafe {
                let mut sums = V::splat(0.0);
                for i in (0..whole).step_by(LANES) {
                    sums = V::load(q.as_ptr().add(i)).fma(V::load(key.as_ptr().add(i)), sums);
                }
                sums.sum()
            };
            for i in whole..d {
                dot += q[i] * key[i];
            }
            scores[j] = dot * scale;
        }
    }
    for weights in scores.chunks_exact_mut(n) {
        softmax(weights);
    }
    o.fill(0.0);
    for j0 in (0..n).step_by(CHAIN) {
        let rows = j0..(j0 + CHAIN).min(n);
        for (scores, o) in scores.chunks(n * HEADS).zip(o.chunks_mut(d * HEADS)) {
            // SAFETY: the caller's promise.
            unsafe {
                match o.len() / d {
                    1 => add_values::<V, 1>(scores, cached, rows.clone(), d, o),
                    2 => add_values::<V, 2>(scores, cached, rows.clone(), d, o),
                    3 => add_values::<V, 3>(scores, cached, rows.clone(), d, o),
                    _ => add_values::<V, HEADS>(scores, cached, rows.clone(), d, o),
                }
            }
        }
    }
}

multiversion! {
    fn softmax(weights: &mut [f32]) {
        let max = largest(weights);
        for s in weights.iter_mut() {
            *s = exp::<F>(*s - max);
        }
        let inverse = 1.0 / sum(weights);
        weights.iter_mut().for_each(|w| *w *= inverse);
    }
}

/// Adds the values of some positions, weighed, to `H` heads of o: sixteen columns at a time, in registers.
///
/// # Safety
/// As [`body`].
#[inline(always)]
unsafe fn add_values<V: Lanes, const H: usize>(
    weights: &[f32],
    cached: Cached,
    positions: Range<usize>,
    d: usize,
    o: &mut [f32],
) {
    let (whole, n) = (d / LANES * LANES, cached.end - cached.first);
    let weights: [&[f32]; H] = std::array::from_fn(|h| &weights[h * n..(h + 1) * n]);
    for column in (0..whole).step_by(LANES) {
        // SAFETY: every row holds d values, o a row a head.
        unsafe {
            let mut sums = [V::splat(0.0); H];
            for j in positions.clone() {
                let row = &cached.values[(cached.first + j) * cached.stride + column..];
                prefetch(row, AHEAD * cached.stride, 1);
                let row = V::load(row.as_ptr());
                for h in 0..H {
                    sums[h] = V::splat(weights[h][j]).fma(row, sums[h]);
                }
            }
            for h in 0..H {
                let at = o[h * d + column..].as_mut_ptr();
                V::load(at).add(sums[h]).store(at);
            }
        }
    }
    for column in whole..d {
        for h in 0..H {
            let value = |j: usize| cached.values[(cached.first + j) * cached.stride + column];
            o[h * d + column] += positions.clone().map(|j| weights[h][j] * value(j)).sum::<f32>();
        }
    }
}

/// Begins to read `len` values behind the first `skip`.
#[inline(always)]
fn prefetch(values: &[f32], skip: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..len).step_by(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch may go anywhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().wrapping_add(skip + line).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, skip, len);
}
