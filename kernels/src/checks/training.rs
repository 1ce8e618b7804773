//! Gradients of branches, the head, optimisers, the quantiser.

use super::qmatmul::{weight, with_weight};
use super::support::{close, narrow, no_conflicts, stride, strided, values, widen};
use crate::{Device, Launch};
use candle_core::{Device as Candle, Tensor};
use galen_ops::Op;
use galen_ops::ops::{Frozen, LogProbHead};
use galen_ops::quant::{Nf4Scales, QuantMatrix, WeightDtype};
use galen_types::Target;
use std::sync::Arc;

pub fn check_lora_gradient(
    device: &Device,
    tokens: usize,
    rank: usize,
    n: usize,
    per: usize,
) -> Result<(), String> {
    let (u, x) = (narrow(&values(1, tokens * rank)), narrow(&values(2, tokens * n)));
    let (ldu, ldx) = (stride(rank), stride(n) + 8);
    let (us, xs) = (strided(&u, rank, ldu), strided(&x, n, ldx));
    let parts_n = tokens.div_ceil(per);
    let mut parts = vec![0f32; parts_n * rank * n];
    let grid = [n.div_ceil(128), rank.div_ceil(64), parts_n];
    let launch = Launch::new("lora_gradient", grid).input(&us).int(ldu).input(&xs).int(ldx).int(tokens);
    let stats = device.run(launch.int(rank).int(n).int(per).output(&mut parts))?;
    no_conflicts("lora_gradient", stats)?;
    let (u, x) = (widen(&u), widen(&x));
    for flags in [0, 1] {
        let old = values(3, rank * n);
        let mut c = old.clone();
        let launch = Launch::new("lora_gradient_sum", [(rank * n).div_ceil(256), 1, 1]).input(&parts);
        device.run(launch.int(parts_n).int(rank).int(n).float(0.5).int(flags).inout(&mut c))?;
        let mut want = vec![0f64; rank * n];
        for r in 0..rank {
            for j in 0..n {
                let sum: f64 =
                    (0..tokens).map(|t| f64::from(u[t * rank + r]) * f64::from(x[t * n + j])).sum();
                let at = if flags == 1 { j * rank + r } else { r * n + j };
                want[at] = f64::from(old[at]) + 0.5 * sum;
            }
        }
        close(&format!("{tokens} tokens, rank {rank}, {n}"), &c, &want, 1e-5, 4.0)?;
    }
    Ok(())
}

/// Into a branch of `rank` from `m` rows of `k`, with row strides beyond the columns.
pub fn check_low_rank(
    device: &Device,
    backward: bool,
    (m, rank, k): (usize, usize, usize),
) -> Result<(), String> {
    let (x, w) = (narrow(&values(1, m * k)), narrow(&values(2, rank * k)));
    let wide = if backward { rank } else { k };
    let (ldx, ldw, ldu) = (stride(k) + 8, stride(wide), stride(rank) + 8);
    let (xs, ws) = (strided(&x, k, ldx), strided(&w, wide, ldw));
    let outputs = if rank <= 16 { 16 } else { 32 };
    let direction = if backward { "backward" } else { "forward" };
    let grid = [m.div_ceil(16), rank.div_ceil(outputs), 1];
    let kept = vec![0x1234u16; m * ldu];
    let mut u = kept.clone();
    let launch = Launch::new(format!("low_rank_{direction}_{outputs}"), grid).input(&xs).int(ldx).input(&ws);
    let launch = launch.int(ldw).int(rank).int(k).float(0.5).inout(&mut u).int(ldu).int(m);
    no_conflicts("low_rank", device.run(launch)?)?;
    let (x, w, got) = (widen(&x), widen(&w), widen(&u));
    let mut want = vec![0f64; m * ldu];
    for (i, want) in want.iter_mut().enumerate() {
        let (t, r) = (i / ldu, i % ldu);
        if r >= rank {
            *want = f64::from(got[i]);
            if u[i] != kept[i] {
                return Err(format!("low_rank {direction}: column {r} of {rank} was written"));
            }
            continue;
        }
        let of = |j: usize| if backward { w[j * rank + r] } else { w[r * k + j] };
        *want = 0.5 * (0..k).map(|j| f64::from(x[t * k + j]) * f64::from(of(j))).sum::<f64>();
    }
    close(&format!("low_rank {direction}: {m} rows, rank {rank}, {k}"), &got, &want, 4.0e-3, 0.05)
}

