//! Attention forward and backward against f64, and against galen-ops' operation.

use super::support::{close, narrow, no_conflicts, strided, values, widen};
use crate::{Device, Launch, Stats};
use candle_core::{Device as Candle, Tensor};
use galen_ops::Op;
use galen_ops::device::Descriptors;
use galen_ops::ops::{Attention, AttentionShape, Compute};
use galen_types::Segment;

fn ancestors(segments: &[Segment], i: usize) -> Vec<usize> {
    let mut line = vec![i];
    while let Some(parent) = segments[line[line.len() - 1]].parent {
        line.push(parent as usize);
    }
    line.reverse();
    line
}

/// Segments of these lengths, each with its parent.
pub fn segments(of: &[(u32, Option<u32>)]) -> Vec<Segment> {
    let mut out: Vec<Segment> = Vec::new();
    for (len, parent) in of {
        let start = out.last().map_or(0, |s| s.start + s.len);
        let position = parent.map_or(0, |p| out[p as usize].position + out[p as usize].len);
        out.push(Segment { start, len: *len, parent: *parent, position });
    }
    out
}

/// One layer.
#[derive(Debug, Clone)]
pub struct Case {
    pub d: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub window: Option<usize>,
    pub cap: f32,
    pub of: Vec<(u32, Option<u32>)>,
}

/// What attention gives, in f64.
struct Reference {
    o: Vec<f64>,
    dq: Vec<f64>,
    dk: Vec<f64>,
    dv: Vec<f64>,
}

fn reference(case: &Case, scale: f64, q: &[f32], k: &[f32], v: &[f32], g: &[f32]) -> Reference {
    let segments = segments(&case.of);
    let (d, h, group) = (case.d, case.heads, case.heads / case.kv_heads);
    let (qw, kw) = (h * d, case.kv_heads * d);
    let mut r = Reference {
        o: vec![0.0; q.len()],
        dq: vec![0.0; q.len()],
        dk: vec![0.0; k.len()],
        dv: vec![0.0; v.len()],
    };
    let cap = f64::from(case.cap);
    for (i, s) in segments.iter().enumerate() {
        let context: Vec<usize> = ancestors(&segments, i)
            .iter()
            .flat_map(|j| segments[*j].start..segments[*j].start + segments[*j].len)
            .map(|t| t as usize)
            .collect();
        for local in 0..s.len as usize {
            let (t, position) = (s.start as usize + local, s.position as usize + local);
            let first = case.window.map_or(0, |w| (position + 1).saturating_sub(w));
            let keys = &context[first..=position];
            for head in 0..h {
                let at = |t: usize| t * qw + head * d;
                let kv = |t: usize| t * kw + head / group * d;
                let dot = |a: &[f32], b: &[f32]| -> f64 {
                    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                };
                let z: Vec<f64> =
                    keys.iter().map(|j| scale * dot(&q[at(t)..][..d], &k[kv(*j)..][..d])).collect();
                let x: Vec<f64> =
                    z.iter().map(|z| if cap > 0.0 { cap * (z / cap).tanh() } else { *z }).collect();
                let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = x.iter().map(|x| (x - most).exp()).sum();
                let p: Vec<f64> = x.iter().map(|x| (x - most).exp() / sum).collect();
                let dp: Vec<f64> = keys.iter().map(|j| dot(&g[at(t)..][..d], &v[kv(*j)..][..d])).collect();
                let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                for (n, j) in keys.iter().enumerate() {
                    let slope = if cap > 0.0 { 1.0 - (x[n] / cap).powi(2) } else { 1.0 };
                    let ds = p[n] * (dp[n] - delta) * slope * scale;
                    for e in 0..d {
                        r.o[at(t) + e] += p[n] * f64::from(v[kv(*j) + e]);
                        r.dv[kv(*j) + e] += p[n] * f64::from(g[at(t) + e]);
                        r.dk[kv(*j) + e] += ds * f64::from(q[at(t) + e]);
                        r.dq[at(t) + e] += ds * f64::from(k[kv(*j) + e]);
                    }
                }
            }
        }
    }
    r
}

