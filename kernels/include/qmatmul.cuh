// The tile loop of the quantised matmul; qmatmul.cu says what it computes.
//
// A block of 4 warps makes a tile of 128 x 128 outputs, a warp 64 x 64 of it, over steps of 64 of the inner dimension:
//
//            inner ->            x        cp.async, STAGES deep, tiles [128 m][64]
//        m  [ x(t) x(t+1) ..]    weights  codes to registers one step ahead; decoded to bf16 into one of two buffers
//                                         while the tensor cores work on the other
//
// Forward reads W as [out][inner], backward as [inner][out]: the stored order is the same, ldmatrix transposes.
// One barrier a step: it makes the buffers written in the step before visible, and frees those read in it.
#pragma once
#include "formats.cuh"
#include "tile.cuh"

namespace qmatmul {

constexpr int M = 128, N = 128, K = 64, THREADS = 128, STAGES = 3;
constexpr int X_TILE = M * K, W_TILE = N * K;  // elements

enum Flags { F32_OUTPUT = 1, ACCUMULATE = 2 };

struct Operands {
    const bf16* x;  // [m, inner], row stride ldx
    int ldx;
    Weight weight;
    int out, inner;
    const bf16* u;  // the branch: [m, rank], row stride ldu
    int ldu;
    const bf16* v;  // forward [out, rank], backward [rank, out], row stride ldv
    int ldv, rank;
    const float* bias;  // [out], or null
    void* y;            // [m, out], row stride ldy
    int ldy, m, flags;
};

// How many stages of decoded weights: formats that are bf16 already come by cp.async, as deep as x.
template <class F>
constexpr int W_STAGES = F::DIRECT ? STAGES : 2;
template <class F>
constexpr int SHARED_BYTES = 2 * (STAGES * X_TILE + W_STAGES<F> * W_TILE) + (F::USES_LUT ? 64 : 0);

using Inner = Tile<K>;  // tiles whose rows run along the inner dimension
using Outer = Tile<N>;  // tiles [inner][out] of backward

template <class F, bool BACKWARD>
struct Product {
    const Operands& op;
    bf16 *xs, *ws;
    float* lut;
    int m0, n0;             // first output row and column
    float c[4][8][4] = {};  // accumulators: 4 m-tiles of 16, 8 n-tiles of 8
    typename F::Raw raw[2] = {};  // codes of the step after next, 64 elements

    // Where this thread decodes: a row of the stored matrix and the first of two groups, for step t.
    __device__ __forceinline__ void place(int t, int& row, int& group) const {
        int i = threadIdx.x;
        // Backward, eight neighbours store into eight rows: chunks of one row would share banks.
        row = BACKWARD ? t * K + i % K : n0 + i;
        group = BACKWARD ? n0 / 32 + 2 * (i / K) : t * (K / 32);
    }

    __device__ __forceinline__ void load_codes(int t) {
        int row, group;
        place(t, row, group);
        // What lies beyond the matrix is multiplied by zeros of x or never stored: read the last of it instead.
        int rows = BACKWARD ? op.inner : op.out, groups = op.weight.cols / 32;
        UNROLL
        for (int i = 0; i < 2; ++i) raw[i] = F::load(op.weight, min(row, rows - 1), min(group + i, groups - 1));
    }

    __device__ __forceinline__ void decode(int t) {
        int row, group, i = threadIdx.x;
        place(t, row, group);
        bf16* tile = ws + (t % 2) * W_TILE;
        UNROLL
        for (int g = 0; g < 2; ++g) {
            uint32_t pairs[16];
            F::decode(pairs, raw[g], min(group + g, op.weight.cols / 32 - 1), lut);
            UNROLL
            for (int j = 0; j < 4; ++j) {
                bf16* to = tile + (BACKWARD ? Outer::at(i % K, 8 * (i / K) + 4 * g + j) : Inner::at(i, 4 * g + j));
                ptx::store_vector(to, make_uint4(pairs[4 * j], pairs[4 * j + 1], pairs[4 * j + 2], pairs[4 * j + 3]));
            }
        }
    }

