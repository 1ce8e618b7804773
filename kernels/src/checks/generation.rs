//! The cache in pages, attention over it, and products of steps.

use super::operations::{near, rounded};
use super::qmatmul::weight;
use super::support::values;
use crate::Device;
use crate::place::Launches;
use galen_ops::device::{
    Backend as _, DeviceBranch, DeviceMatrix, DeviceWeight, KvPlace, KvSequences, KvShape, Number,
    PAGE_TOKENS, Path, decode_attention, kv_copy, kv_gather, kv_write, logits, projection_forward,
};
use galen_ops::ops::AttentionShape;
use galen_ops::quant::WeightDtype;
use galen_ops::{Error, Result};

/// One layer's attention over sequences of these lengths.
#[derive(Debug, Clone)]
pub struct Case {
    pub d: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub window: Option<usize>,
    pub cap: f32,
    pub lengths: Vec<usize>,
}

/// Keys or values that attention reads: uneven weights.
fn cached(seed: u64, n: usize) -> Vec<f32> {
    rounded(seed, n).iter().map(|v| 2.0 * v).collect()
}

fn ints(values: impl IntoIterator<Item = usize>) -> Vec<u8> {
    values.into_iter().flat_map(|v| (v as i32).to_le_bytes()).collect()
}

/// A row of q over `length` keys and values, in f64.
fn reference(case: &Case, scale: f64, q: &[f32], k: &[f32], v: &[f32], length: usize) -> Vec<f64> {
    let (d, kw, group) = (case.d, case.kv_heads * case.d, case.heads / case.kv_heads);
    let first = case.window.map_or(0, |w| length.saturating_sub(w));
    let cap = f64::from(case.cap);
    let mut o = Vec::new();
    for head in 0..case.heads {
        let kv = |j: usize| j * kw + head / group * d;
        let dot = |j: usize| -> f64 {
            let pairs = q[head * d..][..d].iter().zip(&k[kv(j)..]);
            pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() * scale
        };
        let capped = |z: f64| if cap > 0.0 { cap * (z / cap).tanh() } else { z };
        let weights: Vec<f64> = (first..length).map(|j| capped(dot(j)).exp()).collect();
        let total: f64 = weights.iter().sum();
        o.extend((0..d).map(|e| {
            weights.iter().zip(first..).map(|(w, j)| w * f64::from(v[kv(j) + e])).sum::<f64>() / total
        }));
    }
    o
}

/// Writes, gathers, copies and attends; each sequence alone gives the bits it gives among the others.
pub fn check(device: &Device, case: &Case) -> std::result::Result<(), String> {
    run(&Launches(device, Path::Kernels), case).map_err(|e| format!("{case:?}: {e}"))
}

fn run(on: &Launches, case: &Case) -> Result<()> {
    let Case { d, heads, kv_heads, ref lengths, .. } = *case;
    let (layers, layer) = (2, 1);
    let shape = KvShape { layers, kv_heads, head_dim: d };
    let width = shape.width();
    let bf16 = |values: &[f32], cols| DeviceMatrix::upload(on, values, cols, Number::Bf16);
    // Pages dealt in turn, from the last one down.
    let pages_of: Vec<usize> = lengths.iter().map(|n| n.div_ceil(PAGE_TOKENS)).collect();
    let (n_pages, stride) = (pages_of.iter().sum::<usize>(), pages_of.iter().max().copied().unwrap_or(0));
    let mut tables = vec![vec![]; lengths.len()];
    let mut next = n_pages;
    for turn in 0..stride {
        for (table, has) in tables.iter_mut().zip(&pages_of) {
            if turn < *has {
                next -= 1;
                table.push(next);
            }
        }
    }
    let pool = on.alloc(n_pages * shape.page_bytes())?;
    let mut held = Vec::new();
    for (i, (table, length)) in tables.iter().zip(lengths).enumerate() {
        let seed = 10 * i as u64;
        let (k, v) = (cached(seed + 1, length * width), rounded(seed + 2, length * width));
        let slots =
            on.upload(&ints((0..*length).map(|t| table[t / PAGE_TOKENS] * PAGE_TOKENS + t % PAGE_TOKENS)))?;
        let at = KvPlace { pool: &pool, shape, layer };
        kv_write(on, &at, (&bf16(&k, width)?, &bf16(&v, width)?), &slots)?;
        held.push((k, v));
    }
    // A second pool has the pages in another order.
    let moved = |page: usize| (page + 1) % n_pages;
    let second = on.alloc(n_pages * shape.page_bytes())?;
    let pairs = on.upload(&ints((0..n_pages).flat_map(|p| [p, moved(p)])))?;
    kv_copy(on, shape, (&pool, &second), (&pairs, n_pages))?;
    let at = KvPlace { pool: &second, shape, layer };
    for ((table, length), (k, v)) in tables.iter().zip(lengths).zip(&held) {
        let table = on.upload(&ints(table.iter().map(|p| moved(*p))))?;
        let (got_k, got_v) = kv_gather(on, &at, &table, *length)?;
        if got_k.download(on)? != *k || got_v.download(on)? != *v {
            return Err(Error::Device("what was kept is not what was put there".into()));
        }
    }
    let scale = 1.0 / (d as f32).sqrt();
    let attention =
        AttentionShape { n_heads: heads, n_kv_heads: kv_heads, head_dim: d, scale, window: case.window };
    let q = cached(5, lengths.len() * heads * d);
    let attend = |rows: &[usize]| -> Result<Vec<f32>> {
        let q: Vec<f32> = rows.iter().flat_map(|i| q[i * heads * d..][..heads * d].to_vec()).collect();
        let stride = rows.iter().map(|i| pages_of[*i]).max().unwrap_or(0);
        let table = |i: &usize| {
            let own = tables[*i].iter().map(|p| moved(*p));
            own.chain(std::iter::repeat(0)).take(stride).collect::<Vec<_>>()
        };
        let listed = on.upload(&ints(rows.iter().flat_map(table)))?;
        let of = KvSequences {
            tables: &listed,
            stride,
            lengths: &on.upload(&ints(rows.iter().map(|i| lengths[*i])))?,
            longest: rows.iter().map(|i| lengths[*i]).max().unwrap_or(0),
        };
        decode_attention(on, attention, case.cap, &bf16(&q, heads * d)?, &at, &of)?.download(on)
    };
    let all = attend(&(0..lengths.len()).collect::<Vec<_>>())?;
    for (i, length) in lengths.iter().enumerate() {
        let row = &all[i * heads * d..][..heads * d];
        let (k, v) = &held[i];
        let want = reference(case, f64::from(scale), &q[i * heads * d..][..heads * d], k, v, *length);
        near(&format!("sequence {i}"), row, &want, 6e-3).map_err(Error::Device)?;
        if attend(&[i])? != row {
            return Err(Error::Device(format!("sequence {i} alone has other bits than among the others")));
        }
    }
    Ok(())
}

