//! Kernels bound by memory: norms, rotary embedding, gates, dropout, rounding, picking rows.

use super::qmatmul::{weight, with_weight};
use super::support::{close, narrow, values, widen};
use crate::{Device, Launch};
use candle_core::{Device as Candle, Tensor};
use galen_ops::Op;
use galen_ops::ops::{Activation, Dropout, DropoutKey, EmbeddingNoise, Gated, RmsNorm, Rope, RopeTable};
use galen_ops::quant::WeightDtype;

fn tensor(values: &[f32], rows: usize) -> Tensor {
    Tensor::from_slice(values, (rows, values.len() / rows), &Candle::Cpu).unwrap()
}

fn wide(t: &Tensor) -> Vec<f64> {
    t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| f64::from(*v)).collect()
}

/// Forward and backward of an operation of galen-ops, in f32.
fn cpu(op: &impl Op, inputs: &[&Tensor], dy: &Tensor) -> (Vec<f64>, Vec<Vec<f64>>) {
    let (y, saved) = op.forward(inputs).unwrap();
    let grads = op.backward(&saved, vec![Some(dy.clone())], &vec![true; inputs.len()]).unwrap();
    (wide(&y[0]), grads.iter().flatten().map(wide).collect())
}

/// Half a unit of bf16.
const BF16: f64 = 4e-3;

pub fn check_rms_norm(device: &Device, rows: usize, c: usize) -> Result<(), String> {
    let (x, b, w) = (values(1, rows * c), narrow(&values(2, rows * c)), values(3, c));
    let (dy, dr) = (narrow(&values(4, rows * c)), values(5, rows * c));
    let sum: Vec<f32> = x.iter().zip(widen(&b)).map(|(x, b)| x + b).collect();
    let norm = RmsNorm { weight: w.clone().into(), eps: 1e-5 };
    let (y_want, dx_want) = cpu(&norm, &[&tensor(&sum, rows)], &tensor(&widen(&dy), rows));
    let (mut r, mut y) = (vec![0f32; rows * c], vec![0u16; rows * c]);
    let launch = Launch::new("rms_norm_forward", [rows, 1, 1]).input(&x).input(&b).input(&w);
    device.run(launch.float(1e-5).int(c).output(&mut r).output(&mut y))?;
    let sum_want: Vec<f64> = sum.iter().map(|v| f64::from(*v)).collect();
    close("r", &r, &sum_want, 1e-7, 0.1)?;
    close("y", &widen(&y), &y_want, BF16, 0.01)?;
    let mut dx = vec![0f32; rows * c];
    let launch = Launch::new("rms_norm_backward", [rows, 1, 1]).input(&r).input(&w).float(1e-5).int(c);
    device.run(launch.input(&dy).input(&dr).output(&mut dx))?;
    let want: Vec<f64> = dx_want[0].iter().zip(&dr).map(|(d, r)| d + f64::from(*r)).collect();
    close("dx", &dx, &want, 2e-5, 1.0)?;
    // Without an addition, and without a gradient from above.
    let mut none: [Vec<f32>; 1] = [vec![]];
    let launch = Launch::new("rms_norm_forward", [rows, 1, 1]).input(&sum).input::<u16>(&[]).input(&w);
    device.run(launch.float(1e-5).int(c).output(&mut none[0]).output(&mut y))?;
    close("y alone", &widen(&y), &y_want, BF16, 0.01)?;
    let launch = Launch::new("rms_norm_backward", [rows, 1, 1]).input(&r).input(&w).float(1e-5).int(c);
    device.run(launch.input(&dy).input::<f32>(&[]).output(&mut dx))?;
    close("dx alone", &dx, &dx_want[0], 2e-5, 1.0)
}