/// What all three passes read.
struct Inputs<'a> {
    q: &'a [u16],
    k: &'a [u16],
    v: &'a [u16],
    ldq: usize,
    ldk: usize,
    tokens: usize,
    scale: f32,
    window: usize,
}

impl<'a> Inputs<'a> {
    fn launch(&self, case: &Case, name: &str, grid: [usize; 3], p: &'a Descriptors) -> Launch<'a> {
        let launch = Launch::new(format!("attention_{name}_{}", case.d), grid);
        let launch = launch.input(self.q).input(self.k).input(self.v).int(self.ldq).int(self.ldk);
        let launch = launch.input(&p.tiles).input(&p.offsets).input(&p.ranges).int(self.tokens);
        launch.int(case.heads / case.kv_heads).float(self.scale).float(case.cap).int(self.window)
    }
}

/// What the kernels gave: o, dq, dk, dv.
type Results = [Vec<f32>; 4];

/// Runs forward and backward and compares with f64.
pub fn check(device: &Device, case: &Case) -> Result<(Results, Option<Stats>), String> {
    let segments = segments(&case.of);
    let tokens: usize = segments.iter().map(|s| s.len as usize).sum();
    let Case { d, heads, kv_heads, .. } = *case;
    let (qw, kw) = (heads * d, kv_heads * d);
    let (ldq, ldk) = (qw + 16, kw + 8);
    // Large enough queries that weights are uneven.
    let [q, k, v, g] = [(1, qw), (2, kw), (3, kw), (4, qw)].map(|(seed, width)| {
        let factor = if seed < 3 { 2.0 } else { 1.0 };
        narrow(&values(seed, tokens * width).iter().map(|x| x * factor).collect::<Vec<_>>())
    });
    let scale = 1.0 / (d as f32).sqrt();
    let (qs, ks, vs, gs) =
        (strided(&q, qw, ldq), strided(&k, kw, ldk), strided(&v, kw, ldk), strided(&g, qw, ldq));
    let (queries, _) = sizes(d);
    let window = case.window.unwrap_or(i32::MAX as usize);
    let (mut o, mut lse) = (vec![0u16; tokens * ldq], vec![0f32; heads * tokens]);
    let p = Descriptors::queries(&segments, queries);
    let inputs = Inputs { q: &qs, k: &ks, v: &vs, ldq, ldk, tokens, scale, window };
    let stats = device
        .run(inputs.launch(case, "forward", [p.tiles.len(), heads, 1], &p).output(&mut o).output(&mut lse))?;
    let mut delta = vec![0f32; heads * tokens];
    let launch_delta =
        Launch::new("attention_delta", [(tokens * heads).div_ceil(8), 1, 1]).input(&o).input(&gs);
    device.run(launch_delta.int(ldq).int(tokens).int(heads).int(d).output(&mut delta))?;
    let p = Descriptors::queries(&segments, 64);
    let mut dq = vec![0u16; tokens * ldq];
    let backward =
        inputs.launch(case, "backward_q", [p.tiles.len(), heads, 1], &p).input(&lse).input(&delta).input(&gs);
    device.run(backward.output(&mut dq))?;
    let p = Descriptors::keys(&segments, 64);
    let (mut dk, mut dv) = (vec![0u16; tokens * ldk], vec![0u16; tokens * ldk]);
    let grid = [p.tiles.len(), kv_heads, d.div_ceil(128)];
    let backward = inputs.launch(case, "backward_kv", grid, &p).input(&lse).input(&delta).input(&gs);
    device.run(backward.output(&mut dk).output(&mut dv))?;

    let want = reference(case, f64::from(scale), &widen(&q), &widen(&k), &widen(&v), &widen(&g));
    let tight = |bits: &[u16], width: usize, ld: usize| -> Result<Vec<f32>, String> {
        if bits.chunks(ld).any(|row| row[width..].iter().any(|b| *b != 0xffff)) {
            return Err(format!("{case:?}: wrote between rows"));
        }
        Ok(widen(&bits.chunks(ld).flat_map(|row| row[..width].to_vec()).collect::<Vec<_>>()))
    };
    let got = [tight(&o, qw, ldq)?, tight(&dq, qw, ldq)?, tight(&dk, kw, ldk)?, tight(&dv, kw, ldk)?];
    let names = ["o", "dq", "dk", "dv"];
    for ((name, got), want) in names.iter().zip(&got).zip([&want.o, &want.dq, &want.dk, &want.dv]) {
        // Weights and their gradients are rounded to bf16 on their way, so errors go with a row's size.
        let largest = want.iter().fold(0f64, |m, v| m.max(v.abs()));
        close(&format!("{case:?}: {name}"), got, want, 1.5e-2, 0.4 * largest.max(0.02))?;
    }
    Ok((got, stats))
}

/// Most queries, and keys, of a tile of forward.
fn sizes(d: usize) -> (u32, u32) {
    if d == 256 { (64, 32) } else { (128, 64) }
}

pub fn plain(d: usize) -> Case {
    Case { d, heads: 2, kv_heads: 1, window: None, cap: 0.0, of: vec![(70, None)] }
}

/// Head sizes 64 to 256.
pub fn every_head_size(device: &Device) -> Result<(), String> {
    for d in [64, 96, 128, 256] {
        let (_, stats) = check(device, &plain(d))?;
        no_conflicts(&format!("head size {d}"), stats)?;
    }
    Ok(())
}

/// Trees of segments, windows, soft caps, groups of heads, odd lengths.
pub fn segments_windows_caps_and_groups(device: &Device) -> Result<(), String> {
    let tree =
        vec![(33, None), (1, Some(0)), (70, Some(0)), (5, Some(2)), (1, None), (130, None), (3, Some(5))];
    for (window, cap) in [(None, 0.0), (Some(7), 0.0), (Some(1), 0.0), (Some(64), 3.0), (None, 1.5)] {
        for (heads, kv_heads) in [(4, 2), (3, 3)] {
            let case = Case { d: 64, heads, kv_heads, window, cap, of: tree.clone() };
            check(device, &case)?;
        }
    }
    for len in [1, 2, 63, 64, 65, 127, 129, 200] {
        check(device, &Case { of: vec![(len, None)], ..plain(64) })?;
    }
    check(device, &Case { of: tree, window: Some(40), cap: 2.0, ..plain(256) })?;
    Ok(())
}

/// The CPU's operation over the same numbers.
pub fn agrees_with_the_cpu_s_operation(device: &Device) -> Result<(), String> {
    let case = Case {
        d: 64,
        heads: 4,
        kv_heads: 2,
        window: Some(50),
        cap: 0.0,
        of: vec![(40, None), (30, Some(0)), (1, Some(1)), (66, Some(0))],
    };
    let (got, _) = check(device, &case)?;
    let segments = segments(&case.of);
    let tokens: usize = segments.iter().map(|s| s.len as usize).sum();
    let (qw, kw) = (case.heads * case.d, case.kv_heads * case.d);
    let [q, k, v, g] = [(1, qw), (2, kw), (3, kw), (4, qw)].map(|(seed, width)| {
        let factor = if seed < 3 { 2.0 } else { 1.0 };
        let x: Vec<f32> = values(seed, tokens * width).iter().map(|x| x * factor).collect();
        Tensor::from_vec(widen(&narrow(&x)), (tokens, width), &Candle::Cpu).unwrap()
    });
    let shape = AttentionShape {
        n_heads: case.heads,
        n_kv_heads: case.kv_heads,
        head_dim: case.d,
        scale: 1.0 / 8.0,
        window: case.window,
    };
    let op = Attention { shape, segments: segments.into(), compute: Compute::F32 };
    let (o, saved) = op.forward(&[&q, &k, &v]).unwrap();
    let grads = op.backward(&saved, vec![Some(g)], &[true; 3]).unwrap();
    let want = o.iter().chain(grads.iter().flatten());
    for ((got, want), name) in got.iter().zip(want).zip(["o", "dq", "dk", "dv"]) {
        let want: Vec<f64> =
            want.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| f64::from(*v)).collect();
        let largest = want.iter().fold(0f64, |m, v| m.max(v.abs()));
        close(name, got, &want, 1.5e-2, 0.4 * largest)?;
    }
    Ok(())
}
