// 4-bit NormalFloat with double quantisation (QLoRA, Dettmers et al. 2023, section 3), in the planes of formats.cuh; the
// same codes as galen_ops::quant::quantize_nf4.
//
//   nf4_codes       codes of each 64 elements by their largest magnitude; w [n] f32, n a multiple of 64
//   nf4_mean        the mean of the magnitudes, in f64; one block
//   nf4_magnitudes  their 8-bit codes, 256 by their largest distance from the mean
//
// levels: the 16 levels, then the 256 of the dynamic type. Grids: ceil(n / 64 / 8); 1; ceil(n / 64 / 256).
// Expected share of roofline: 70 % of memory bandwidth (reading w).
//
// roofline: nf4_codes what="n 14336, k 4096" flops=0 bytes=2.642e+08 share=70 share_sm_90=70
// launch: nf4_codes      threads=256 shared=0 registers=64
// launch: nf4_mean       threads=1024 shared=256 registers=64
// launch: nf4_magnitudes threads=256 shared=1056 registers=64
#include "include/vector.cuh"

// The number of midpoints of levels below x. A block's last code is -1 where its magnitude is.
__device__ __forceinline__ uint32_t nearest_level(const float* levels, float x) {
    uint32_t code = 0;
    UNROLL
    for (int i = 0; i < 15; ++i) code += x > 0.5f * (levels[i] + levels[i + 1]) ? 1 : 0;
    return code;
}

// A warp has a block of 64, a lane the pair of elements that shares a place in a word.
extern "C" __global__ void __launch_bounds__(256)
    nf4_codes(const float* w, const float* levels, int blocks, uint8_t* codes, float* magnitudes) {
    int block = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (block >= blocks) return;
    float2 pair = ptx::load_vector<float2>(w + int64_t(block) * 64 + 2 * lane);
    float most = warp_max(fmaxf(fabsf(pair.x), fabsf(pair.y)));
    float inverse = __fdiv_rn(1.0f, fmaxf(most, 1e-38f));
    uint32_t two = nearest_level(levels, __fmul_rn(pair.x, inverse)) | nearest_level(levels, __fmul_rn(pair.y, inverse)) << 16;
    two <<= 4 * (lane % 4);
    // The bits of the four lanes of a word are apart.
    two |= __float_as_uint(SHUFFLE_XOR(__uint_as_float(two), 1));
    two |= __float_as_uint(SHUFFLE_XOR(__uint_as_float(two), 2));
    if (lane % 4 == 0) ptx::store_vector(codes + int64_t(block) * 32 + lane, two);
    if (lane == 0) magnitudes[block] = most;
}
EXPORT_KERNEL(nf4_codes);

extern "C" __global__ void __launch_bounds__(1024) nf4_mean(const float* magnitudes, int blocks, float* offset) {
    SHARED_MEMORY(memory);
    auto sums = reinterpret_cast<double*>(memory);
    double sum = 0;
    for (int i = threadIdx.x; i < blocks; i += 1024) sum += magnitudes[i];
    // Pairs of floats carry a double through the shuffle.
    UNROLL
    for (int mask = 16; mask > 0; mask /= 2) {
        float high = float(sum), low = float(sum - high);
        float other_high = SHUFFLE_XOR(high, mask), other_low = SHUFFLE_XOR(low, mask);
        sum = (double(high) + double(low)) + (double(other_high) + double(other_low));
    }
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    double total = 0;
    for (int i = 0; i < 32; ++i) total += sums[i];
    *offset = float(total / blocks);
}
EXPORT_KERNEL(nf4_mean);

extern "C" __global__ void __launch_bounds__(256)
    nf4_magnitudes(const float* magnitudes, const float* levels, const float* offset, int blocks, uint8_t* codes,
                   float* scales) {
    SHARED_MEMORY(memory);
    auto table = reinterpret_cast<float*>(memory);
    table[threadIdx.x] = levels[16 + threadIdx.x];
    int i = blockIdx.x * 256 + threadIdx.x;
    float x = i < blocks ? magnitudes[i] - *offset : 0;
    // Its barriers also make the table visible.
    float most = block_max<8>(fabsf(x), table + 256);
    if (threadIdx.x == 0) scales[blockIdx.x] = most;
    if (i >= blocks) return;
    x = __fmul_rn(x, __fdiv_rn(1.0f, fmaxf(most, 1e-38f)));
    int above = 0;
    UNROLL
    for (int step = 128; step > 0; step /= 2)
        if (table[above + step - 1] < x) above += step;
    above = min(max(above, 1), 255);
    codes[i] = uint8_t(x - table[above - 1] <= table[above] - x ? above - 1 : above);
}
EXPORT_KERNEL(nf4_magnitudes);
