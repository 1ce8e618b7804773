// Quantised matmul of few rows, a step of generation: y = x W^T + u B^T + bias. A row's bits do not depend on m.
//
// x [m, K] bf16, W [N, K] in any format of formats.cuh, u [m, R] bf16 (scaled), B [N, R] bf16, bias f32 [N], y [m, N]
// bf16 (f32 with flag 1; flag 2 adds). K a multiple of 32 (K-quants: 256); strides multiples of 8 elements.
//
// Bound by reading W once. A block of 8 warps makes 32 outputs of every row; the warps share the inner dimension in
// turns of 128. The tensor cores get W as the left operand, 16 outputs at a time, straight from registers: a lane holds
// a whole group of 32 of one output, and as the order of the inner dimension is free, mma step j takes elements
// 4j .. 4j+3 of the groups of its four lanes. x, the right operand, is read in that order too. The warps' sums are added
// in order through shared memory: the same bits every time. More rows than a block takes are other blocks' (grid y), which find W in
// the second-level cache. Grid: (ceil(N / 32), ceil(m / 8)) or ceil(m / 16).
//
//   lane 4r + c:  W[n0 + r][32 (4 i + c) .. + 32] and W[n0 + r + 8][same], i = turn of this warp
//
// Expected share of roofline: 85 % of memory bandwidth for m <= 8, 75 % up to 16.
//
// roofline: qmatvec_8_q4_k what="m 1, n 4096, k 4096" flops=3.355e+07 bytes=9.454e+06 share=85 share_sm_90=80
// roofline: qmatvec_16_nf4 what="m 16, n 14336, k 4096" flops=1.879e+09 bytes=3.088e+07 share=75 share_sm_90=70
// launch: qmatvec_8_*  threads=256 shared=8512 registers=128
// launch: qmatvec_16_* threads=256 shared=16960 registers=128
// sass: qmatvec_* HMMA LDG.*128
#include "include/formats.cuh"
#include "include/tile.cuh"

namespace qmatvec {

constexpr int WARPS = 8, OUTS = 32;
constexpr int STRIDE = OUTS + 1;  // of a row of sums in shared memory

// TILES: eight rows of x each.
template <class F, int TILES>
__device__ __forceinline__ void run(const bf16* x, int ldx, const Weight& w, int out, const bf16* u, int ldu,
                                    const bf16* v, int ldv, int rank, const float* bias, void* y, int ldy, int m,
                                    int flags) {
    SHARED_MEMORY(memory);
    auto sums = reinterpret_cast<float*>(memory);  // [WARPS][8 TILES][STRIDE], then 16 levels
    float* lut = sums + WARPS * 8 * TILES * STRIDE;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, r = lane / 4, c = lane % 4;
    int n0 = blockIdx.x * OUTS, groups = w.cols / 32, m0 = 8 * TILES * blockIdx.y;
    if constexpr (F::USES_LUT) {
        if (threadIdx.x < 16) lut[threadIdx.x] = w.levels[threadIdx.x];
        __syncthreads();
    }
    float acc[2][TILES][4] = {};
    for (int g0 = 4 * warp; g0 < groups; g0 += 4 * WARPS) {
        int group = g0 + c, read = min(group, groups - 1);
        typename F::Raw raw[4];
        UNROLL
        for (int i = 0; i < 4; ++i) raw[i] = F::load(w, min(n0 + r + 8 * i, out - 1), read);
        // This lane's group of the rows of x it serves; zeros beyond either end.
        uint4 xs[TILES][4];
        UNROLL
        for (int t = 0; t < TILES; ++t) {
            bool there = m0 + 8 * t + r < m && group < groups;
            UNROLL
            for (int i = 0; i < 4; ++i) {
                const bf16* from = x + int64_t(there ? m0 + 8 * t + r : 0) * ldx + 32 * read + 8 * i;
                xs[t][i] = there ? ptx::load_vector<uint4>(from) : make_uint4(0, 0, 0, 0);
            }
        }
        UNROLL
        for (int half = 0; half < 2; ++half) {
            uint32_t top[16], bottom[16];
            F::decode(top, raw[2 * half], read, lut);
            F::decode(bottom, raw[2 * half + 1], read, lut);
            UNROLL
            for (int j = 0; j < 8; ++j) {
                uint32_t a[4] = {top[2 * j], bottom[2 * j], top[2 * j + 1], bottom[2 * j + 1]};
                UNROLL
                for (int t = 0; t < TILES; ++t) {
                    const uint4& b = xs[t][j / 2];
                    MMA(acc[half][t], a, j % 2 ? b.z : b.x, j % 2 ? b.w : b.y);
                }
            }
        }
    }
    // An accumulator holds outputs r and r + 8 of the half, rows 2 c and 2 c + 1 of x's tile.
    UNROLL
    for (int half = 0; half < 2; ++half) {
        UNROLL
        for (int t = 0; t < TILES; ++t) {
            UNROLL
            for (int e = 0; e < 4; ++e) {
                int row = 8 * t + 2 * c + e % 2, n = 16 * half + r + e / 2 * 8;
                sums[(warp * 8 * TILES + row) * STRIDE + n] = acc[half][t][e];
            }
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 8 * TILES * OUTS; i += 32 * WARPS) {
        int row = i / OUTS, n = i % OUTS;
        int64_t t = m0 + row;
        if (t >= m || n0 + n >= out) continue;
        float sum = bias ? bias[n0 + n] : 0;
        UNROLL
        for (int k = 0; k < WARPS; ++k) sum += sums[(k * 8 * TILES + row) * STRIDE + n];
        for (int k = 0; k < rank; ++k)
            sum += ptx::bf16_to_float(u[t * ldu + k]) * ptx::bf16_to_float(v[int64_t(n0 + n) * ldv + k]);
        int64_t at = t * ldy + n0 + n;
        if (flags & 1) {
            float* to = static_cast<float*>(y) + at;
            *to = flags & 2 ? *to + sum : sum;
        } else {
            bf16* to = static_cast<bf16*>(y) + at;
            *to = ptx::float_to_bf16(flags & 2 ? ptx::bf16_to_float(*to) + sum : sum);
        }
    }
}

}  // namespace qmatvec

#define KERNEL(called, F, TILES)                                                                                   \
    extern "C" __global__ void __launch_bounds__(256) called(                                                      \
        const bf16* x, int ldx, WEIGHT_PARAMETERS, int out, int inner, const bf16* u, int ldu, const bf16* v,       \
        int ldv, int rank, const float* bias, void* y, int ldy, int m, int flags) {                                 \
        qmatvec::run<F, TILES>(x, ldx, WEIGHT(inner), out, u, ldu, v, ldv, rank, bias, y, ldy, m, flags);          \
    }                                                                                                              \
    EXPORT_KERNEL(called);
#define KERNELS(name, F) KERNEL(qmatvec_8_##name, F, 1) KERNEL(qmatvec_16_##name, F, 2)

FOR_EACH_FORMAT(KERNELS)
