//! Blocks of 32; layouts as in [`super::super::legacy`].

use super::fit::{affine, affine_codes, half_precision, nearest, symmetric, symmetric_codes};

pub(super) fn q4_0(x: &[f32; 32]) -> [u8; 18] {
    let (d, bytes) = half_precision(symmetric(x, 8.0));
    let mut out = [0; 18];
    out[..2].copy_from_slice(&bytes);
    nibbles(&symmetric_codes(x, 8.0, d), &mut out[2..]);
    out
}

pub(super) fn q4_1(x: &[f32; 32]) -> [u8; 20] {
    let (d, m, scales) = scale_and_min(x, 15.0);
    let mut out = [0; 20];
    out[..4].copy_from_slice(&scales);
    nibbles(&affine_codes(x, 15.0, d, m), &mut out[4..]);
    out
}

pub(super) fn q5_0(x: &[f32; 32]) -> [u8; 22] {
    let (d, bytes) = half_precision(symmetric(x, 16.0));
    let codes = symmetric_codes(x, 16.0, d);
    let mut out = [0; 22];
    out[..2].copy_from_slice(&bytes);
    out[2..6].copy_from_slice(&fifth_bits(&codes));
    nibbles(&codes, &mut out[6..]);
    out
}

pub(super) fn q5_1(x: &[f32; 32]) -> [u8; 24] {
    let (d, m, scales) = scale_and_min(x, 31.0);
    let codes = affine_codes(x, 31.0, d, m);
    let mut out = [0; 24];
    out[..4].copy_from_slice(&scales);
    out[4..8].copy_from_slice(&fifth_bits(&codes));
    nibbles(&codes, &mut out[8..]);
    out
}

/// The largest magnitude is 127; codes are for the scale before it is stored, halves rounded away from zero: ggml's bits.
pub(super) fn q8_0(x: &[f32; 32]) -> [u8; 34] {
    let d = x.iter().fold(0f32, |a, b| a.max(b.abs())) / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut out = [0; 34];
    out[..2].copy_from_slice(&half_precision(d).1);
    for (out, x) in out[2..].iter_mut().zip(x) {
        let y = x * inverse;
        let (even, away) = (nearest(y), y + 0.5f32.copysign(y));
        let rounded = if (y - y.trunc()).abs() == 0.5 { away.trunc() } else { even };
        *out = (rounded as i8) as u8;
    }
    out
}

fn scale_and_min(x: &[f32; 32], top: f32) -> (f32, f32, [u8; 4]) {
    let (scale, min) = affine(x, top, false);
    let ((d, db), (m, mb)) = (half_precision(scale), half_precision(min));
    (d, m, [db[0], db[1], mb[0], mb[1]])
}

/// Low nibbles hold the first half, high nibbles the second.
pub(super) fn nibbles(codes: &[u8; 32], out: &mut [u8]) {
    for (i, out) in out.iter_mut().enumerate().take(16) {
        *out = codes[i] & 15 | (codes[i + 16] & 15) << 4;
    }
}

pub(super) fn fifth_bits(codes: &[u8; 32]) -> [u8; 4] {
    let bits = codes.iter().enumerate().fold(0u32, |bits, (i, c)| bits | u32::from(c >> 4 & 1) << i);
    bits.to_le_bytes()
}
