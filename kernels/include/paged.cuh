// Where keys and values lie in a pool of pages (kv_cache.cu).
#pragma once
#include "ptx.cuh"

constexpr int PAGE = 64;  // tokens

template <class T>
struct Pages {
    T* pool;
    int width, layer, layers;

    // The keys of a page's token, all heads.
    __device__ __forceinline__ T* keys(int page, int slot) const {
        return pool + ((int64_t(page) * layers + layer) * 2 * PAGE + slot) * width;
    }
    // From a token's keys to its values.
    __device__ __forceinline__ int64_t values() const { return int64_t(PAGE) * width; }
};
