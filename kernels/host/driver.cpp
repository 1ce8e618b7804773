// A stand-in for libcuda that runs launches in the host runtime: so that the program for cards, its launches and its memory
// can be rehearsed without a card (`xtask gpu-rehearsal`). Only what galen_ops::cuda and cudarc call is here.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

extern "C" void galen_units();
extern "C" int galen_host_launch(const char* name, const unsigned grid[3], const unsigned threads[3], size_t shared,
                                 uint64_t seed, void* const* args, size_t n_args, char* error, size_t error_bytes);
extern "C" const char* galen_host_kernel(size_t i);

namespace {

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, LAUNCH_FAILED = 719 };
constexpr size_t MEMORY = size_t(8) << 30;

struct Event { std::chrono::steady_clock::time_point at; };
// A card's context; what was made in one is refused under another, as a driver does.
struct Context { int card; };
struct Stream { Context* of; };
struct Module { Context* of; };
struct Function { std::string name; Context* of; size_t shared = 48 << 10; };

Context contexts[16];
thread_local Context* current = nullptr;

size_t used = 0;
// A run on several cards has a thread for each.
std::mutex one_at_a_time;
using Lock = std::lock_guard<std::mutex>;

// GALEN_REHEARSAL_IDLE: launches do nothing, so that what is left is the host's own time.
const bool idle = getenv("GALEN_REHEARSAL_IDLE") != nullptr;

// Sizes lie in front of what is allocated; every byte begins as one that is no number.
void* take(size_t bytes) {
    Lock lock(one_at_a_time);
    if (used + bytes > MEMORY) return nullptr;
    auto base = static_cast<uint8_t*>(aligned_alloc(256, (bytes + 511) / 256 * 256));
    if (!base) return nullptr;
    memcpy(base, &bytes, sizeof bytes);
    memset(base + 256, idle ? 0 : 0xff, bytes);
    used += bytes;
    return base + 256;
}
void give(void* p) {
    Lock lock(one_at_a_time);
    auto base = static_cast<uint8_t*>(p) - 256;
    size_t bytes;
    memcpy(&bytes, base, sizeof bytes);
    used -= bytes;
    free(base);
}

bool here(void* stream) { return stream && static_cast<Stream*>(stream)->of == current; }

}  // namespace

