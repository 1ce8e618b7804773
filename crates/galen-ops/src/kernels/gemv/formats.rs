//! Every format as signed 8-bit codes with a factor and an offset for sixteen of them: `w = factor code - offset`, in
//! the decoders' own order of roundings. Layouts: [`crate::quant`].
//!
//! Every `unsafe fn` here asks for a readable block and a processor with AVX2 and F16C.

use super::x86::Stored;
use std::arch::x86_64::{
    __m128i, __m256i, _mm_cvtph_ps, _mm_cvtsi32_si128, _mm_cvtsi64_si128, _mm_cvtss_f32, _mm_loadu_si128,
    _mm_movehdup_ps, _mm_setr_epi8, _mm_srli_epi16, _mm256_and_si256, _mm256_andnot_si256,
    _mm256_broadcastsi128_si256, _mm256_castsi256_si128, _mm256_cmpeq_epi8, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi32, _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_mul_ps, _mm256_or_si256,
    _mm256_set_m128i, _mm256_set1_epi8, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_set1_ps,
    _mm256_setr_epi64x, _mm256_shuffle_epi8, _mm256_slli_epi16, _mm256_srl_epi16, _mm256_storeu_ps,
    _mm256_sub_epi8,
};

/// A format, decoded `16 G` elements (a part) at a time.
pub(super) trait Decode<const G: usize> {
    /// Bytes of a block.
    const BYTES: usize;
    /// Parts of a block.
    const PARTS: usize;
    /// What the parts of a block share.
    type Head;

    unsafe fn head(block: *const u8) -> Self::Head;

    unsafe fn part<V: Stored>(block: *const u8, head: &Self::Head, part: usize) -> [V; G];
}

/// Thirty-two codes, and the factor and offset of each half of them.
type Part = (__m256i, [(f32, f32); 2]);

/// A quantised format.
pub(super) trait Coded {
    const BYTES: usize;
    const PARTS: usize = 1;
    /// What makes every code of the format unsigned, at most 63, when added to it; none where codes are any signed
    /// bytes and have no offset.
    const ZERO: Option<i8>;
    /// Whether both halves of a part have the same factor and offset.
    const EVEN: bool = true;
    /// What the sixteen nibbles stand for, where a code is a nibble.
    const LEVELS: Option<[f32; 16]> = None;
    type Head;

    unsafe fn head(block: *const u8) -> Self::Head;

    unsafe fn codes(block: *const u8, head: &Self::Head, part: usize) -> Part;

    /// Where the nibbles of each half of a part lie, and by how many bits to shift the bytes. Not asked for without
    /// levels.
    #[inline(always)]
    unsafe fn nibbles_of(block: *const u8, _: usize) -> [(*const u8, u32); 2] {
        [(block, 0); 2]
    }
}

impl<C: Coded> Decode<2> for C {
    const BYTES: usize = C::BYTES;
    const PARTS: usize = C::PARTS;
    type Head = C::Head;

    #[inline(always)]
    unsafe fn head(block: *const u8) -> C::Head {
        // SAFETY: the caller's promise, here and below.
        unsafe { C::head(block) }
    }

    #[inline(always)]
    unsafe fn part<V: Stored>(block: *const u8, head: &C::Head, part: usize) -> [V; 2] {
        // SAFETY: as above.
        unsafe {
            let (codes, [low, high]) = C::codes(block, head, part);
            if V::LOOKS_UP
                && let Some(levels) = C::LEVELS
            {
                // Sixteen values by the same arithmetic, then each weight by its nibble.
                let (factor, offset) = low;
                let values = V::splat(factor).mul(V::load(levels.as_ptr())).sub(V::splat(offset));
                return C::nibbles_of(block, part).map(|(at, shift)| V::look_up(values, at, shift));
            }
            let of =
                |codes, (factor, offset)| V::splat(factor).mul(V::from_codes(codes)).sub(V::splat(offset));
            [of(_mm256_castsi256_si128(codes), low), of(_mm256_extracti128_si256::<1>(codes), high)]
        }
    }
}

