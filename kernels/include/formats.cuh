// Weight formats as they lie on the device, and how 32 elements of each become bf16.
//
// A matrix [N, K] is planes, made from the stored blocks by galen_ops::quant::planes (the one writer). Everything is
// in groups of 32 elements of a row, row-major [N][K / 32]:
//   codes   4 bits: 16 bytes. Word w holds elements 8w .. 8w+7: element 8w + 2p + h at bits 4p + 16h.
//           8 bits (Q8_0): 32 bytes, code + 128.   bf16: the elements.
//   high    Q5_*: 4 bytes, the fifth bit of element 2p + h at bit p + 16h.
//           Q6_K: 8 bytes, word v holds elements 16v .. 16v+15, bits 4 and 5 of element 16v + 2p + h at 2p + 16h.
//   scales  Q4_0, Q5_0, Q8_0: half d a group.  Q4_1, Q5_1: half d, half m a group.
//           Q4_K, Q5_K: 16 bytes a super-block of 256: half d, half dmin, 12 bytes of six-bit scales and minima.
//           Q6_K: 16 signed bytes a super-block.   NF4: a byte for each 64 elements of the flattened matrix.
//   supers  Q6_K: half d a super-block.   NF4: a float for each 256 of those bytes.
// The arithmetic is the CPU decoders' (f32, nothing fused), rounded once to bf16: the same bits.
#pragma once
#include "ptx.cuh"

struct Weight {
    const uint8_t* codes;
    const uint8_t* high;
    const uint8_t* scales;
    const uint8_t* supers;
    const float* levels;  // NF4: 16 levels of a code, then 256 of a magnitude
    float offset;         // NF4: added to magnitudes
    int cols;
};

// A kernel's parameters for a weight, and the weight made of them.
#define WEIGHT_PARAMETERS                                                                                     \
    const uint8_t *__restrict__ codes, const uint8_t *__restrict__ high, const uint8_t *__restrict__ scales, \
        const uint8_t *__restrict__ supers, const float *__restrict__ levels, float offset
#define WEIGHT(cols) (Weight{codes, high, scales, supers, levels, offset, cols})

