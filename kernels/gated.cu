// The gated activation (Shazeer 2020): y = act(gate) up; act is silu (kind 0) or the tanh form of gelu (kind 1).
//
//   silu(x) = x sigmoid(x)      gelu(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
//   backward: dgate = dy up act'(gate), dup = dy act(gate)
//
// All [n] bf16, n a multiple of 8, the three of backward read before dgate and dup are written (they may be gate and up).
// A thread has eight. Grid: ceil(n / 8 / 256). Expected share of roofline: 85 % of memory bandwidth.
//
// roofline: gated_backward what="4096 x 14336" flops=0 bytes=5.872e+08 share=85 share_sm_90=85
// launch: gated_* threads=256 shared=0 registers=64
// sass: gated_* LDG.*128 STG.*128
#include "include/vector.cuh"

__device__ __forceinline__ void activation(int kind, float x, float& value, float& slope) {
    if (kind == 0) {
        float s = 1.0f / (1.0f + __expf(-x));
        value = x * s;
        slope = s * (1.0f + x * (1.0f - s));
        return;
    }
    constexpr float A = 0.7978846f, B = 0.044715f;
    float t = ptx::tanh(A * (x + B * x * x * x));
    value = 0.5f * x * (1.0f + t);
    slope = 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * A * (1.0f + 3.0f * B * x * x);
}

extern "C" __global__ void __launch_bounds__(256)
    gated_forward(const bf16* gate, const bf16* up, int64_t n, int kind, bf16* y) {
    int64_t i = 8 * place();
    if (i >= n) return;
    Eight g = load_eight(gate + i), u = load_eight(up + i);
    UNROLL
    for (int j = 0; j < 8; ++j) {
        float value, slope;
        activation(kind, g.v[j], value, slope);
        u.v[j] *= value;
    }
    store_eight(y + i, u);
}
EXPORT_KERNEL(gated_forward);

extern "C" __global__ void __launch_bounds__(256)
    gated_backward(const bf16* gate, const bf16* up, const bf16* dy, int64_t n, int kind, bf16* dgate, bf16* dup) {
    int64_t i = 8 * place();
    if (i >= n) return;
    Eight g = load_eight(gate + i), u = load_eight(up + i), d = load_eight(dy + i);
    UNROLL
    for (int j = 0; j < 8; ++j) {
        float value, slope;
        activation(kind, g.v[j], value, slope);
        g.v[j] = d.v[j] * u.v[j] * slope;
        u.v[j] = d.v[j] * value;
    }
    store_eight(dgate + i, g);
    store_eight(dup + i, u);
}
EXPORT_KERNEL(gated_backward);
