//! ggml's non-linear 4-bit formats: nibbles index a fixed table of 16 levels.
//!
//! w = d s_j TABLE[q]. Layouts and table: ggml `ggml-common.h`.

use super::block::{BlockFormat, f16_at, field};

/// 32 elements: d, 16 bytes of nibbles.
pub struct Iq4Nl;
/// 256 elements: d, upper and lower bits of eight 6-bit scales, 128 bytes of nibbles.
pub struct Iq4Xs;

const LEVELS: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
];

#[inline(always)]
fn decode(d: f32, qs: &[u8; 16], out: &mut [f32; 32]) {
    for i in 0..16 {
        out[i] = d * LEVELS[usize::from(qs[i] & 15)];
        out[i + 16] = d * LEVELS[usize::from(qs[i] >> 4)];
    }
}

impl BlockFormat<18, 32> for Iq4Nl {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 18], out: &mut [f32; 32]) {
        decode(f16_at(block, 0), field(block, 2), out);
    }
}

impl BlockFormat<136, 256> for Iq4Xs {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 136], out: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        let high = u16::from_le_bytes(*field(block, 2));
        let low: &[u8; 4] = field(block, 4);
        let qs: &[u8; 128] = field(block, 8);
        for (j, (out, codes)) in
            out.as_chunks_mut::<32>().0.iter_mut().zip(qs.as_chunks::<16>().0).enumerate()
        {
            let scale = i32::from(low[j / 2] >> (4 * (j % 2)) & 15) | i32::from(high >> (2 * j) & 3) << 4;
            decode(d * (scale - 32) as f32, codes, out);
        }
    }
}
