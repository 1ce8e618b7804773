// A stand-in for libcublas for rehearsals (`xtask gpu-rehearsal`): bf16 products in plain loops, with the checks that cuBLAS makes.
// Only what galen_ops::cuda calls is here.
#include <cstdint>
#include <cstring>

namespace {

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { F32 = 0, BF16 = 14, COMPUTE_32F = 68, DEFAULT_ALGORITHM = -1 };

struct Handle {
    void* stream = nullptr;
    void* workspace = nullptr;
};

float wide(uint16_t bits) {
    uint32_t word = uint32_t(bits) << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
}
uint16_t narrow(float value) {
    uint32_t word;
    memcpy(&word, &value, 4);
    if ((word & 0x7fffffff) > 0x7f800000) return uint16_t(word >> 16 | 0x40);
    return uint16_t((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

}  // namespace

extern "C" {

int cublasGetProperty(int which, int* value) { *value = which == 0 ? 13 : 0; return SUCCESS; }
int cublasCreate_v2(void** handle) { *handle = new Handle; return SUCCESS; }
int cublasDestroy_v2(void* handle) { delete static_cast<Handle*>(handle); return SUCCESS; }
int cublasSetStream_v2(void* handle, void* stream) {
    *static_cast<Handle*>(handle) = {stream, nullptr};
    return SUCCESS;
}
int cublasSetWorkspace_v2(void* handle, void* workspace, size_t) {
    static_cast<Handle*>(handle)->workspace = workspace;
    return reinterpret_cast<uintptr_t>(workspace) % 256 == 0 ? SUCCESS : INVALID_VALUE;
}
int cublasSetMathMode(void*, int mode) { return mode == 16 ? SUCCESS : INVALID_VALUE; }

// Column-major: C [m, n] = op(A) [m, k] B [k, n] + beta C.
int cublasGemmEx(void* handle, int of_a, int of_b, int m, int n, int k, const void* alpha, const void* a, int a_type, int lda,
                 const void* b, int b_type, int ldb, const void* beta, void* c, int c_type, int ldc, int compute, int algorithm) {
    auto h = static_cast<Handle*>(handle);
    if (!h->stream || !h->workspace) return NOT_INITIALIZED;
    if (of_b != 0 || of_a > 1 || a_type != BF16 || b_type != BF16 || compute != COMPUTE_32F || algorithm != DEFAULT_ALGORITHM)
        return NOT_SUPPORTED;
    if (lda < (of_a ? k : m) || ldb < k || ldc < m || *static_cast<const float*>(alpha) != 1) return INVALID_VALUE;
    float old = *static_cast<const float*>(beta);
    auto as = static_cast<const uint16_t*>(a), bs = static_cast<const uint16_t*>(b);
    for (int64_t j = 0; j < n; ++j) {
        for (int64_t i = 0; i < m; ++i) {
            float sum = 0;
            for (int64_t l = 0; l < k; ++l) sum += wide(as[of_a ? i * lda + l : l * lda + i]) * wide(bs[j * ldb + l]);
            if (c_type == F32) {
                float* to = static_cast<float*>(c) + j * ldc + i;
                *to = sum + (old == 0 ? 0 : old * *to);
            } else {
                uint16_t* to = static_cast<uint16_t*>(c) + j * ldc + i;
                *to = narrow(sum + (old == 0 ? 0 : old * wide(*to)));
            }
        }
    }
    return SUCCESS;
}

}  // extern "C"