pub fn check_qk_norm(device: &Device, rows: usize, d: usize) -> Result<(), String> {
    let (x, w, dy) = (narrow(&values(1, rows * d)), values(3, d), narrow(&values(4, rows * d)));
    let norm = RmsNorm { weight: w.clone().into(), eps: 1e-6 };
    let (y_want, dx_want) = cpu(&norm, &[&tensor(&widen(&x), rows)], &tensor(&widen(&dy), rows));
    let (mut y, mut dx) = (vec![0u16; rows * d], vec![0u16; rows * d]);
    let blocks = [rows.div_ceil(8), 1, 1];
    let launch = Launch::new("qk_norm_forward", blocks).input(&x).input(&w).float(1e-6).int(d).int(rows);
    device.run(launch.output(&mut y))?;
    close("y", &widen(&y), &y_want, BF16, 0.01)?;
    let launch = Launch::new("qk_norm_backward", blocks).input(&x).input(&w).float(1e-6).int(d).int(rows);
    device.run(launch.input(&dy).output(&mut dx))?;
    close("dx", &widen(&dx), &dx_want[0], BF16, 0.05)
}

pub fn check_rope(device: &Device, tokens: usize, heads: usize, d: usize) -> Result<(), String> {
    let width = heads * d;
    let (x, dy) = (narrow(&values(1, tokens * width)), narrow(&values(2, tokens * width)));
    let positions: Vec<u32> = (0..tokens as u32).map(|t| t * 37 % 101).collect();
    let frequencies: Vec<f32> = (0..d / 2).map(|i| 10_000f32.powf(-2.0 * i as f32 / d as f32)).collect();
    let op = Rope { table: RopeTable::new(&positions, &frequencies) };
    let (y_want, dx_want) = cpu(&op, &[&tensor(&widen(&x), tokens)], &tensor(&widen(&dy), tokens));
    let angles = || positions.iter().flat_map(|p| frequencies.iter().map(move |f| f64::from(*p as f32 * f)));
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles().map(|a| (a.cos() as f32, a.sin() as f32)).unzip();
    for (from, sign, want) in [(&x, 1.0, &y_want), (&dy, -1.0, &dx_want[0])] {
        let mut y = vec![0u16; tokens * width];
        let launch = Launch::new("rope", [(tokens * width).div_ceil(16 * 256), 1, 1]).input(from).input(&cos);
        let launch = launch.input(&sin).int(tokens).int(heads).int(d).int(width).float(sign);
        device.run(launch.output(&mut y))?;
        close("rope", &widen(&y), want, BF16, 0.02)?;
    }
    Ok(())
}

pub fn check_gated(device: &Device, n: usize) -> Result<(), String> {
    let scaled = |seed| narrow(&values(seed, n).iter().map(|v| 6.0 * v).collect::<Vec<_>>());
    let (gate, up, dy) = (scaled(1), scaled(2), scaled(3));
    for (kind, activation) in [Activation::Silu, Activation::GeluTanh].into_iter().enumerate() {
        let inputs = [&tensor(&widen(&gate), 1), &tensor(&widen(&up), 1)];
        let (y_want, grads) = cpu(&Gated { activation }, &inputs, &tensor(&widen(&dy), 1));
        let [mut y, mut dgate, mut dup] = [vec![0u16; n], vec![0u16; n], vec![0u16; n]];
        let blocks = [n.div_ceil(8 * 256), 1, 1];
        let launch = Launch::new("gated_forward", blocks).input(&gate).input(&up).long(n as u64).int(kind);
        device.run(launch.output(&mut y))?;
        close("y", &widen(&y), &y_want, BF16, 0.01)?;
        let launch = Launch::new("gated_backward", blocks).input(&gate).input(&up).input(&dy).long(n as u64);
        device.run(launch.int(kind).output(&mut dgate).output(&mut dup))?;
        close("dgate", &widen(&dgate), &grads[0], BF16, 0.02)?;
        close("dup", &widen(&dup), &grads[1], BF16, 0.02)?;
    }
    Ok(())
}

