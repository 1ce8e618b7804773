// Attention backward (FlashAttention-2, Dao 2023, algorithm 2), without atomics: the same bits every time.
//
//   delta_i = sum_d dO_id O_id                                       attention_delta
//   P = 2^(s - lse),  dS = P (dO V^T - delta) c'(scale q k) scale
//   dQ = dS K                                                        attention_backward_q_D, a block a tile of queries
//   dV = P^T dO,  dK = dS^T Q                                        attention_backward_kv_D, a block a tile of keys
//
// Each of the two passes forms the scores again: seven products instead of five, for which gradients of keys are summed in
// a fixed order, over the heads of a group and over a segment's descendants, in registers. Shapes, strides and
// descriptors: attention_forward.cu, include/attention.cuh; tiles of at most 64 queries, of at most 64 keys. dQ, dK, dV bf16,
// strides as q's and k's. Grid: q (tiles, H); kv (tiles, G, ceil(D / 128)); delta (ceil(T H / 8)).
//
// In kv, scores are transposed, S^T = K Q^T: then P^T and dS^T are left operands as they come, and a warp's 16 keys keep
// their gradients to themselves.
//
// Expected share of roofline: counted in FlashAttention-2's five products, 40 % of sm_80's tensor peak at D = 128 (it has
// 63 %), 25 % of sm_90's.
//
// roofline: attention_backward_q_128 what="as forward's (three products)" flops=2.062e+11 bytes=1.174e+08 share=55 share_sm_90=35
// roofline: attention_backward_kv_128 what="as forward's (four products)" flops=2.749e+11 bytes=1.007e+08 share=50 share_sm_90=32
// launch: attention_backward_q_64   threads=128 shared=32768 registers=168
// launch: attention_backward_q_96   threads=128 shared=49152 registers=224
// launch: attention_backward_q_128  threads=128 shared=65536 registers=224
// launch: attention_backward_q_256  threads=128 shared=98304 registers=255
// launch: attention_backward_kv_64  threads=128 shared=33280 registers=255
// launch: attention_backward_kv_96  threads=128 shared=49664 registers=255
// launch: attention_backward_kv_128 threads=128 shared=49408 registers=255
// launch: attention_backward_kv_256 threads=128 shared=98560 registers=255
// launch: attention_delta           threads=256 shared=0 registers=64
// sass: attention_backward_* HMMA LDSM LDGSTS.*128 STG.*128
#include "include/attention.cuh"