/// The head by its kernels, in chunks, against galen-ops' operation.
pub fn check_log_prob(device: &Device, dtype: WeightDtype, temperature: f32) -> Result<(), String> {
    let (v, c, tokens, chunk) = (150usize, 256usize, 9usize, 64usize);
    let matrix = weight(dtype, v, c, 11);
    let planes = matrix.device_planes().map_err(|e| e.to_string())?;
    let suffix = dtype.kernel_suffix().ok_or("no kernels")?;
    let hidden = widen(&narrow(&values(1, tokens * c)));
    // Two targets of one row, as a shared prefix has; the chunks' first and last tokens.
    let at = [(1u32, 0u32), (3, 63), (3, 64), (4, 127), (8, 149), (8, 5)];
    let targets: Arc<[Target]> =
        at.iter().map(|(index, token)| Target { index: *index, token: *token, row: 0 }).collect();
    let rows = [1i32, 3, 4, 8];
    let pairs: Vec<[i32; 2]> = at
        .iter()
        .map(|(i, t)| [rows.iter().position(|r| *r == *i as i32).unwrap() as i32, *t as i32])
        .collect();
    let pairs: Vec<i32> = pairs.concat();
    let offsets = [0i32, 1, 3, 4, 6];
    let n = rows.len();
    let mut h = vec![0u16; n * c];
    device.run(Launch::new("select_rows", [n, 1, 1]).input(&hidden).input(&rows).int(c).output(&mut h))?;
    let (mut max, mut sum) = (vec![f32::NEG_INFINITY; n], vec![0f32; n]);
    let (mut e, mut target_logits) = (vec![0f32; n * c], vec![0f32; at.len()]);
    for first in (0..v).step_by(chunk) {
        let count = chunk.min(v - first);
        // A chunk's rows of the weight: here as a matrix of its own, on a card by an offset into the planes.
        let part = part_of(&matrix, first, count);
        let planes = part.device_planes().map_err(|e| e.to_string())?;
        let mut logits = vec![0f32; n * chunk];
        let launch = Launch::new(format!("qmatmul_forward_{suffix}"), [1, 1, 1]).input(&h).int(c);
        let launch =
            with_weight(launch, &planes).int(count).int(c).input::<u16>(&[]).int(0).input::<u16>(&[]);
        device.run(launch.int(0).int(0).input::<f32>(&[]).output(&mut logits).int(chunk).int(n).int(1))?;
        let launch =
            Launch::new("log_prob_targets", [1, 1, 1]).input(&logits).int(chunk).int(first).int(count);
        let launch = launch.input(&pairs).int(at.len()).float(1.0 / temperature);
        device.run(launch.inout(&mut target_logits))?;
        let (mut factors, mut weights) = (vec![0f32; n], vec![0u16; n * chunk]);
        let launch = Launch::new("log_prob_online", [n, 1, 1]).input(&logits).int(chunk).int(count);
        let launch = launch.float(1.0 / temperature).inout(&mut max).inout(&mut sum).output(&mut factors);
        device.run(launch.output(&mut weights).int(chunk))?;
        let launch = Launch::new("log_prob_rescale", [n, c.div_ceil(1024), 1]).inout(&mut e).int(c);
        device.run(launch.input(&factors))?;
        let launch = Launch::new(format!("qmatmul_backward_{suffix}"), [c.div_ceil(128), 1, 1]);
        let launch = with_weight(launch.input(&weights).int(chunk), &planes).int(c).int(count);
        let launch = launch.input::<u16>(&[]).int(0).input::<u16>(&[]).int(0).int(0).input::<f32>(&[]);
        device.run(launch.inout(&mut e).int(c).int(n).int(3))?;
    }
    let (mut logps, mut correct) = (vec![0f32; at.len()], vec![0i32; at.len()]);
    let launch = Launch::new("log_prob_finish", [1, 1, 1]).input(&target_logits).input(&pairs).int(at.len());
    device.run(launch.input(&max).input(&sum).output(&mut logps).output(&mut correct))?;
    let grad = values(6, at.len());
    let mut dh = vec![0u16; tokens * c];
    let launch = with_weight(Launch::new(format!("log_prob_gradient_{suffix}"), [n, 1, 1]), &planes).int(c);
    let launch = launch.input(&e).input(&sum).input(&grad).input(&pairs).input(&offsets).input(&rows);
    device.run(launch.float(1.0 / temperature).output(&mut dh))?;

    let rounded =
        QuantMatrix::from_f32(v, c, &widen(&narrow(&matrix.to_f32()))).map_err(|e| e.to_string())?;
    let head = LogProbHead {
        weight: Frozen::from(Arc::new(rounded)),
        targets,
        temperature: (temperature != 1.0).then_some(temperature),
        with_gradient: true,
        correct: Arc::default(),
        scores: Arc::default(),
    };
    let x = Tensor::from_vec(hidden, (tokens, c), &Candle::Cpu).unwrap();
    let (want, saved) = head.forward(&[&x]).map_err(|e| e.to_string())?;
    let g = Tensor::from_vec(grad, at.len(), &Candle::Cpu).unwrap();
    let want_dh = head.backward(&saved, vec![Some(g)], &[true]).map_err(|e| e.to_string())?;
    let wide = |t: &Tensor| -> Vec<f64> {
        t.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|v| f64::from(*v)).collect()
    };
    close("logps", &logps, &wide(&want[0]), 1e-5, 1.0)?;
    let want_dh = wide(want_dh[0].as_ref().unwrap());
    let largest = want_dh.iter().fold(0f64, |m, v| m.max(v.abs()));
    for (row, want) in want_dh.chunks(c).enumerate() {
        let got = &dh[row * c..(row + 1) * c];
        if rows.contains(&(row as i32)) {
            close(&format!("dh of row {row}"), &widen(got), want, 6e-3, 0.3 * largest)?;
        } else if got.iter().any(|b| *b != 0xffff) {
            return Err(format!("wrote to row {row}, which predicts nothing"));
        }
    }
    let expect: Vec<i32> = head.correct.lock().unwrap().iter().map(|c| i32::from(*c)).collect();
    if correct == expect { Ok(()) } else { Err(format!("correct: {correct:?}, not {expect:?}")) }
}

