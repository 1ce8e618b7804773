//! Plain floats as formats of one-element blocks.

use super::block::{BlockFormat, f16_to_f32};

/// IEEE single precision, little-endian.
pub struct F32;
/// IEEE half precision.
pub struct F16;
/// The upper half of a single-precision float.
pub struct BF16;

impl BlockFormat<4, 1> for F32 {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 4], out: &mut [f32; 1]) {
        out[0] = f32::from_le_bytes(*block);
    }
}

impl BlockFormat<2, 1> for F16 {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 2], out: &mut [f32; 1]) {
        out[0] = f16_to_f32(u16::from_le_bytes(*block));
    }
}

impl BlockFormat<2, 1> for BF16 {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 2], out: &mut [f32; 1]) {
        out[0] = f32::from_bits(u32::from(u16::from_le_bytes(*block)) << 16);
    }
}
