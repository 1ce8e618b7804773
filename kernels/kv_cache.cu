// The cache of keys and values of generation, in pages that sequences share and are dealt (PagedAttention, Kwon et al. 2023).
//
//   pool [pages, layers, 2, 64, W] bf16: of a page's 64 tokens the keys, then the values, block by block; W = G D, a multiple of 8.
//   Token t of a sequence lies in page table[t / 64], slot t % 64.
//
//   kv_write   puts k, v [T, W] bf16 (row stride ld) where slots [T] say: 64 page + slot. Grid: ceil(T W / 8 / 256)
//   kv_gather  takes T tokens of one sequence out again, k and v of row stride W. Grid: ceil(T W / 8 / 256)
//   kv_copy    page pairs[i].y of `to` = page pairs[i].x of `from`, whole pages of `vectors` x 16 bytes; the pools may be one.
//              Grid: (pairs, ceil(vectors / 256))
//
// Expected share of roofline: 80 % of memory bandwidth.
//
// roofline: kv_copy what="16 pages of 8 MiB" flops=0 bytes=2.684e+08 share=80 share_sm_90=80
// launch: kv_* threads=256 shared=0 registers=40
// sass: kv_* LDG.*128 STG.*128
#include "include/paged.cuh"
#include "include/vector.cuh"

extern "C" __global__ void __launch_bounds__(256)
    kv_write(const bf16* k, const bf16* v, int ld, const int* slots, int tokens, int width, int layer, int layers, bf16* pool) {
    int64_t i = place();
    int parts = width / 8;
    if (i >= int64_t(tokens) * parts) return;
    int64_t token = i / parts;
    int j = int(i % parts) * 8, slot = slots[token];
    Pages<bf16> pages{pool, width, layer, layers};
    bf16* to = pages.keys(slot / PAGE, slot % PAGE) + j;
    ptx::store_vector(to, ptx::load_vector<uint4>(k + token * ld + j));
    ptx::store_vector(to + pages.values(), ptx::load_vector<uint4>(v + token * ld + j));
}
EXPORT_KERNEL(kv_write);

extern "C" __global__ void __launch_bounds__(256)
    kv_gather(const bf16* pool, const int* table, int tokens, int width, int layer, int layers, bf16* k, bf16* v) {
    int64_t i = place();
    int parts = width / 8;
    if (i >= int64_t(tokens) * parts) return;
    int token = int(i / parts), j = int(i % parts) * 8;
    Pages<const bf16> pages{pool, width, layer, layers};
    const bf16* from = pages.keys(table[token / PAGE], token % PAGE) + j;
    ptx::store_vector(k + 8 * i, ptx::load_vector<uint4>(from));
    ptx::store_vector(v + 8 * i, ptx::load_vector<uint4>(from + pages.values()));
}
EXPORT_KERNEL(kv_gather);

extern "C" __global__ void __launch_bounds__(256)
    kv_copy(const bf16* from, const int* pairs, int vectors, bf16* to) {
    int i = blockIdx.y * 256 + threadIdx.x;
    if (i >= vectors) return;
    int64_t source = pairs[2 * blockIdx.x], target = pairs[2 * blockIdx.x + 1];
    ptx::store_vector(to + 8 * (target * vectors + i), ptx::load_vector<uint4>(from + 8 * (source * vectors + i)));
}
EXPORT_KERNEL(kv_copy);
