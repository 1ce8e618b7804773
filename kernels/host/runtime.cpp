// The scheduler: runs a grid block by block, a block's threads as fibers.
#include "runtime.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#if defined(__x86_64__)
asm(R"(
.text
.globl galen_switch
.hidden galen_switch
.type galen_switch,@function
galen_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size galen_switch, .-galen_switch
)");
#endif

namespace galen_host {

__thread Fiber* self = nullptr;
__thread Block block{};
__thread Stats stats{};

namespace {

constexpr int MAX_THREADS = 1024;
constexpr size_t GUARD = 1024;          // bytes of shared memory's poison on either side that must stay
constexpr uint8_t POISON = 0xff;        // not a number, as bf16, half and float

// `ready`: lanes that can go on; `site`: where those that have arrived at a collective wait.
struct Warp { int ready, arrived, priority, site; };

// The order in which a warp's `n` lanes are run, from a drawn one by a drawn step. `lane` is the next, of `left`.
struct Pass {
    Fiber* const* lanes;
    unsigned n, lane, step, left;

    // The next that can go on; null after the last.
    Fiber* next() {
        for (unsigned at = lane, i = left; i > 0;) {
            Fiber* f = lanes[at];
            at += step;
            if (at >= n) at -= n;
            --i;
            if (f->state != State::Ready) continue;
            lane = at;
            left = i;
            return f;
        }
        left = 0;
        return nullptr;
    }
};

// What a launch needs, kept between launches.
struct Machine {
    std::vector<Fiber*> fibers;
    std::vector<uint8_t> memory;
    Warp warps[MAX_THREADS / 32];
    Pass pass;
    Context main;
    unsigned threads = 0;
    int at_barrier = 0, done = 0;
    uint64_t random = 0;
    bool failed = false;
    char message[512];
    const Kernel* kernel = nullptr;
    void* const* args = nullptr;

