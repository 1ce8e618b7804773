// Root-mean-square normalisation (Zhang and Sennrich 2019, equation 4), with the addition to the residual stream before
// it; and per head, for QK norm.
//
//   forward   r = x + b,  y_i = w_i r_i / sqrt(mean(r^2) + eps)
//   backward  dx = dr + s (w dy) - r s^3 mean(r w dy),  s = 1 / sqrt(mean(r^2) + eps)
//
// rms_norm_*: x, r, dr, dx [T, C] f32 (the residual stream), b, y, dy [T, C] bf16, w [C] f32; b and r null without an
// addition, dr null where nothing else flows in. A block of 256 threads a row; C a multiple of 8. Grid: T.
// qk_norm_*: x, y, dy, dx [rows, D] bf16, w [D] f32. A warp a row; D a multiple of 8. Grid: ceil(rows / 8).
// Expected share of roofline: 80 % of memory bandwidth (12 bytes an element forward with an addition, 14 backward).
//
// roofline: rms_norm_forward what="4096 x 4096 with an addition" flops=0 bytes=2.013e+08 share=80 share_sm_90=80
// roofline: qk_norm_forward what="4096 tokens, 32 heads of 128" flops=0 bytes=6.711e+07 share=80 share_sm_90=80
// launch: rms_norm_* threads=256 shared=32 registers=64
// launch: qk_norm_*  threads=256 shared=0 registers=64
// sass: rms_norm_* LDG.*128 STG.*128
// sass: qk_norm_* LDG.*128 STG.*128
#include "include/vector.cuh"

extern "C" __global__ void __launch_bounds__(256)
    rms_norm_forward(const float* x, const bf16* b, const float* w, float eps, int c, float* r, bf16* y) {
    SHARED_MEMORY(memory);
    int64_t row = int64_t(blockIdx.x) * c;
    float sum = 0;
    for (int i = threadIdx.x * 8; i < c; i += 256 * 8) {
        Eight v = load_eight(x + row + i);
        if (b) {
            Eight add = load_eight(b + row + i);
            UNROLL
            for (int j = 0; j < 8; ++j) v.v[j] += add.v[j];
            store_eight(r + row + i, v);
        }
        UNROLL
        for (int j = 0; j < 8; ++j) sum += v.v[j] * v.v[j];
    }
    float inverse = rsqrtf(block_sum<8>(sum, reinterpret_cast<float*>(memory)) / float(c) + eps);
    // Each thread reads again what it has just read or written: from the first-level cache.
    const float* from = b ? r : x;
    for (int i = threadIdx.x * 8; i < c; i += 256 * 8) {
        Eight v = load_eight(from + row + i), f = load_eight(w + i);
        UNROLL
        for (int j = 0; j < 8; ++j) v.v[j] *= inverse * f.v[j];
        store_eight(y + row + i, v);
    }
}
EXPORT_KERNEL(rms_norm_forward);

extern "C" __global__ void __launch_bounds__(256)
    rms_norm_backward(const float* r, const float* w, float eps, int c, const bf16* dy, const float* dr, float* dx) {
    SHARED_MEMORY(memory);
    int64_t row = int64_t(blockIdx.x) * c;
    float square = 0, shared = 0;
    for (int i = threadIdx.x * 8; i < c; i += 256 * 8) {
        Eight v = load_eight(r + row + i), f = load_eight(w + i), g = load_eight(dy + row + i);
        UNROLL
        for (int j = 0; j < 8; ++j) {
            square += v.v[j] * v.v[j];
            shared += v.v[j] * f.v[j] * g.v[j];
        }
    }
    auto scratch = reinterpret_cast<float*>(memory);
    float inverse = rsqrtf(block_sum<8>(square, scratch) / float(c) + eps);
    float factor = block_sum<8>(shared, scratch) / float(c) * inverse * inverse * inverse;
    for (int i = threadIdx.x * 8; i < c; i += 256 * 8) {
        Eight v = load_eight(r + row + i), f = load_eight(w + i), g = load_eight(dy + row + i);
        Eight d = {};
        if (dr) d = load_eight(dr + row + i);
        UNROLL
        for (int j = 0; j < 8; ++j) d.v[j] += g.v[j] * f.v[j] * inverse - v.v[j] * factor;
        store_eight(dx + row + i, d);
    }
}
EXPORT_KERNEL(rms_norm_backward);

extern "C" __global__ void __launch_bounds__(256)
    qk_norm_forward(const bf16* x, const float* w, float eps, int d, int rows, bf16* y) {
    int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    int64_t at = int64_t(row) * d;
    float sum = 0;
    for (int i = threadIdx.x % 32 * 8; i < d; i += 256) {
        Eight v = load_eight(x + at + i);
        UNROLL
        for (int j = 0; j < 8; ++j) sum += v.v[j] * v.v[j];
    }
    float inverse = rsqrtf(warp_sum(sum) / float(d) + eps);
    for (int i = threadIdx.x % 32 * 8; i < d; i += 256) {
        Eight v = load_eight(x + at + i), f = load_eight(w + i);
        UNROLL
        for (int j = 0; j < 8; ++j) v.v[j] *= inverse * f.v[j];
        store_eight(y + at + i, v);
    }
}
EXPORT_KERNEL(qk_norm_forward);

extern "C" __global__ void __launch_bounds__(256)
    qk_norm_backward(const bf16* x, const float* w, float eps, int d, int rows, const bf16* dy, bf16* dx) {
    int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    int64_t at = int64_t(row) * d;
    float square = 0, shared = 0;
    for (int i = threadIdx.x % 32 * 8; i < d; i += 256) {
        Eight v = load_eight(x + at + i), f = load_eight(w + i), g = load_eight(dy + at + i);
        UNROLL
        for (int j = 0; j < 8; ++j) {
            square += v.v[j] * v.v[j];
            shared += v.v[j] * f.v[j] * g.v[j];
        }
    }
    float inverse = rsqrtf(warp_sum(square) / float(d) + eps);
    float factor = warp_sum(shared) / float(d) * inverse * inverse * inverse;
    for (int i = threadIdx.x % 32 * 8; i < d; i += 256) {
        Eight v = load_eight(x + at + i), f = load_eight(w + i), g = load_eight(dy + at + i);
        UNROLL
        for (int j = 0; j < 8; ++j) g.v[j] = g.v[j] * f.v[j] * inverse - v.v[j] * factor;
        store_eight(dx + at + i, g);
    }
}
EXPORT_KERNEL(qk_norm_backward);
