// Tiles of bf16 in shared memory, and the fragments of mma.m16n8k16 read from them.
//
// A tile's rows are COLS elements long, in chunks of 8 (16 bytes). Chunk c of row r lies where chunk c ^ s(r) would,
// so that eight rows of one chunk, which ldmatrix reads together, lie in different banks.
#pragma once
#include "ptx.cuh"

template <int COLS_>
struct Tile {
    static constexpr int COLS = COLS_;
    static constexpr int CHUNKS = COLS / 8;
    static_assert(CHUNKS % 4 == 0, "rows are whole half-lines of banks");

    static __device__ __forceinline__ int swizzle(int row) { return CHUNKS % 8 == 0 ? row & 7 : row >> 1 & 3; }
    // Where chunk `chunk` of row `row` lies, in elements.
    static __device__ __forceinline__ int at(int row, int chunk) { return (row * CHUNKS + (chunk ^ swizzle(row))) * 8; }

    // Copies ROWS rows asynchronously from `from` (row stride `ld`, 16-byte aligned). Rows from `rows` on and columns
    // from `cols` on become zeros; nothing of them is read. `cols` may be negative. By THREADS threads, of which this is `thread`.
    template <int ROWS, int THREADS>
    static __device__ __forceinline__ void load(bf16* tile, const bf16* from, int64_t ld, int rows, int cols, int thread) {
        UNROLL
        for (int i = 0; i < ROWS * CHUNKS; i += THREADS) {
            int j = i + thread;
            if (ROWS * CHUNKS % THREADS != 0 && j >= ROWS * CHUNKS) break;
            int row = j / CHUNKS, chunk = j % CHUNKS;
            int valid = row < rows ? min(max(2 * (cols - 8 * chunk), 0), 16) : 0;
            const bf16* source = valid > 0 ? from + row * ld + 8 * chunk : from;
            ptx::copy_async<16>(tile + at(row, chunk), source, valid);
        }
    }

    // By a whole block.
    template <int ROWS, int THREADS>
    static __device__ __forceinline__ void load(bf16* tile, const bf16* from, int64_t ld, int rows, int cols) {
        load<ROWS, THREADS>(tile, from, ld, rows, cols, int(threadIdx.x));
    }

    // A, 16 x 16 at (row, 8 chunk) of a tile [m][k].
    static __device__ __forceinline__ void a(uint32_t (&out)[4], const bf16* tile, int row, int chunk) {
        int lane = threadIdx.x & 31;
        LDMATRIX(out, tile + at(row + (lane & 15), chunk + (lane >> 4)));
    }
    // A, 16 x 16 of the transpose of a tile [k][m]: k from `row`, m from 8 chunk.
    static __device__ __forceinline__ void a_trans(uint32_t (&out)[4], const bf16* tile, int row, int chunk) {
        int lane = threadIdx.x & 31;
        LDMATRIX_TRANS(out, tile + at(row + (lane & 7) + (lane >> 4) * 8, chunk + (lane >> 3 & 1)));
    }
    // B of two neighbouring n-tiles, 16 x 16 at (row, 8 chunk) of a tile [n][k]: (b0, b1) of the first, of the second.
    static __device__ __forceinline__ void b(uint32_t (&out)[4], const bf16* tile, int row, int chunk) {
        int lane = threadIdx.x & 31;
        LDMATRIX(out, tile + at(row + (lane & 7) + (lane >> 4) * 8, chunk + (lane >> 3 & 1)));
    }
    // The same from a tile [k][n]: k from `row`, n from 8 chunk.
    static __device__ __forceinline__ void b_trans(uint32_t (&out)[4], const bf16* tile, int row, int chunk) {
        int lane = threadIdx.x & 31;
        LDMATRIX_TRANS(out, tile + at(row + (lane & 15), chunk + (lane >> 4)));
    }
};

// Sum and maximum over the four lanes that hold a row of an accumulator.
__device__ __forceinline__ float row_sum(float x) {
    x += SHUFFLE_XOR(x, 1);
    x += SHUFFLE_XOR(x, 2);
    return x;
}
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, SHUFFLE_XOR(x, 1));
    return fmaxf(x, SHUFFLE_XOR(x, 2));
}

// Sum over a warp; every lane gets it.
__device__ __forceinline__ float warp_sum(float x) {
    UNROLL
    for (int mask = 16; mask > 0; mask /= 2) x += SHUFFLE_XOR(x, mask);
    return x;
}
__device__ __forceinline__ float warp_max(float x) {
    UNROLL
    for (int mask = 16; mask > 0; mask /= 2) x = fmaxf(x, SHUFFLE_XOR(x, mask));
    return x;
}

// Sum over a block of WARPS warps through `scratch` (WARPS floats of shared memory); every thread gets it. Begins and
// ends with what it needs of barriers, so that calls may follow each other.
template <int WARPS>
__device__ __forceinline__ float block_sum(float x, float* scratch) {
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0;
    UNROLL
    for (int w = 0; w < WARPS; ++w) sum += scratch[w];
    __syncthreads();
    return sum;
}
template <int WARPS>
__device__ __forceinline__ float block_max(float x, float* scratch) {
    x = warp_max(x);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    float most = scratch[0];
    UNROLL
    for (int w = 1; w < WARPS; ++w) most = fmaxf(most, scratch[w]);
    __syncthreads();
    return most;
}
