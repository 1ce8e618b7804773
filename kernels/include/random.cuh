// Random numbers as functions of their keys: splitmix64 (Steele, Lea and Flood 2014), as galen_ops::ops has it.
#pragma once
#include "tile.cuh"

__device__ __forceinline__ uint64_t mix(uint64_t z) {
    z += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

// A token's key, of its data row and its position in it; base = mix(mix(mix(seed) ^ epoch) ^ module).
__device__ __forceinline__ uint64_t token_key(uint64_t base, uint64_t row, uint32_t position) { return mix(mix(base ^ row) ^ position); }
