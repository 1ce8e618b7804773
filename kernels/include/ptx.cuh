// Every instruction that has no C++ spelling, behind a function: inline PTX for the device, galen_host for tests.
// Nothing else in kernels/ knows which of the two it is compiled for. Wrappers that barriers or collectives stand
// behind are macros, so that the host can tell their call sites apart.
#pragma once
#include <cstdint>
#ifdef GALEN_HOST
#include "../host/cuda_host.h"
#endif

// A bfloat16 in memory.
struct bf16 { uint16_t bits; };

#ifdef GALEN_HOST

#define SHARED_MEMORY(name) uint8_t* name = galen_host::block.shared
#define EXPORT_KERNEL(name) static galen_host::Registration registered_##name(#name, name)
#define UNROLL
#define UNROLL_BY(n)

namespace ptx {

inline float bf16_to_float(bf16 x) { return galen_host::bf16_value(x.bits); }
inline bf16 float_to_bf16(float x) { return {uint16_t(galen_host::bf16_bits(x))}; }
inline uint32_t pack_bf16(float lo, float hi) { return galen_host::bf16_bits(lo) | galen_host::bf16_bits(hi) << 16; }

inline float half_to_float(uint16_t bits) {
    uint32_t sign = uint32_t(bits & 0x8000) << 16, special = (bits & 0x7c00) == 0x7c00 ? 0x7f800000u : 0u;
    float magnitude = __uint_as_float(uint32_t(bits & 0x7fff) << 13) * __uint_as_float((127 + 112) << 23);
    return __uint_as_float(__float_as_uint(magnitude) | special | sign);
}

// a & b | c.
inline uint32_t and_or(uint32_t a, uint32_t b, uint32_t c) { return (a & b) | c; }

// Four bytes of (lo, hi), each chosen by a nibble of `selector`.
inline uint32_t permute(uint32_t lo, uint32_t hi, uint32_t selector) {
    uint64_t both = uint64_t(hi) << 32 | lo;
    uint32_t out = 0;
    for (int i = 0; i < 4; ++i) out |= uint32_t(both >> (8 * (selector >> 4 * i & 7)) & 0xff) << 8 * i;
    return out;
}

inline float exp2(float x) { return std::exp2(x); }
inline float tanh(float x) { return std::tanh(x); }

template <int BYTES>
void copy_async(void* to, const void* from, int valid) { galen_host::copy_async(to, from, BYTES, valid); }
inline void copy_commit() { galen_host::copy_commit(); }
template <int LEFT>
void copy_wait() { galen_host::copy_wait(LEFT); }

inline void ldmatrix_at(int site, uint32_t (&out)[4], const void* row) {
    galen_host::aligned(row, 16, "ldmatrix");
    galen_host::in_shared(row, 16, "ldmatrix");
    galen_host::LdMatrix mine{row, out};
    galen_host::collective(site, &mine, galen_host::ldmatrix_all<false>);
}
inline void ldmatrix_trans_at(int site, uint32_t (&out)[4], const void* row) {
    galen_host::aligned(row, 16, "ldmatrix");
    galen_host::in_shared(row, 16, "ldmatrix");
    galen_host::LdMatrix mine{row, out};
    galen_host::collective(site, &mine, galen_host::ldmatrix_all<true>);
}
inline void mma_at(int site, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    uint32_t b[2] = {b0, b1};
    galen_host::Mma mine{a, b, c};
    galen_host::collective(site, &mine, galen_host::mma_all);
}
inline float shuffle_xor_at(int site, float x, unsigned mask) {
    return __uint_as_float(galen_host::shuffle(site, __float_as_uint(x), galen_host::lane() ^ mask));
}
template <class T>
T load_vector(const void* p) {
    galen_host::aligned(p, sizeof(T), "load");
    T value;
    memcpy(&value, p, sizeof(T));
    return value;
}
template <class T>
void store_vector(void* p, T value) {
    galen_host::aligned(p, sizeof(T), "store");
    memcpy(p, &value, sizeof(T));
}
// Global memory that is read once: past the first-level cache.
template <class T>
T load_streaming(const void* p) { return load_vector<T>(p); }

}  // namespace ptx

#define SYNC_WARP() galen_host::sync_warp(__LINE__)
#define LDMATRIX(out, row) ptx::ldmatrix_at(__LINE__, out, row)
#define LDMATRIX_TRANS(out, row) ptx::ldmatrix_trans_at(__LINE__, out, row)
#define MMA(c, a, b0, b1) ptx::mma_at(__LINE__, c, a, b0, b1)
#define SHUFFLE_XOR(x, mask) ptx::shuffle_xor_at(__LINE__, x, mask)

#else

#define SHARED_MEMORY(name) extern __shared__ __align__(128) uint8_t name[]
#define EXPORT_KERNEL(name) static_assert(true, #name)
#define UNROLL _Pragma("unroll")
#define PRAGMA(x) _Pragma(#x)
#define UNROLL_BY(n) PRAGMA(unroll n)

namespace ptx {

__device__ __forceinline__ float bf16_to_float(bf16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }
__device__ __forceinline__ bf16 float_to_bf16(float x) {
    bf16 out;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(x));
    return out;
}
__device__ __forceinline__ uint32_t pack_bf16(float lo, float hi) {
    uint32_t out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(hi), "f"(lo));
    return out;
}
__device__ __forceinline__ float half_to_float(uint16_t bits) {
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(bits));
    return out;
}
__device__ __forceinline__ uint32_t and_or(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t out;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(out) : "r"(a), "r"(b), "r"(c));
    return out;
}
__device__ __forceinline__ uint32_t permute(uint32_t lo, uint32_t hi, uint32_t selector) {
    return __byte_perm(lo, hi, selector);
}
__device__ __forceinline__ float exp2(float x) {
    float out;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
}
// 1 - 2 / (1 + e^(2 x)): off by 1e-7 at most, and short enough to stand in unrolled loops.
__device__ __forceinline__ float tanh(float x) { return 1.0f - __fdividef(2.0f, 1.0f + exp2(x * 2.8853900817779268f)); }

__device__ __forceinline__ uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
// `BYTES` (4, 8, 16) from global to shared memory, zeros from byte `valid` on.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* to, const void* from, int valid) {
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid),
                     "n"(BYTES)
                     : "memory");
}
__device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT>
__device__ __forceinline__ void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

__device__ __forceinline__ void ldmatrix(uint32_t (&out)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_trans(uint32_t (&out)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    // Not volatile: nothing but its operands orders it.
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
template <class T>
__device__ __forceinline__ T load_vector(const void* p) { return *static_cast<const T*>(p); }
template <class T>
__device__ __forceinline__ void store_vector(void* p, T value) { *static_cast<T*>(p) = value; }
template <class T>
__device__ __forceinline__ T load_streaming(const void* p) { return __ldcs(static_cast<const T*>(p)); }

}  // namespace ptx

#define SYNC_WARP() __syncwarp()
#define LDMATRIX(out, row) ptx::ldmatrix(out, row)
#define LDMATRIX_TRANS(out, row) ptx::ldmatrix_trans(out, row)
#define MMA(c, a, b0, b1) ptx::mma(c, a, b0, b1)
#define SHUFFLE_XOR(x, mask) __shfl_xor_sync(0xffffffffu, x, mask)

#endif
