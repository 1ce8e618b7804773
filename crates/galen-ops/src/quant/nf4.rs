//! 4-bit NormalFloat with double quantisation (QLoRA, Dettmers et al. 2023, section 3), as bitsandbytes stores it.
//!
//! The row-major tensor is cut into blocks of 64; a block's codes index 16 quantiles of a normal distribution,
//! scaled by the block's largest magnitude. Those magnitudes, less their mean, are quantised to 8 bits in turn:
//! absmax_b = DYNAMIC[code_b] * scale[b / 256] + offset. In all 4.127 bits a weight.

use std::sync::{Arc, LazyLock};

use super::block::BlockFormat;

/// Elements that share one magnitude.
pub const NF4_BLOCK: usize = 64;
/// Magnitudes that share one scale.
pub const NF4_SUPER: usize = 256;

/// The 16 levels, ascending (QLoRA, appendix E).
const LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// [`LEVELS`], for the planes.
pub(super) fn levels() -> &'static [f32; 16] {
    &LEVELS
}

/// The codes of a block without its magnitude: values in [-1, 1], the earlier element in the high nibble.
pub struct Nf4;

impl BlockFormat<32, 64> for Nf4 {
    #[inline(always)]
    fn dequantize_block(block: &[u8; 32], out: &mut [f32; 64]) {
        for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(block) {
            *pair = PAIRS[usize::from(*byte)];
        }
    }
}

/// Both levels of every byte: one load for two elements.
static PAIRS: [[f32; 2]; 256] = {
    let mut pairs = [[0.0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [LEVELS[byte >> 4], LEVELS[byte & 15]];
        byte += 1;
    }
    pairs
};

/// The signed 8-bit dynamic type of "8-bit Approximations for Parallelism in Deep Learning" (Dettmers 2015), with
/// seven exponent steps, ascending: zero, one, and for each decade 10^-6 ... 1 the means of equal steps over [0.1, 1].
pub(super) fn dynamic_levels() -> &'static [f32; 256] {
    static LEVELS: LazyLock<[f32; 256]> = LazyLock::new(|| {
        let mut levels = vec![0.0, 1.0];
        for exponent in 0..7 {
            let steps = 1usize << exponent;
            let step = 0.9 / steps as f64;
            for i in 0..steps {
                let mean = 0.1 + step * (i as f64 + 0.5);
                let value = (mean * 10f64.powi(exponent - 6)) as f32;
                levels.extend([value, -value]);
            }
        }
        levels.sort_by(f32::total_cmp);
        let mut table = [0.0; 256];
        table.copy_from_slice(&levels);
        table
    });
    &LEVELS
}

/// The quantised magnitudes of an NF4 tensor.
#[derive(Debug, Clone)]
pub struct Nf4Scales {
    /// One 8-bit code for each block of 64 elements.
    pub absmax: Arc<[u8]>,
    /// One scale for each 256 of those codes.
    pub scale: Arc<[f32]>,
    /// The mean that was taken off before quantising.
    pub offset: f32,
}

impl Nf4Scales {
    /// The magnitude of block `block` as it is stored.
    #[inline(always)]
    pub fn absmax(&self, block: usize) -> f32 {
        let level = dynamic_levels()[usize::from(self.absmax[block])];
        level * self.scale[block / NF4_SUPER] + self.offset
    }

    /// Whether there is a code and a scale for each of `elements`.
    pub(super) fn covers(&self, elements: usize) -> bool {
        let blocks = elements.div_ceil(NF4_BLOCK);
        self.absmax.len() == blocks && self.scale.len() == blocks.div_ceil(NF4_SUPER)
    }

    /// Bytes held.
    pub fn nbytes(&self) -> usize {
        self.absmax.len() + 4 * self.scale.len() + 4
    }
}

/// Quantises a row-major tensor. Gives the packed codes, two a byte, and the magnitudes.
///
/// Codes equal bitsandbytes' (nearest level, the lower one on a tie). The 8-bit codes are nearest too, where
/// bitsandbytes' CPU kernel is off by one for about 0.2 % of blocks.
pub fn quantize_nf4(values: &[f32]) -> (Vec<u8>, Nf4Scales) {
    let mut codes = Vec::with_capacity(values.len().div_ceil(2));
    let mut magnitudes = Vec::with_capacity(values.len().div_ceil(NF4_BLOCK));
    for block in values.chunks(NF4_BLOCK) {
        let absmax = block.iter().fold(0f32, |m, v| m.max(v.abs()));
        magnitudes.push(absmax);
        let inverse = 1.0 / absmax.max(1e-38);
        let mut nearest = [0u8; NF4_BLOCK];
        for (code, value) in nearest.iter_mut().zip(block) {
            *code = nearest_level(value * inverse);
        }
        // A tail of odd length is padded with the level of zero, as bitsandbytes pads it.
        if block.len() < NF4_BLOCK {
            nearest[block.len()..].fill(7);
        }
        let bytes = block.len().div_ceil(2);
        codes.extend(nearest.as_chunks::<2>().0[..bytes].iter().map(|[first, second]| first << 4 | second));
    }
    let scales = quantize_magnitudes(&magnitudes);
    (codes, scales)
}

/// Index of the level nearest to `value`: the number of midpoints below it.
#[inline]
fn nearest_level(value: f32) -> u8 {
    let mut code = 0;
    for i in 0..15 {
        code += u8::from(value > f32::midpoint(LEVELS[i], LEVELS[i + 1]));
    }
    code
}

fn quantize_magnitudes(magnitudes: &[f32]) -> Nf4Scales {
    let sum: f64 = magnitudes.iter().map(|m| f64::from(*m)).sum();
    let offset = if magnitudes.is_empty() { 0.0 } else { (sum / magnitudes.len() as f64) as f32 };
    let levels = dynamic_levels();
    let mut absmax = Vec::with_capacity(magnitudes.len());
    let mut scale = Vec::with_capacity(magnitudes.len().div_ceil(NF4_SUPER));
    for group in magnitudes.chunks(NF4_SUPER) {
        let largest = group.iter().fold(0f32, |m, v| m.max((v - offset).abs()));
        scale.push(largest);
        let inverse = 1.0 / largest.max(1e-38);
        for magnitude in group {
            let x = (magnitude - offset) * inverse;
            let above = levels.partition_point(|level| *level < x).clamp(1, 255);
            let lower_is_nearer = x - levels[above - 1] <= levels[above] - x;
            absmax.push((above - usize::from(lower_is_nearer)) as u8);
        }
    }
    Nf4Scales { absmax: absmax.into(), scale: scale.into(), offset }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_type_has_the_published_values() {
        let levels = dynamic_levels();
        // bitsandbytes.functional.create_dynamic_map(): first, second, around zero, last.
        let want = [
            (0, -0.992_968_74),
            (1, -0.978_906_3),
            (63, -0.107_031_256),
            (126, -5.5e-7),
            (127, 0.0),
            (128, 5.5e-7),
            (140, 0.000_718_75),
            (254, 0.992_968_74),
            (255, 1.0f32),
        ];
        for (i, value) in want {
            assert!(
                ((levels[i] - value) / value.abs().max(1e-30)).abs() <= 2e-7,
                "{i}: {} {value}",
                levels[i]
            );
        }
    }

    #[test]
    fn levels_are_fixed_points_and_errors_stay_within_half_a_gap() {
        let (codes, scales) = quantize_nf4(&LEVELS.repeat(4));
        assert_eq!(codes.len(), 32);
        assert_eq!(&codes[..8], &[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        assert!((scales.absmax(0) - 1.0).abs() <= 1e-6);
    }
}
