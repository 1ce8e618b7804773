//! Quantised matmul, its path for few rows, and the decoders.

use super::support::{close, narrow, no_conflicts, stride, strided, values, widen};
use crate::{Device, Launch, Stats};
use galen_ops::quant::{DevicePlanes, QuantMatrix, WeightDtype, quantize};

/// A matrix of a format, filled from a seed.
pub fn weight(dtype: WeightDtype, rows: usize, cols: usize, seed: u64) -> QuantMatrix {
    let mut w = values(seed, rows * cols);
    // Blocks of different magnitudes, so that a wrong scale shows.
    for (i, block) in w.chunks_mut(32).enumerate() {
        block.iter_mut().for_each(|v| *v *= 0.25 + (i * 7 % 13) as f32 / 8.0);
    }
    match dtype {
        WeightDtype::Nf4 => QuantMatrix::quantize_nf4(rows, cols, &w).unwrap(),
        _ => QuantMatrix::new(dtype, rows, cols, quantize(dtype, cols, &w).unwrap().into()).unwrap(),
    }
}

pub fn with_weight<'a>(launch: Launch<'a>, p: &'a DevicePlanes) -> Launch<'a> {
    launch.input(&p.codes).input(&p.high).input(&p.scales).input(&p.supers).input(&p.levels).float(p.offset)
}

/// Which kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Forward,
    Backward,
    Few,
}

/// One product: y `[m, out]` over weights `[n, k]`.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub dtype: WeightDtype,
    pub kind: Kind,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub rank: usize,
    pub bias: bool,
    pub flags: usize,
}

/// Runs a case and compares with sums in f64 over the CPU's decoded weights.
pub fn check(device: &Device, case: Case) -> Result<Option<Stats>, String> {
    let Case { dtype, kind, m, n, k, rank, bias, flags } = case;
    let matrix = weight(dtype, n, k, 3);
    let planes = matrix.device_planes().map_err(|e| e.to_string())?;
    let (out, inner) = if kind == Kind::Backward { (k, n) } else { (n, k) };
    let (ldx, ldu, ldy) = (stride(inner) + 8, stride(rank), stride(out));
    let x = narrow(&values(4, m * inner));
    let u = narrow(&values(5, m * rank));
    // Forward B [n, rank], backward A [rank, k].
    let (v_rows, v_cols) = if kind == Kind::Backward { (rank, k) } else { (n, rank) };
    let v = narrow(&values(6, v_rows * v_cols));
    let ldv = stride(v_cols);
    let bias = if bias { values(7, out) } else { vec![] };
    let (xs, us, vs) = (strided(&x, inner, ldx), strided(&u, rank, ldu), strided(&v, v_cols, ldv));
    let suffix = dtype.kernel_suffix().ok_or("no kernels")?;
    let name = match kind {
        Kind::Forward => format!("qmatmul_forward_{suffix}"),
        Kind::Backward => format!("qmatmul_backward_{suffix}"),
        Kind::Few => format!("qmatvec_{}_{suffix}", if m <= 8 { 8 } else { 16 }),
    };
    let grid = match kind {
        Kind::Few => [n.div_ceil(32), m.div_ceil(16), 1],
        _ => [m.div_ceil(128) * out.div_ceil(128), 1, 1],
    };
    let old = values(8, m * ldy);
    let mut y16 = if flags & 1 == 0 { narrow(&old) } else { vec![] };
    let mut y32 = if flags & 1 == 1 { old.clone() } else { vec![] };
    let old = if flags & 1 == 0 { widen(&y16) } else { old };
    let launch = with_weight(Launch::new(name, grid).input(&xs).int(ldx), &planes);
    let launch = launch.int(out).int(inner).input(&us).int(ldu).input(&vs).int(ldv).int(rank).input(&bias);
    // With accumulation what was there counts; without, what the kernel leaves out must stay poison.
    let accumulates = flags & 2 == 2;
    let launch = match (accumulates, flags & 1 == 1) {
        (true, true) => launch.inout(&mut y32),
        (true, false) => launch.inout(&mut y16),
        (false, true) => launch.output(&mut y32),
        (false, false) => launch.output(&mut y16),
    };
    let stats = device.run(launch.int(ldy).int(m).int(flags))?;
    let y = if flags & 1 == 1 { y32 } else { widen(&y16) };

    let w: Vec<f64> = widen(&narrow(&matrix.to_f32())).iter().map(|w| f64::from(*w)).collect();
    let wide = |bits: &[u16]| -> Vec<f64> { widen(bits).iter().map(|v| f64::from(*v)).collect() };
    let (x, u, v) = (wide(&x), wide(&u), wide(&v));
    let (mut got, mut want) = (Vec::new(), Vec::new());
    for i in 0..m {
        for o in 0..out {
            let main: f64 = (0..inner)
                .map(|j| x[i * inner + j] * if kind == Kind::Backward { w[j * k + o] } else { w[o * k + j] })
                .sum();
            let branch: f64 = (0..rank)
                .map(|r| {
                    u[i * rank + r] * if kind == Kind::Backward { v[r * k + o] } else { v[o * rank + r] }
                })
                .sum();
            let before = if accumulates { f64::from(old[i * ldy + o]) } else { 0.0 };
            want.push(main + branch + before + bias.get(o).map_or(0.0, |b| f64::from(*b)));
            got.push(y[i * ldy + o]);
        }
        let left = &y[i * ldy + out..(i + 1) * ldy];
        let untouched = |(j, v): (usize, &f32)| {
            if accumulates { v.to_bits() == old[i * ldy + out + j].to_bits() } else { v.is_nan() }
        };
        if !left.iter().enumerate().all(untouched) {
            return Err(format!("{case:?}: wrote between row {i} and the next"));
        }
    }
    // Sums of f32, then for bf16 half a unit.
    let (relative, floor) = if flags & 1 == 1 { (1e-5, 4.0) } else { (4e-3, 0.02) };
    close(&format!("{case:?}"), &got, &want, relative, floor)?;
    Ok(stats)
}

