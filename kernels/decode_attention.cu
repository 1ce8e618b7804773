// Attention of one new token each of M sequences over their caches (Flash-Decoding, Dao et al. 2023, over pages: kv_cache.cu).
//
//   o_i = sum_j softmax_j(c(scale q_i k_j)) v_j over cached positions j in [n_i - window, n_i), n_i = lengths[i], the token's own
//   the last of them; c as in attention_forward.cu
//
// q, o [M, H D] bf16, row strides ldq, ldo; pool as kv_cache.cu says; tables [M, ldt], lengths [M]. Head h reads key-value head
// h / (H / G). A block has up to 16 heads of one key-value head, as the rows of one mma tile, and SPLIT positions, which its four
// warps take in turns of KEYS, each through memory of its own and without a barrier; their sums meet in shared memory. Where a
// launch has one split, that is o. Else parts [M, H, splits, D + 2] f32 gets sums, the maximum and the sum of weights, and
// decode_attention_join adds the splits up. Splits begin at multiples of SPLIT, so a sequence's bits depend neither on the
// sequences beside it nor on their lengths. Grid: (M splits, G, ceil(H / G / 16)); of the join M H.
//
// Expected share of roofline: 75 % of memory bandwidth for long sequences.
//
// roofline: decode_attention_128 what="16 sequences of 4096, 32 heads, 8 of keys" flops=1.074e+09 bytes=2.686e+08 share=75 share_sm_90=70
// launch: decode_attention_64   threads=128 shared=34816 registers=168
// launch: decode_attention_96   threads=128 shared=52224 registers=240
// launch: decode_attention_128  threads=128 shared=69632 registers=240
// launch: decode_attention_256  threads=128 shared=73728 registers=240
// launch: decode_attention_join threads=128 shared=0 registers=40
// sass: decode_attention_64 HMMA LDSM LDGSTS.*128
// sass: decode_attention_96 HMMA LDSM LDGSTS.*128
// sass: decode_attention_128 HMMA LDSM LDGSTS.*128
// sass: decode_attention_256 HMMA LDSM LDGSTS.*128
#include "include/attention.cuh"
#include "include/paged.cuh"

