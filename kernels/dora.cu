// Weight-decomposed adaptation (DoRA, Liu et al. 2024, equation 5): rows of W + s B A brought to lengths m.
//
//   row_squares_FORMAT  squares [N] f64 = |W_j|^2
//   dora_norms_FORMAT   norms [N] f32 = |W + s B A| by row, without forming it:
//                       |W_j|^2 + 2 s B_j (W A^T)_j + s^2 B_j (A A^T) B_j^T; a row that the change nearly cancels is formed after all
//   magnitude_forward   y = g (h - b) + b, g = m / norms, 0 where a norm is; kept = h, rounded
//   magnitude_backward  dh = g dy; parts [P, N] f32: sums over tokens of dy (h - b)
//   magnitude_gradient  dm += sum over parts / norms, the norms as constants (section 4.3)
//
// W [N, K] in any format of formats.cuh, A [R, K], B [N, R] bf16, crossed = A W^T [R, N] f32, gram = A A^T [R, R] f32, row strides lda to
// ldg; h [T, N] f32 forward and bf16 backward, y, kept, dy, dh bf16, without gaps, N a multiple of 8; b, m [N] f32. Sums of norms are
// f64, all in a fixed order. h is not rounded before g: rounded, it would come out as it went in where |g - 1| < 2^-9.
// Grids: N; N; ceil(T N / 8 / 256); (ceil(N / 512), ceil(T / tokens)); ceil(N / 256).
// Expected share of roofline: 70 % of memory bandwidth (magnitude), 40 % (squares, once a weight).
//
// roofline: magnitude_forward what="4096 x 4096" flops=0 bytes=1.342e+08 share=70 share_sm_90=70
// roofline: magnitude_backward what="4096 x 4096" flops=0 bytes=1.007e+08 share=70 share_sm_90=70
// launch: row_squares_*      threads=128 shared=1088 registers=96
// launch: dora_norms_*       threads=128 shared=2128 registers=128
// launch: magnitude_forward  threads=256 shared=0 registers=64
// launch: magnitude_backward threads=64 shared=0 registers=96
// launch: magnitude_gradient threads=256 shared=0 registers=40
// sass: magnitude_forward LDG.*128 STG.*128
// sass: magnitude_backward LDG.*128 STG.*128
#include "include/formats.cuh"
#include "include/vector.cuh"

namespace dora {

constexpr int THREADS = 128;
// As on the CPU: a square this small a share of its terms has lost too many digits.
constexpr double CANCELLED = 1e-3;

// The sum over the block, in the order of the threads; every thread gets it.
__device__ __forceinline__ double total(double x, double* scratch) {
    scratch[threadIdx.x] = x;
    __syncthreads();
    double sum = 0;
    for (int i = 0; i < THREADS; ++i) sum += scratch[i];
    __syncthreads();
    return sum;
}

template <class F>
__device__ __forceinline__ const float* levels(const Weight& w, uint8_t* memory) {
    auto lut = reinterpret_cast<float*>(memory);
    if constexpr (F::USES_LUT) {
        if (threadIdx.x < 16) lut[threadIdx.x] = w.levels[threadIdx.x];
        __syncthreads();
    }
    return lut;
}

// Two neighbours of a decoded group.
__device__ __forceinline__ float low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

template <class F>
__device__ __forceinline__ void squares(const Weight& w, double* out) {
    SHARED_MEMORY(memory);
    const float* lut = levels<F>(w, memory);
    int row = blockIdx.x;
    double sum = 0;
    for (int group = threadIdx.x; group < w.cols / 32; group += THREADS) {
        uint32_t pairs[16];
        F::decode(pairs, F::load(w, row, group), group, lut);
        for (int i = 0; i < 16; ++i) sum += double(low(pairs[i])) * low(pairs[i]) + double(high(pairs[i])) * high(pairs[i]);
    }
    sum = total(sum, reinterpret_cast<double*>(memory + 64));
    if (threadIdx.x == 0) out[row] = sum;
}

template <class F>
__device__ __forceinline__ void norms(const Weight& w, const double* squares, const bf16* a, int lda, const bf16* b, int ldb,
                                      const float* crossed, int ldc, const float* gram, int ldg, int rank, float scale,
                                      float* out) {
    SHARED_MEMORY(memory);
    const float* lut = levels<F>(w, memory);
    auto scratch = reinterpret_cast<double*>(memory + 64);
    int64_t row = blockIdx.x;
    const bf16* own = b + row * ldb;
    double cross = 0, change = 0, s = scale;
    for (int r = threadIdx.x; r < rank; r += THREADS) {
        double x = ptx::bf16_to_float(own[r]), inner = 0;
        for (int q = 0; q < rank; ++q) inner += double(gram[int64_t(r) * ldg + q]) * ptx::bf16_to_float(own[q]);
        cross += x * crossed[int64_t(r) * ldc + row];
        change += x * inner;
    }
    cross = 2 * s * total(cross, scratch);
    change = s * s * total(change, scratch);
    double square = squares[row] + cross + change;
    // The same for every thread.
    if (!(square > CANCELLED * (squares[row] + fabs(cross) + change))) {
        double sum = 0;
        for (int group = threadIdx.x; group < w.cols / 32; group += THREADS) {
            uint32_t pairs[16];
            F::decode(pairs, F::load(w, int(row), group), group, lut);
            for (int i = 0; i < 16; ++i) {
                for (int e = 0; e < 2; ++e) {
                    double x = e ? high(pairs[i]) : low(pairs[i]);
                    for (int r = 0; r < rank; ++r)
                        x += s * ptx::bf16_to_float(own[r]) * ptx::bf16_to_float(a[int64_t(r) * lda + 32 * group + 2 * i + e]);
                    sum += x * x;
                }
            }
        }
        square = total(sum, scratch);
    }
    if (threadIdx.x == 0) out[row] = float(sqrt(square));
}

// Of eight columns: m / norm.
__device__ __forceinline__ Eight gains(const float* m, const float* norms, int column) {
    Eight g = load_eight(m + column), n = load_eight(norms + column);
    UNROLL
    for (int i = 0; i < 8; ++i) g.v[i] = n.v[i] > 0 ? g.v[i] / n.v[i] : 0;
    return g;
}
__device__ __forceinline__ Eight biases(const float* bias, int column) {
    if (bias) return load_eight(bias + column);
    return {};
}

}  // namespace dora