namespace attention {

template <int D, int KEYS>
__device__ __forceinline__ void backward_q(const bf16* q, const bf16* k, const bf16* v, int ldq, int ldk,
                                           const int4* tiles, const int* offsets, const int4* ranges, int n_tokens,
                                           int group, float scale, float cap, int window, const float* lse,
                                           const float* delta, const bf16* d_o, bf16* dq) {
    constexpr int QUERIES = 64, NT = KEYS / 8, OT = D / 8;
    using T = Tile<D>;
    SHARED_MEMORY(memory);
    auto qs = reinterpret_cast<bf16*>(memory);
    bf16 *gs = qs + QUERIES * D, *ks = gs + QUERIES * D, *vs = ks + KEYS * D;
    int4 tile = tiles[blockIdx.x];
    int head = blockIdx.y, kv = head / group * D, lane = threadIdx.x % 32, row0 = threadIdx.x / 32 * 16;
    Scores scores{scale, cap};
    Walk<KEYS> walk{ranges + offsets[tile.w], ranges + offsets[tile.w + 1], tile.z - window + 1, tile.z + tile.y - 1};
    int64_t first = int64_t(tile.x) * ldq + head * D;
    T::template load<QUERIES, THREADS>(qs, q + first, ldq, tile.y, D);
    T::template load<QUERIES, THREADS>(gs, d_o + first, ldq, tile.y, D);
    float norm[2], shared[2];
    UNROLL
    for (int h = 0; h < 2; ++h) {
        int row = row0 + 8 * h + lane / 4;
        int64_t at = int64_t(head) * n_tokens + tile.x + row;
        norm[h] = row < tile.y ? lse[at] : INFINITY;
        shared[h] = row < tile.y ? delta[at] : 0;
    }
    float out[OT][4];
    clear(out);
    while (walk.next()) {
        int64_t from = int64_t(walk.token) * ldk + kv;
        T::template load<KEYS, THREADS>(ks, k + from, ldk, walk.count, D);
        T::template load<KEYS, THREADS>(vs, v + from, ldk, walk.count, D);
        ptx::copy_commit();
        ptx::copy_wait<0>();
        __syncthreads();
        float s[1][NT][4], ds[1][NT][4];
        product<D, 1, NT>(s, qs, row0, ks);
        product<D, 1, NT>(ds, gs, row0, vs);
        UNROLL
        for (int j = 0; j < NT; ++j) {
            UNROLL
            for (int e = 0; e < 4; ++e) {
                int key = 8 * j + lane % 4 * 2 + e % 2, h = e / 2, p = tile.z + row0 + 8 * h + lane / 4;
                float x = scores.of(s[0][j][e]);
                bool seen = key < walk.count && sees(p, walk.position + key, window);
                float weight = seen ? ptx::exp2(x - norm[h]) : 0;
                ds[0][j][e] = weight * (ds[0][j][e] - shared[h]) * scores.slope(x) * scale;
            }
        }
        accumulate<D>(out, ds[0], ks, 0);
        __syncthreads();
    }
    store<D>(out, 1, 1, qs, row0, tile.y, dq + first, ldq);
}

template <int D, int QUERIES>
__device__ __forceinline__ void backward_kv(const bf16* q, const bf16* k, const bf16* v, int ldq, int ldk,
                                            const int4* tiles, const int* offsets, const int4* ranges, int n_tokens,
                                            int group, float scale, float cap, int window, const float* lse,
                                            const float* delta, const bf16* d_o, bf16* dk, bf16* dv) {
    // Columns of dK and dV whose sums fit into the registers.
    constexpr int KEYS = 64, NT = QUERIES / 8, COLS = D < 128 ? D : 128, OT = COLS / 8;
    using T = Tile<D>;
    SHARED_MEMORY(memory);
    auto ks = reinterpret_cast<bf16*>(memory);
    bf16 *vs = ks + KEYS * D, *qs = vs + KEYS * D, *gs = qs + QUERIES * D;
    auto norms = reinterpret_cast<float*>(gs + QUERIES * D);
    float* shared = norms + QUERIES;
    int4 tile = tiles[blockIdx.x];
    int kv = blockIdx.y * D, col = blockIdx.z * COLS, lane = threadIdx.x % 32, row0 = threadIdx.x / 32 * 16;
    Scores scores{scale, cap};
    int64_t first = int64_t(tile.x) * ldk + kv;
    T::template load<KEYS, THREADS>(ks, k + first, ldk, tile.y, D);
    T::template load<KEYS, THREADS>(vs, v + first, ldk, tile.y, D);
    float out_k[OT][4], out_v[OT][4];
    clear(out_k);
    clear(out_v);
    for (int head = blockIdx.y * group; head < int(blockIdx.y + 1) * group; ++head) {
        // Queries that see one of these keys; a window may be as large as an int.
        int last = window - 1 > 0x3fffffff ? 0x7fffffff - 1 : tile.z + tile.y - 1 + window - 1;
        Walk<QUERIES> walk{ranges + offsets[tile.w], ranges + offsets[tile.w + 1], tile.z, last};
        while (walk.next()) {
            int64_t from = int64_t(walk.token) * ldq + head * D;
            T::template load<QUERIES, THREADS>(qs, q + from, ldq, walk.count, D);
            T::template load<QUERIES, THREADS>(gs, d_o + from, ldq, walk.count, D);
            ptx::copy_commit();
            if (int(threadIdx.x) < QUERIES) {
                bool there = int(threadIdx.x) < walk.count;
                int64_t at = int64_t(head) * n_tokens + walk.token + threadIdx.x;
                norms[threadIdx.x] = there ? lse[at] : INFINITY;
                shared[threadIdx.x] = there ? delta[at] : 0;
            }
            ptx::copy_wait<0>();
            __syncthreads();
            float p[1][NT][4], ds[1][NT][4];
            product<D, 1, NT>(p, ks, row0, qs);
            product<D, 1, NT>(ds, vs, row0, gs);
            UNROLL
            for (int j = 0; j < NT; ++j) {
                UNROLL
                for (int e = 0; e < 4; ++e) {
                    int query = 8 * j + lane % 4 * 2 + e % 2, key = row0 + 8 * (e / 2) + lane / 4;
                    float x = scores.of(p[0][j][e]);
                    bool seen = query < walk.count && key < tile.y && sees(walk.position + query, tile.z + key, window);
                    float weight = seen ? ptx::exp2(x - norms[query]) : 0;
                    p[0][j][e] = weight;
                    ds[0][j][e] = weight * (ds[0][j][e] - shared[query]) * scores.slope(x) * scale;
                }
            }
            accumulate<D>(out_v, p[0], gs, col / 8);
            accumulate<D>(out_k, ds[0], qs, col / 8);
            __syncthreads();
        }
    }
    // Keys nobody looked at have not waited for their copies; a warp's rows are its own from here on.
    ptx::copy_wait<0>();
    __syncthreads();
    store<D>(out_k, 1, 1, ks, row0, tile.y, dk + first + col, ldk);
    store<D>(out_v, 1, 1, vs, row0, tile.y, dv + first + col, ldk);
}

}  // namespace attention

