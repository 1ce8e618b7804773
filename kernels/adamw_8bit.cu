// AdamW with moments of eight bits (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization", section 2).
//
// As adamw.cu; a moment is table[code] absmax of its block of 256. signed_table, unsigned_table [256] f32, ascending, the
// dynamic types of the paper for m and v; m_codes, v_codes [n] bytes; m_max, v_max [ceil(n / 256)] f32. Codes are of the
// nearest value, of the lower where two are as near; v is not rounded to zero unless it is zero, as the step divides by it.
// A block of 256 threads has one block of elements. Grid: ceil(n / 256). Bound by 16 bytes an element.
// Expected share of roofline: 60 % of memory bandwidth (a search of eight steps for each code).
//
// roofline: adamw_8bit what="20 million trainables" flops=0 bytes=4e+08 share=60 share_sm_90=60
// launch: adamw_8bit threads=256 shared=2080 registers=64
#include "include/vector.cuh"

// The code of the value nearest to x in an ascending table of 256.
__device__ __forceinline__ int nearest(const float* table, float x) {
    int above = 0;
    UNROLL
    for (int step = 128; step > 0; step /= 2)
        if (table[above + step - 1] < x) above += step;
    above = min(max(above, 1), 255);
    return x - table[above - 1] <= table[above] - x ? above - 1 : above;
}

extern "C" __global__ void __launch_bounds__(256)
    adamw_8bit(float* x, float* grad, uint8_t* m_codes, uint8_t* v_codes, float* m_max, float* v_max,
               const float* signed_table, const float* unsigned_table, bf16* copy, int64_t n, float factor, float b1,
               float c1, float b2, float c2, float step, float root, float eps, float decay) {
    SHARED_MEMORY(memory);
    auto m_table = reinterpret_cast<float*>(memory);
    float *v_table = m_table + 256, *scratch = v_table + 256;
    m_table[threadIdx.x] = signed_table[threadIdx.x];
    v_table[threadIdx.x] = unsigned_table[threadIdx.x];
    int64_t i = int64_t(blockIdx.x) * 256 + threadIdx.x;
    bool there = i < n;
    float g = there ? grad[i] * factor : 0, old = there ? x[i] : 0;
    int m_code = there ? m_codes[i] : 0, v_code = there ? v_codes[i] : 0;
    float m_scale = m_max[blockIdx.x], v_scale = v_max[blockIdx.x];
    __syncthreads();
    float m = there ? b1 * (m_table[m_code] * m_scale) + c1 * g : 0;
    float v = there ? b2 * (v_table[v_code] * v_scale) + c2 * g * g : 0;
    float m_most = block_max<8>(fabsf(m), scratch), v_most = block_max<8>(v, scratch);
    if (threadIdx.x == 0) {
        m_max[blockIdx.x] = m_most;
        v_max[blockIdx.x] = v_most;
    }
    if (!there) return;
    int v_near = nearest(v_table, v_most > 0 ? v / v_most : 0);
    if (v > 0 && v_table[v_near] <= 0) ++v_near;
    m_codes[i] = uint8_t(nearest(m_table, m_most > 0 ? m / m_most : 0));
    v_codes[i] = uint8_t(v_near);
    float now = old * decay - step * (m / (sqrtf(v) / root + eps));
    x[i] = now;
    grad[i] = 0;
    if (copy) copy[i] = ptx::float_to_bf16(now);
}
EXPORT_KERNEL(adamw_8bit);