/// splitmix64, as the CPU's operation has it.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub fn check_dropout(device: &Device, tokens: usize, c: usize) -> Result<(), String> {
    let x = narrow(&values(1, tokens * c));
    let rows: Vec<u64> = (0..tokens as u64).map(|t| t / 3 + (1 << 40)).collect();
    let positions: Vec<u32> = (0..tokens as u32).map(|t| t % 3).collect();
    for p in [0.0f32, 0.1, 0.5] {
        let (seed, epoch, module) = (7, 2, 19);
        let key = DropoutKey {
            seed,
            epoch,
            module,
            rows: rows.clone().into(),
            positions: positions.clone().into(),
        };
        let want = Dropout { p, key }.apply(&widen(&x), c).unwrap();
        let base = mix(mix(mix(seed) ^ epoch) ^ module);
        let mut y = vec![0u16; tokens * c];
        let launch = Launch::new("dropout", [(tokens * c).div_ceil(8 * 256), 1, 1]).input(&x).input(&rows);
        let launch = launch.input(&positions).long(base).long((f64::from(p) * 4_294_967_296.0) as u64);
        device.run(launch.float(1.0 / (1.0 - p)).float(0.0).int(tokens).int(c).output(&mut y))?;
        // The same mask and the same product, so the same bits.
        if y != narrow(&want) {
            return Err(format!("dropout of {p} is another than the CPU's"));
        }
        // What it took: rounded once, of the same mask.
        let (keep, mut taken) = (1.0 / (1.0 - p), vec![0u16; tokens * c]);
        let launch = Launch::new("dropout", [(tokens * c).div_ceil(8 * 256), 1, 1]).input(&x).input(&rows);
        let launch = launch.input(&positions).long(base).long((f64::from(p) * 4_294_967_296.0) as u64);
        device.run(launch.float(1.0 - keep).float(1.0).int(tokens).int(c).output(&mut taken))?;
        let rest: Vec<f64> =
            widen(&x).iter().zip(&want).map(|(x, kept)| f64::from(*x) - f64::from(*kept)).collect();
        close(&format!("what dropout of {p} took"), &widen(&taken), &rest, BF16, 1e-6)?;
    }
    Ok(())
}

pub fn check_embedding_noise(device: &Device, tokens: usize, c: usize) -> Result<(), String> {
    let mut x = values(1, tokens * c);
    let rows: Vec<u64> = (0..tokens as u64).map(|t| t / 3 + (1 << 40)).collect();
    let positions: Vec<u32> = (0..tokens as u32).map(|t| t % 3).collect();
    let factors: Vec<f32> = (0..tokens).map(|t| 0.5 / (t + 1) as f32).collect();
    let (seed, epoch, module) = (7, 2, 0);
    let key =
        DropoutKey { seed, epoch, module, rows: rows.clone().into(), positions: positions.clone().into() };
    let noise = EmbeddingNoise { key, factors: factors.clone().into() };
    let want = Tensor::from_vec(x.clone(), (tokens, c), &Candle::Cpu).unwrap();
    let want = noise.apply(&want).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let launch = Launch::new("embedding_noise", [(tokens * c).div_ceil(8 * 256), 1, 1]).inout(&mut x);
    let launch = launch.input(&rows).input(&positions).input(&factors);
    device.run(launch.long(mix(mix(mix(seed) ^ epoch) ^ module)).int(tokens).int(c))?;
    if x == want { Ok(()) } else { Err("noise on embeddings is another than the CPU's".to_owned()) }
}

