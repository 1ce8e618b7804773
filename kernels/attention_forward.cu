// Attention forward (FlashAttention-2, Dao 2023, algorithm 1) over segments and their parents.
//
//   o_i = sum_j softmax_j(c(scale q_i k_j)) v_j over keys j of i's segment and its ancestors with positions in
//   (p_i - window, p_i];   c(z) = cap tanh(z / cap), or z where cap is 0
//
// q, o [T, H D] bf16, k, v [T, G D] bf16, row strides ldq, ldk (o's is ldq's); lse [H, T] f32: log2 of the sum of 2^score,
// scores in units of log 2. Head h reads key-value head h / (H / G). Tiles as include/attention.cuh says, of at most
// 64 ROWS queries. Grid: (tiles, H).
//
// A block of 4 warps: a warp has 16 ROWS queries, whose scores and output stay in its registers; keys and values go by in
// tiles of KEYS, each loaded while the other is worked on:
//
//   wait K(t) | load V(t)  S = Q K^T | wait V(t) | load K(t+1)  softmax, O += P V
//
// Expected share of roofline: 65 % of sm_80's tensor peak at D = 128 and 2k tokens (FlashAttention-2: 73 %), 40 % of
// sm_90's, whose peak needs wgmma.
//
// roofline: attention_forward_128 what="4096 tokens, one segment, 32 heads, 8 of keys" flops=1.374e+11 bytes=8.441e+07 share=65 share_sm_90=40
// launch: attention_forward_64  threads=128 shared=32768 registers=255
// launch: attention_forward_96  threads=128 shared=49152 registers=255
// launch: attention_forward_128 threads=128 shared=49152 registers=255
// launch: attention_forward_256 threads=128 shared=65536 registers=255
// sass: attention_forward_* HMMA LDSM LDGSTS.*128 STG.*128
#include "include/attention.cuh"

