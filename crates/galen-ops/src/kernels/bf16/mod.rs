//! `C[m, n] = A[m, k] B[k, n]` with both operands rounded to bfloat16 and sums in f32.
//!
//! Operands are packed in pairs along k, as the processor's dot-product instruction takes them: a `u32` holds element
//! `2p` in its low and `2p + 1` in its high half, an odd k ends with a zero. Rounding is to nearest even.
//!
//! - `tile`: the register tile, on every kernel path; `amx`: that of the tile registers
//! - `pack`: left operands
//! - `panels`: right operands: dense, quantised blocks as stored, or weights packed once
//! - `transpose`: pairs along one axis to pairs along the other
//! - `gemm`: the loops over tiles
//! - `attention`: one head of one segment

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
pub(crate) mod attention;
mod gemm;
mod lines;
mod pack;
mod panels;
mod tile;
mod transpose;

pub(crate) use gemm::{Piece, Start, gemm16, product16};
pub(crate) use pack::PackedA;
pub use panels::PackedWeight;
pub(crate) use panels::{Backward, Forward, Rows16, Transposed16};

/// The bits of `x` rounded to bfloat16, to nearest even; a NaN stays one.
#[inline(always)]
pub(crate) fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    (if x.is_nan() { bits >> 16 | 0x40 } else { rounded }) as u16
}

/// Two neighbours along k.
#[inline(always)]
pub(crate) fn pair(even: f32, odd: f32) -> u32 {
    u32::from(round(even)) | u32::from(round(odd)) << 16
}

/// `out[q] = pair(values[2q], values[2q + 1])`, an odd end with a zero.
#[inline(always)]
pub(crate) fn pairs(values: &[f32], out: &mut [u32]) {
    let (whole, rest) = values.as_chunks::<2>();
    for (out, [even, odd]) in out.iter_mut().zip(whole) {
        *out = pair(*even, *odd);
    }
    if let ([last], Some(out)) = (rest, out.get_mut(whole.len())) {
        *out = pair(*last, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_as_the_half_crate_does() {
        for bits in (0..=u32::MAX).step_by(65_537 / 3) {
            let x = f32::from_bits(bits);
            let (ours, theirs) = (round(x), half::bf16::from_f32(x));
            assert!(
                ours == theirs.to_bits() || (x.is_nan() && theirs.is_nan() && ours & 0x7fff > 0x7f80),
                "{x}"
            );
        }
    }
}