/// One block of one head size.
pub fn plain(d: usize) -> Case {
    Case { d, heads: 3, kv_heads: 1, window: None, cap: 0.0, lengths: vec![1, 300] }
}

/// Head sizes, groups beyond a tile, windows, caps, lengths around pages, tiles and splits.
pub fn attention_over_pages(device: &Device) -> std::result::Result<(), String> {
    for d in [96, 128, 256] {
        check(device, &Case { lengths: vec![33, 257, 1], ..plain(d) })?;
    }
    for (heads, kv_heads) in [(4, 2), (20, 1), (2, 2)] {
        for (window, cap) in [(None, 0.0), (Some(1), 0.0), (Some(70), 3.0), (Some(256), 0.0)] {
            let lengths = vec![1, 31, 32, 64, 65, 256, 257, 520];
            check(device, &Case { d: 64, heads, kv_heads, window, cap, lengths })?;
        }
    }
    Ok(())
}

/// A row of a step has the same bits alone and among any number of others.
pub fn steps_do_not_see_each_other(device: &Device) -> std::result::Result<(), String> {
    let on = Launches(device, Path::Kernels);
    for dtype in [WeightDtype::Nf4, WeightDtype::Q4_K, WeightDtype::Q8_0, WeightDtype::BF16] {
        rows_of_steps(&on, dtype).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn rows_of_steps(on: &Launches, dtype: WeightDtype) -> Result<()> {
    let (m, n, k, rank) = (37, 40, 512, 8);
    let w = DeviceWeight::upload(on, &weight(dtype, n, k, 3))?;
    let x = rounded(4, m * k);
    let bf16 = |values: &[f32], cols| DeviceMatrix::upload(on, values, cols, Number::Bf16);
    let (a, b) = (bf16(&rounded(5, rank * k), k)?, bf16(&rounded(6, n * rank), rank)?);
    let bias = on.upload(&values(7, n).iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())?;
    let pair = DeviceBranch { a: &a, b: &b, scale: 0.5, dropout: None };
    let step = |x: &[f32]| -> Result<(Vec<f32>, Vec<f32>)> {
        let x = bf16(x, k)?;
        let (y, _) = projection_forward(on, &x, (&w, Some(&bias)), Some(&pair), (Number::Bf16, true))?;
        Ok((y.download(on)?, logits(on, &x, &w)?.download(on)?))
    };
    let (projected, scores) = step(&x)?;
    for i in 0..m {
        let (alone, its_scores) = step(&x[i * k..][..k])?;
        if alone != projected[i * n..][..n] || its_scores != scores[i * n..][..n] {
            return Err(Error::Device(format!(
                "{dtype}: row {i} alone has other bits than among the others"
            )));
        }
    }
    // And they are right: as training's product, but for the order of sums.
    let (want, _) =
        projection_forward(on, &bf16(&x, k)?, (&w, Some(&bias)), Some(&pair), (Number::Bf16, false))?;
    let want: Vec<f64> = want.download(on)?.iter().map(|v| f64::from(*v)).collect();
    near(&format!("{dtype}"), &projected, &want, 8e-3).map_err(Error::Device)?;
    let (want, _) = projection_forward(on, &bf16(&x, k)?, (&w, None), None, (Number::Bf16, false))?;
    let want: Vec<f64> = want.download(on)?.iter().map(|v| f64::from(*v)).collect();
    near(&format!("{dtype}: logits"), &scores, &want, 8e-3).map_err(Error::Device)
}