#define KERNELS(name, F)                                                                                              \
    extern "C" __global__ void __launch_bounds__(128) row_squares_##name(WEIGHT_PARAMETERS, int cols, double* out) {  \
        dora::squares<F>(WEIGHT(cols), out);                                                                          \
    }                                                                                                                 \
    EXPORT_KERNEL(row_squares_##name);                                                                                \
    extern "C" __global__ void __launch_bounds__(128)                                                                 \
        dora_norms_##name(WEIGHT_PARAMETERS, int cols, const double* squares, const bf16* a, int lda, const bf16* b,   \
                          int ldb, const float* crossed, int ldc, const float* gram, int ldg, int rank, float scale,  \
                          float* out) {                                                                               \
        dora::norms<F>(WEIGHT(cols), squares, a, lda, b, ldb, crossed, ldc, gram, ldg, rank, scale, out);             \
    }                                                                                                                 \
    EXPORT_KERNEL(dora_norms_##name);

FOR_EACH_FORMAT(KERNELS)

extern "C" __global__ void __launch_bounds__(256) magnitude_forward(const float* h, const float* bias, const float* m,
                                                                    const float* norms, int tokens, int n, bf16* y,
                                                                    bf16* kept) {
    int64_t i = 8 * place();
    if (i >= int64_t(tokens) * n) return;
    int column = int(i % n);
    Eight x = load_eight(h + i), g = dora::gains(m, norms, column), b = dora::biases(bias, column);
    store_eight(kept + i, x);
    UNROLL
    for (int j = 0; j < 8; ++j) x.v[j] = g.v[j] * (x.v[j] - b.v[j]) + b.v[j];
    store_eight(y + i, x);
}
EXPORT_KERNEL(magnitude_forward);

extern "C" __global__ void __launch_bounds__(64)
    magnitude_backward(const bf16* dy, const bf16* h, const float* bias, const float* m, const float* norms, int tokens, int n,
                       int part, bf16* dh, float* parts) {
    int column = 8 * (blockIdx.x * 64 + threadIdx.x);
    if (column >= n) return;
    Eight g = dora::gains(m, norms, column), b = dora::biases(bias, column), sum = {};
    int end = min(tokens, part * int(blockIdx.y + 1));
    for (int t = part * blockIdx.y; t < end; ++t) {
        int64_t at = int64_t(t) * n + column;
        Eight d = load_eight(dy + at), x = load_eight(h + at);
        UNROLL
        for (int j = 0; j < 8; ++j) {
            sum.v[j] += d.v[j] * (x.v[j] - b.v[j]);
            d.v[j] *= g.v[j];
        }
        store_eight(dh + at, d);
    }
    store_eight(parts + int64_t(blockIdx.y) * n + column, sum);
}
EXPORT_KERNEL(magnitude_backward);

extern "C" __global__ void __launch_bounds__(256)
    magnitude_gradient(const float* parts, int n_parts, const float* norms, int n, float* dm) {
    int column = blockIdx.x * 256 + threadIdx.x;
    if (column >= n || !(norms[column] > 0)) return;
    float sum = 0;
    for (int p = 0; p < n_parts; ++p) sum += parts[int64_t(p) * n + column];
    dm[column] += sum / norms[column];
}
EXPORT_KERNEL(magnitude_gradient);
