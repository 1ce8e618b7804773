//! Super-blocks of 256; layouts as in [`super::super::k`].

use super::fit::{
    affine, affine_codes, affine_error, half_precision, symmetric, symmetric_codes, symmetric_error,
};

/// Scales and minima of a super-block of eight sub-blocks: x ~ (d s_j) q - (dmin m_j), s and m of six bits.
struct Scales {
    d: f32,
    dmin: f32,
    halves: [u8; 4],
    scale: [u8; 8],
    min: [u8; 8],
    error: f64,
}

impl Scales {
    fn of(&self, j: usize) -> (f32, f32) {
        (self.d * f32::from(self.scale[j]), -self.dmin * f32::from(self.min[j]))
    }
}

/// The sub-blocks of a super-block.
fn parts<const N: usize>(x: &[f32; 256]) -> &[[f32; N]] {
    x.as_chunks::<N>().0
}

/// The integers of least error for given factors: those nearest to the fitted scales, or one beside.
fn integers(x: &[f32; 256], top: f32, fits: &[(f32, f32); 8], d: f32, dmin: f32) -> Scales {
    let ((d, db), (dmin, mb)) = (half_precision(d), half_precision(dmin));
    let mut s =
        Scales { d, dmin, halves: [db[0], db[1], mb[0], mb[1]], scale: [0; 8], min: [0; 8], error: 0.0 };
    // Where d is subnormal as a half it may be rounded down so far that the nearest integer is beyond the last.
    let near =
        |value: f32, factor: f32| if factor == 0.0 { 0.0 } else { (value / factor).round().clamp(0.0, 63.0) };
    for (j, (x, (scale, min))) in parts::<32>(x).iter().zip(fits).enumerate() {
        let (a, b) = (near(*scale, d), near(-min, dmin));
        let mut least = f64::INFINITY;
        for (da, db) in [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (1, 1), (-1, 1), (1, -1)] {
            let (a, b) = (a + da as f32, b + db as f32);
            if !(0.0..=63.0).contains(&a) || !(0.0..=63.0).contains(&b) {
                continue;
            }
            let error = affine_error(x, top, d * a, -dmin * b);
            if error < least {
                (least, s.scale[j], s.min[j]) = (error, a as u8, b as u8);
            }
        }
        s.error += least;
    }
    s
}

/// Factors that fit best to the chosen integers and the codes they give: least squares in d and dmin.
fn refit(x: &[f32; 256], top: f32, s: &Scales) -> Option<(f32, f32)> {
    let (mut uu, mut uv, mut vv, mut xu, mut xv) = (0f64, 0f64, 0f64, 0f64, 0f64);
    for (j, x) in parts::<32>(x).iter().enumerate() {
        let (scale, min) = s.of(j);
        let v = -f64::from(s.min[j]);
        for (x, q) in x.iter().zip(affine_codes(x, top, scale, min)) {
            let (x, u) = (f64::from(*x), f64::from(s.scale[j]) * f64::from(q));
            uu += u * u;
            uv += u * v;
            vv += v * v;
            xu += x * u;
            xv += x * v;
        }
    }
    let determinant = uu * vv - uv * uv;
    if vv == 0.0 && uu > 0.0 {
        return Some(((xu / uu) as f32, 0.0));
    }
    let (d, dmin) = ((xu * vv - xv * uv) / determinant, (uu * xv - uv * xu) / determinant);
    (d > 0.0 && dmin >= 0.0 && d.is_finite() && dmin.is_finite()).then_some((d as f32, dmin as f32))
}

fn scales(x: &[f32; 256], top: f32) -> Scales {
    let mut fits = [(0f32, 0f32); 8];
    for (fit, x) in fits.iter_mut().zip(parts::<32>(x)) {
        *fit = affine(x, top, true);
    }
    let largest = |value: fn(&(f32, f32)) -> f32| fits.iter().map(value).fold(0f32, f32::max);
    let (d, dmin) = (largest(|f| f.0) / 63.0, largest(|f| -f.1) / 63.0);
    let mut best = integers(x, top, &fits, d, dmin);
    for _ in 0..2 {
        let Some((d, dmin)) = refit(x, top, &best) else { break };
        let next = integers(x, top, &fits, d, dmin);
        if next.error >= best.error {
            break;
        }
        best = next;
    }
    best
}

