// Inverted dropout (Srivastava et al. 2014), y = x m / (1 - p), or what it takes away, x - x m / (1 - p); its mask is galen_ops::ops::Dropout's: a function of
// (seed, epoch, module, data row, position, feature).
//
// x, y [T, C] bf16; rows [T] uint64, positions [T] uint32; base as in random.cuh;
// threshold = floor(p 2^32); keep and drop: factors of what the mask keeps and drops. C a multiple of 8, a thread has eight features. Grid: ceil(T C / 8 / 256).
// Expected share of roofline: 60 % of memory bandwidth (the mask takes about 30 instructions a feature).
//
// roofline: dropout what="4096 x 4096" flops=0 bytes=6.711e+07 share=60 share_sm_90=60
// launch: dropout threads=256 shared=0 registers=64
// sass: dropout LDG.*128 STG.*128
#include "include/random.cuh"
#include "include/vector.cuh"

extern "C" __global__ void __launch_bounds__(256)
    dropout(const bf16* x, const uint64_t* rows, const uint32_t* positions, uint64_t base, uint64_t threshold, float keep,
            float drop, int tokens, int c, bf16* y) {
    int64_t i = 8 * place();
    if (i >= int64_t(tokens) * c) return;
    int64_t token = i / c;
    uint64_t key = token_key(base, rows[token], positions[token]), feature = uint64_t(i - token * c);
    Eight v = load_eight(x + i);
    UNROLL
    for (int j = 0; j < 8; ++j) v.v[j] = mix(key ^ (feature + j)) >> 32 < threshold ? (drop == 0 ? 0 : v.v[j] * drop) : v.v[j] * keep;
    store_eight(y + i, v);
}
EXPORT_KERNEL(dropout);