/// One chunk of logits alone.
pub fn check_log_prob_online(device: &Device) -> Result<(), String> {
    let (n, chunk) = (2usize, 300usize);
    let logits = values(1, n * chunk);
    let (mut max, mut sum, mut factors) = (vec![-0.5f32; n], vec![2f32; n], vec![0f32; n]);
    let mut weights = vec![0u16; n * chunk];
    let launch = Launch::new("log_prob_online", [n, 1, 1]).input(&logits).int(chunk).int(chunk).float(1.0);
    let launch = launch.inout(&mut max).inout(&mut sum).output(&mut factors).output(&mut weights);
    device.run(launch.int(chunk))?;
    for row in 0..n {
        let z = || logits[row * chunk..(row + 1) * chunk].iter().map(|z| f64::from(*z));
        let top = z().fold(-0.5, f64::max);
        let all: f64 = z().map(|z| (z - top).exp()).sum();
        close("max", &max[row..=row], &[top], 1e-7, 1.0)?;
        close("sum", &sum[row..=row], &[all + 2.0 * (-0.5 - top).exp()], 1e-5, 1.0)?;
        let want: Vec<f64> = z().map(|z| (z - top).exp()).collect();
        close("weights", &widen(&weights[row * chunk..(row + 1) * chunk]), &want, 4e-3, 1e-3)?;
    }
    Ok(())
}