/// Six bits each: the last four's upper two bits lie in the spare bits of the first four.
fn packed(s: &Scales) -> [u8; 12] {
    let mut out = [0; 12];
    for j in 0..4 {
        out[j] = s.scale[j] & 63 | (s.scale[j + 4] >> 4) << 6;
        out[j + 4] = s.min[j] & 63 | (s.min[j + 4] >> 4) << 6;
        out[j + 8] = s.scale[j + 4] & 15 | (s.min[j + 4] & 15) << 4;
    }
    out
}

/// Codes of all sub-blocks, in the order of the elements.
fn codes(x: &[f32; 256], top: f32, s: &Scales) -> [u8; 256] {
    let mut all = [0; 256];
    for (j, (codes, x)) in all.as_chunks_mut::<32>().0.iter_mut().zip(parts::<32>(x)).enumerate() {
        let (scale, min) = s.of(j);
        *codes = affine_codes(x, top, scale, min);
    }
    all
}

/// The lower four bits, striped: bytes of two neighbouring sub-blocks.
pub(super) fn set_low(codes: &[u8], out: &mut [u8]) {
    out.fill(0);
    for (i, q) in codes.iter().enumerate() {
        out[32 * (i / 64) + i % 32] |= (q & 15) << (4 * (i / 32 % 2));
    }
}

/// The fifth bits: a bit of each byte for each sub-block.
pub(super) fn set_high(codes: &[u8], out: &mut [u8]) {
    out.fill(0);
    for (i, q) in codes.iter().enumerate() {
        out[i % 32] |= (q >> 4 & 1) << (i / 32);
    }
}

/// Six bits: part p of 32 elements has its nibbles in bytes 64 (p / 4) + 32 (p % 2), its upper bits behind 128 of them in
/// bytes 32 (p / 4).
pub(super) fn set_six(codes: &[u8], out: &mut [u8]) {
    out.fill(0);
    for (i, q) in codes.iter().enumerate() {
        let (p, i) = (i / 32, i % 32);
        out[64 * (p / 4) + 32 * (p % 2) + i] |= (q & 15) << (4 * (p / 2 % 2));
        out[128 + 32 * (p / 4) + i] |= (q >> 4 & 3) << (2 * (p % 4));
    }
}

pub(super) fn q4_k(x: &[f32; 256]) -> [u8; 144] {
    let s = scales(x, 15.0);
    let mut out = [0; 144];
    out[..4].copy_from_slice(&s.halves);
    out[4..16].copy_from_slice(&packed(&s));
    set_low(&codes(x, 15.0, &s), &mut out[16..]);
    out
}

pub(super) fn q5_k(x: &[f32; 256]) -> [u8; 176] {
    let s = scales(x, 31.0);
    let codes = codes(x, 31.0, &s);
    let mut out = [0; 176];
    out[..4].copy_from_slice(&s.halves);
    out[4..16].copy_from_slice(&packed(&s));
    set_high(&codes, &mut out[16..48]);
    set_low(&codes, &mut out[48..]);
    out
}

/// Sixteen sub-blocks of 16 with signed bytes as scales: x ~ (d s_j) (q - 32).
pub(super) fn q6_k(x: &[f32; 256]) -> [u8; 210] {
    let mut fits = [0f32; 16];
    for (fit, x) in fits.iter_mut().zip(parts::<16>(x)) {
        *fit = symmetric(x, 32.0);
    }
    let largest = fits.iter().copied().fold(0f32, |a, b| if b.abs() > a.abs() { b } else { a });
    // The byte with a step more takes the largest scale.
    let (d, bytes) = half_precision(-largest / 128.0);
    let mut out = [0; 210];
    out[208..].copy_from_slice(&bytes);
    let mut codes = [0; 256];
    for (j, (x, fit)) in parts::<16>(x).iter().zip(fits).enumerate() {
        let near = if d == 0.0 { 0.0 } else { (fit / d).round() };
        let mut least = f64::INFINITY;
        let mut scale = 0f32;
        for s in [near, near - 1.0, near + 1.0] {
            let s = s.clamp(-128.0, 127.0);
            let error = symmetric_error(x, 32.0, d * s);
            if error < least {
                (least, scale) = (error, s);
            }
        }
        out[192 + j] = (scale as i8) as u8;
        codes[16 * j..16 * j + 16].copy_from_slice(&symmetric_codes(x, 32.0, d * scale));
    }
    set_six(&codes, &mut out[..192]);
    out
}
