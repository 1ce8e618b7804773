// Runs recorded launches (src/record.rs) again, each buffer an allocation of exactly its size, and compares what they
// write with what was recorded. Compiled with the sanitizers, which see what the kernels read and write.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

extern "C" void galen_units();
extern "C" int galen_host_launch(const char* name, const unsigned grid[3], const unsigned threads[3], size_t shared,
                                 uint64_t seed, void* const* args, size_t n_args, char* error, size_t error_bytes);

namespace {

struct Reader {
    FILE* file;
    bool bytes(void* to, size_t n) { return fread(to, 1, n, file) == n; }
    bool number(uint64_t& n) { return bytes(&n, sizeof n); }
};

struct Argument {
    uint64_t kind;
    uint8_t* buffer;               // what the kernel gets
    std::vector<uint8_t> expected;  // what it shall be afterwards
};

[[noreturn]] void stop(const char* what, const std::string& kernel) {
    fprintf(stderr, "replay: %s: %s\n", kernel.c_str(), what);
    exit(1);
}

}  // namespace

int main(int argc, char** argv) {
    FILE* file = argc == 2 ? fopen(argv[1], "rb") : nullptr;
    if (!file) {
        fprintf(stderr, "usage: replay RECORD\n");
        return 2;
    }
    galen_units();
    Reader reader{file};
    uint64_t length, launches = 0;
    while (reader.number(length)) {
        std::string kernel(length, ' ');
        uint64_t grid[3], threads, shared, n;
        if (!reader.bytes(&kernel[0], length) || !reader.bytes(grid, sizeof grid) || !reader.number(threads) ||
            !reader.number(shared) || !reader.number(n))
            stop("the record ends within a launch", kernel);
        std::vector<Argument> args(n);
        std::vector<void*> pointers, values;
        values.reserve(n);
        for (Argument& a : args) {
            uint64_t bytes;
            if (!reader.number(a.kind) || !reader.number(bytes)) stop("the record ends within an argument", kernel);
            a.buffer = a.kind == 0 ? nullptr : static_cast<uint8_t*>(malloc(bytes));
            a.expected.resize(a.kind == 0 ? 0 : bytes);
            bool whole = a.kind == 0 || reader.bytes(a.buffer, bytes);
            if (a.kind == 1) a.expected.assign(a.buffer, a.buffer + bytes);
            if (a.kind == 2) whole = whole && reader.bytes(a.expected.data(), bytes);
            if (!whole) stop("the record ends within a buffer", kernel);
            values.push_back(a.buffer);
            pointers.push_back(a.kind == 3 ? static_cast<void*>(a.buffer) : &values.back());
        }
        unsigned blocks[3] = {unsigned(grid[0]), unsigned(grid[1]), unsigned(grid[2])};
        unsigned block[3] = {unsigned(threads), 1, 1};
        char error[1024];
        if (galen_host_launch(kernel.c_str(), blocks, block, shared, 7, pointers.data(), n, error, sizeof error) != 0)
            stop(error, kernel);
        for (Argument& a : args) {
            if ((a.kind == 1 || a.kind == 2) && memcmp(a.buffer, a.expected.data(), a.expected.size()) != 0)
                stop("a buffer differs from the recorded one", kernel);
            free(a.buffer);
        }
        ++launches;
    }
    printf("%llu launches\n", static_cast<unsigned long long>(launches));
    return 0;
}
