//! ggml's 32-element blocks: one half-precision scale `d` (and a minimum `m`) for 32 codes `q`.
//!
//! `Q*_0`: w = d (q - zero);  `Q*_1`: w = d q + m. Layouts: ggml `ggml-common.h`. Low nibbles hold the first 16
//! elements, high nibbles the last 16; fifth bits are gathered in `qh`, bit i for element i.

use super::block::{BlockFormat, f16_at, field, opaque_zero};

/// 4-bit, symmetric: d, 16 bytes of nibbles.
pub struct Q4_0;
/// 4-bit with minimum: d, m, 16 bytes of nibbles.
pub struct Q4_1;
/// 5-bit, symmetric: d, qh, 16 bytes of nibbles.
pub struct Q5_0;
/// 5-bit with minimum: d, m, qh, 16 bytes of nibbles.
pub struct Q5_1;
/// 8-bit, symmetric: d, 32 signed bytes.
pub struct Q8_0;

impl BlockFormat<18, 32> for Q4_0 {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 18], out: &mut [f32; 32]) {
        let d = f16_at(block, 0);
        let zero = opaque_zero();
        let qs: &[u8; 16] = field(block, 2);
        for i in 0..16 {
            out[i] = d * ((i32::from(qs[i] & 15) | fifth_bit(zero, i)) - 8) as f32;
            out[i + 16] = d * ((i32::from(qs[i] >> 4) | fifth_bit(zero, i)) - 8) as f32;
        }
    }
}

impl BlockFormat<20, 32> for Q4_1 {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 20], out: &mut [f32; 32]) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        let zero = opaque_zero();
        let qs: &[u8; 16] = field(block, 4);
        for i in 0..16 {
            out[i] = d * (i32::from(qs[i] & 15) | fifth_bit(zero, i)) as f32 + m;
            out[i + 16] = d * (i32::from(qs[i] >> 4) | fifth_bit(zero, i)) as f32 + m;
        }
    }
}

/// The fifth bit of element `i`, at its place in the code.
#[inline(always)]
fn fifth_bit(qh: u32, i: usize) -> i32 {
    ((qh >> i & 1) << 4) as i32
}

impl BlockFormat<22, 32> for Q5_0 {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 22], out: &mut [f32; 32]) {
        let d = f16_at(block, 0);
        let qh = u32::from_le_bytes(*field(block, 2));
        let qs: &[u8; 16] = field(block, 6);
        for i in 0..16 {
            out[i] = d * ((i32::from(qs[i] & 15) | fifth_bit(qh, i)) - 16) as f32;
            out[i + 16] = d * ((i32::from(qs[i] >> 4) | fifth_bit(qh, i + 16)) - 16) as f32;
        }
    }
}

impl BlockFormat<24, 32> for Q5_1 {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 24], out: &mut [f32; 32]) {
        let (d, m) = (f16_at(block, 0), f16_at(block, 2));
        let qh = u32::from_le_bytes(*field(block, 4));
        let qs: &[u8; 16] = field(block, 8);
        for i in 0..16 {
            out[i] = d * (i32::from(qs[i] & 15) | fifth_bit(qh, i)) as f32 + m;
            out[i + 16] = d * (i32::from(qs[i] >> 4) | fifth_bit(qh, i + 16)) as f32 + m;
        }
    }
}

impl BlockFormat<34, 32> for Q8_0 {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 34], out: &mut [f32; 32]) {
        let d = f16_at(block, 0);
        let qs: &[u8; 32] = field(block, 2);
        for i in 0..32 {
            out[i] = d * f32::from(qs[i] as i8);
        }
    }
}
