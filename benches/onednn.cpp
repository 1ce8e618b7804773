// oneDNN's bf16 matrix product on one thread, as the peer of `kernels.rs`: weights are reordered once to the layout
// the library chooses, as ours are packed once. Built by `onednn.sh`.
//
//   onednn M K N [M K N]...     one JSON line a shape
//   onednn                      reads lines "M K N" from stdin, answers each with one JSON line
//
// y[M, N] = x[M, K] W[N, K]^T (forward) and dx[M, K] = dy[M, N] W[N, K] (backward); 2 M K N operations each. Fields:
//   forward, backward              bf16 in, f32 out: the library's best case of what we do
//   forward_from_f32, ..           x given in f32, converted inside the timed call, as our operation is given it
//   forward_to_bf16, ..            bf16 in, bf16 out

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <vector>

#include <oneapi/dnnl/dnnl.hpp>

using dnnl::memory;
using dt = memory::data_type;
using tag = memory::format_tag;

namespace {

// Processor time of this thread: what others do on the machine meanwhile does not count.
double seconds() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

struct Case {
    dnnl::matmul product;
    dnnl::reorder convert;
    memory x32, x, w, y;
    bool from_f32;

    // rows x inner times inner x cols; `weights` says how the frozen [out, in] matrix lies as [inner, cols].
    Case(const dnnl::engine &engine, dnnl::stream &stream, long rows, long inner, long cols, tag weights, dt out,
         bool from_f32)
        : from_f32(from_f32) {
        memory::desc x32_desc({rows, inner}, dt::f32, tag::ab), x_desc({rows, inner}, dt::bf16, tag::ab);
        memory::desc plain({inner, cols}, dt::f32, weights), any({inner, cols}, dt::bf16, tag::any);
        memory::desc y_desc({rows, cols}, out, tag::ab);
        dnnl::matmul::primitive_desc description(dnnl::matmul::desc(x_desc, any, y_desc), engine);
        product = dnnl::matmul(description);
        x32 = memory(x32_desc, engine);
        x = memory(x_desc, engine);
        y = memory(y_desc, engine);
        w = memory(description.weights_desc(), engine);
        memory w32(plain, engine);
        fill(x32, rows * inner);
        fill(w32, inner * cols);
        dnnl::reorder(w32, w).execute(stream, w32, w);
        convert = dnnl::reorder(x32, x);
        convert.execute(stream, x32, x);
        stream.wait();
    }

    static void fill(memory &m, long n) {
        float *values = static_cast<float *>(m.get_data_handle());
        unsigned state = 12345;
        for (long i = 0; i < n; i++) {
            state = state * 1664525u + 1013904223u;
            values[i] = static_cast<float>(static_cast<int>(state >> 16) - 32768) / 32768.0f;
        }
    }

    void run(dnnl::stream &stream) {
        if (from_f32) convert.execute(stream, x32, x);
        product.execute(stream, {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, y}});
        stream.wait();
    }
};

// Median GF/s of `visits` visits of about 25 ms.
double speed(Case &c, dnnl::stream &stream, double operations, int visits) {
    c.run(stream);
    std::vector<double> rates;
    for (int visit = 0; visit < visits; visit++) {
        long calls = 0;
        double begin = seconds(), now = begin;
        do {
            c.run(stream);
            calls++;
            now = seconds();
        } while (now - begin < 0.025);
        rates.push_back(operations * calls / (now - begin) / 1e9);
    }
    std::sort(rates.begin(), rates.end());
    return rates[rates.size() / 2];
}

void measure(const dnnl::engine &engine, dnnl::stream &stream, long m, long k, long n, int visits) {
    double operations = 2.0 * m * k * n;
    std::printf("{\"m\": %ld, \"k\": %ld, \"n\": %ld", m, k, n);
    struct {
        const char *name;
        dt out;
        bool from_f32;
    } kinds[] = {{"", dt::f32, false}, {"_from_f32", dt::f32, true}, {"_to_bf16", dt::bf16, false}};
    for (auto &kind : kinds) {
        // W lies as [out = N, in = K]: transposed for the forward product, as it is for the backward one.
        Case forward(engine, stream, m, k, n, tag::ba, kind.out, kind.from_f32);
        Case backward(engine, stream, m, n, k, tag::ab, kind.out, kind.from_f32);
        std::printf(", \"forward%s\": %.2f, \"backward%s\": %.2f", kind.name,
                    speed(forward, stream, operations, visits), kind.name,
                    speed(backward, stream, operations, visits));
    }
    std::printf("}\n");
    std::fflush(stdout);
}

}  // namespace

int main(int argc, char **argv) {
    // One core, like the kernels beside it; before the library starts its threads.
    setenv("OMP_NUM_THREADS", "1", 1);
    try {
        dnnl::engine engine(dnnl::engine::kind::cpu, 0);
        dnnl::stream stream(engine);
        if (argc > 1) {
            for (int i = 1; i + 2 < argc; i += 3)
                measure(engine, stream, std::atol(argv[i]), std::atol(argv[i + 1]), std::atol(argv[i + 2]), 7);
            return 0;
        }
        long m, k, n;
        while (std::cin >> m >> k >> n) measure(engine, stream, m, k, n, 1);
    } catch (const dnnl::error &e) {
        std::fprintf(stderr, "onednn: %s\n", e.what());
        return 1;
    }
}
