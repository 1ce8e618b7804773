// Quantised matmul with a low-rank branch, forward and backward.
//
//   forward   y  = x W^T + u B^T + bias   x [m, inner = K], W [out = N, K], u [m, R] = s x A^T, B [N, R], bias f32 [N]
//   backward  dx = dy W + du A            dy [m, inner = N], W [N, out = K], du [m, R] = s dy B, A [R, K]
//
// x, u, B, A, y bf16 (y f32 with flag 1; flag 2 adds to what is there), W in any format of formats.cuh, sums f32.
// Shapes: any m, rank >= 0; K a multiple of 32 (K-quants: 256; bf16: 8); row strides and starts of bf16 operands
// multiples of 8 elements. Grid: ceil(m / 128) * ceil(out / 128) blocks, in bands of eight tiles of rows.
//
// Papers: QLoRA (Dettmers et al. 2023) for NF4; LoRA (Hu et al. 2021, equation 3); the tile follows CUTLASS' multistage
// kernels (Thakkar et al. 2023), with the decoding between loads and multiplications as in Marlin (Frantar et al. 2024).
// Expected share of roofline: 80 % of the bf16 tensor peak of sm_80 at m >= 1024 (decoding takes about 25 % of issue
// slots, in the shadow of the tensor cores), 55 % of sm_90's, whose peak needs wgmma.
//
// roofline: qmatmul_forward_q4_k what="m 4096, n 4096, k 4096, rank 16" flops=1.38e+11 bytes=7.681e+07 share=80 share_sm_90=55
// roofline: qmatmul_backward_nf4 what="m 4096, n 14336, k 4096, rank 16" flops=4.816e+11 bytes=1.813e+08 share=78 share_sm_90=52
// launch: qmatmul_*_bf16 threads=128 shared=98304 registers=255
// launch: qmatmul_*_nf4  threads=128 shared=81984 registers=255
// launch: qmatmul_*_q*   threads=128 shared=81920 registers=255
// sass: qmatmul_* HMMA LDSM LDGSTS.*128 STG.*128
// sass: qmatmul_*_q* LDG.*128
// sass: qmatmul_*_nf4 LDG.*128
#include "include/qmatmul.cuh"

#define KERNELS(name, F)                                                                                           \
    extern "C" __global__ void __launch_bounds__(qmatmul::THREADS) qmatmul_forward_##name(                         \
        const bf16* x, int ldx, WEIGHT_PARAMETERS, int out, int inner, const bf16* u, int ldu, const bf16* v,       \
        int ldv, int rank, const float* bias, void* y, int ldy, int m, int flags) {                                 \
        qmatmul::run<F, false>({x, ldx, WEIGHT(inner), out, inner, u, ldu, v, ldv, rank, bias, y, ldy, m, flags}); \
    }                                                                                                              \
    EXPORT_KERNEL(qmatmul_forward_##name);                                                                         \
    extern "C" __global__ void __launch_bounds__(qmatmul::THREADS) qmatmul_backward_##name(                        \
        const bf16* x, int ldx, WEIGHT_PARAMETERS, int out, int inner, const bf16* u, int ldu, const bf16* v,       \
        int ldv, int rank, const float* bias, void* y, int ldy, int m, int flags) {                                 \
        qmatmul::run<F, true>({x, ldx, WEIGHT(out), out, inner, u, ldu, v, ldv, rank, bias, y, ldy, m, flags});    \
    }                                                                                                              \
    EXPORT_KERNEL(qmatmul_backward_##name);

FOR_EACH_FORMAT(KERNELS)
