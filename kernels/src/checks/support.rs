//! Values, comparisons and shapes the checks share.

use crate::Stats;
use half::bf16;

/// Numbers in (-1, 1) that depend on nothing but their seed.
pub fn values(seed: u64, n: usize) -> Vec<f32> {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        z ^= z << 13;
        z ^= z >> 7;
        z ^= z << 17;
        (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// The bits of each value rounded to bf16.
pub fn narrow(values: &[f32]) -> Vec<u16> {
    values.iter().map(|v| bf16::from_f32(*v).to_bits()).collect()
}

/// The values of bf16 bits.
pub fn widen(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|b| bf16::from_bits(*b).to_f32()).collect()
}

/// Rows of `width` values laid at a stride of `ld`, what lies between them poison.
pub fn strided(bits: &[u16], width: usize, ld: usize) -> Vec<u16> {
    let rows = bits.len() / width.max(1);
    let mut out = vec![0xffff; rows * ld];
    for (out, row) in out.chunks_mut(ld.max(1)).zip(bits.chunks(width.max(1))) {
        out[..width].copy_from_slice(row);
    }
    out
}

/// Every element within `relative` of the larger of its own and `floor`. NaN fails.
pub fn close(what: &str, got: &[f32], want: &[f64], relative: f64, floor: f64) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{what}: {} values for {}", got.len(), want.len()));
    }
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let limit = relative * w.abs().max(floor);
        let within = (f64::from(*g) - w).abs() <= limit;
        if !within {
            return Err(format!("{what}: element {i} is {g}, not {w} (within {limit:.3e})"));
        }
    }
    Ok(())
}

/// `n` rounded up to a multiple of 8: a row stride that kernels take.
pub fn stride(n: usize) -> usize {
    n.next_multiple_of(8)
}

/// That tensor cores were used and no row of `ldmatrix` waited for another. A card counts neither.
pub fn no_conflicts(what: &str, stats: Option<Stats>) -> Result<(), String> {
    match stats {
        Some(s) if s.mmas == 0 || s.bank_conflicts > 0 => Err(format!("{what}: {s:?}")),
        _ => Ok(()),
    }
}
