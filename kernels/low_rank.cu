// Into a low-rank branch (LoRA, Hu et al. 2021, equation 3) and, backward, into it from the other side:
//
//   low_rank_forward_*   u  = bf16(s x A^T)   x  [m, K],  A [R, K],  u  [m, R]
//   low_rank_backward_*  du = bf16(s dy B)    dy [m, K],  B [K, R],  du [m, R]
//
// All bf16, rows of a multiple of 8 elements apart, what lies between them nobody's; sums f32, rounded once behind s. A row's bits do not
// depend on m: training, prompts and steps of generation share the kernels.
//
// A product of few outputs is bound by reading x once, and by latency where m is small: a block of 16 warps makes 16 rows of up to 16
// or 32 outputs, the warps share the inner dimension in turns of 32, and their sums are added in order through shared memory. Both
// operands go from global memory straight to the fragments: as the order of the inner dimension is free, lane 4r + c takes elements
// 8c .. 8c + 7 of a turn of rows r and r + 8, and mma step h is their h-th half. B, whose rows are the inner dimension, is turned by
// ldmatrix in a piece of shared memory of the warp's own, its rows laid in that order. Grid: (ceil(m / 16), ceil(R / 16 or 32)).
//
// Expected share of roofline: 60 % of memory bandwidth from m = 2048 on; below, too few blocks for all multiprocessors.
//
// roofline: low_rank_forward_16 what="4096 tokens, rank 16, k 4096" flops=5.369e+08 bytes=3.382e+07 share=60 share_sm_90=60
// launch: low_rank_forward_16  threads=512 shared=17408 registers=128
// launch: low_rank_forward_32  threads=512 shared=33792 registers=128
// launch: low_rank_backward_16 threads=512 shared=17408 registers=128
// launch: low_rank_backward_32 threads=512 shared=33792 registers=128
// sass: low_rank_forward_* HMMA LDG.*128
// sass: low_rank_backward_* HMMA LDSM LDG.*128
#include "include/tile.cuh"

namespace low_rank {

constexpr int WARPS = 16, ROWS = 16, TURN = 32;

// Eight elements, of which `valid` are there; zeros for the others.
__device__ __forceinline__ uint4 load(const bf16* from, int valid) {
    if (valid <= 0) return make_uint4(0, 0, 0, 0);
    auto v = ptx::load_vector<uint4>(from);
    if (valid < 8) {
        auto kept = [&](int i) { return valid >= 2 * i + 2 ? 0xffffffffu : valid == 2 * i + 1 ? 0xffffu : 0u; };
        v.x &= kept(0), v.y &= kept(1), v.z &= kept(2), v.w &= kept(3);
    }
    return v;
}

// TILES: eight outputs each.
template <bool BACKWARD, int TILES>
__device__ __forceinline__ void run(const bf16* x, int ldx, const bf16* w, int ldw, int rank, int inner, float scale, bf16* u, int ldu,
                                    int m) {
    constexpr int OUTS = 8 * TILES, STRIDE = OUTS + 1;
    SHARED_MEMORY(memory);
    auto sums = reinterpret_cast<float*>(memory);  // [WARPS][ROWS][STRIDE]; before, backward's pieces [WARPS][TILES][TURN][8]
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, r = lane / 4, c = lane % 4;
    int m0 = blockIdx.x * ROWS, r0 = blockIdx.y * OUTS, turns = (inner + TURN - 1) / TURN;
    auto piece = reinterpret_cast<bf16*>(memory) + warp * TILES * TURN * 8;
    const bf16* top = x + int64_t(m0 + r < m ? m0 + r : 0) * ldx;
    const bf16* bottom = x + int64_t(m0 + r + 8 < m ? m0 + r + 8 : 0) * ldx;
    float acc[TILES][4] = {};
    UNROLL_BY(2)
    for (int turn = warp; turn < turns; turn += WARPS) {
        int k = turn * TURN + 8 * c;
        int valid = inner - k;
        uint4 a0 = load(top + k, m0 + r < m ? valid : 0), a1 = load(bottom + k, m0 + r + 8 < m ? valid : 0);
        uint32_t b[TILES][4];
        if constexpr (BACKWARD) {
            // Row p of matrix h of a piece: element 8 (p / 2) + 2 h + p % 2 of the turn.
            int from = turn * TURN + lane % 8 / 2 * 8 + lane / 8 * 2 + lane % 2;
            SYNC_WARP();
            UNROLL
            for (int j = 0; j < TILES; ++j) {
                bool there = from < inner && r0 + 8 * j < rank;
                const bf16* row = w + int64_t(there ? from : 0) * ldw + (there ? r0 + 8 * j : 0);
                ptx::store_vector(piece + (j * TURN + lane) * 8, load(row, there ? 8 : 0));
            }
            SYNC_WARP();
            UNROLL
            for (int j = 0; j < TILES; ++j) LDMATRIX_TRANS(b[j], piece + (j * TURN + lane) * 8);
        } else {
            UNROLL
            for (int j = 0; j < TILES; ++j) {
                int row = r0 + 8 * j + r;
                uint4 v = load(w + int64_t(row < rank ? row : 0) * ldw + k, row < rank ? valid : 0);
                b[j][0] = v.x, b[j][1] = v.y, b[j][2] = v.z, b[j][3] = v.w;
            }
        }
        uint32_t first[4] = {a0.x, a1.x, a0.y, a1.y}, second[4] = {a0.z, a1.z, a0.w, a1.w};
        UNROLL
        for (int j = 0; j < TILES; ++j) {
            MMA(acc[j], first, b[j][0], b[j][1]);
            MMA(acc[j], second, b[j][2], b[j][3]);
        }
    }
    if constexpr (BACKWARD) __syncthreads();  // the sums lie where the pieces were
    UNROLL
    for (int j = 0; j < TILES; ++j) {
        UNROLL
        for (int e = 0; e < 4; ++e)
            sums[(warp * ROWS + r + e / 2 * 8) * STRIDE + 8 * j + 2 * c + e % 2] = acc[j][e];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < ROWS * OUTS; i += 32 * WARPS) {
        int row = i / OUTS, n = i % OUTS;
        if (m0 + row >= m || r0 + n >= rank) continue;
        float sum = 0;
        UNROLL
        for (int k = 0; k < WARPS; ++k) sum += sums[(k * ROWS + row) * STRIDE + n];
        u[int64_t(m0 + row) * ldu + r0 + n] = ptx::float_to_bf16(scale * sum);
    }
}

}  // namespace low_rank

#define KERNEL(called, BACKWARD, TILES)                                                                                       \
    extern "C" __global__ void __launch_bounds__(512) called(const bf16* x, int ldx, const bf16* w, int ldw, int rank,         \
                                                             int inner, float scale, bf16* u, int ldu, int m) {               \
        low_rank::run<BACKWARD, TILES>(x, ldx, w, ldw, rank, inner, scale, u, ldu, m);                                         \
    }                                                                                                                         \
    EXPORT_KERNEL(called);

KERNEL(low_rank_forward_16, false, 2)
KERNEL(low_rank_forward_32, false, 4)
KERNEL(low_rank_backward_16, true, 2)
KERNEL(low_rank_backward_32, true, 4)