namespace attention {

constexpr int SPLIT = 256, ROWS = 16;
static_assert(SPLIT % PAGE == 0, "a tile lies in one page");

template <int D, int KEYS>
__device__ __forceinline__ void decode(const bf16* q, int ldq, const Pages<const bf16>& pages, const int* tables, int ldt,
                                       const int* lengths, int group, int splits, float scale, float cap, int window,
                                       bf16* o, int ldo, float* parts) {
    constexpr int NT = KEYS / 8, OT = D / 8, TURN = WARPS * KEYS;
    using T = Tile<D>;
    SHARED_MEMORY(memory);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    auto qs = reinterpret_cast<bf16*>(memory);
    bf16 *ks = qs + ROWS * D + warp * 2 * KEYS * D, *vs = ks + KEYS * D;
    int sequence = blockIdx.x / splits, split = blockIdx.x % splits, kv = blockIdx.y;
    int head0 = kv * group + ROWS * blockIdx.z, rows = min(ROWS, group - ROWS * int(blockIdx.z));
    int length = lengths[sequence], lo = max(0, length - window);
    int end = min((split + 1) * SPLIT, length);
    if (split * SPLIT >= length || end <= lo) return;  // the whole block
    const int* table = tables + int64_t(sequence) * ldt;
    Scores scores{scale, cap};
    auto load = [&](bf16* tile, int position, int64_t behind) {
        const bf16* from = pages.keys(table[position / PAGE], position % PAGE) + behind + kv * D;
        T::template load<KEYS, 32>(tile, from, pages.width, end - position, D, lane);
    };

    T::template load<ROWS, THREADS>(qs, q + int64_t(sequence) * ldq + head0 * D, D, rows, D);
    int at = split * SPLIT + warp * KEYS;
    while (at < end && at + KEYS <= lo) at += TURN;
    if (at < end) load(ks, at, 0);
    ptx::copy_commit();
    ptx::copy_wait<0>();
    __syncthreads();

    float out[OT][4], top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    clear(out);
    for (; at < end; at += TURN) {
        ptx::copy_wait<0>();
        SYNC_WARP();
        load(vs, at, pages.values());
        ptx::copy_commit();
        float s[1][NT][4];
        product<D, 1, NT>(s, qs, 0, ks);
        ptx::copy_wait<0>();
        SYNC_WARP();
        if (at + TURN < end) load(ks, at + TURN, 0);
        ptx::copy_commit();
        UNROLL
        for (int h = 0; h < 2; ++h) {
            float most = -INFINITY;
            UNROLL
            for (int j = 0; j < NT; ++j) {
                UNROLL
                for (int e = 0; e < 2; ++e) {
                    int position = at + 8 * j + lane % 4 * 2 + e;
                    float x = position >= lo && position < end ? scores.of(s[0][j][2 * h + e]) : -INFINITY;
                    s[0][j][2 * h + e] = x;
                    most = fmaxf(most, x);
                }
            }
            most = fmaxf(top[h], row_max(most));  // a tile that is walked has a key that is seen
            float factor = ptx::exp2(top[h] - most), part = 0;
            UNROLL
            for (int j = 0; j < NT; ++j) {
                UNROLL
                for (int e = 0; e < 2; ++e) {
                    float p = ptx::exp2(s[0][j][2 * h + e] - most);
                    s[0][j][2 * h + e] = p;
                    part += p;
                }
            }
            sum[h] = sum[h] * factor + part;
            top[h] = most;
            UNROLL
            for (int j = 0; j < OT; ++j) {
                out[j][2 * h] *= factor;
                out[j][2 * h + 1] *= factor;
            }
        }
        accumulate<D>(out, s[0], vs, 0);
    }
    ptx::copy_wait<0>();
    __syncthreads();
    // Every warp's sums [WARPS][ROWS][D], then {maximum, sum of weights} of each row.
    auto sums = reinterpret_cast<float*>(memory);
    float* stats = sums + WARPS * ROWS * D;
    UNROLL
    for (int h = 0; h < 2; ++h) {
        int row = warp * ROWS + 8 * h + lane / 4;
        UNROLL
        for (int j = 0; j < OT; ++j) {
            UNROLL
            for (int e = 0; e < 2; ++e) sums[row * D + 8 * j + lane % 4 * 2 + e] = out[j][2 * h + e];
        }
        float total = row_sum(sum[h]);
        if (lane % 4 == 0) {
            stats[2 * row] = top[h];
            stats[2 * row + 1] = total;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < rows * D; i += THREADS) {
        int row = i / D, d = i % D, head = head0 + row;
        float most = stats[2 * row], value = 0, total = 0;
        UNROLL
        for (int w = 1; w < WARPS; ++w) most = fmaxf(most, stats[2 * (w * ROWS + row)]);
        UNROLL
        for (int w = 0; w < WARPS; ++w) {
            float weight = ptx::exp2(stats[2 * (w * ROWS + row)] - most);
            value += weight * sums[(w * ROWS + row) * D + d];
            total += weight * stats[2 * (w * ROWS + row) + 1];
        }
        if (splits == 1) {
            o[int64_t(sequence) * ldo + head * D + d] = ptx::float_to_bf16(value / total);
            continue;
        }
        float* to = parts + ((int64_t(sequence) * gridDim.y * group + head) * splits + split) * (D + 2);
        to[d] = value;
        if (d == 0) {
            to[D] = most;
            to[D + 1] = total;
        }
    }
}

}  // namespace attention

#define KERNEL(D, KEYS)                                                                                                \
    extern "C" __global__ void __launch_bounds__(128) decode_attention_##D(                                            \
        const bf16* q, int ldq, const bf16* pool, int width, int layer, int layers, const int* tables, int ldt,         \
        const int* lengths, int group, int splits, float scale, float cap, int window, bf16* o, int ldo, float* parts) { \
        Pages<const bf16> pages{pool, width, layer, layers};                                                           \
        attention::decode<D, KEYS>(q, ldq, pages, tables, ldt, lengths, group, splits, scale, cap, window, o, ldo,     \
                                   parts);                                                                             \
    }                                                                                                                  \
    EXPORT_KERNEL(decode_attention_##D);

KERNEL(64, 32)
KERNEL(96, 32)
KERNEL(128, 32)
KERNEL(256, 16)

extern "C" __global__ void __launch_bounds__(128) decode_attention_join(const float* parts, const int* lengths, int heads,
                                                                        int d, int splits, int window, bf16* o, int ldo) {
    using attention::SPLIT;
    int sequence = blockIdx.x / heads, head = blockIdx.x % heads, length = lengths[sequence];
    int first = max(0, length - window) / SPLIT, last = (length - 1) / SPLIT;
    const float* own = parts + int64_t(blockIdx.x) * splits * (d + 2);
    float most = -INFINITY;
    for (int s = first; s <= last; ++s) most = fmaxf(most, own[s * (d + 2) + d]);
    for (int i = threadIdx.x; i < d; i += 128) {
        float value = 0, total = 0;
        for (int s = first; s <= last; ++s) {
            const float* part = own + s * (d + 2);
            float weight = ptx::exp2(part[d] - most);
            value += weight * part[i];
            total += weight * part[d + 1];
        }
        o[int64_t(sequence) * ldo + head * d + i] = ptx::float_to_bf16(value / total);
    }
}
EXPORT_KERNEL(decode_attention_join);
