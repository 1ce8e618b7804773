// What attention's kernels share: the walk over keys or queries of a segment's tree, scores, masks.
//
// Descriptors are made by the caller (galen_ops' Segment has start, len, parent, position):
//   tiles    int4 {first token, tokens, position of the first, segment}: a block's queries, or keys
//   offsets  of each segment into `ranges`, and one more
//   ranges   int4 {first token, tokens, position of the first, 0}: for queries the keys of every ancestor and their own,
//            by position; for keys the queries of their own segment and of every descendant
#pragma once
#include "tile.cuh"

namespace attention {

constexpr int THREADS = 128, WARPS = 4;
constexpr float LOG2_E = 1.4426950408889634f;

// Keys that a query at position p sees: positions in (p - window, p].
__device__ __forceinline__ bool sees(int query, int key, int window) { return key <= query && key > query - window; }

// Tiles of SIZE tokens of ranges, of which only positions in [lo, hi] matter.
template <int SIZE>
struct Walk {
    const int4* range;
    const int4* end;
    int lo, hi;
    int at = 0, stop = 0;              // within the range that is being walked
    int token = 0, count = 0, position = 0;  // of the tile

    // Goes to the next tile; false when there is none.
    __device__ __forceinline__ bool next() {
        while (at >= stop) {
            if (range == end) return false;
            int4 r = *range++;
            token = r.x;
            position = r.z;
            at = max(0, lo - r.z);
            stop = min(r.y, hi + 1 - r.z);
            token += at;
            position += at;
            count = 0;
        }
        token += count;
        position += count;
        count = min(SIZE, stop - at);
        at += count;
        return true;
    }
};

// A score in units of log 2, and what its derivative by q k is multiplied with besides `scale`.
struct Scores {
    float scale;  // of q k
    float cap;    // 0: none
    __device__ __forceinline__ float of(float qk) const {
        return LOG2_E * (cap > 0 ? cap * ptx::tanh(qk * scale / cap) : qk * scale);
    }
    __device__ __forceinline__ float slope(float score) const {
        float t = cap > 0 ? score / (LOG2_E * cap) : 0;
        return 1.0f - t * t;
    }
};

// S [16 MR, 8 NT] = A B^T over D, of a warp: rows of A from `row`, all rows of B.
template <int D, int MR, int NT>
__device__ __forceinline__ void product(float (&s)[MR][NT][4], const bf16* a, int row, const bf16* b) {
    using T = Tile<D>;
    UNROLL
    for (int i = 0; i < MR; ++i) {
        UNROLL
        for (int j = 0; j < NT; ++j) {
            UNROLL
            for (int e = 0; e < 4; ++e) s[i][j][e] = 0;
        }
    }
    // Unrolled whole, the addresses of all steps would be kept in registers that the sums need.
    UNROLL_BY((D >= 128 ? 1 : 2))
    for (int k = 0; k < D / 16; ++k) {
        uint32_t left[MR][4];
        UNROLL
        for (int i = 0; i < MR; ++i) T::a(left[i], a, row + 16 * i, 2 * k);
        UNROLL
        for (int j = 0; j < NT / 2; ++j) {
            uint32_t right[4];
            T::b(right, b, 16 * j, 2 * k);
            UNROLL
            for (int i = 0; i < MR; ++i) {
                MMA(s[i][2 * j], left[i], right[0], right[1]);
                MMA(s[i][2 * j + 1], left[i], right[2], right[3]);
            }
        }
    }
}

// O [16, 8 OT] += P B, P the accumulators of a product [16, 8 NT] as a left operand, B [8 NT][D] from column 8 chunk.
template <int D, int NT, int OT>
__device__ __forceinline__ void accumulate(float (&o)[OT][4], const float (&p)[NT][4], const bf16* b, int chunk) {
    UNROLL
    for (int k = 0; k < NT / 2; ++k) {
        uint32_t left[4] = {ptx::pack_bf16(p[2 * k][0], p[2 * k][1]), ptx::pack_bf16(p[2 * k][2], p[2 * k][3]),
                            ptx::pack_bf16(p[2 * k + 1][0], p[2 * k + 1][1]),
                            ptx::pack_bf16(p[2 * k + 1][2], p[2 * k + 1][3])};
        UNROLL
        for (int j = 0; j < OT / 2; ++j) {
            uint32_t right[4];
            Tile<D>::b_trans(right, b, 16 * k, chunk + 2 * j);
            MMA(o[2 * j], left, right[0], right[1]);
            MMA(o[2 * j + 1], left, right[2], right[3]);
        }
    }
}

template <int OT>
__device__ __forceinline__ void clear(float (&o)[OT][4]) {
    UNROLL
    for (int j = 0; j < OT; ++j) {
        UNROLL
        for (int e = 0; e < 4; ++e) o[j][e] = 0;
    }
}

// Writes a warp's 16 rows of accumulators, times `low` (first eight rows) and `high`, as bf16: through the rows `row` of
// `tile`, which only this warp uses, so that they leave in 16-byte pieces.
template <int D, int OT>
__device__ __forceinline__ void store(const float (&o)[OT][4], float low, float high, bf16* tile, int row, int rows,
                                      bf16* to, int64_t ld) {
    using T = Tile<D>;
    int lane = threadIdx.x % 32;
    UNROLL
    for (int j = 0; j < OT; ++j) {
        ptx::store_vector(tile + T::at(row + lane / 4, j) + lane % 4 * 2, ptx::pack_bf16(o[j][0] * low, o[j][1] * low));
        ptx::store_vector(tile + T::at(row + lane / 4 + 8, j) + lane % 4 * 2,
                          ptx::pack_bf16(o[j][2] * high, o[j][3] * high));
    }
    SYNC_WARP();
    for (int i = lane; i < 16 * OT; i += 32) {
        int r = i / OT, chunk = i % OT;
        if (row + r < rows)
            ptx::store_vector(to + (row + r) * ld + 8 * chunk, ptx::load_vector<uint4>(tile + T::at(row + r, chunk)));
    }
}

}  // namespace attention
