// A stand-in for libnccl for rehearsals (`xtask gpu-rehearsal`): sums over cards whose memory is the host's, and refuses what the
// real one would wait for forever. Only what galen_ops::cuda calls is here.
#include <cstddef>
#include <vector>

namespace {

enum { SUCCESS = 0, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };
enum { FLOAT32 = 7, SUM = 0 };

struct Communicator { int rank, ranks; };
struct Call { Communicator* of; const float* from; float* to; size_t n; };

thread_local int depth = 0;
thread_local std::vector<Call> calls;

int run() {
    std::vector<Call> all;
    all.swap(calls);
    if (all.empty()) return SUCCESS;
    if (all.size() != size_t(all[0].of->ranks)) return INVALID_USAGE;
    std::vector<float> total(all[0].n, 0.0f);
    std::vector<bool> seen(all.size(), false);
    for (const Call& call : all) {
        if (call.n != total.size() || seen[size_t(call.of->rank)]) return INVALID_USAGE;
        seen[size_t(call.of->rank)] = true;
        for (size_t i = 0; i < call.n; ++i) total[i] += call.from[i];
    }
    for (const Call& call : all)
        for (size_t i = 0; i < call.n; ++i) call.to[i] = total[i];
    return SUCCESS;
}

}  // namespace

extern "C" {

int ncclGetVersion(int* version) { *version = 22800; return SUCCESS; }
const char* ncclGetErrorString(int) { return "an error of the rehearsal"; }
int ncclCommInitAll(void** communicators, int ranks, const int*) {
    if (ranks < 1) return INVALID_ARGUMENT;
    for (int i = 0; i < ranks; ++i) communicators[i] = new Communicator{i, ranks};
    return SUCCESS;
}
int ncclCommDestroy(void* communicator) { delete static_cast<Communicator*>(communicator); return SUCCESS; }
int ncclGroupStart() { ++depth; return SUCCESS; }
int ncclGroupEnd() { return depth > 0 && --depth == 0 ? run() : INVALID_USAGE; }
int ncclAllReduce(const void* from, void* to, size_t n, int type, int operation, void* communicator, void* stream) {
    if (type != FLOAT32 || operation != SUM || !stream) return INVALID_ARGUMENT;
    auto of = static_cast<Communicator*>(communicator);
    calls.push_back({of, static_cast<const float*>(from), static_cast<float*>(to), n});
    return depth > 0 || of->ranks == 1 ? (depth > 0 ? SUCCESS : run()) : INVALID_USAGE;
}

}  // extern "C"