pub fn check_plain(device: &Device) -> Result<(), String> {
    let x = values(1, 24 * 40);
    let mut y = vec![0u16; x.len()];
    let launch = Launch::new("cast_bf16", [x.len().div_ceil(2048), 1, 1]).input(&x).float(3.0);
    device.run(launch.long(x.len() as u64).output(&mut y))?;
    if y != narrow(&x.iter().map(|v| 3.0 * v).collect::<Vec<_>>()) {
        return Err("cast_bf16".to_owned());
    }
    let index = [23i32, 0, 7];
    let mut y = vec![0u16; 3 * 40];
    device.run(Launch::new("select_rows", [3, 1, 1]).input(&x).input(&index).int(40).output(&mut y))?;
    let want: Vec<f32> = index.iter().flat_map(|i| x[*i as usize * 40..][..40].to_vec()).collect();
    if y != narrow(&want) {
        return Err("select_rows".to_owned());
    }
    let rounded = narrow(&x);
    let launch = Launch::new("select_rows_bf16", [3, 1, 1]).input(&rounded).input(&index).int(40);
    y.fill(0);
    device.run(launch.output(&mut y))?;
    if y != narrow(&want) {
        return Err("select_rows_bf16".to_owned());
    }
    let (b, half) = (values(2, x.len()), narrow(&values(3, x.len())));
    let n = x.len();
    for (kernel, other) in [("add_f32", b.clone()), ("add_bf16", widen(&half))] {
        let mut y = vec![0f32; n];
        let launch = Launch::new(kernel, [n.div_ceil(2048), 1, 1]).input(&x);
        let launch = if kernel == "add_f32" { launch.input(&b) } else { launch.input(&half) };
        device.run(launch.long(n as u64).output(&mut y))?;
        if y.iter().zip(x.iter().zip(&other)).any(|(y, (a, b))| *y != a + b) {
            return Err(kernel.to_owned());
        }
    }
    let mut y = vec![0u16; n];
    let launch = Launch::new("add_both_bf16", [n.div_ceil(2048), 1, 1]).input(&rounded).input(&half);
    device.run(launch.long(n as u64).output(&mut y))?;
    let both: Vec<f32> = widen(&rounded).iter().zip(widen(&half)).map(|(a, b)| a + b).collect();
    if y != narrow(&both) {
        return Err("add_both_bf16".to_owned());
    }
    for dtype in WeightDtype::with_kernels() {
        let matrix = weight(dtype, 9, 256, 5);
        let planes = matrix.device_planes().map_err(|e| e.to_string())?;
        let ids = [8i32, 0, 3, 8];
        let mut y = vec![0f32; 4 * 256];
        let launch = Launch::new(format!("embed_{}", dtype.kernel_suffix().unwrap()), [4, 1, 1]);
        device.run(with_weight(launch, &planes).int(256).input(&ids).float(2.0).output(&mut y))?;
        let all = widen(&narrow(&matrix.to_f32()));
        let want: Vec<f32> =
            ids.iter().flat_map(|i| all[*i as usize * 256..][..256].iter().map(|v| 2.0 * v)).collect();
        if y != want {
            return Err(format!("embed {dtype}"));
        }
    }
    Ok(())
}

/// RMS norms, with an addition and per head.
pub fn norms(device: &Device) -> Result<(), String> {
    for (rows, c) in [(1, 8), (3, 576), (2, 2056), (1, 4096)] {
        check_rms_norm(device, rows, c)?;
    }
    for (rows, d) in [(1, 64), (9, 128), (17, 256), (8, 96)] {
        check_qk_norm(device, rows, d)?;
    }
    Ok(())
}

/// Forward and backward.
pub fn rotary_embedding(device: &Device) -> Result<(), String> {
    for (tokens, heads, d) in [(1, 1, 64), (5, 3, 96), (7, 2, 256)] {
        check_rope(device, tokens, heads, d)?;
    }
    Ok(())
}

/// Gated activations, dropout and noise.
pub fn gates_and_masks(device: &Device) -> Result<(), String> {
    for n in [8, 2048, 2056] {
        check_gated(device, n)?;
    }
    for (tokens, c) in [(1, 8), (10, 264)] {
        check_dropout(device, tokens, c)?;
        check_embedding_noise(device, tokens, c)?;
    }
    Ok(())
}

/// Rounding, picked rows, embeddings.
pub fn rounding_and_picking(device: &Device) -> Result<(), String> {
    check_plain(device)?;
    Ok(())
}
