// Gradients of a low-rank branch (LoRA, Hu et al. 2021, equation 3): products that sum over tokens.
//
//   C [R, N] += s U^T X,  U [T, R], X [T, N]:  dA = du^T x', and dB = s dy^T u with C stored transposed (flag 1)
//
// U, X bf16, row strides ldu, ldx, starts aligned to 16 bytes; C f32, in the flat buffer of trainables' gradients.
// lora_gradient: partial sums [S, R, N] f32 of S runs of tokens, a block 64 x 128 of them, in steps of 64 tokens, three
// deep by cp.async; both operands lie with the inner dimension as rows, and ldmatrix transposes them.
// lora_gradient_sum adds the S in order: the same bits every time, whatever the device; S is a function of T alone.
// Grids: (ceil(N / 128), ceil(R / 64), S) with S = ceil(T / per); sum ceil(R N / 256).
// Expected share of roofline: 60 % of memory bandwidth at R <= 64 (reading X once).
//
// roofline: lora_gradient what="4096 tokens, rank 16, n 4096" flops=2.147e+09 bytes=3.788e+07 share=60 share_sm_90=60
// launch: lora_gradient     threads=128 shared=73728 registers=168
// launch: lora_gradient_sum threads=256 shared=0 registers=40
// sass: lora_gradient HMMA LDSM LDGSTS.*128
#include "include/tile.cuh"

namespace lora_gradient_tile {
constexpr int M = 64, N = 128, K = 64, STAGES = 3, THREADS = 128, STAGE = K * (M + N);
using Left = Tile<M>;
using Right = Tile<N>;
}  // namespace lora_gradient_tile

extern "C" __global__ void __launch_bounds__(128)
    lora_gradient(const bf16* u, int ldu, const bf16* x, int ldx, int tokens, int rank, int n, int per, float* parts) {
    using namespace lora_gradient_tile;
    SHARED_MEMORY(memory);
    auto stages = reinterpret_cast<bf16*>(memory);
    int n0 = blockIdx.x * N, r0 = blockIdx.y * M, first = blockIdx.z * per, count = min(per, tokens - first);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, steps = (count + K - 1) / K;
    auto load = [&](int t) {
        if (t < steps) {
            bf16* stage = stages + t % STAGES * STAGE;
            int64_t token = first + t * K;
            Left::load<K, THREADS>(stage, u + token * ldu + r0, ldu, count - t * K, rank - r0);
            Right::load<K, THREADS>(stage + K * M, x + token * ldx + n0, ldx, count - t * K, n - n0);
        }
        ptx::copy_commit();
    };
    UNROLL
    for (int t = 0; t < STAGES - 1; ++t) load(t);
    float c[4][4][4] = {};
    for (int t = 0; t < steps; ++t) {
        ptx::copy_wait<STAGES - 2>();
        __syncthreads();
        load(t + STAGES - 1);
        const bf16* stage = stages + t % STAGES * STAGE;
        UNROLL
        for (int k = 0; k < K / 16; ++k) {
            uint32_t a[4][4];
            UNROLL
            for (int i = 0; i < 4; ++i) Left::a_trans(a[i], stage, 16 * k, 2 * i);
            UNROLL
            for (int j = 0; j < 2; ++j) {
                uint32_t b[4];
                Right::b_trans(b, stage + K * M, 16 * k, 4 * warp + 2 * j);
                UNROLL
                for (int i = 0; i < 4; ++i) {
                    MMA(c[i][2 * j], a[i], b[0], b[1]);
                    MMA(c[i][2 * j + 1], a[i], b[2], b[3]);
                }
            }
        }
    }
    float* to = parts + int64_t(blockIdx.z) * rank * n;
    UNROLL
    for (int i = 0; i < 4; ++i) {
        UNROLL
        for (int j = 0; j < 4; ++j) {
            UNROLL
            for (int e = 0; e < 4; ++e) {
                int r = r0 + 16 * i + e / 2 * 8 + lane / 4, col = n0 + 32 * warp + 8 * j + lane % 4 * 2 + e % 2;
                if (r < rank && col < n) to[int64_t(r) * n + col] = c[i][j][e];
            }
        }
    }
}
EXPORT_KERNEL(lora_gradient);

extern "C" __global__ void __launch_bounds__(256)
    lora_gradient_sum(const float* parts, int n_parts, int rank, int n, float scale, int flags, float* c) {
    int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x, all = int64_t(rank) * n;
    if (i >= all) return;
    float sum = 0;
    for (int s = 0; s < n_parts; ++s) sum += parts[s * all + i];
    int64_t at = flags & 1 ? i % n * rank + i / n : i;
    c[at] += scale * sum;
}
EXPORT_KERNEL(lora_gradient_sum);