/// Rows of a matrix as one of its own.
fn part_of(matrix: &QuantMatrix, first: usize, count: usize) -> QuantMatrix {
    let Some(scales) = matrix.nf4_scales() else {
        return matrix.select_rows(first..first + count).unwrap();
    };
    // Chunks of 64 rows of 256 are whole groups of magnitudes.
    let blocks = first * matrix.cols() / 64..(first + count) * matrix.cols() / 64;
    let codes = matrix.data().as_slice()[blocks.start * 32..blocks.end * 32].to_vec();
    let scales = Nf4Scales {
        absmax: scales.absmax[blocks.clone()].into(),
        scale: scales.scale[blocks.start / 256..blocks.end.div_ceil(256)].into(),
        offset: scales.offset,
    };
    QuantMatrix::new_nf4(count, matrix.cols(), codes.into(), scales).unwrap()
}

pub fn check_adamw(device: &Device, n: usize) -> Result<(), String> {
    let mut x = values(1, n);
    let (mut m, mut v) = (vec![0f32; n], vec![0f32; n]);
    let mut wx: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    let (mut wm, mut wv) = (vec![0f64; n], vec![0f64; n]);
    let (b1, b2, wd, eps, factor) = (0.9f64, 0.999f64, 0.1f64, 1e-8f64, 0.5f64);
    // LoRA+: every fifth value at four times the rate.
    let rates = [0.01f64, 0.04];
    let faster: Vec<u8> = (0..n).map(|i| u8::from(i % 5 == 0)).collect();
    let mut copy = vec![0u16; n];
    for t in 1..=3 {
        let g = values(10 + t as u64, n);
        let mut grad = g.clone();
        let root = (1.0 - b2.powi(t)).sqrt();
        let [step, faster_step] = rates.map(|lr| lr / (1.0 - b1.powi(t)));
        let launch = Launch::new("adamw", [n.div_ceil(1024), 1, 1]).inout(&mut x).inout(&mut grad);
        let launch = launch.inout(&mut m).inout(&mut v).output(&mut copy).long(n as u64);
        let numbers = [factor, b1, 1.0 - b1, b2, 1.0 - b2, step, root, eps, 1.0 - rates[0] * wd];
        let launch = numbers.iter().fold(launch, |l, f| l.float(*f as f32)).input(&faster);
        device.run(launch.float(faster_step as f32).float((1.0 - rates[1] * wd) as f32))?;
        for i in 0..n {
            let g = f64::from(g[i]) * factor;
            wm[i] = b1 * wm[i] + (1.0 - b1) * g;
            wv[i] = b2 * wv[i] + (1.0 - b2) * g * g;
            let lr = rates[usize::from(faster[i])];
            let step = lr / (1.0 - b1.powi(t));
            wx[i] = wx[i] * (1.0 - lr * wd) - step * wm[i] / (wv[i].sqrt() / root + eps);
        }
        if grad.iter().any(|g| *g != 0.0) {
            return Err("the gradient is not zeroed".to_owned());
        }
    }
    close("x", &x, &wx, 2e-6, 1.0)?;
    close("m", &m, &wm, 1e-6, 0.1)?;
    close("v", &v, &wv, 1e-6, 1e-3)?;
    if copy == narrow(&x) { Ok(()) } else { Err("the bf16 copy is another".to_owned()) }
}

/// Parts that are whole, and one that is not.
pub fn check_square_sum(device: &Device, n: usize) -> Result<(), String> {
    let x = values(1, n);
    let mut sums = vec![0f64; n.div_ceil(16_384)];
    let launch = Launch::new("square_sum", [sums.len(), 1, 1]).input(&x).long(n as u64);
    device.run(launch.output(&mut sums))?;
    for (i, (got, part)) in sums.iter().zip(x.chunks(16_384)).enumerate() {
        let want: f64 = part.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let within = (got - want).abs() <= 1e-12 * want;
        if !within {
            return Err(format!("square_sum of {n}, part {i}: {got} for {want}"));
        }
    }
    Ok(())
}

/// The signed (7 exponent steps) and unsigned dynamic types of "8-bit Optimizers", ascending.
fn dynamic_type(signed: bool) -> Vec<f32> {
    let mut levels = vec![0.0f64, 1.0];
    for exponent in 0..7 {
        let steps = if signed { 1usize << exponent } else { 2usize << exponent };
        for i in 0..steps {
            let mean = 0.1 + 0.9 / steps as f64 * (i as f64 + 0.5);
            let value = mean * 10f64.powi(exponent - 6);
            levels.push(value);
            if signed {
                levels.push(-value);
            }
        }
    }
    levels.sort_by(f64::total_cmp);
    levels.iter().map(|v| *v as f32).collect()
}

