//! What every block format shares: the trait, the loop over blocks, and half-precision scales.

/// A format that stores `E` consecutive elements of a row in `B` bytes.
///
/// Implementations are branch-free loops over fixed-size arrays marked `#[inline(always)]`, so that the same source
/// becomes SSE2, AVX2 or AVX-512 code according to the function it is inlined into. No operation is fused:
/// every instruction set gives the same bits.
pub trait BlockFormat<const B: usize, const E: usize> {
    /// Decodes one block.
    fn dequantize_block(block: &[u8; B], out: &mut [f32; E]);

    /// Decodes elements `32 part .. 32 part + 32` of a block of more. Where a format does not say how, by way of the
    /// whole.
    #[inline(always)]
    fn dequantize_part(block: &[u8; B], part: usize, out: &mut [f32; 32]) {
        let mut whole = [0f32; E];
        Self::dequantize_block(block, &mut whole);
        out.copy_from_slice(&whole[32 * part..32 * part + 32]);
    }
}

/// Decodes as many whole blocks as both `bytes` and `out` hold, for inlining into a caller's own kernel.
#[inline(always)]
pub fn dequantize_blocks<F: BlockFormat<B, E>, const B: usize, const E: usize>(
    bytes: &[u8],
    out: &mut [f32],
) {
    let (blocks, _) = bytes.as_chunks::<B>();
    let (outs, _) = out.as_chunks_mut::<E>();
    for (block, out) in blocks.iter().zip(outs) {
        F::dequantize_block(block, out);
    }
}

/// Decodes whole blocks with the widest instructions this machine has.
pub fn dequantize_dispatched<F: BlockFormat<B, E>, const B: usize, const E: usize>(
    bytes: &[u8],
    out: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl")
        {
            // SAFETY: the features were just detected.
            #[expect(unsafe_code, reason = "calling a function compiled for a detected instruction set")]
            return unsafe { dequantize_avx512::<F, B, E>(bytes, out) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the feature was just detected.
            #[expect(unsafe_code, reason = "calling a function compiled for a detected instruction set")]
            return unsafe { dequantize_avx2::<F, B, E>(bytes, out) };
        }
    }
    dequantize_blocks::<F, B, E>(bytes, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn dequantize_avx512<F: BlockFormat<B, E>, const B: usize, const E: usize>(bytes: &[u8], out: &mut [f32]) {
    dequantize_blocks::<F, B, E>(bytes, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dequantize_avx2<F: BlockFormat<B, E>, const B: usize, const E: usize>(bytes: &[u8], out: &mut [f32]) {
    dequantize_blocks::<F, B, E>(bytes, out);
}

/// The `N` bytes of a block that begin at `at`; both are constants of a format's layout.
#[inline(always)]
pub(super) fn field<const B: usize, const N: usize>(block: &[u8; B], at: usize) -> &[u8; N] {
    let (fields, _) = block[at..].as_chunks::<N>();
    &fields[0]
}

/// The 32 bytes of `bytes` that begin at `32 * index`.
#[inline(always)]
pub(super) fn chunk32<const N: usize>(bytes: &[u8; N], index: usize) -> &[u8; 32] {
    &bytes.as_chunks::<32>().0[index]
}

/// A zero the optimiser cannot see. A 16-step loop with a small body is unrolled before it can be vectorised and
/// ends as scalar code; or-ing in a bit of this number makes the body too large for that, and three times as fast.
#[inline(always)]
pub(super) fn opaque_zero() -> u32 {
    std::hint::black_box(0)
}

/// IEEE half to single precision, exact for every value; branch-free so that loops over it vectorise (the `half`
/// crate asks for the instruction set at each call).
#[inline(always)]
pub(super) fn f16_to_f32(bits: u16) -> f32 {
    const TWO_POW_112: f32 = f32::from_bits((127 + 112) << 23);
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * TWO_POW_112;
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | sign)
}

/// The half-precision number stored at byte `at` of a block.
#[inline(always)]
pub(super) fn f16_at<const B: usize>(block: &[u8; B], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes(*field(block, at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_agrees_with_the_half_crate_on_all_bit_patterns() {
        for bits in 0..=u16::MAX {
            let want = half::f16::from_bits(bits).to_f32();
            let got = f16_to_f32(bits);
            assert!(
                got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                "{bits:#06x}: {got} {want}"
            );
        }
    }
}
