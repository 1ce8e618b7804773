// What device code sees of the host: a block of fibers, its barriers, warp collectives and pending copies. The
// launch and the scheduler are in runtime.cpp.
//
// What is promised: the results of a correct kernel. What is provoked: data of cp.async is poison until the thread
// waits for it; shared memory is poison at the start of a block; warps run far ahead of each other between
// barriers, in an order drawn from the launch's seed. What is refused: a barrier or collective that not all
// threads reach, or that they reach at different places; misaligned vector accesses. What cannot be seen: races
// between instructions of one warp, memory ordering, bank conflicts of plain loads.
#pragma once
#include "fiber.h"

#include <type_traits>
#include <utility>

namespace galen_host {

struct Dim3 { unsigned x, y, z; };

// A copy that was issued and has not arrived.
struct Pending { uint8_t* to; const uint8_t* from; int bytes, valid, group; };
constexpr int MAX_PENDING = 256;

enum class State : uint8_t { Ready, Block, Warp, Done };

struct Fiber {
    Context context;
    Dim3 thread;
    unsigned index;             // in the block
    State state;
    int site;                   // line of the barrier or collective it waits at
    void* operand;              // of the collective it waits at
    Pending pending[MAX_PENDING];
    int n_pending, groups;      // groups committed so far
};

// Counted over a launch.
struct Stats { uint64_t collectives, barriers, copies, bank_conflicts, mmas; };

struct Block {
    Dim3 index, threads, grid;
    uint8_t* shared;
    size_t shared_bytes;
};

extern __thread Fiber* self;
extern __thread Block block;
extern __thread Stats stats;

// Ends the launch with a message; does not return.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void sync_block(int site);
// Meets the other 31 lanes at `site`; the last to come runs `work` over all operands.
void collective(int site, void* operand, void (*work)(void* const* lanes));

inline unsigned lane() { return self->index & 31; }

inline void aligned(const void* p, size_t bytes, const char* what) {
    if (reinterpret_cast<uintptr_t>(p) % bytes != 0) fail("%s: %p is not aligned to %zu bytes", what, p, bytes);
}

inline void in_shared(const void* p, size_t bytes, const char* what) {
    auto at = static_cast<const uint8_t*>(p);
    if (at < block.shared || at + bytes > block.shared + block.shared_bytes)
        fail("%s: offset %td of %zu bytes of shared memory", what, at - block.shared, block.shared_bytes);
}

void copy_async(void* to, const void* from, int bytes, int valid);
void copy_commit();
void copy_wait(int groups_left);

// Calls a kernel with arguments that lie behind pointers, as cuLaunchKernel does.
template <class... A, size_t... I>
void call(void (*kernel)(A...), void* const* args, std::integer_sequence<size_t, I...>) {
    kernel(*static_cast<std::remove_cv_t<A>*>(args[I])...);
}

struct Kernel {
    const char* name;
    void (*function)();
    void (*invoke)(void (*)(), void* const*);
    size_t n_args;
    Kernel* next;
};
void add_kernel(Kernel* kernel);

template <class... A>
struct Registration : Kernel {
    Registration(const char* called, void (*kernel)(A...)) {
        name = called;
        function = reinterpret_cast<void (*)()>(kernel);
        n_args = sizeof...(A);
        invoke = [](void (*f)(), void* const* args) {
            call(reinterpret_cast<void (*)(A...)>(f), args, std::index_sequence_for<A...>{});
        };
        add_kernel(this);
    }
};
template <class... A>
Registration(const char*, void (*)(A...)) -> Registration<A...>;

}  // namespace galen_host