pub fn check_adamw_8bit(device: &Device, n: usize) -> Result<(), String> {
    let (signed, unsigned) = (dynamic_type(true), dynamic_type(false));
    if signed.len() != 256 || unsigned.len() != 256 {
        return Err(format!("tables of {} and {}", signed.len(), unsigned.len()));
    }
    let blocks = n.div_ceil(256);
    let zero = signed.iter().position(|v| *v == 0.0).unwrap() as u8;
    let (mut x, mut m_codes, mut v_codes) = (values(1, n), vec![zero; n], vec![0u8; n]);
    let (mut m_max, mut v_max) = (vec![0f32; blocks], vec![0f32; blocks]);
    let (b1, b2, lr, eps) = (0.9f32, 0.999f32, 0.01f32, 1e-8f32);
    for t in 1..=3 {
        let (old_x, old_m, old_v) = (x.clone(), m_codes.clone(), v_codes.clone());
        let (old_m_max, old_v_max) = (m_max.clone(), v_max.clone());
        let g = values(10 + t as u64, n);
        let mut grad = g.clone();
        let mut copy = vec![0u16; n];
        let (step, root) = (lr / (1.0 - b1.powi(t)), (1.0 - b2.powi(t)).sqrt());
        let launch =
            Launch::new("adamw_8bit", [blocks, 1, 1]).inout(&mut x).inout(&mut grad).inout(&mut m_codes);
        let launch =
            launch.inout(&mut v_codes).inout(&mut m_max).inout(&mut v_max).input(&signed).input(&unsigned);
        let launch = launch.output(&mut copy).long(n as u64);
        let numbers = [1.0, b1, 1.0 - b1, b2, 1.0 - b2, step, root, eps, 1.0];
        device.run(numbers.iter().fold(launch, |l, f| l.float(*f)))?;
        // The moments behind the codes, in f64, and the nearest code to each.
        let mut want = vec![0f64; n];
        for block in 0..blocks {
            let range = block * 256..((block + 1) * 256).min(n);
            let m: Vec<f64> = range
                .clone()
                .map(|i| {
                    let old = f64::from(signed[old_m[i] as usize]) * f64::from(old_m_max[block]);
                    f64::from(b1) * old + f64::from(1.0 - b1) * f64::from(g[i])
                })
                .collect();
            let v: Vec<f64> = range
                .clone()
                .map(|i| {
                    let old = f64::from(unsigned[old_v[i] as usize]) * f64::from(old_v_max[block]);
                    f64::from(b2) * old + f64::from(1.0 - b2) * f64::from(g[i]).powi(2)
                })
                .collect();
            let most = |values: &[f64]| values.iter().fold(0f64, |m, v| m.max(v.abs()));
            close("absmax of m", &[m_max[block]], &[most(&m)], 1e-5, 1e-9)?;
            close("absmax of v", &[v_max[block]], &[most(&v)], 1e-5, 1e-12)?;
            for (j, i) in range.enumerate() {
                want[i] = f64::from(old_x[i])
                    - f64::from(step) * m[j] / (v[j].sqrt() / f64::from(root) + f64::from(eps));
                // No other code is nearer than the one chosen, but for rounding.
                let error = |table: &[f32], code: u8, x: f64| (f64::from(table[code as usize]) - x).abs();
                let best =
                    |table: &[f32], x: f64| (0..=255u8).map(|c| error(table, c, x)).fold(f64::MAX, f64::min);
                let (sm, sv) = (m[j] / most(&m), v[j] / most(&v));
                let m_near = error(&signed, m_codes[i], sm) <= best(&signed, sm) + 1e-6;
                let v_near = error(&unsigned, v_codes[i], sv) <= best(&unsigned, sv) + 1e-6;
                let v_least = v[j] > 0.0 && v_codes[i] == 1;
                if !m_near || !(v_near || v_least) || (v[j] > 0.0 && v_codes[i] == 0) {
                    return Err(format!("step {t}, element {i}: codes {} and {}", m_codes[i], v_codes[i]));
                }
            }
        }
        close("x", &x, &want, 1e-5, 1.0)?;
        if copy != narrow(&x) {
            return Err("the bf16 copy is another".to_owned());
        }
    }
    Ok(())
}