    // Issues x's tile of step t, and the weights' where they come as bf16.
    __device__ __forceinline__ void load(int t, int steps) {
        if (t < steps) {
            int k0 = t * K;
            Inner::load<M, THREADS>(xs + t % STAGES * X_TILE, op.x + int64_t(m0) * op.ldx + k0, op.ldx, op.m - m0,
                                    op.inner - k0);
            if constexpr (F::DIRECT) {
                auto w = reinterpret_cast<const bf16*>(op.weight.codes);
                load_plain(ws + t % STAGES * W_TILE, w, op.weight.cols, k0, op.inner);
            }
        }
        ptx::copy_commit();
    }

    // A tile of a bf16 matrix stored as the weight is, from `k0` of its inner dimension on.
    __device__ __forceinline__ void load_plain(bf16* tile, const bf16* w, int ld, int k0, int inner) {
        if constexpr (BACKWARD)
            Outer::load<K, THREADS>(tile, w + int64_t(k0) * ld + n0, ld, inner - k0, op.out - n0);
        else
            Inner::load<N, THREADS>(tile, w + int64_t(n0) * ld + k0, ld, op.out - n0, inner - k0);
    }

    __device__ __forceinline__ void multiply(const bf16* x, const bf16* w) {
        int warp = threadIdx.x / 32, wm = warp % 2 * 64, wn = warp / 2 * 64;
        UNROLL
        for (int k = 0; k < K / 16; ++k) {
            uint32_t a[4][4];
            UNROLL
            for (int i = 0; i < 4; ++i) Inner::a(a[i], x, wm + 16 * i, 2 * k);
            UNROLL
            for (int j = 0; j < 4; ++j) {
                uint32_t b[4];
                if constexpr (BACKWARD)
                    Outer::b_trans(b, w, 16 * k, (wn + 16 * j) / 8);
                else
                    Inner::b(b, w, wn + 16 * j, 2 * k);
                UNROLL
                for (int i = 0; i < 4; ++i) {
                    MMA(c[i][2 * j], a[i], b[0], b[1]);
                    MMA(c[i][2 * j + 1], a[i], b[2], b[3]);
                }
            }
        }
    }

    __device__ __forceinline__ void weights() {
        int steps = (op.inner + K - 1) / K;
        UNROLL
        for (int t = 0; t < STAGES - 1; ++t) load(t, steps);
        if constexpr (!F::DIRECT) {
            load_codes(0);
            decode(0);
            if (steps > 1) load_codes(1);
        }
        for (int t = 0; t < steps; ++t) {
            ptx::copy_wait<STAGES - 2>();
            __syncthreads();
            load(t + STAGES - 1, steps);
            multiply(xs + t % STAGES * X_TILE, ws + (F::DIRECT ? t % STAGES : t % 2) * W_TILE);
            if constexpr (!F::DIRECT) {
                if (t + 1 < steps) decode(t + 1);
                if (t + 2 < steps) load_codes(t + 2);
            }
        }
    }

    // The low-rank branch: more columns of the inner dimension.
    __device__ __forceinline__ void branch() {
        for (int k0 = 0; k0 < op.rank; k0 += K) {
            __syncthreads();
            Inner::load<M, THREADS>(xs, op.u + int64_t(m0) * op.ldu + k0, op.ldu, op.m - m0, op.rank - k0);
            load_plain(ws, op.v, op.ldv, k0, op.rank);
            ptx::copy_commit();
            ptx::copy_wait<0>();
            __syncthreads();
            multiply(xs, ws);
        }
    }

