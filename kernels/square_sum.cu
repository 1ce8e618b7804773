// The sum of squares of all gradients, for clipping by their norm (Pascanu et al. 2013).
//
//   sums_p = sum_(i in part p) x_i^2,  x [n] f32 in parts of 16,384, sums [P] f64
//
// In f64, as on the CPU: a thread every 256th value of its part, then the threads in order; so the bits depend on x alone. The
// host adds the parts, which is the one number that a step waits for. Grid: P = ceil(n / 16384).
// Expected share of roofline: 40 % of memory bandwidth (4 bytes a value; f64 is slow where cards are made for games).
//
// roofline: square_sum what="20 million gradients" flops=0 bytes=8e+07 share=40 share_sm_90=40
// launch: square_sum threads=256 shared=2048 registers=40
#include "include/vector.cuh"

extern "C" __global__ void __launch_bounds__(256) square_sum(const float* x, int64_t n, double* sums) {
    constexpr int PART = 16384;
    SHARED_MEMORY(memory);
    auto shared = reinterpret_cast<double*>(memory);
    int64_t first = int64_t(blockIdx.x) * PART;
    double sum = 0;
    for (int i = threadIdx.x; i < PART && first + i < n; i += 256) sum += double(x[first + i]) * double(x[first + i]);
    shared[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int i = 1; i < 256; ++i) sum += shared[i];
    sums[blockIdx.x] = sum;
}
EXPORT_KERNEL(square_sum);