/// Codes and magnitudes are the CPU's to the bit.
pub fn check_nf4_quantize(device: &Device, rows: usize, cols: usize) -> Result<(), String> {
    let mut w = values(1, rows * cols);
    w.iter_mut().enumerate().for_each(|(i, v)| *v *= 0.1 + (i / 64 % 17) as f32);
    w[..64].fill(0.0);
    let want = QuantMatrix::quantize_nf4(rows, cols, &w)
        .and_then(|m| m.device_planes())
        .map_err(|e| e.to_string())?;
    let blocks = w.len() / 64;
    let (mut codes, mut magnitudes) = (vec![0u8; w.len() / 2], vec![0f32; blocks]);
    let launch =
        Launch::new("nf4_codes", [blocks.div_ceil(8), 1, 1]).input(&w).input(&want.levels).int(blocks);
    device.run(launch.output(&mut codes).output(&mut magnitudes))?;
    let mut offset = [0f32];
    device.run(Launch::new("nf4_mean", [1, 1, 1]).input(&magnitudes).int(blocks).output(&mut offset))?;
    let (mut bytes, mut scales) = (vec![0u8; blocks], vec![0f32; blocks.div_ceil(256)]);
    let launch = Launch::new("nf4_magnitudes", [blocks.div_ceil(256), 1, 1]).input(&magnitudes);
    let launch = launch.input(&want.levels).input(&offset).int(blocks);
    device.run(launch.output(&mut bytes).output(&mut scales))?;
    let supers: Vec<u8> = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
    for (what, same) in [
        ("codes", codes == want.codes),
        ("offset", offset[0].to_bits() == want.offset.to_bits()),
        ("magnitudes", bytes == want.scales),
        ("scales", supers == want.supers),
    ] {
        if !same {
            return Err(format!("[{rows}, {cols}]: {what} are not the CPU's"));
        }
    }
    Ok(())
}

/// dA and dB.
pub fn gradients_of_branches(device: &Device) -> Result<(), String> {
    for (tokens, rank, n, per) in
        [(1, 1, 8, 256), (70, 8, 136, 256), (300, 64, 130, 128), (129, 70, 24, 128), (513, 16, 64, 256)]
    {
        check_lora_gradient(device, tokens, rank, n, per)?;
    }
    Ok(())
}

/// Into branches and, backward, from the other side; more rows than a block takes, ranks of either kernel and beyond, turns that some
/// warps have and others not.
pub fn into_branches(device: &Device) -> Result<(), String> {
    for backward in [false, true] {
        for shape in
            [(1, 1, 8), (5, 3, 201), (17, 16, 1096), (40, 17, 547), (16, 70, 103), (33, 32, 4096), (9, 8, 7)]
        {
            check_low_rank(device, backward, shape)?;
        }
    }
    Ok(())
}

/// The head over every format.
pub fn log_probabilities_and_their_gradient(device: &Device) -> Result<(), String> {
    for dtype in WeightDtype::with_kernels() {
        check_log_prob(device, dtype, 1.0)?;
    }
    check_log_prob(device, WeightDtype::Q8_0, 0.7)?;
    check_log_prob_online(device)?;
    Ok(())
}

/// AdamW in f32 and 8 bits.
pub fn optimisers(device: &Device) -> Result<(), String> {
    for n in [4, 1024, 1028] {
        check_adamw(device, n)?;
    }
    for n in [1, 300, 16_384, 40_000] {
        check_square_sum(device, n)?;
    }
    for n in [1, 256, 300] {
        check_adamw_8bit(device, n)?;
    }
    Ok(())
}

/// NF4 to the bit.
pub fn the_quantiser_gives_the_cpu_s_codes(device: &Device) -> Result<(), String> {
    for (rows, cols) in [(1, 64), (5, 192), (300, 64), (40, 512)] {
        check_nf4_quantize(device, rows, cols)?;
    }
    Ok(())
}
