// CUDA's words for the C++ compiler, as far as the kernels use them. Included by ptx.cuh when GALEN_HOST is set.
#pragma once
#include <cmath>
#include <cstring>

#include "runtime.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __constant__ static

#define threadIdx (galen_host::self->thread)
#define blockIdx (galen_host::block.index)
#define blockDim (galen_host::block.threads)
#define gridDim (galen_host::block.grid)

// Lines tell barriers and collectives apart; the wrappers in ptx.cuh hand on their caller's.
#define __syncthreads() galen_host::sync_block(__LINE__)

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
inline float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
inline float __int_as_float(int i) { return __uint_as_float(unsigned(i)); }
// The build switches contraction off, so that these round twice as on the device.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }
inline float __expf(float a) { return std::exp(a); }

namespace galen_host {

inline float bf16_value(unsigned bits) { return __uint_as_float(bits << 16); }

// Nearest, ties to even; any NaN becomes the one the device gives.
inline unsigned bf16_bits(float f) {
    if (f != f) return 0x7fff;
    unsigned u = __float_as_uint(f);
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

struct Shuffle { uint32_t value; unsigned from; uint32_t result; };
inline uint32_t shuffle(int site, uint32_t value, unsigned from) {
    Shuffle mine{value, from, 0};
    collective(site, &mine, [](void* const* lanes) {
        for (int i = 0; i < 32; ++i) {
            auto s = static_cast<Shuffle*>(lanes[i]);
            s->result = static_cast<Shuffle*>(lanes[s->from & 31])->value;
        }
    });
    return mine.result;
}

inline void sync_warp(int site) {
    collective(site, nullptr, [](void* const*) {});
}

struct Mma { const uint32_t* a; const uint32_t* b; float* c; };
// D = A B + C of mma.sync.m16n8k16.row.col.f32.bf16.bf16.f32 (PTX ISA, "Matrix fragments for mma.m16n8k16").
inline void mma_all(void* const* lanes) {
    // A row in two vectors of a width that every x86-64 has; they add in the same order as its columns one by one.
    using Four = float __attribute__((vector_size(16), may_alias));
    float a[16][16];
    alignas(16) float b[16][8], c[16][8];
    for (int l = 0; l < 32; ++l) {
        auto m = static_cast<const Mma*>(lanes[l]);
        int g = l / 4, t = l % 4 * 2;
        for (int h = 0; h < 2; ++h) {
            unsigned s = 16 * unsigned(h);
            a[g][t + h] = bf16_value(m->a[0] >> s & 0xffff);
            a[g + 8][t + h] = bf16_value(m->a[1] >> s & 0xffff);
            a[g][t + 8 + h] = bf16_value(m->a[2] >> s & 0xffff);
            a[g + 8][t + 8 + h] = bf16_value(m->a[3] >> s & 0xffff);
            b[t + h][g] = bf16_value(m->b[0] >> s & 0xffff);
            b[t + 8 + h][g] = bf16_value(m->b[1] >> s & 0xffff);
            c[g][t + h] = m->c[h];
            c[g + 8][t + h] = m->c[2 + h];
        }
    }
    for (int i = 0; i < 16; ++i) {
        auto sums = reinterpret_cast<Four*>(c[i]);
        Four low = sums[0], high = sums[1];
        for (int k = 0; k < 16; ++k) {
            auto row = reinterpret_cast<const Four*>(b[k]);
            low += a[i][k] * row[0];
            high += a[i][k] * row[1];
        }
        sums[0] = low;
        sums[1] = high;
    }
    for (int l = 0; l < 32; ++l) {
        auto m = static_cast<const Mma*>(lanes[l]);
        int g = l / 4, t = l % 4 * 2;
        for (int h = 0; h < 2; ++h) {
            m->c[h] = c[g][t + h];
            m->c[2 + h] = c[g + 8][t + h];
        }
    }
    ++stats.mmas;
}

struct LdMatrix { const void* row; uint32_t* out; };
// Four 8 x 8 matrices of 16-bit elements; lane l gives row l % 8 of matrix l / 8.
template <bool TRANS>
void ldmatrix_all(void* const* lanes) {
    uint16_t rows[32][8];
    for (int m = 0; m < 4; ++m) {
        unsigned seen = 0;
        for (int r = 0; r < 8; ++r) {
            auto op = static_cast<const LdMatrix*>(lanes[8 * m + r]);
            memcpy(rows[8 * m + r], op->row, 16);
            seen |= 1u << (reinterpret_cast<uintptr_t>(op->row) / 16 % 8);
        }
        stats.bank_conflicts += uint64_t(8 - __builtin_popcount(seen));
    }
    for (int l = 0; l < 32; ++l) {
        auto op = static_cast<const LdMatrix*>(lanes[l]);
        for (int m = 0; m < 4; ++m) {
            int g = l / 4, t = l % 4 * 2;
            unsigned lo = TRANS ? rows[8 * m + t][g] : rows[8 * m + g][t];
            unsigned hi = TRANS ? rows[8 * m + t + 1][g] : rows[8 * m + g][t + 1];
            op->out[m] = lo | hi << 16;
        }
    }
}

}  // namespace galen_host
