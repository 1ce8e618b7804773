// Noise on token embeddings ("NEFTune: Noisy Embeddings Improve Instruction Finetuning", Jain et al. 2024), to the bit as
// galen_ops::ops::EmbeddingNoise has it:
//
//   x += factor u,   factor = alpha / sqrt(L C) by token,  u in [-1, 1) a function of (seed, epoch, row, position, feature)
//
// x [T, C] f32; rows [T] uint64, positions [T] uint32, factors [T] f32; base as in random.cuh. C a multiple of 8, a thread has eight
// features. Grid: ceil(T C / 8 / 256).
// Expected share of roofline: 60 % of memory bandwidth (the hash takes about 30 instructions a feature).
//
// roofline: embedding_noise what="4096 x 4096" flops=0 bytes=1.342e+08 share=60 share_sm_90=60
// launch: embedding_noise threads=256 shared=0 registers=64
// sass: embedding_noise LDG.*128 STG.*128
#include "include/random.cuh"
#include "include/vector.cuh"

extern "C" __global__ void __launch_bounds__(256)
    embedding_noise(float* x, const uint64_t* rows, const uint32_t* positions, const float* factors, uint64_t base, int tokens, int c) {
    int64_t i = 8 * place();
    if (i >= int64_t(tokens) * c) return;
    int64_t token = i / c;
    uint64_t key = token_key(base, rows[token], positions[token]), feature = uint64_t(i - token * c);
    float factor = factors[token];
    Eight v = load_eight(x + i);
    UNROLL
    for (int j = 0; j < 8; ++j) {
        // 24 bits: exact in f32, and so is the difference.
        float u = float(mix(key ^ (feature + j)) >> 40) * 0x1p-23f - 1;
        v.v[j] = __fadd_rn(v.v[j], __fmul_rn(factor, u));
    }
    store_eight(x + i, v);
}
EXPORT_KERNEL(embedding_noise);