pub const BASE: Case = Case {
    dtype: WeightDtype::Q4_0,
    kind: Kind::Forward,
    m: 5,
    n: 40,
    k: 256,
    rank: 8,
    bias: false,
    flags: 0,
};

/// The decoder's bits are the CPU's, rounded.
pub fn check_dequantize(device: &Device, dtype: WeightDtype, rows: usize, cols: usize) -> Result<(), String> {
    let matrix = weight(dtype, rows, cols, 9);
    let planes = matrix.device_planes().map_err(|e| e.to_string())?;
    let mut y = vec![0u16; rows * cols];
    let name = format!("dequantize_{}", dtype.kernel_suffix().ok_or("no kernels")?);
    let launch = with_weight(Launch::new(name, [(rows * cols).div_ceil(32 * 256), 1, 1]), &planes);
    device.run(launch.int(rows).int(cols).output(&mut y))?;
    if y == narrow(&matrix.to_f32()) { Ok(()) } else { Err(format!("{dtype} [{rows}, {cols}]")) }
}

/// Every format.
pub fn decoders_give_the_cpu_s_bits(device: &Device) -> Result<(), String> {
    for dtype in WeightDtype::with_kernels() {
        for (rows, cols) in [(1, 256), (3, 512), (11, 768)] {
            check_dequantize(device, dtype, rows, cols)?;
        }
    }
    Ok(())
}

/// Every format through all three kernels.
pub fn every_format_forward_backward_and_few_rows(device: &Device) -> Result<(), String> {
    for dtype in WeightDtype::with_kernels() {
        for (kind, m) in [(Kind::Forward, 5), (Kind::Backward, 5), (Kind::Few, 3), (Kind::Few, 13)] {
            check(device, Case { dtype, kind, m, ..BASE })?;
        }
    }
    Ok(())
}

/// One row, partial tiles, odd ranks, accumulation.
pub fn odd_sizes(device: &Device) -> Result<(), String> {
    for dtype in [WeightDtype::Q4_0, WeightDtype::Nf4, WeightDtype::BF16] {
        for (kind, m, n, k, rank) in [
            (Kind::Forward, 1, 1, 32, 1),
            (Kind::Forward, 130, 130, 96, 0),
            (Kind::Forward, 129, 7, 352, 64),
            (Kind::Forward, 17, 257, 64, 70),
            (Kind::Backward, 1, 1, 32, 1),
            (Kind::Backward, 130, 70, 160, 8),
            (Kind::Backward, 129, 193, 32, 64),
            (Kind::Few, 1, 1, 32, 1),
            (Kind::Few, 8, 33, 1056, 8),
            (Kind::Few, 16, 70, 480, 64),
        ] {
            let plain = Case { dtype, kind, m, n, k, rank, ..BASE };
            check(device, plain)?;
            if m <= 17 {
                for flags in 1..4 {
                    check(device, Case { flags, bias: true, ..plain })?;
                }
            }
        }
    }
    // Rows of bf16 need not be whole groups.
    for kind in [Kind::Forward, Kind::Backward] {
        check(device, Case { dtype: WeightDtype::BF16, kind, k: 72, n: 24, ..BASE })?;
    }
    Ok(())
}

/// Swizzles do what they are for.
pub fn no_two_rows_of_a_fragment_share_a_bank(device: &Device) -> Result<(), String> {
    for kind in [Kind::Forward, Kind::Backward] {
        for dtype in [WeightDtype::Q4_K, WeightDtype::BF16] {
            let stats = check(device, Case { dtype, kind, ..BASE })?;
            no_conflicts(&format!("{kind:?}"), stats)?;
        }
    }
    Ok(())
}