    __device__ __forceinline__ void store() {
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32, wm = warp % 2 * 64, wn = warp / 2 * 64;
        if (op.bias) {
            UNROLL
            for (int j = 0; j < 8; ++j) {
                UNROLL
                for (int h = 0; h < 2; ++h) {
                    int n = n0 + wn + 8 * j + lane % 4 * 2 + h;
                    float bias = n < op.out ? op.bias[n] : 0;
                    UNROLL
                    for (int i = 0; i < 4; ++i) {
                        c[i][j][h] += bias;
                        c[i][j][2 + h] += bias;
                    }
                }
            }
        }
        if (op.flags & F32_OUTPUT) {
            store_f32(wm, wn, lane);
            return;
        }
        if (op.flags & ACCUMULATE) add_old(wm, wn, lane);
        // Through shared memory, so that rows leave in 16-byte pieces.
        __syncthreads();
        UNROLL
        for (int i = 0; i < 4; ++i) {
            UNROLL
            for (int j = 0; j < 8; ++j) {
                UNROLL
                for (int h = 0; h < 2; ++h) {
                    int row = wm + 16 * i + 8 * h + lane / 4;
                    bf16* to = xs + Outer::at(row, wn / 8 + j) + lane % 4 * 2;
                    ptx::store_vector(to, ptx::pack_bf16(c[i][j][2 * h], c[i][j][2 * h + 1]));
                }
            }
        }
        __syncthreads();
        for (int i = threadIdx.x; i < M * N / 8; i += THREADS) {
            int row = i / (N / 8), chunk = i % (N / 8), n = n0 + 8 * chunk;
            if (m0 + row >= op.m || n >= op.out) continue;
            const bf16* from = xs + Outer::at(row, chunk);
            bf16* to = static_cast<bf16*>(op.y) + int64_t(m0 + row) * op.ldy + n;
            if (n + 8 <= op.out)
                ptx::store_vector(to, ptx::load_vector<uint4>(from));
            else
                for (int j = 0; j < op.out - n; ++j) to[j] = from[j];
        }
    }

    // What is in y already, added before the one rounding.
    __device__ __forceinline__ void add_old(int wm, int wn, int lane) {
        UNROLL
        for (int i = 0; i < 4; ++i) {
            UNROLL
            for (int j = 0; j < 8; ++j) {
                UNROLL
                for (int e = 0; e < 4; ++e) {
                    int row = m0 + wm + 16 * i + e / 2 * 8 + lane / 4, n = n0 + wn + 8 * j + lane % 4 * 2 + e % 2;
                    if (row < op.m && n < op.out)
                        c[i][j][e] += ptx::bf16_to_float(static_cast<const bf16*>(op.y)[int64_t(row) * op.ldy + n]);
                }
            }
        }
    }

    __device__ __forceinline__ void store_f32(int wm, int wn, int lane) {
        UNROLL
        for (int i = 0; i < 4; ++i) {
            UNROLL
            for (int j = 0; j < 8; ++j) {
                UNROLL
                for (int e = 0; e < 4; ++e) {
                    int row = m0 + wm + 16 * i + e / 2 * 8 + lane / 4, n = n0 + wn + 8 * j + lane % 4 * 2 + e % 2;
                    if (row >= op.m || n >= op.out) continue;
                    float* to = static_cast<float*>(op.y) + int64_t(row) * op.ldy + n;
                    *to = op.flags & ACCUMULATE ? *to + c[i][j][e] : c[i][j][e];
                }
            }
        }
    }
};

template <class F, bool BACKWARD>
__device__ __forceinline__ void run(const Operands& op) {
    SHARED_MEMORY(memory);
    auto xs = reinterpret_cast<bf16*>(memory);
    auto ws = xs + STAGES * X_TILE;
    auto lut = reinterpret_cast<float*>(ws + W_STAGES<F> * W_TILE);
    if constexpr (F::USES_LUT) {
        if (threadIdx.x < 16) lut[threadIdx.x] = op.weight.levels[threadIdx.x];
        __syncthreads();
    }
    // Eight tiles of rows go down before the next column, so that their weights are still in the second-level cache.
    int tiles_m = (op.m + M - 1) / M, tiles_n = (op.out + N - 1) / N;
    int band = blockIdx.x / (8 * tiles_n), first = band * 8, height = min(8, tiles_m - first);
    int within = blockIdx.x - band * 8 * tiles_n;
    Product<F, BACKWARD> product{op, xs, ws, lut, (first + within % height) * M, within / height * N};
    product.weights();
    product.branch();
    product.store();
}

}  // namespace qmatmul
