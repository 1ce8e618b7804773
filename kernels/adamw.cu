// AdamW (Loshchilov and Hutter 2019, algorithm 2) over the trainables of all adapters in one launch: they are one buffer.
//
//   g = factor grad;  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
//   x = x decay - step m / (sqrt(v) / root + eps),   step = lr / (1 - b1^t), root = sqrt(1 - b2^t), decay = 1 - lr wd
//
// step' and decay' in their place where faster, a byte each, is not zero (null: nowhere): B in LoRA+ (Hayou et al. 2024).
//
// x, grad, m, v [n] f32, copy [n] bf16: what the products of the next step read (null: none); grad is set to zero.
// n a multiple of 4. A thread has four. Grid: ceil(n / 4 / 256). Bound by 32 bytes an element.
// Expected share of roofline: 85 % of memory bandwidth.
//
// roofline: adamw what="20 million trainables" flops=0 bytes=6.8e+08 share=85 share_sm_90=85
// launch: adamw threads=256 shared=0 registers=64
// sass: adamw LDG.*128 STG.*128
#include "include/vector.cuh"

extern "C" __global__ void __launch_bounds__(256)
    adamw(float* x, float* grad, float* m, float* v, bf16* copy, int64_t n, float factor, float b1, float c1, float b2,
          float c2, float step, float root, float eps, float decay, const uint8_t* faster, float faster_step,
          float faster_decay) {
    int64_t i = 4 * place();
    if (i >= n) return;
    float4 xs = ptx::load_vector<float4>(x + i), gs = ptx::load_vector<float4>(grad + i);
    float4 ms = ptx::load_vector<float4>(m + i), vs = ptx::load_vector<float4>(v + i);
    uint32_t marks = faster ? *reinterpret_cast<const uint32_t*>(faster + i) : 0;
    float *px = &xs.x, *pg = &gs.x, *pm = &ms.x, *pv = &vs.x;
    UNROLL
    for (int j = 0; j < 4; ++j) {
        float g = pg[j] * factor;
        pm[j] = __fadd_rn(__fmul_rn(b1, pm[j]), __fmul_rn(c1, g));
        pv[j] = __fadd_rn(__fmul_rn(b2, pv[j]), __fmul_rn(__fmul_rn(c2, g), g));
        float denominator = __fadd_rn(__fdiv_rn(__fsqrt_rn(pv[j]), root), eps);
        bool fast = marks >> 8 * j & 0xff;
        float own_step = fast ? faster_step : step, own_decay = fast ? faster_decay : decay;
        px[j] = __fadd_rn(__fmul_rn(px[j], own_decay), -__fmul_rn(own_step, __fdiv_rn(pm[j], denominator)));
    }
    ptx::store_vector(x + i, xs);
    ptx::store_vector(m + i, ms);
    ptx::store_vector(v + i, vs);
    ptx::store_vector(grad + i, make_float4(0, 0, 0, 0));
    if (copy) ptx::store_vector(copy + i, make_uint2(ptx::pack_bf16(xs.x, xs.y), ptx::pack_bf16(xs.z, xs.w)));
}
EXPORT_KERNEL(adamw);