macro_rules! floats {
    ($($name:ident $bytes:literal $load:expr;)*) => {$(
        pub(super) struct $name;

        impl Decode<1> for $name {
            const BYTES: usize = $bytes;
            const PARTS: usize = 1;
            type Head = ();

            #[inline(always)]
            unsafe fn head(_: *const u8) {}

            #[inline(always)]
            unsafe fn part<V: Stored>(block: *const u8, (): &(), _: usize) -> [V; 1] {
                // SAFETY: as above.
                unsafe { [$load(block)] }
            }
        }
    )*};
}

floats! {
    F32 64 |block: *const u8| V::load(block.cast());
    F16 32 |block| V::load_f16(block);
    BF16 32 |block| V::load_bf16(block);
}

/// The half-precision number at `at`.
#[inline(always)]
unsafe fn half(at: *const u8) -> f32 {
    // SAFETY: as above.
    unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(at.cast::<u16>().read_unaligned())))) }
}

/// The half-precision numbers at `at` and behind it.
#[inline(always)]
unsafe fn halves(at: *const u8) -> (f32, f32) {
    // SAFETY: as above.
    unsafe {
        let both = _mm_cvtph_ps(_mm_cvtsi32_si128(at.cast::<i32>().read_unaligned()));
        (_mm_cvtss_f32(both), _mm_cvtss_f32(_mm_movehdup_ps(both)))
    }
}

#[inline(always)]
unsafe fn load(at: *const u8) -> __m256i {
    // SAFETY: as above.
    unsafe { _mm256_loadu_si256(at.cast()) }
}

/// The low nibbles of sixteen bytes, then their high ones.
#[inline(always)]
unsafe fn nibbles(at: *const u8) -> __m256i {
    // SAFETY: as above.
    unsafe {
        let bytes = _mm_loadu_si128(at.cast());
        _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes), _mm256_set1_epi8(15))
    }
}

/// `bytes >> shift & mask`, byte by byte; the mask leaves nothing of a neighbour.
#[inline(always)]
unsafe fn field(bytes: __m256i, shift: usize, mask: i8) -> __m256i {
    // SAFETY: as above.
    unsafe {
        _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(shift as i32)), _mm256_set1_epi8(mask))
    }
}

/// All ones in bytes that have the bit.
#[inline(always)]
unsafe fn has_bit(bytes: __m256i, bit: usize) -> __m256i {
    // SAFETY: as above.
    unsafe {
        let bit = _mm256_set1_epi8((1u8 << bit) as i8);
        _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit)
    }
}

/// 16 in byte i where bit i of the four bytes at `at` is set.
#[inline(always)]
unsafe fn fifth_bits(at: *const u8) -> __m256i {
    // SAFETY: as above.
    unsafe {
        let bits = _mm256_set1_epi32(at.cast::<i32>().read_unaligned());
        let eighth = |i: i64| i * 0x0101_0101_0101_0101;
        let spread = _mm256_shuffle_epi8(bits, _mm256_setr_epi64x(0, eighth(1), eighth(2), eighth(3)));
        let each = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, each), each);
        _mm256_and_si256(set, _mm256_set1_epi8(16))
    }
}

/// Both halves with the same factor and offset.
#[inline(always)]
fn even(factor: f32, offset: f32) -> [(f32, f32); 2] {
    [(factor, offset); 2]
}

macro_rules! coded {
    (
        $name:ident, $bytes:literal in $parts:literal, zero $zero:expr, even $even:literal,
        $head_type:ty, $head:expr, $codes:expr $(, nibbles $levels:expr, $nibbles:expr)?
    ) => {
        pub(super) struct $name;

        impl Coded for $name {
            const BYTES: usize = $bytes;
            const PARTS: usize = $parts;
            const ZERO: Option<i8> = $zero;
            const EVEN: bool = $even;
            type Head = $head_type;

            #[inline(always)]
            unsafe fn head(block: *const u8) -> $head_type {
                // SAFETY: as above.
                unsafe { $head(block) }
            }

            #[inline(always)]
            unsafe fn codes(block: *const u8, head: &$head_type, part: usize) -> Part {
                // SAFETY: as above.
                unsafe { $codes(block, head, part) }
            }
            $(
                const LEVELS: Option<[f32; 16]> = Some($levels);

                #[inline(always)]
                unsafe fn nibbles_of(block: *const u8, part: usize) -> [(*const u8, u32); 2] {
                    // SAFETY: as above.
                    unsafe { $nibbles(block, part) }
                }
            )?
        }
    };
}

