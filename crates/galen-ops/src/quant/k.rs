//! ggml's k-quants: 256-element super-blocks whose sub-blocks have quantised scales and minima of their own.
//!
//! w = (d s_j) q - (dmin m_j), with sub-blocks j of 16 or 32 elements. Layouts: ggml `ggml-common.h`. Codes are
//! striped: 32 consecutive bytes hold the same bit-field of 32 consecutive elements, and the next bit-field of the
//! same bytes belongs to the next 32 elements.

use super::block::{BlockFormat, chunk32, f16_at, field};

/// 2-bit: 16 bytes of 4-bit scales and minima, 64 bytes of codes, d, dmin.
pub struct Q2K;
/// 3-bit: 32 bytes of high bits, 64 bytes of low codes, 12 bytes of 6-bit scales, d.
pub struct Q3K;
/// 4-bit: d, dmin, 12 bytes of 6-bit scales and minima, 128 bytes of nibbles.
pub struct Q4K;
/// 5-bit: d, dmin, 12 bytes of 6-bit scales and minima, 32 bytes of fifth bits, 128 bytes of nibbles.
pub struct Q5K;
/// 6-bit: 128 bytes of nibbles, 64 bytes of upper two bits, 16 signed scales, d.
pub struct Q6K;
/// 8-bit: single-precision d, 256 signed bytes, 16 sums (not needed to decode).
pub struct Q8K;

impl BlockFormat<84, 256> for Q2K {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 84], out: &mut [f32; 256]) {
        for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            Self::dequantize_part(block, j, out);
        }
    }

    #[inline(always)]
    fn dequantize_part(block: &[u8; 84], j: usize, out: &mut [f32; 32]) {
        let scales: &[u8; 16] = field(block, 0);
        let qs: &[u8; 64] = field(block, 16);
        let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
        let (codes, shift) = (chunk32(qs, j / 4), 2 * (j % 4));
        let scale = |s: u8| (d * f32::from(s & 15), dmin * f32::from(s >> 4));
        let (first, second) = (scale(scales[2 * j]), scale(scales[2 * j + 1]));
        for i in 0..32 {
            let (dl, ml) = if i < 16 { first } else { second };
            out[i] = dl * f32::from(codes[i] >> shift & 3) - ml;
        }
    }
}

impl BlockFormat<110, 256> for Q3K {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 110], out: &mut [f32; 256]) {
        for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            Self::dequantize_part(block, j, out);
        }
    }

    #[inline(always)]
    fn dequantize_part(block: &[u8; 110], j: usize, out: &mut [f32; 32]) {
        let hmask: &[u8; 32] = field(block, 0);
        let qs: &[u8; 64] = field(block, 32);
        let packed: &[u8; 12] = field(block, 96);
        let d = f16_at(block, 108);
        let (codes, shift) = (chunk32(qs, j / 4), 2 * (j % 4));
        for half in 0..2 {
            // Scale s: four low bits in byte s % 8, two high bits in byte 8 + s % 4; both move up as s grows.
            let s = 2 * j + half;
            let low = packed[s % 8] >> (4 * (s / 8)) & 15;
            let high = packed[8 + s % 4] >> (2 * (s / 4)) & 3;
            let dl = d * (i32::from(low | high << 4) - 32) as f32;
            for i in 16 * half..16 * half + 16 {
                // A clear high bit means minus four.
                let q = i32::from(codes[i] >> shift & 3) + (i32::from(hmask[i] >> j & 1) << 2) - 4;
                out[i] = dl * q as f32;
            }
        }
    }
}

/// Scale and minimum of sub-block `j` of eight: six bits each, the last four's upper two bits in the spare bits of the
/// first four.
#[inline(always)]
fn scale_and_min(packed: &[u8; 12], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 0x3f, packed[j + 4] & 0x3f)
    } else {
        let (both, low, high) = (packed[j + 4], packed[j - 4], packed[j]);
        (both & 15 | low >> 2 & 0x30, both >> 4 | high >> 2 & 0x30)
    };
    (f32::from(scale), f32::from(min))
}

impl BlockFormat<144, 256> for Q4K {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 144], out: &mut [f32; 256]) {
        for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            Self::dequantize_part(block, j, out);
        }
    }

    #[inline(always)]
    fn dequantize_part(block: &[u8; 144], j: usize, out: &mut [f32; 32]) {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        let (scale, min) = scale_and_min(field(block, 4), j);
        let qs: &[u8; 128] = field(block, 16);
        let (codes, shift) = (chunk32(qs, j / 2), 4 * (j % 2));
        let (dl, ml) = (d * scale, dmin * min);
        for i in 0..32 {
            out[i] = dl * f32::from(codes[i] >> shift & 15) - ml;
        }
    }
}

impl BlockFormat<176, 256> for Q5K {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 176], out: &mut [f32; 256]) {
        for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            Self::dequantize_part(block, j, out);
        }
    }

    #[inline(always)]
    fn dequantize_part(block: &[u8; 176], j: usize, out: &mut [f32; 32]) {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        let (scale, min) = scale_and_min(field(block, 4), j);
        let qh: &[u8; 32] = field(block, 16);
        let qs: &[u8; 128] = field(block, 48);
        let (codes, shift) = (chunk32(qs, j / 2), 4 * (j % 2));
        let (dl, ml) = (d * scale, dmin * min);
        for i in 0..32 {
            let q = codes[i] >> shift & 15 | (qh[i] >> j & 1) << 4;
            out[i] = dl * f32::from(q) - ml;
        }
    }
}

impl BlockFormat<210, 256> for Q6K {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 210], out: &mut [f32; 256]) {
        for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            Self::dequantize_part(block, j, out);
        }
    }

    #[inline(always)]
    fn dequantize_part(block: &[u8; 210], j: usize, out: &mut [f32; 32]) {
        let ql: &[u8; 128] = field(block, 0);
        let qh: &[u8; 64] = field(block, 128);
        let scales: &[u8; 16] = field(block, 192);
        let d = f16_at(block, 208);
        // Per half of the super-block: low nibbles of 64 bytes, then their high nibbles.
        let (low, low_shift) = (chunk32(ql, 2 * (j / 4) + j % 2), 4 * (j / 2 % 2));
        let (high, high_shift) = (chunk32(qh, j / 4), 2 * (j % 4));
        for half in 0..2 {
            let dl = d * f32::from(scales[2 * j + half] as i8);
            for i in 16 * half..16 * half + 16 {
                let q = low[i] >> low_shift & 15 | (high[i] >> high_shift & 3) << 4;
                out[i] = dl * (i32::from(q) - 32) as f32;
            }
        }
    }
}

impl BlockFormat<292, 256> for Q8K {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 292], out: &mut [f32; 256]) {
        let d = f32::from_le_bytes(*field(block, 0));
        let qs: &[u8; 256] = field(block, 4);
        for i in 0..256 {
            out[i] = d * f32::from(qs[i] as i8);
        }
    }
}
