// Rotary position embedding (Su et al. 2021), dimension i of a head with dimension i + D / 2:
//
//   y_i = x_i cos - s x_(i + D/2) sin,   y_(i + D/2) = x_(i + D/2) cos + s x_i sin,   s = 1 forward, -1 backward
//
// x, y [T, heads D] bf16 (y may be x), row stride ld; cos, sin [T, D / 2] f32; D a multiple of 16. A thread turns eight
// pairs. Grid: ceil(T heads D / 16 / 256). Expected share of roofline: 80 % of memory bandwidth.
//
// roofline: rope what="4096 tokens, 32 heads of 128" flops=0 bytes=6.711e+07 share=80 share_sm_90=80
// launch: rope threads=256 shared=0 registers=64
// sass: rope LDG.*128 STG.*128
#include "include/vector.cuh"

extern "C" __global__ void __launch_bounds__(256)
    rope(const bf16* x, const float* cos, const float* sin, int tokens, int heads, int d, int ld, float sign, bf16* y) {
    int parts = d / 16;
    int64_t i = place();
    if (i >= int64_t(tokens) * heads * parts) return;
    int64_t token = i / (heads * parts);
    int head = int(i / parts % heads), j = int(i % parts) * 8;
    int64_t at = token * ld + head * d + j, angle = token * (d / 2) + j;
    Eight a = load_eight(x + at), b = load_eight(x + at + d / 2), c = load_eight(cos + angle), s = load_eight(sin + angle);
    Eight low, high;
    UNROLL
    for (int k = 0; k < 8; ++k) {
        low.v[k] = a.v[k] * c.v[k] - sign * b.v[k] * s.v[k];
        high.v[k] = b.v[k] * c.v[k] + sign * a.v[k] * s.v[k];
    }
    store_eight(y + at, low);
    store_eight(y + at + d / 2, high);
}
EXPORT_KERNEL(rope);