// Two codes below 128 in the halves of `pair`, each or-ed with 0x4300: the bf16 numbers 128 + q. To floats.
__device__ __forceinline__ float low_code(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_code(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
constexpr uint32_t CODES_4 = 0x000f000f, MAGIC = 0x43004300;

// w = d (q - ZERO).
template <int ZERO>
__device__ __forceinline__ uint32_t symmetric(uint32_t pair, float d) {
    float lo = low_code(pair) - float(128 + ZERO), hi = high_code(pair) - float(128 + ZERO);
    return ptx::pack_bf16(__fmul_rn(d, lo), __fmul_rn(d, hi));
}
// w = d q + m.
__device__ __forceinline__ uint32_t affine(uint32_t pair, float d, float m) {
    float lo = low_code(pair) - 128.0f, hi = high_code(pair) - 128.0f;
    return ptx::pack_bf16(__fadd_rn(__fmul_rn(d, lo), m), __fadd_rn(__fmul_rn(d, hi), m));
}

// Each format: Raw is what a thread loads for 32 elements (issued early), `decode` makes 16 pairs of them.
// `lut`: 16 floats of shared memory where USES_LUT.

template <int ZERO, bool MINIMUM, bool FIFTH>
struct Legacy {
    static constexpr bool DIRECT = false, USES_LUT = false;
    struct Raw { uint4 codes; uint32_t high, scale; };
    static __device__ __forceinline__ Raw load(const Weight& w, int64_t row, int group) {
        int64_t at = row * (w.cols / 32) + group;
        Raw raw;
        raw.codes = ptx::load_vector<uint4>(w.codes + 16 * at);
        raw.high = FIFTH ? ptx::load_vector<uint32_t>(w.high + 4 * at) : 0;
        raw.scale = MINIMUM ? ptx::load_vector<uint32_t>(w.scales + 4 * at) : ptx::load_vector<uint16_t>(w.scales + 2 * at);
        return raw;
    }
    static __device__ __forceinline__ void decode(uint32_t (&out)[16], const Raw& raw, int, const float*) {
        float d = ptx::half_to_float(uint16_t(raw.scale)), m = MINIMUM ? ptx::half_to_float(uint16_t(raw.scale >> 16)) : 0;
        const uint32_t words[4] = {raw.codes.x, raw.codes.y, raw.codes.z, raw.codes.w};
        UNROLL
        for (int i = 0; i < 16; ++i) {
            uint32_t pair = ptx::and_or(words[i / 4] >> 4 * (i % 4), CODES_4, MAGIC);
            if (FIFTH) pair |= (raw.high >> i & 0x00010001) << 4;
            out[i] = MINIMUM ? affine(pair, d, m) : symmetric<ZERO>(pair, d);
        }
    }
};
using Q4_0 = Legacy<8, false, false>;
using Q4_1 = Legacy<0, true, false>;
using Q5_0 = Legacy<16, false, true>;
using Q5_1 = Legacy<0, true, true>;

struct Q8_0 {
    static constexpr bool DIRECT = false, USES_LUT = false;
    struct Raw { uint4 codes[2]; uint16_t scale; };
    static __device__ __forceinline__ Raw load(const Weight& w, int64_t row, int group) {
        int64_t at = row * (w.cols / 32) + group;
        return {{ptx::load_vector<uint4>(w.codes + 32 * at), ptx::load_vector<uint4>(w.codes + 32 * at + 16)},
                ptx::load_vector<uint16_t>(w.scales + 2 * at)};
    }
    static __device__ __forceinline__ void decode(uint32_t (&out)[16], const Raw& raw, int, const float*) {
        float d = ptx::half_to_float(raw.scale);
        UNROLL
        for (int i = 0; i < 8; ++i) {
            const uint4& half = raw.codes[i / 4];
            uint32_t word = i % 4 == 0 ? half.x : i % 4 == 1 ? half.y : i % 4 == 2 ? half.z : half.w;
            float q[4];
            UNROLL
            // 0x4b000000 is 2^23: a byte in its lowest bits is that many units.
            for (int j = 0; j < 4; ++j)
                q[j] = __fmul_rn(d, __uint_as_float(ptx::permute(word, 0x4b000000, 0x7650 + j)) - 8388736.0f);
            out[2 * i] = ptx::pack_bf16(q[0], q[1]);
            out[2 * i + 1] = ptx::pack_bf16(q[2], q[3]);
        }
    }
};

// Scale and minimum of sub-block j of eight, of `packed` (12 bytes, behind d and dmin).
__device__ __forceinline__ void scale_and_min(const uint4& header, int j, float& scale, float& min) {
    int shift = 8 * (j & 3);
    uint32_t first = header.y >> shift, second = header.z >> shift, third = header.w >> shift;
    uint32_t s = j < 4 ? first & 0x3f : (third & 15) | (first >> 2 & 0x30);
    uint32_t m = j < 4 ? second & 0x3f : (third >> 4 & 15) | (second >> 2 & 0x30);
    scale = float(s);
    min = float(m);
}

template <bool FIFTH>
struct KQuant {
    static constexpr bool DIRECT = false, USES_LUT = false;
    struct Raw { uint4 codes, header; uint32_t high; };
    static __device__ __forceinline__ Raw load(const Weight& w, int64_t row, int group) {
        int64_t at = row * (w.cols / 32) + group;
        Raw raw;
        raw.codes = ptx::load_vector<uint4>(w.codes + 16 * at);
        raw.header = ptx::load_vector<uint4>(w.scales + 16 * (at / 8));
        raw.high = FIFTH ? ptx::load_vector<uint32_t>(w.high + 4 * at) : 0;
        return raw;
    }
    static __device__ __forceinline__ void decode(uint32_t (&out)[16], const Raw& raw, int group, const float*) {
        float scale, min;
        scale_and_min(raw.header, group & 7, scale, min);
        float d = __fmul_rn(ptx::half_to_float(uint16_t(raw.header.x)), scale);
        float m = -__fmul_rn(ptx::half_to_float(uint16_t(raw.header.x >> 16)), min);
        const uint32_t words[4] = {raw.codes.x, raw.codes.y, raw.codes.z, raw.codes.w};
        UNROLL
        for (int i = 0; i < 16; ++i) {
            uint32_t pair = ptx::and_or(words[i / 4] >> 4 * (i % 4), CODES_4, MAGIC);
            if (FIFTH) pair |= (raw.high >> i & 0x00010001) << 4;
            out[i] = affine(pair, d, m);
        }
    }
};
using Q4_K = KQuant<false>;
using Q5_K = KQuant<true>;

struct Q6_K {
    static constexpr bool DIRECT = false, USES_LUT = false;
    struct Raw { uint4 codes; uint2 high; uint16_t scale, super; };
    static __device__ __forceinline__ Raw load(const Weight& w, int64_t row, int group) {
        int64_t at = row * (w.cols / 32) + group;
        return {ptx::load_vector<uint4>(w.codes + 16 * at), ptx::load_vector<uint2>(w.high + 8 * at),
                ptx::load_vector<uint16_t>(w.scales + 2 * at), ptx::load_vector<uint16_t>(w.supers + 2 * (at / 8))};
    }
    static __device__ __forceinline__ void decode(uint32_t (&out)[16], const Raw& raw, int, const float*) {
        float d = ptx::half_to_float(raw.super);
        float halves[2] = {__fmul_rn(d, float(int8_t(raw.scale & 0xff))), __fmul_rn(d, float(int8_t(raw.scale >> 8)))};
        const uint32_t words[4] = {raw.codes.x, raw.codes.y, raw.codes.z, raw.codes.w};
        UNROLL
        for (int i = 0; i < 16; ++i) {
            uint32_t pair = ptx::and_or(words[i / 4] >> 4 * (i % 4), CODES_4, MAGIC);
            uint32_t high = i < 8 ? raw.high.x : raw.high.y;
            pair |= (high >> 2 * (i % 8) & 0x00030003) << 4;
            out[i] = symmetric<32>(pair, halves[i / 8]);
        }
    }
};

struct Nf4 {
    static constexpr bool DIRECT = false, USES_LUT = true;
    // What is loaded depends on nothing that is: the magnitude is looked up when the codes are decoded, or a thread would wait
    // for its byte where it only means to load ahead.
    struct Raw { uint4 codes; uint32_t level; float super; const float* levels; float offset; };
    static __device__ __forceinline__ Raw load(const Weight& w, int64_t row, int group) {
        int64_t at = row * (w.cols / 32) + group, block = at / 2;
        return {ptx::load_vector<uint4>(w.codes + 16 * at), w.scales[block],
                ptx::load_vector<float>(w.supers + 4 * (block / 256)), w.levels + 16, w.offset};
    }
    static __device__ __forceinline__ void decode(uint32_t (&out)[16], const Raw& raw, int, const float* lut) {
        float absmax = __fadd_rn(__fmul_rn(raw.levels[raw.level], raw.super), raw.offset);
        const uint32_t words[4] = {raw.codes.x, raw.codes.y, raw.codes.z, raw.codes.w};
        UNROLL
        for (int i = 0; i < 16; ++i) {
            uint32_t pair = words[i / 4] >> 4 * (i % 4);
            out[i] = ptx::pack_bf16(__fmul_rn(lut[pair & 15], absmax), __fmul_rn(lut[pair >> 16 & 15], absmax));
        }
    }
};

struct Bf16 {
    static constexpr bool DIRECT = true, USES_LUT = false;
    struct Raw { uint4 words[4]; };
    static __device__ __forceinline__ Raw load(const Weight& w, int64_t row, int group) {
        Raw raw;
        UNROLL
        for (int i = 0; i < 4; ++i)
            raw.words[i] = ptx::load_vector<uint4>(w.codes + 2 * (row * w.cols + 32 * group + 8 * i));
        return raw;
    }
    static __device__ __forceinline__ void decode(uint32_t (&out)[16], const Raw& raw, int, const float*) {
        UNROLL
        for (int i = 0; i < 4; ++i) {
            out[4 * i] = raw.words[i].x;
            out[4 * i + 1] = raw.words[i].y;
            out[4 * i + 2] = raw.words[i].z;
            out[4 * i + 3] = raw.words[i].w;
        }
    }
};

// Runs MACRO(name, Format) for every format: the one list of them.
#define FOR_EACH_FORMAT(MACRO)                                                                                  \
    MACRO(bf16, Bf16) MACRO(nf4, Nf4) MACRO(q4_0, Q4_0) MACRO(q4_1, Q4_1) MACRO(q5_0, Q5_0) MACRO(q5_1, Q5_1) \
    MACRO(q8_0, Q8_0) MACRO(q4_k, Q4_K) MACRO(q5_k, Q5_K) MACRO(q6_k, Q6_K)