/// Both halves of 32 elements in sixteen bytes: low nibbles, then high ones.
#[inline(always)]
fn both(at: *const u8) -> [(*const u8, u32); 2] {
    [(at, 0), (at, 4)]
}

/// `first`, `first + 1` and so on.
const fn levels_from(first: i32) -> [f32; 16] {
    let mut levels = [0.0; 16];
    let mut i = 0;
    while i < 16 {
        levels[i] = (first + i as i32) as f32;
        i += 1;
    }
    levels
}

coded!(Q4_0, 18 in 1, zero Some(8), even true, f32, |block| half(block), |block: *const u8, d: &f32, _| {
    (_mm256_sub_epi8(nibbles(block.add(2)), _mm256_set1_epi8(8)), even(*d, 0.0))
}, nibbles levels_from(-8), |block: *const u8, _| both(block.add(2)));
coded!(Q4_1, 20 in 1, zero Some(0), even true, (f32, f32), |block| halves(block), |block: *const u8, (d, m): &(f32, f32), _| {
    (nibbles(block.add(4)), even(*d, -m))
}, nibbles levels_from(0), |block: *const u8, _| both(block.add(4)));
coded!(Q5_0, 22 in 1, zero Some(16), even true, f32, |block| half(block), |block: *const u8, d: &f32, _| {
    let codes = _mm256_or_si256(nibbles(block.add(6)), fifth_bits(block.add(2)));
    (_mm256_sub_epi8(codes, _mm256_set1_epi8(16)), even(*d, 0.0))
});
coded!(Q5_1, 24 in 1, zero Some(0), even true, (f32, f32), |block| halves(block), |block: *const u8, (d, m): &(f32, f32), _| {
    (_mm256_or_si256(nibbles(block.add(8)), fifth_bits(block.add(4))), even(*d, -m))
});
coded!(Q8_0, 34 in 1, zero None, even true, f32, |block| half(block), |block: *const u8, d: &f32, _| {
    (load(block.add(2)), even(*d, 0.0))
});
coded!(
    Q2K,
    84 in 8, zero Some(0), even false,
    (f32, f32),
    |block: *const u8| halves(block.add(80)),
    |block: *const u8, (d, dmin): &(f32, f32), part: usize| {
        let of = |half: usize| {
            let scale = *block.add(2 * part + half);
            (d * f32::from(scale & 15), dmin * f32::from(scale >> 4))
        };
        (field(load(block.add(16 + 32 * (part / 4))), 2 * (part % 4), 3), [of(0), of(1)])
    }
);
coded!(
    Q3K,
    110 in 8, zero Some(4), even false,
    f32,
    |block: *const u8| half(block.add(108)),
    |block: *const u8, d: &f32, part: usize| {
        let of = |half: usize| {
            let (s, packed) = (2 * part + half, block.add(96));
            let low = *packed.add(s % 8) >> (4 * (s / 8)) & 15;
            let high = *packed.add(8 + s % 4) >> (2 * (s / 4)) & 3;
            (d * (i32::from(low | high << 4) - 32) as f32, 0.0)
        };
        let codes = field(load(block.add(32 + 32 * (part / 4))), 2 * (part % 4), 3);
        // A clear high bit means minus four.
        let minus = _mm256_andnot_si256(has_bit(load(block), part), _mm256_set1_epi8(4));
        (_mm256_sub_epi8(codes, minus), [of(0), of(1)])
    }
);
coded!(
    Q4K,
    144 in 8, zero Some(0), even true,
    [[f32; 8]; 2],
    |block| scales_and_mins(block),
    |block: *const u8, [scales, mins]: &[[f32; 8]; 2], part: usize| {
        (field(load(block.add(16 + 32 * (part / 2))), 4 * (part % 2), 15), even(scales[part], mins[part]))
    },
    nibbles levels_from(0),
    |block: *const u8, part: usize| {
        let (at, shift) = (block.add(16 + 32 * (part / 2)), 4 * (part % 2) as u32);
        [(at, shift), (at.add(16), shift)]
    }
);
coded!(
    Q5K,
    176 in 8, zero Some(0), even true,
    [[f32; 8]; 2],
    |block| scales_and_mins(block),
    |block: *const u8, [scales, mins]: &[[f32; 8]; 2], part: usize| {
        let low = field(load(block.add(48 + 32 * (part / 2))), 4 * (part % 2), 15);
        let fifth = _mm256_and_si256(has_bit(load(block.add(16)), part), _mm256_set1_epi8(16));
        (_mm256_or_si256(low, fifth), even(scales[part], mins[part]))
    }
);
coded!(
    Q6K,
    210 in 8, zero Some(32), even false,
    f32,
    |block: *const u8| half(block.add(208)),
    |block: *const u8, d: &f32, part: usize| {
        // Per half of the super-block: low nibbles of 64 bytes, then their high nibbles.
        let low = field(load(block.add(32 * (2 * (part / 4) + part % 2))), 4 * (part / 2 % 2), 15);
        let high = field(load(block.add(128 + 32 * (part / 4))), 2 * (part % 4), 3);
        let codes = _mm256_or_si256(low, _mm256_slli_epi16::<4>(high));
        let of = |half: usize| (d * f32::from(block.add(192 + 2 * part + half).cast::<i8>().read()), 0.0);
        (_mm256_sub_epi8(codes, _mm256_set1_epi8(32)), [of(0), of(1)])
    }
);
coded!(
    Q8K,
    292 in 8, zero None, even true,
    f32,
    |block: *const u8| block.cast::<f32>().read_unaligned(),
    |block: *const u8, d: &f32, part: usize| (load(block.add(4 + 32 * part)), even(*d, 0.0))
);
coded!(Iq4Nl, 18 in 1, zero None, even true, f32, |block| half(block), |block: *const u8, d: &f32, _| {
    (levels(nibbles(block.add(2))), even(*d, 0.0))
}, nibbles IQ4_LEVELS, |block: *const u8, _| both(block.add(2)));
coded!(Iq4Xs, 136 in 8, zero None, even true, f32, |block| half(block), |block: *const u8, d: &f32, part: usize| {
    let high = block.add(2).cast::<u16>().read_unaligned();
    let low = *block.add(4 + part / 2) >> (4 * (part % 2)) & 15;
    let scale = i32::from(low) | i32::from(high >> (2 * part) & 3) << 4;
    (levels(nibbles(block.add(8 + 16 * part))), even(d * (scale - 32) as f32, 0.0))
}, nibbles IQ4_LEVELS, |block: *const u8, part: usize| both(block.add(8 + 16 * part)));

