//! Random weights in ggml's block formats, written as blocks: values of mean near 0 and about the wanted spread,
//! without quantising anything.

use crate::fuzz::Random;
use galen_ops::quant::WeightDtype;
use half::{bf16, f16};

/// Appends `count` elements (whole blocks) of about standard deviation `spread`. False where the format has no
/// writer here, or `count` is not whole blocks.
pub fn random_blocks(
    dtype: WeightDtype,
    count: usize,
    spread: f32,
    random: &mut Random,
    out: &mut Vec<u8>,
) -> bool {
    if !count.is_multiple_of(dtype.block_size()) {
        return false;
    }
    let write: fn(&mut Random, f32, &mut Vec<u8>) = match dtype {
        WeightDtype::F32 => |r, s, out| out.extend((s * unit(r)).to_le_bytes()),
        WeightDtype::BF16 => |r, s, out| out.extend(bf16::from_f32(s * unit(r)).to_le_bytes()),
        WeightDtype::Q4_1 => q4_1,
        WeightDtype::Q8_0 => q8_0,
        WeightDtype::Q4_K => q4_k,
        _ => return false,
    };
    for _ in 0..count / dtype.block_size() {
        write(random, spread, out);
    }
    true
}

/// Uniform of standard deviation 1.
fn unit(random: &mut Random) -> f32 {
    let below_one = (random.bits() >> 40) as f32 / (1 << 24) as f32;
    (below_one - 0.5) * 12f32.sqrt()
}

/// Standard deviation of a uniform code of 4 bits, and its mean.
const NIBBLE: (f32, f32) = (4.609_772, 7.5);

fn codes(random: &mut Random, bytes: usize, out: &mut Vec<u8>) {
    for _ in 0..bytes / 8 {
        out.extend(random.bits().to_le_bytes());
    }
}

/// Scale d, minimum m, 32 codes of 4 bits: w = d q + m.
fn q4_1(random: &mut Random, spread: f32, out: &mut Vec<u8>) {
    let d = f16::from_f32(spread / NIBBLE.0);
    out.extend(d.to_le_bytes());
    out.extend(f16::from_f32(-NIBBLE.1 * d.to_f32()).to_le_bytes());
    codes(random, 16, out);
}

/// Scale d, 32 signed bytes: w = d q.
fn q8_0(random: &mut Random, spread: f32, out: &mut Vec<u8>) {
    out.extend(f16::from_f32(spread / 73.9).to_le_bytes());
    codes(random, 32, out);
}

/// d, dmin, eight 6-bit scales and minima, 256 codes of 4 bits: w = d s q - dmin m, with m = s and dmin = 7.5 d.
fn q4_k(random: &mut Random, spread: f32, out: &mut Vec<u8>) {
    let bits = random.bits();
    let scales: [u8; 8] = std::array::from_fn(|j| 32 | (bits >> (8 * j)) as u8 & 31);
    // Scales have a mean square of 47.5 squared plus 85.
    let d = f16::from_f32(spread / (NIBBLE.0 * 48.4));
    out.extend(d.to_le_bytes());
    out.extend(f16::from_f32(NIBBLE.1 * d.to_f32()).to_le_bytes());
    let low: [u8; 4] = std::array::from_fn(|j| scales[j] | (scales[j + 4] >> 4) << 6);
    out.extend(low);
    out.extend(low);
    out.extend((4..8).map(|j| scales[j] & 15 | (scales[j] & 15) << 4));
    codes(random, 128, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use galen_ops::quant::QuantMatrix;

    #[test]
    fn every_format_has_the_wanted_mean_and_spread() {
        use WeightDtype::{BF16, F32, Q4_1, Q4_K, Q8_0};
        for dtype in [F32, BF16, Q4_1, Q8_0, Q4_K] {
            let (mut bytes, n) = (Vec::new(), 64 * 1024);
            assert!(random_blocks(dtype, n, 0.02, &mut Random::new(3), &mut bytes));
            let values = QuantMatrix::new(dtype, 64, 1024, bytes.into()).unwrap().to_f32();
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
            let spread =
                (values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
            assert!(mean.abs() < 5e-4, "{dtype}: mean {mean}");
            assert!((spread / 0.02 - 1.0).abs() < 0.02, "{dtype}: spread {spread}");
        }
        assert!(!random_blocks(Q4_K, 100, 0.02, &mut Random::new(3), &mut Vec::new()));
        assert!(!random_blocks(WeightDtype::Nf4, 64, 0.02, &mut Random::new(3), &mut Vec::new()));
    }
}