    ~Machine() {
        for (Fiber* f : fibers) {
            munmap(f->context.stack - 4096, STACK_BYTES + 4096);
            delete f;
        }
    }
};
// Set by a launch: a pointer, since what has a destructor is looked for anew at each use.
__thread Machine* machine = nullptr;
Kernel* kernels = nullptr;

// splitmix64 (Steele, Lea and Flood 2014).
uint64_t draw() {
    uint64_t z = (machine->random += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

// Goes on in the next lane of the pass that can, or in the scheduler after the last.
void leave(bool dying = false) {
    Fiber* me = self;
    Fiber* next = machine->warps[me->index / 32].ready > 0 ? machine->pass.next() : nullptr;
    if (next) self = next;
    switch_to(me->context, next ? next->context : machine->main, dying);
}

void entry() {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    came_from->bottom = bottom;
    came_from->size = size;
#endif
    machine->kernel->invoke(machine->kernel->function, machine->args);
    copy_wait(0);
    self->state = State::Done;
    --machine->warps[self->index / 32].ready;
    ++machine->done;
    leave(true);
    __builtin_unreachable();
}

bool start_fibers(unsigned threads) {
    while (machine->fibers.size() < threads) {
        auto f = new Fiber{};
        f->context.stack = map_stack();
        if (!f->context.stack) {
            delete f;
            return false;
        }
        machine->fibers.push_back(f);
    }
    return true;
}

unsigned lanes_of(unsigned warp) { return machine->threads - warp * 32 < 32 ? machine->threads - warp * 32 : 32; }

// Runs one warp's ready lanes, in an order drawn anew. Whether there was one.
bool run_warp(unsigned warp) {
    if (machine->warps[warp].ready == 0) return false;
    unsigned n = lanes_of(warp);
    unsigned start = draw() % n, step = n == 32 ? (draw() % 16) * 2 + 1 : 1;
    machine->pass = {&machine->fibers[warp * 32], n, start, step, n};
    self = machine->pass.next();
    switch_to(machine->main, self->context);
    return true;
}

void shuffle_priorities(unsigned warps) {
    for (unsigned w = 0; w < warps; ++w) machine->warps[w].priority = int(draw() % 1024);
}

// Runs the warp of the highest priority that can go on; sometimes another. So a warp gets as far ahead of the
// others as barriers let it.
bool run_some(unsigned warps) {
    bool tried[MAX_THREADS / 32] = {};
    for (unsigned n = 0; n < warps; ++n) {
        int best = -1;
        for (unsigned w = 0; w < warps; ++w)
            if (!tried[w] && (best < 0 || machine->warps[w].priority > machine->warps[best].priority)) best = int(w);
        tried[best] = true;
        if (run_warp(unsigned(best))) return true;
        if (machine->failed) return false;
    }
    return false;
}

void release_block() {
    int site = machine->fibers[0]->site;
    for (unsigned i = 0; i < machine->threads; ++i) {
        if (machine->fibers[i]->site == site) continue;
        snprintf(machine->message, sizeof machine->message,
                 "threads 0 and %u wait at different barriers (lines %d and %d)", i, site, machine->fibers[i]->site);
        machine->failed = true;
        return;
    }
    unsigned warps = (machine->threads + 31) / 32;
    for (unsigned i = 0; i < machine->threads; ++i) machine->fibers[i]->state = State::Ready;
    for (unsigned w = 0; w < warps; ++w) machine->warps[w].ready = int(lanes_of(w));
    machine->at_barrier = 0;
    ++stats.barriers;
    if (draw() % 2) shuffle_priorities(warps);
}

void run_block() {
    unsigned warps = (machine->threads + 31) / 32;
    memset(machine->memory.data(), POISON, machine->memory.size());
    machine->at_barrier = machine->done = 0;
    for (unsigned i = 0; i < machine->threads; ++i) {
        Fiber* f = machine->fibers[i];
        f->index = i;
        f->thread = {i % block.threads.x, i / block.threads.x % block.threads.y,
                     i / (block.threads.x * block.threads.y)};
        f->state = State::Ready;
        f->n_pending = f->groups = 0;
        prepare(f->context, i, entry);
    }
    for (unsigned w = 0; w < warps; ++w) machine->warps[w] = {int(lanes_of(w)), 0, 0, 0};
    shuffle_priorities(warps);
    while (!machine->failed && machine->done < int(machine->threads)) {
        if (run_some(warps) || machine->failed) continue;
        if (machine->at_barrier == int(machine->threads)) {
            release_block();
            continue;
        }
        int at_warp = 0, site = 0;
        for (unsigned i = 0; i < machine->threads; ++i)
            if (machine->fibers[i]->state == State::Warp) ++at_warp, site = machine->fibers[i]->site;
        snprintf(machine->message, sizeof machine->message,
                 "deadlock: %d threads at a block barrier, %d at a warp's collective (line %d), %d have left",
                 machine->at_barrier, at_warp, site, machine->done);
        machine->failed = true;
    }
    if (machine->failed) return;
    for (size_t i = 0; i < GUARD; ++i) {
        const uint8_t *before = block.shared - GUARD, *after = block.shared + block.shared_bytes;
        if (before[i] != POISON || after[i] != POISON) {
            snprintf(machine->message, sizeof machine->message, "wrote outside %zu bytes of shared memory",
                     block.shared_bytes);
            machine->failed = true;
            return;
        }
    }
}

}  // namespace

void add_kernel(Kernel* kernel) {
    kernel->next = kernels;
    kernels = kernel;
}

void fail(const char* format, ...) {
    va_list args;
    va_start(args, format);
    char text[400];
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(machine->message, sizeof machine->message, "block (%u, %u, %u) thread %u: %s", block.index.x,
             block.index.y, block.index.z, self->index, text);
    machine->failed = true;
    switch_to(self->context, machine->main, true);
    __builtin_unreachable();
}

void sync_block(int site) {
    self->state = State::Block;
    self->site = site;
    --machine->warps[self->index / 32].ready;
    ++machine->at_barrier;
    leave();
}

void collective(int site, void* operand, void (*work)(void* const* lanes)) {
    unsigned first = self->index / 32 * 32;
    Warp& warp = machine->warps[self->index / 32];
    self->site = site;
    self->operand = operand;
    if (warp.arrived == 0) warp.site = site;
    if (warp.site != site) fail("lanes of a warp meet at lines %d and %d", site, warp.site);
    if (++warp.arrived < 32) {
        self->state = State::Warp;
        --warp.ready;
        leave();
        return;
    }
    warp.arrived = 0;
    warp.ready = 32;
    ++stats.collectives;
    void* operands[32];
    for (unsigned i = 0; i < 32; ++i) operands[i] = machine->fibers[first + i]->operand;
    work(operands);
    for (unsigned i = 0; i < 32; ++i) machine->fibers[first + i]->state = State::Ready;
}

void copy_async(void* to, const void* from, int bytes, int valid) {
    aligned(to, size_t(bytes), "cp.async to");
    aligned(from, size_t(bytes), "cp.async from");
    in_shared(to, size_t(bytes), "cp.async");
    if (valid < 0 || valid > bytes) fail("cp.async of %d of %d bytes", valid, bytes);
    if (self->n_pending == MAX_PENDING) fail("more than %d copies pending", MAX_PENDING);
    self->pending[self->n_pending++] = {static_cast<uint8_t*>(to), static_cast<const uint8_t*>(from), bytes, valid,
                                        self->groups};
    memset(to, POISON, size_t(bytes));  // from now on what was there is gone, and what comes is not yet there
    ++stats.copies;
}

void copy_commit() { ++self->groups; }

void copy_wait(int groups_left) {
    int kept = 0;
    for (int i = 0; i < self->n_pending; ++i) {
        Pending p = self->pending[i];
        if (p.group >= self->groups - groups_left) {
            self->pending[kept++] = p;
            continue;
        }
        memcpy(p.to, p.from, size_t(p.valid));
        memset(p.to + p.valid, 0, size_t(p.bytes - p.valid));
    }
    self->n_pending = kept;
}

}  // namespace galen_host

using namespace galen_host;

// Runs a kernel over a grid; blocks in an order drawn from `seed`. 0, or 1 with a message in `error`.
extern "C" int galen_host_launch(const char* name, const unsigned grid[3], const unsigned threads[3], size_t shared,
                                 uint64_t seed, void* const* args, size_t n_args, char* error, size_t error_bytes) {
    const Kernel* kernel = kernels;
    while (kernel && strcmp(kernel->name, name) != 0) kernel = kernel->next;
    static thread_local std::unique_ptr<Machine> own;
    if (!own) own.reset(new Machine);
    machine = own.get();
    machine->threads = threads[0] * threads[1] * threads[2];
    const char* wrong = nullptr;
    if (!kernel) wrong = "no such kernel";
    // A driver's interface does not say how many there are.
    else if (n_args != SIZE_MAX && kernel->n_args != n_args) wrong = "another number of arguments";
    else if (machine->threads == 0 || machine->threads > MAX_THREADS) wrong = "1 to 1024 threads make a block";
    else if (!start_fibers(machine->threads)) wrong = "no memory for the threads' stacks";
    if (wrong) {
        snprintf(error, error_bytes, "%s: %s", name, wrong);
        return 1;
    }
    machine->kernel = kernel;
    machine->args = args;
    machine->random = seed;
    machine->failed = false;
    machine->memory.resize(shared + 2 * GUARD + 128);
    block.threads = {threads[0], threads[1], threads[2]};
    block.grid = {grid[0], grid[1], grid[2]};
    // The start is aligned to 128 bytes, with a guard on either side.
    auto base = reinterpret_cast<uintptr_t>(machine->memory.data());
    block.shared = machine->memory.data() + ((base + GUARD + 127) / 128 * 128 - base);
    block.shared_bytes = shared;
    uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2];
    std::vector<uint64_t> order(blocks);
    for (uint64_t i = 0; i < blocks; ++i) order[i] = i;
    for (uint64_t i = blocks; i > 1; --i) std::swap(order[i - 1], order[draw() % i]);
    for (uint64_t i : order) {
        block.index = {unsigned(i % grid[0]), unsigned(i / grid[0] % grid[1]),
                       unsigned(i / (uint64_t(grid[0]) * grid[1]))};
        run_block();
        if (machine->failed) {
            snprintf(error, error_bytes, "%s: %s", name, machine->message);
            return 1;
        }
    }
    return 0;
}

// The i-th kernel's name; null after the last.
extern "C" const char* galen_host_kernel(size_t i) {
    const Kernel* kernel = kernels;
    while (kernel && i-- > 0) kernel = kernel->next;
    return kernel ? kernel->name : nullptr;
}

// Takes the counts since the last call: collectives, barriers, copies, bank conflicts of ldmatrix, mmas.
extern "C" void galen_host_stats(uint64_t out[5]) {
    const uint64_t values[5] = {stats.collectives, stats.barriers, stats.copies, stats.bank_conflicts, stats.mmas};
    memcpy(out, values, sizeof values);
    stats = {};
}