/// What IQ4's nibbles stand for.
const IQ4_LEVELS: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0,
];

/// The levels of IQ4's nibbles.
#[inline(always)]
unsafe fn levels(nibbles: __m256i) -> __m256i {
    // SAFETY: as above.
    unsafe {
        let table: __m128i =
            _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), nibbles)
    }
}

/// Scale and minimum of the eight sub-blocks of Q4_K and Q5_K, times `d` and `dmin`: six bits each, the last four's
/// upper two bits in the spare bits of the first four.
#[inline(always)]
unsafe fn scales_and_mins(block: *const u8) -> [[f32; 8]; 2] {
    // SAFETY: as above.
    unsafe {
        let word = |i: usize| block.add(4 + 4 * i).cast::<u32>().read_unaligned();
        let (a, b, c) = (word(0), word(1), word(2));
        let scales = [a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | a >> 2 & 0x3030_3030];
        let mins = [b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | b >> 2 & 0x3030_3030];
        let (d, dmin) = halves(block);
        let mut out = [[0f32; 8]; 2];
        for (i, (words, factor)) in [(scales, d), (mins, dmin)].into_iter().enumerate() {
            let bytes = _mm_cvtsi64_si128((u64::from(words[0]) | u64::from(words[1]) << 32) as i64);
            let values = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
            _mm256_storeu_ps(out[i].as_mut_ptr(), _mm256_mul_ps(_mm256_set1_ps(factor), values));
        }
        out
    }
}
