// Weights to bf16: W [N, K] of any format of formats.cuh to row-major bf16, the values the other kernels multiply with.
// In front of cuBLAS for large m, and the check of the formats: ggml's blocks, and NF4 (QLoRA, Dettmers et al. 2023, section 3).
//
// A thread decodes 32 elements. Grid: ceil(N K / 32 / 256) blocks. Bound by writing 2 bytes an element.
// Expected share of roofline: 85 % of memory bandwidth.
//
// roofline: dequantize_nf4 what="n 14336, k 4096" flops=0 bytes=1.477e+08 share=85 share_sm_90=85
// launch: dequantize_nf4 threads=256 shared=64 registers=64
// launch: dequantize_*   threads=256 shared=0 registers=64
// sass: dequantize_* LDG.*128 STG.*128
#include "include/formats.cuh"

template <class F>
__device__ __forceinline__ void dequantize(const Weight& w, int rows, bf16* y) {
    SHARED_MEMORY(memory);
    auto lut = reinterpret_cast<float*>(memory);
    if constexpr (F::USES_LUT) {
        if (threadIdx.x < 16) lut[threadIdx.x] = w.levels[threadIdx.x];
        __syncthreads();
    }
    int groups = w.cols / 32;
    int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= int64_t(rows) * groups) return;
    int64_t row = i / groups;
    int group = int(i - row * groups);
    typename F::Raw raw = F::load(w, row, group);
    uint32_t pairs[16];
    F::decode(pairs, raw, group, lut);
    UNROLL
    for (int j = 0; j < 4; ++j)
        ptx::store_vector(y + 32 * i + 8 * j, make_uint4(pairs[4 * j], pairs[4 * j + 1], pairs[4 * j + 2], pairs[4 * j + 3]));
}

#define KERNEL(name, F)                                                                     \
    extern "C" __global__ void __launch_bounds__(256) dequantize_##name(WEIGHT_PARAMETERS, int rows, int cols, bf16* y) { \
        dequantize<F>(WEIGHT(cols), rows, y);                                               \
    }                                                                                       \
    EXPORT_KERNEL(dequantize_##name);

FOR_EACH_FORMAT(KERNEL)