namespace attention {

template <int D, int ROWS, int KEYS>
__device__ __forceinline__ void forward(const bf16* q, const bf16* k, const bf16* v, int ldq, int ldk, const int4* tiles,
                                        const int* offsets, const int4* ranges, int n_tokens, int group, float scale,
                                        float cap, int window, bf16* o, float* lse) {
    constexpr int QUERIES = 64 * ROWS, NT = KEYS / 8, OT = D / 8;
    using T = Tile<D>;
    SHARED_MEMORY(memory);
    auto qs = reinterpret_cast<bf16*>(memory);
    bf16 *ks = qs + QUERIES * D, *vs = ks + KEYS * D;
    int4 tile = tiles[blockIdx.x];
    int head = blockIdx.y, kv = head / group * D;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row0 = warp * 16 * ROWS;
    Scores scores{scale, cap};
    Walk<KEYS> walk{ranges + offsets[tile.w], ranges + offsets[tile.w + 1], tile.z - window + 1, tile.z + tile.y - 1};

    T::template load<QUERIES, THREADS>(qs, q + int64_t(tile.x) * ldq + head * D, ldq, tile.y, D);
    bool more = walk.next();
    if (more) T::template load<KEYS, THREADS>(ks, k + int64_t(walk.token) * ldk + kv, ldk, walk.count, D);
    ptx::copy_commit();

    float out[ROWS][OT][4], top[ROWS][2], sum[ROWS][2];
    UNROLL
    for (int i = 0; i < ROWS; ++i) {
        clear(out[i]);
        top[i][0] = top[i][1] = -INFINITY;
        sum[i][0] = sum[i][1] = 0;
    }
    while (more) {
        const int count = walk.count, position = walk.position;
        ptx::copy_wait<0>();
        __syncthreads();
        T::template load<KEYS, THREADS>(vs, v + int64_t(walk.token) * ldk + kv, ldk, count, D);
        ptx::copy_commit();
        float s[ROWS][NT][4];
        product<D, ROWS, NT>(s, qs, row0, ks);
        ptx::copy_wait<0>();
        __syncthreads();
        more = walk.next();
        if (more) T::template load<KEYS, THREADS>(ks, k + int64_t(walk.token) * ldk + kv, ldk, walk.count, D);
        ptx::copy_commit();

        // Whether every query of the tile sees every key of this one.
        bool all = count == KEYS && position + KEYS - 1 <= tile.z && position > tile.z + tile.y - 1 - window;
        UNROLL
        for (int i = 0; i < ROWS; ++i) {
            UNROLL
            for (int h = 0; h < 2; ++h) {
                int p = tile.z + row0 + 16 * i + 8 * h + lane / 4;
                float most = -INFINITY;
                UNROLL
                for (int j = 0; j < NT; ++j) {
                    UNROLL
                    for (int e = 0; e < 2; ++e) {
                        int key = 8 * j + lane % 4 * 2 + e;
                        float x = scores.of(s[i][j][2 * h + e]);
                        if (!all && !(key < count && sees(p, position + key, window))) x = -INFINITY;
                        s[i][j][2 * h + e] = x;
                        most = fmaxf(most, x);
                    }
                }
                most = fmaxf(top[i][h], row_max(most));
                // A row that has seen nothing yet has no maximum to subtract.
                float shift = most == -INFINITY ? 0 : most, factor = ptx::exp2(top[i][h] - shift), part = 0;
                UNROLL
                for (int j = 0; j < NT; ++j) {
                    UNROLL
                    for (int e = 0; e < 2; ++e) {
                        float p = ptx::exp2(s[i][j][2 * h + e] - shift);
                        s[i][j][2 * h + e] = p;
                        part += p;
                    }
                }
                sum[i][h] = sum[i][h] * factor + part;
                top[i][h] = most;
                UNROLL
                for (int j = 0; j < OT; ++j) {
                    out[i][j][2 * h] *= factor;
                    out[i][j][2 * h + 1] *= factor;
                }
            }
        }
        UNROLL
        for (int k = 0; k < NT / 2; ++k) {
            uint32_t left[ROWS][4];
            UNROLL
            for (int i = 0; i < ROWS; ++i) {
                UNROLL
                for (int e = 0; e < 4; ++e) {
                    const float* pair = &s[i][2 * k + e / 2][e % 2 * 2];
                    left[i][e] = ptx::pack_bf16(pair[0], pair[1]);
                }
            }
            UNROLL
            for (int j = 0; j < OT / 2; ++j) {
                uint32_t right[4];
                T::b_trans(right, vs, 16 * k, 2 * j);
                UNROLL
                for (int i = 0; i < ROWS; ++i) {
                    MMA(out[i][2 * j], left[i], right[0], right[1]);
                    MMA(out[i][2 * j + 1], left[i], right[2], right[3]);
                }
            }
        }
    }
    UNROLL
    for (int i = 0; i < ROWS; ++i) {
        float inverse[2];
        UNROLL
        for (int h = 0; h < 2; ++h) {
            float total = row_sum(sum[i][h]);
            inverse[h] = 1.0f / total;
            int row = row0 + 16 * i + 8 * h + lane / 4;
            if (lane % 4 == 0 && row < tile.y) lse[int64_t(head) * n_tokens + tile.x + row] = top[i][h] + log2f(total);
        }
        store<D>(out[i], inverse[0], inverse[1], qs, row0 + 16 * i, tile.y, o + int64_t(tile.x) * ldq + head * D, ldq);
    }
}

}  // namespace attention

#define KERNEL(D, ROWS, KEYS)                                                                                         \
    extern "C" __global__ void __launch_bounds__(128) attention_forward_##D(                                          \
        const bf16* q, const bf16* k, const bf16* v, int ldq, int ldk, const int4* tiles, const int* offsets,          \
        const int4* ranges, int n_tokens, int group, float scale, float cap, int window, bf16* o, float* lse) {       \
        attention::forward<D, ROWS, KEYS>(q, k, v, ldq, ldk, tiles, offsets, ranges, n_tokens, group, scale, cap, window, \
                                          o, lse);                                                                    \
    }                                                                                                                 \
    EXPORT_KERNEL(attention_forward_##D);

KERNEL(64, 2, 64)
KERNEL(96, 2, 64)
KERNEL(128, 2, 32)
KERNEL(256, 1, 32)
