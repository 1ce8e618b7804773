// What stands between the products: rounding, sums, rows of the embedding, rows that are picked out.
//
//   cast_bf16        y = bf16(scale x), x [n] f32, n a multiple of 8. Grid: ceil(n / 8 / 256)
//   add_f32, _bf16   y = a + b, a and y [n] f32, b [n] f32 or bf16, n a multiple of 8; add_both_bf16: all bf16. Grid: ceil(n / 8 / 256)
//   select_rows      y [n, C] = x [index, C], f32 to bf16; select_rows_bf16: bf16 as it is. Grid: n
//   gather_rows      y [n, C] = x [index, C], all f32. Grid: n
//   scatter_rows     y [T, C] f32, row t the sum of dy [order[i], C] over i in [offsets[t], offsets[t + 1]). Grid: T
//   embed_FORMAT     y [T, C] f32 = scale W[id], W [V, C] in any format of formats.cuh. Grid: T
//
// C a multiple of 32 (embed), of 8 (others). Expected share of roofline: 80 % of memory bandwidth.
//
// roofline: cast_bf16 what="4096 x 4096" flops=0 bytes=1.007e+08 share=80 share_sm_90=80
// launch: cast_bf16    threads=256 shared=0 registers=40
// launch: add_*        threads=256 shared=0 registers=40
// launch: select_rows_bf16 threads=256 shared=0 registers=40
// launch: *_rows      threads=256 shared=0 registers=40
// launch: embed_*      threads=128 shared=64 registers=96
// sass: cast_bf16 LDG.*128 STG.*128
// sass: add_* LDG.*128 STG.*128
#include "include/formats.cuh"
#include "include/vector.cuh"

extern "C" __global__ void __launch_bounds__(256) cast_bf16(const float* x, float scale, int64_t n, bf16* y) {
    int64_t i = 8 * place();
    if (i >= n) return;
    Eight v = load_eight(x + i);
    UNROLL
    for (int j = 0; j < 8; ++j) v.v[j] *= scale;
    store_eight(y + i, v);
}
EXPORT_KERNEL(cast_bf16);

template <class S, class T>
__device__ __forceinline__ void add(const S* a, const T* b, int64_t n, S* y) {
    int64_t i = 8 * place();
    if (i >= n) return;
    Eight v = load_eight(a + i), w = load_eight(b + i);
    UNROLL
    for (int j = 0; j < 8; ++j) v.v[j] += w.v[j];
    store_eight(y + i, v);
}

extern "C" __global__ void __launch_bounds__(256) add_f32(const float* a, const float* b, int64_t n, float* y) {
    add(a, b, n, y);
}
EXPORT_KERNEL(add_f32);

extern "C" __global__ void __launch_bounds__(256) add_bf16(const float* a, const bf16* b, int64_t n, float* y) {
    add(a, b, n, y);
}
EXPORT_KERNEL(add_bf16);

extern "C" __global__ void __launch_bounds__(256) add_both_bf16(const bf16* a, const bf16* b, int64_t n, bf16* y) {
    add(a, b, n, y);
}
EXPORT_KERNEL(add_both_bf16);

template <class T>
__device__ __forceinline__ void pick(const T* x, const int* index, int c, bf16* y) {
    const T* from = x + int64_t(index[blockIdx.x]) * c;
    for (int i = threadIdx.x * 8; i < c; i += 256 * 8) store_eight(y + int64_t(blockIdx.x) * c + i, load_eight(from + i));
}

extern "C" __global__ void __launch_bounds__(256) select_rows(const float* x, const int* index, int c, bf16* y) {
    pick(x, index, c, y);
}
EXPORT_KERNEL(select_rows);

extern "C" __global__ void __launch_bounds__(256) select_rows_bf16(const bf16* x, const int* index, int c, bf16* y) {
    pick(x, index, c, y);
}
EXPORT_KERNEL(select_rows_bf16);

extern "C" __global__ void __launch_bounds__(256) gather_rows(const float* x, const int* index, int c, float* y) {
    const float* from = x + int64_t(index[blockIdx.x]) * c;
    for (int i = threadIdx.x * 8; i < c; i += 256 * 8) store_eight(y + int64_t(blockIdx.x) * c + i, load_eight(from + i));
}
EXPORT_KERNEL(gather_rows);

extern "C" __global__ void __launch_bounds__(256)
    scatter_rows(const float* dy, const int* offsets, const int* order, int c, float* y) {
    int begin = offsets[blockIdx.x], end = offsets[blockIdx.x + 1];
    for (int i = threadIdx.x * 8; i < c; i += 256 * 8) {
        Eight sum = {};
        for (int k = begin; k < end; ++k) {
            Eight d = load_eight(dy + int64_t(order[k]) * c + i);
            UNROLL
            for (int j = 0; j < 8; ++j) sum.v[j] += d.v[j];
        }
        store_eight(y + int64_t(blockIdx.x) * c + i, sum);
    }
}
EXPORT_KERNEL(scatter_rows);

template <class F>
__device__ __forceinline__ void embed(const Weight& w, const int* ids, float scale, float* y) {
    SHARED_MEMORY(memory);
    auto lut = reinterpret_cast<float*>(memory);
    if constexpr (F::USES_LUT) {
        if (threadIdx.x < 16) lut[threadIdx.x] = w.levels[threadIdx.x];
        __syncthreads();
    }
    int id = ids[blockIdx.x];
    for (int group = threadIdx.x; group < w.cols / 32; group += 128) {
        uint32_t pairs[16];
        F::decode(pairs, F::load(w, id, group), group, lut);
        float* to = y + int64_t(blockIdx.x) * w.cols + 32 * group;
        UNROLL
        for (int j = 0; j < 4; ++j) {
            Eight x;
            UNROLL
            for (int k = 0; k < 4; ++k) {
                x.v[2 * k] = scale * __uint_as_float(pairs[4 * j + k] << 16);
                x.v[2 * k + 1] = scale * __uint_as_float(pairs[4 * j + k] & 0xffff0000u);
            }
            store_eight(to + 8 * j, x);
        }
    }
}

#define KERNEL(name, F)                                                                                         \
    extern "C" __global__ void __launch_bounds__(128)                                                           \
        embed_##name(WEIGHT_PARAMETERS, int cols, const int* ids, float scale, float* y) {                      \
        embed<F>(WEIGHT(cols), ids, scale, y);                                                                  \
    }                                                                                                           \
    EXPORT_KERNEL(embed_##name);

FOR_EACH_FORMAT(KERNEL)
