// Eight bf16 at a time, as one 16-byte load or store.
#pragma once
#include "tile.cuh"

struct Eight { float v[8]; };

__device__ __forceinline__ Eight load_eight(const bf16* p) {
    uint4 w = ptx::load_vector<uint4>(p);
    const uint32_t words[4] = {w.x, w.y, w.z, w.w};
    Eight out;
    UNROLL
    for (int i = 0; i < 4; ++i) {
        out.v[2 * i] = __uint_as_float(words[i] << 16);
        out.v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
    return out;
}
__device__ __forceinline__ Eight load_eight(const float* p) {
    float4 a = ptx::load_vector<float4>(p), b = ptx::load_vector<float4>(p + 4);
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}
__device__ __forceinline__ void store_eight(bf16* p, const Eight& x) {
    ptx::store_vector(p, make_uint4(ptx::pack_bf16(x.v[0], x.v[1]), ptx::pack_bf16(x.v[2], x.v[3]),
                                    ptx::pack_bf16(x.v[4], x.v[5]), ptx::pack_bf16(x.v[6], x.v[7])));
}
__device__ __forceinline__ void store_eight(float* p, const Eight& x) {
    ptx::store_vector(p, make_float4(x.v[0], x.v[1], x.v[2], x.v[3]));
    ptx::store_vector(p + 4, make_float4(x.v[4], x.v[5], x.v[6], x.v[7]));
}

// This thread's place in a grid of `threads` a block, in units of eight elements.
__device__ __forceinline__ int64_t place() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }
