// The head: log-probabilities of target tokens, the vocabulary in chunks, the gradient in the same pass
// (galen_ops::ops::LogProbHead; online softmax: Milakov and Gimelshein 2018).
//
//   z = W h / temperature;  logp_i = z[token_i] - max - log(sum)
//   E = sum_j e^(z_j - max) W_j / sum;  dh = sum_i g_i / temperature (W[token_i] - E)
//
// For each chunk of the vocabulary: logits [n, chunk] f32 by qmatmul_forward; log_prob_targets takes the targets' of them;
// log_prob_online moves each row's max and sum on and writes e^(z - max) as bf16; log_prob_rescale multiplies E by the
// factor that the new maximum asks for; qmatmul_backward adds the weights times W to E. At the end log_prob_finish, and
// in backward log_prob_gradient_FORMAT. n distinct rows of hidden states [n, C], targets sorted by row.
//
// targets [N] {row, token}; offsets [n + 1] into them; index [n] of a row in dh [T, C]. max starts at -inf, sum at 0, E at 0.
// Grids: targets, finish ceil(N / 256); online n; rescale (n, ceil(C / 1024)), as rows may be more than a grid's y holds; gradient n.
// Expected share of roofline: 75 % of memory bandwidth (6 bytes a logit), a tenth of the time of the products around it.
//
// roofline: log_prob_online what="4096 rows, chunk 4096" flops=0 bytes=1.678e+08 share=75 share_sm_90=75
// sass: log_prob_rescale LDG.*128 STG.*128
// sass: log_prob_gradient_* LDG.*128 STG.*128
// launch: log_prob_targets    threads=256 shared=0 registers=64
// launch: log_prob_online     threads=256 shared=32 registers=64
// launch: log_prob_rescale    threads=256 shared=0 registers=64
// launch: log_prob_finish     threads=256 shared=0 registers=64
// launch: log_prob_gradient_* threads=128 shared=64 registers=128
#include "include/formats.cuh"
#include "include/vector.cuh"

extern "C" __global__ void __launch_bounds__(256)
    log_prob_targets(const float* logits, int ld, int first, int chunk, const int2* targets, int n_targets,
                     float inverse_temperature, float* target_logits) {
    int64_t i = place();
    if (i >= n_targets) return;
    int2 t = targets[i];
    if (t.y >= first && t.y < first + chunk) target_logits[i] = logits[int64_t(t.x) * ld + t.y - first] * inverse_temperature;
}
EXPORT_KERNEL(log_prob_targets);

// A block a row, twice over it: the second time from the second-level cache. `weights` null: no gradient is wanted.
extern "C" __global__ void __launch_bounds__(256)
    log_prob_online(const float* logits, int ld, int chunk, float inverse_temperature, float* max, float* sum,
                    float* factors, bf16* weights, int ldw) {
    SHARED_MEMORY(memory);
    auto scratch = reinterpret_cast<float*>(memory);
    const float* row = logits + int64_t(blockIdx.x) * ld;
    float most = -INFINITY;
    bool broken = false;
    for (int i = threadIdx.x; i < chunk; i += 256) {
        most = fmaxf(most, row[i]);
        broken |= row[i] != row[i];
    }
    // fmaxf drops what is not a number; it must reach the sums.
    most = block_max<8>(most, scratch) * inverse_temperature;
    float old = max[blockIdx.x], top = fmaxf(old, most), factor = old == -INFINITY ? 0 : __expf(old - top);
    float part = broken ? NAN : 0;
    for (int i = threadIdx.x; i < chunk; i += 256) {
        float e = __expf(row[i] * inverse_temperature - top);
        part += e;
        if (weights) weights[int64_t(blockIdx.x) * ldw + i] = ptx::float_to_bf16(e);
    }
    part = block_sum<8>(part, scratch);
    if (threadIdx.x != 0) return;
    max[blockIdx.x] = top;
    sum[blockIdx.x] = sum[blockIdx.x] * factor + part;
    factors[blockIdx.x] = factor;
}
EXPORT_KERNEL(log_prob_online);

extern "C" __global__ void __launch_bounds__(256) log_prob_rescale(float* e, int c, const float* factors) {
    int i = int(blockIdx.y * blockDim.x + threadIdx.x) * 4;
    if (i >= c) return;
    float* at = e + int64_t(blockIdx.x) * c + i;
    float f = factors[blockIdx.x];
    // The maximum seldom moves after the first chunks: then nothing of e is touched.
    if (f == 1.0f) return;
    float4 v = ptx::load_vector<float4>(at);
    ptx::store_vector(at, make_float4(v.x * f, v.y * f, v.z * f, v.w * f));
}
EXPORT_KERNEL(log_prob_rescale);

extern "C" __global__ void __launch_bounds__(256)
    log_prob_finish(const float* target_logits, const int2* targets, int n_targets, const float* max, const float* sum,
                    float* logps, int* correct) {
    int64_t i = place();
    if (i >= n_targets) return;
    int row = targets[i].x;
    logps[i] = target_logits[i] - max[row] - logf(sum[row]);
    correct[i] = target_logits[i] >= max[row];
}
EXPORT_KERNEL(log_prob_finish);

// A block a row of hidden states, a thread 32 features: its targets in their order.
template <class F>
__device__ __forceinline__ void gradient(const Weight& w, const float* e, const float* sum, const float* grad,
                                         const int2* targets, const int* offsets, const int* index,
                                         float inverse_temperature, bf16* dh) {
    SHARED_MEMORY(memory);
    auto lut = reinterpret_cast<float*>(memory);
    if constexpr (F::USES_LUT) {
        if (threadIdx.x < 16) lut[threadIdx.x] = w.levels[threadIdx.x];
        __syncthreads();
    }
    int row = blockIdx.x;
    float inverse = 1.0f / sum[row];
    for (int group = threadIdx.x; group < w.cols / 32; group += 128) {
        float d[32] = {}, total = 0;
        for (int t = offsets[row]; t < offsets[row + 1]; ++t) {
            float g = grad[t] * inverse_temperature;
            uint32_t pairs[16];
            F::decode(pairs, F::load(w, targets[t].y, group), group, lut);
            UNROLL
            for (int j = 0; j < 16; ++j) {
                d[2 * j] += g * __uint_as_float(pairs[j] << 16);
                d[2 * j + 1] += g * __uint_as_float(pairs[j] & 0xffff0000u);
            }
            total += g;
        }
        const float* from = e + int64_t(row) * w.cols + 32 * group;
        bf16* to = dh + int64_t(index[row]) * w.cols + 32 * group;
        UNROLL
        for (int j = 0; j < 4; ++j) {
            Eight x = load_eight(from + 8 * j);
            UNROLL
            for (int k = 0; k < 8; ++k) x.v[k] = d[8 * j + k] - total * inverse * x.v[k];
            store_eight(to + 8 * j, x);
        }
    }
}

#define KERNEL(name, F)                                                                                              \
    extern "C" __global__ void __launch_bounds__(128) log_prob_gradient_##name(                                      \
        WEIGHT_PARAMETERS, int cols, const float* e, const float* sum, const float* grad, const int2* targets,       \
        const int* row_offsets, const int* index, float inverse_temperature, bf16* dh) {                             \
        gradient<F>(WEIGHT(cols), e, sum, grad, targets, row_offsets, index, inverse_temperature, dh);               \
    }                                                                                                                \
    EXPORT_KERNEL(log_prob_gradient_##name);

FOR_EACH_FORMAT(KERNEL)
