// Fibers: one for each CUDA thread. A hand-written switch on x86-64 (saving what the System V ABI says a callee
// saves), ucontext elsewhere. Under AddressSanitizer each switch is announced, so that stacks are told apart.
#pragma once
#include <cstddef>
#include <cstdint>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace galen_host {

#if defined(__SANITIZE_ADDRESS__)
constexpr size_t STACK_BYTES = 256 << 10;
#else
constexpr size_t STACK_BYTES = 64 << 10;
#endif

// A place execution can be switched away from and back to. The thread's own stack is one too (stack == nullptr).
struct Context {
#if defined(__x86_64__)
    void* sp = nullptr;
#else
    ucontext_t ucontext;
#endif
    uint8_t* stack = nullptr;
    void* fake_stack = nullptr;       // AddressSanitizer's
    const void* bottom = nullptr;     // of the stack, as AddressSanitizer wants it
    size_t size = 0;
};

#if defined(__x86_64__)
extern "C" void galen_switch(void** save, void* load);
#endif

#if defined(__SANITIZE_ADDRESS__)
// What was left last: a fiber that begins is told where its stack ends.
inline __thread Context* came_from = nullptr;
#endif

// Leaves `from`, goes on in `to`. `dying`: `from` is never resumed.
inline void switch_to(Context& from, Context& to, bool dying = false) {
#if defined(__SANITIZE_ADDRESS__)
    came_from = &from;
    __sanitizer_start_switch_fiber(dying ? nullptr : &from.fake_stack, to.bottom, to.size);
#endif
    (void)dying;
#if defined(__x86_64__)
    galen_switch(&from.sp, to.sp);
#else
    swapcontext(&from.ucontext, &to.ucontext);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

// Maps a stack with a page below it that faults. Null when there is no memory.
inline uint8_t* map_stack() {
    const size_t page = 4096;
    void* base = mmap(nullptr, STACK_BYTES + page, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED || mprotect(base, page, PROT_NONE) != 0) return nullptr;
    return static_cast<uint8_t*>(base) + page;
}

// Makes `context` begin in `entry` on its own stack when it is switched to. `entry` never returns.
// `index` tells stacks apart that would else use the same lines of the cache.
inline void prepare(Context& context, unsigned index, void (*entry)()) {
    context.bottom = context.stack;
    context.size = STACK_BYTES;
    context.fake_stack = nullptr;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(context.stack, STACK_BYTES);
#endif
#if defined(__x86_64__)
    auto top = reinterpret_cast<uintptr_t>(context.stack + STACK_BYTES - index % 64 * 192) & ~uintptr_t(15);
    auto sp = reinterpret_cast<void**>(top);
    *--sp = nullptr;                               // keeps the stack as a call leaves it
    *--sp = reinterpret_cast<void*>(entry);
    for (int i = 0; i < 6; ++i) *--sp = nullptr;   // rbp, rbx, r12 to r15
    context.sp = sp;
#else
    getcontext(&context.ucontext);
    context.ucontext.uc_stack.ss_sp = context.stack;
    context.ucontext.uc_stack.ss_size = STACK_BYTES;
    context.ucontext.uc_link = nullptr;
    makecontext(&context.ucontext, entry, 0);
#endif
}

}  // namespace galen_host
