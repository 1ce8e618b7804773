//! A block's values as points of a grid, for roundings other than to the nearest: `min + scale * code` for each element,
//! with the scales a block already has.

use super::super::WeightDtype;

/// Largest block with codes, elements.
const MAX_BLOCK: usize = 256;

/// The grid of one block: element i holds `min[i] + scale[i] * q`, q in `0..=top`.
#[derive(Debug, Clone)]
pub struct BlockGrid {
    /// Value of code 0.
    pub min: Vec<f32>,
    /// Step from a code to the next; may be negative or zero.
    pub scale: Vec<f32>,
    /// Largest code.
    pub top: u8,
}

impl BlockGrid {
    /// The grid of a block. None for formats without codes that are written here.
    pub fn new(dtype: WeightDtype, block: &[u8]) -> Option<Self> {
        let top = top(dtype)?;
        let size = dtype.block_size();
        let mut scratch = block.get(..dtype.block_bytes())?.to_vec();
        let mut decoded = |code: u8| {
            let mut values = vec![0f32; size];
            set_codes(dtype, &mut scratch, &[code; MAX_BLOCK][..size]);
            super::super::dequantize_unchecked(dtype, &scratch, &mut values);
            values
        };
        let (min, mut scale) = (decoded(0), decoded(1));
        scale.iter_mut().zip(&min).for_each(|(s, m)| *s -= m);
        Some(Self { min, scale, top })
    }

    /// The code nearest to `x` at element `i`, and its value.
    #[inline]
    pub fn nearest(&self, i: usize, x: f32) -> (u8, f32) {
        let (min, scale) = (self.min[i], self.scale[i]);
        if scale == 0.0 {
            return (0, min);
        }
        let q = super::fit::nearest(((x - min) / scale).clamp(0.0, f32::from(self.top)));
        (q as u8, min + scale * q)
    }
}

/// Largest code of a format; none where it has no codes, or they are not written here.
fn top(dtype: WeightDtype) -> Option<u8> {
    match dtype {
        WeightDtype::Q4_0 | WeightDtype::Q4_1 | WeightDtype::Q4_K => Some(15),
        WeightDtype::Q5_0 | WeightDtype::Q5_1 | WeightDtype::Q5_K => Some(31),
        WeightDtype::Q6_K => Some(63),
        WeightDtype::Q8_0 => Some(255),
        _ => None,
    }
}

/// Replaces a block's codes, its scales kept. `codes` are as many as the block has elements, none above the format's
/// largest. Formats without codes: nothing is done.
pub fn set_codes(dtype: WeightDtype, block: &mut [u8], codes: &[u8]) {
    let half = |codes: &[u8], out: &mut [u8]| {
        if let Some(codes) = codes.first_chunk::<32>() {
            super::legacy::nibbles(codes, out);
        }
    };
    let fifth = |codes: &[u8], out: &mut [u8]| {
        if let Some(codes) = codes.first_chunk::<32>() {
            out.copy_from_slice(&super::legacy::fifth_bits(codes));
        }
    };
    match dtype {
        WeightDtype::Q4_0 => half(codes, &mut block[2..18]),
        WeightDtype::Q4_1 => half(codes, &mut block[4..20]),
        WeightDtype::Q5_0 => {
            fifth(codes, &mut block[2..6]);
            half(codes, &mut block[6..22]);
        }
        WeightDtype::Q5_1 => {
            fifth(codes, &mut block[4..8]);
            half(codes, &mut block[8..24]);
        }
        WeightDtype::Q8_0 => {
            block[2..34].iter_mut().zip(codes).for_each(|(out, q)| *out = q.wrapping_sub(128));
        }
        WeightDtype::Q4_K => super::k::set_low(codes, &mut block[16..144]),
        WeightDtype::Q5_K => {
            super::k::set_high(codes, &mut block[16..48]);
            super::k::set_low(codes, &mut block[48..176]);
        }
        WeightDtype::Q6_K => super::k::set_six(codes, &mut block[..192]),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{dequantize, quantize};

    #[test]
    fn nearest_codes_give_the_block_back() {
        let values: Vec<f32> = (0..256).map(|i| ((i * 37 % 101) as f32 - 40.0) / 300.0).collect();
        for dtype in [
            WeightDtype::Q4_0,
            WeightDtype::Q4_1,
            WeightDtype::Q5_0,
            WeightDtype::Q5_1,
            WeightDtype::Q8_0,
            WeightDtype::Q4_K,
            WeightDtype::Q5_K,
            WeightDtype::Q6_K,
        ] {
            let size = dtype.block_size();
            let bytes = quantize(dtype, 256, &values).unwrap();
            let block = &bytes[..dtype.block_bytes()];
            let mut want = vec![0f32; size];
            dequantize(dtype, block, &mut want).unwrap();
            let grid = BlockGrid::new(dtype, block).unwrap();
            let mut again = block.to_vec();
            let codes: Vec<u8> = want.iter().enumerate().map(|(i, x)| grid.nearest(i, *x).0).collect();
            set_codes(dtype, &mut again, &codes);
            let mut got = vec![0f32; size];
            dequantize(dtype, &again, &mut got).unwrap();
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                assert!((g - w).abs() <= 1e-6, "{dtype}[{i}]: {g} {w}");
                assert!((grid.nearest(i, *w).1 - w).abs() <= 1e-6, "{dtype}[{i}]");
            }
        }
        assert!(BlockGrid::new(WeightDtype::F16, &[0; 2]).is_none());
    }
}