// A warp a head of a token.
extern "C" __global__ void __launch_bounds__(256)
    attention_delta(const bf16* o, const bf16* d_o, int ld, int n_tokens, int n_heads, int d, float* delta) {
    int64_t i = int64_t(blockIdx.x) * 8 + threadIdx.x / 32;
    if (i >= int64_t(n_tokens) * n_heads) return;
    int64_t token = i / n_heads, head = i % n_heads, at = token * ld + head * d;
    float sum = 0;
    for (int j = threadIdx.x % 32 * 2; j < d; j += 64) {
        uint32_t a = ptx::load_vector<uint32_t>(o + at + j), b = ptx::load_vector<uint32_t>(d_o + at + j);
        sum += __uint_as_float(a << 16) * __uint_as_float(b << 16);
        sum += __uint_as_float(a & 0xffff0000u) * __uint_as_float(b & 0xffff0000u);
    }
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) delta[head * n_tokens + token] = sum;
}
EXPORT_KERNEL(attention_delta);

#define ARGUMENTS                                                                                                    \
    const bf16 *q, const bf16 *k, const bf16 *v, int ldq, int ldk, const int4 *tiles, const int *offsets,             \
        const int4 *ranges, int n_tokens, int group, float scale, float cap, int window, const float *lse,           \
        const float *delta, const bf16 *d_o
#define PASS q, k, v, ldq, ldk, tiles, offsets, ranges, n_tokens, group, scale, cap, window, lse, delta, d_o
#define KERNELS(D, KEYS, QUERIES)                                                                                             \
    extern "C" __global__ void __launch_bounds__(128) attention_backward_q_##D(ARGUMENTS, bf16* dq) {                \
        attention::backward_q<D, KEYS>(PASS, dq);                                                                    \
    }                                                                                                                \
    EXPORT_KERNEL(attention_backward_q_##D);                                                                         \
    extern "C" __global__ void __launch_bounds__(128) attention_backward_kv_##D(ARGUMENTS, bf16* dk, bf16* dv) {     \
        attention::backward_kv<D, QUERIES>(PASS, dk, dv);                                                               \
    }                                                                                                                \
    EXPORT_KERNEL(attention_backward_kv_##D);

KERNELS(64, 64, 64)
KERNELS(96, 64, 64)
KERNELS(128, 64, 32)
KERNELS(256, 32, 32)