extern "C" {

int cuInit(unsigned) { galen_units(); return SUCCESS; }
int cuDriverGetVersion(int* v) { *v = 13000; return SUCCESS; }
int cuDeviceGetCount(int* n) {
    const char* cards = getenv("GALEN_REHEARSAL_CARDS");
    *n = cards ? atoi(cards) : 1;
    return SUCCESS;
}
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return SUCCESS; }
int cuDeviceGetName(char* name, int length, int) { snprintf(name, size_t(length), "rehearsal on the CPU"); return SUCCESS; }
int cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = MEMORY; return SUCCESS; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    // Capability 8.0; memory pools; one multiprocessor.
    *value = attribute == 75 ? 8 : attribute == 76 ? 0 : attribute == 115 || attribute == 16 ? 1 : 0;
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void** context, int card) {
    if (card < 0 || card >= 16) return INVALID_VALUE;
    contexts[card].card = card;
    *context = &contexts[card];
    return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxSetCurrent(void* context) { current = static_cast<Context*>(context); return SUCCESS; }
int cuCtxGetCurrent(void** context) { *context = current; return SUCCESS; }
int cuCtxSynchronize() { return SUCCESS; }
int cuStreamCreate(void** stream, unsigned) {
    *stream = new Stream{current};
    return current ? SUCCESS : INVALID_CONTEXT;
}
int cuStreamDestroy_v2(void* stream) { delete static_cast<Stream*>(stream); return SUCCESS; }
int cuStreamSynchronize(void* stream) { return here(stream) ? SUCCESS : INVALID_CONTEXT; }
int cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
int cuModuleLoadData(void** module, const void* image) {
    // Fat binaries begin so.
    uint32_t magic;
    memcpy(&magic, image, 4);
    *module = new Module{current};
    return magic == 0xba55ed50 ? SUCCESS : 200;
}
int cuModuleUnload(void* module) { delete static_cast<Module*>(module); return SUCCESS; }
int cuModuleGetFunction(void** function, void* module, const char* name) {
    if (static_cast<Module*>(module)->of != current) return INVALID_CONTEXT;
    const char* known;
    for (size_t i = 0; (known = galen_host_kernel(i)) != nullptr; ++i) {
        if (strcmp(known, name) != 0) continue;
        *function = new Function{name, current};
        return SUCCESS;
    }
    return NOT_FOUND;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
    if (attribute == 8) static_cast<Function*>(function)->shared = size_t(value);
    return SUCCESS;
}
int cuMemAlloc_v2(uint64_t* p, size_t bytes) {
    *p = reinterpret_cast<uint64_t>(take(bytes));
    return *p ? SUCCESS : OUT_OF_MEMORY;
}
int cuMemAllocAsync(uint64_t* p, size_t bytes, void* stream) {
    return here(stream) ? cuMemAlloc_v2(p, bytes) : int(INVALID_CONTEXT);
}
int cuMemFree_v2(uint64_t p) { give(reinterpret_cast<void*>(p)); return SUCCESS; }
int cuMemFreeAsync(uint64_t p, void* stream) { return here(stream) ? cuMemFree_v2(p) : int(INVALID_CONTEXT); }
int cuDeviceGetDefaultMemPool(void** pool, int) { *pool = &used; return SUCCESS; }
int cuMemPoolTrimTo(void*, size_t) { return SUCCESS; }
int cuMemPoolSetAttribute(void*, int attribute, void*) { return attribute == 4 ? SUCCESS : INVALID_VALUE; }
int cuMemGetInfo_v2(size_t* left, size_t* total) { *left = MEMORY - used; *total = MEMORY; return SUCCESS; }
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    if (!here(stream)) return INVALID_CONTEXT;
    memcpy(reinterpret_cast<void*>(to), from, bytes);
    return SUCCESS;
}
int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    if (!here(stream)) return INVALID_CONTEXT;
    memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
    return SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
    if (!here(stream)) return INVALID_CONTEXT;
    memcpy(to, reinterpret_cast<void*>(from), bytes);
    return SUCCESS;
}
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void* stream) {
    if (!here(stream)) return INVALID_CONTEXT;
    memset(reinterpret_cast<void*>(to), value, bytes);
    return SUCCESS;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** args, void**) {
    if (static_cast<Function*>(function)->of != current || !here(stream)) return INVALID_HANDLE;
    if (idle) return SUCCESS;
    Lock lock(one_at_a_time);
    static uint64_t seed = 0;
    auto f = static_cast<Function*>(function);
    const unsigned grid[3] = {gx, gy, gz}, threads[3] = {bx, by, bz};
    char error[1024] = "more shared memory than its attribute allows";
    if (shared <= f->shared &&
        galen_host_launch(f->name.c_str(), grid, threads, shared, ++seed, args, SIZE_MAX, error, sizeof error) == 0)
        return SUCCESS;
    fprintf(stderr, "rehearsal: %s\n", error);
    return LAUNCH_FAILED;
}
int cuEventCreate(void** event, unsigned) { *event = new Event; return SUCCESS; }
int cuEventRecord(void* event, void*) { static_cast<Event*>(event)->at = std::chrono::steady_clock::now(); return SUCCESS; }
int cuEventSynchronize(void*) { return SUCCESS; }
int cuEventElapsedTime_v2(float* ms, void* a, void* b) {
    *ms = std::chrono::duration<float, std::milli>(static_cast<Event*>(b)->at - static_cast<Event*>(a)->at).count();
    return SUCCESS;
}
int cuEventElapsedTime(float* ms, void* a, void* b) { return cuEventElapsedTime_v2(ms, a, b); }
int cuEventDestroy_v2(void* event) { delete static_cast<Event*>(event); return SUCCESS; }
int cuGetErrorName(int, const char** name) { *name = "an error of the rehearsal"; return SUCCESS; }
int cuGetErrorString(int, const char** text) { *text = "an error of the rehearsal"; return SUCCESS; }

}  // extern "C"
