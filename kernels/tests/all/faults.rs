//! The test of the tests: faults planted in copies of the kernels must be found by the checks that pass on the originals.

use crate::compile::{compile, copy_sources};
use galen_kernels::Device;
use galen_kernels::checks::qmatmul::{BASE, Case, Kind};
use galen_kernels::checks::{Check, attention, dora, elementwise, generation, operations, qmatmul, training};
use galen_ops::quant::WeightDtype;
use std::path::Path;
use std::sync::Mutex;

/// One fault: in which file, what is there, what comes in its place, and the check that must see it.
struct Fault {
    what: &'static str,
    unit: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
    check: Check,
}

fn forward(device: &Device) -> Result<(), String> {
    qmatmul::check(device, Case { m: 130, n: 40, k: 352, ..BASE }).map(drop)
}

fn backward(device: &Device) -> Result<(), String> {
    qmatmul::check(device, Case { kind: Kind::Backward, m: 20, n: 300, k: 160, ..BASE }).map(drop)
}

fn few(device: &Device) -> Result<(), String> {
    qmatmul::check(device, Case { kind: Kind::Few, m: 11, n: 40, k: 1056, ..BASE }).map(drop)
}

fn many(device: &Device) -> Result<(), String> {
    qmatmul::check(device, Case { kind: Kind::Few, m: 21, n: 40, k: 64, ..BASE }).map(drop)
}

fn decode(device: &Device) -> Result<(), String> {
    let lengths = vec![3, 300, 600];
    generation::check(device, &generation::Case { window: Some(290), lengths, ..generation::plain(64) })
}

fn decomposed(device: &Device) -> Result<(), String> {
    dora::check(device, dora::Case { tokens: 70, k: 64, ..dora::SMALL })
}

fn masked(device: &Device) -> Result<(), String> {
    elementwise::check_dropout(device, 4, 16)
}

fn rows(device: &Device) -> Result<(), String> {
    operations::check_rows(device, 5, 16)
}

fn attend(device: &Device) -> Result<(), String> {
    let of = vec![(70, None), (1, Some(0)), (150, Some(0))];
    attention::check(device, &attention::Case { of, window: Some(90), ..attention::plain(64) }).map(drop)
}

fn norm(device: &Device) -> Result<(), String> {
    elementwise::check_rms_norm(device, 3, 4096)
}

fn branch(device: &Device) -> Result<(), String> {
    training::check_lora_gradient(device, 300, 16, 136, 300)
}

fn into_branch(device: &Device) -> Result<(), String> {
    training::check_low_rank(device, false, (17, 16, 1096))?;
    training::check_low_rank(device, true, (17, 20, 1096))
}

fn head(device: &Device) -> Result<(), String> {
    training::check_log_prob_online(device)
}

const FAULTS: &[Fault] = &[
    Fault {
        what: "no barrier between the steps of the tile loop",
        unit: "qmatmul",
        file: "include/qmatmul.cuh",
        from: "ptx::copy_wait<STAGES - 2>();\n            __syncthreads();",
        to: "ptx::copy_wait<STAGES - 2>();",
        check: forward,
    },
    Fault {
        what: "a tile is used one step before it has arrived",
        unit: "qmatmul",
        file: "include/qmatmul.cuh",
        from: "ptx::copy_wait<STAGES - 2>();",
        to: "ptx::copy_wait<STAGES - 1>();",
        check: forward,
    },
    Fault {
        what: "a tile is loaded over the one in use",
        unit: "qmatmul",
        file: "include/qmatmul.cuh",
        from: "load(t + STAGES - 1, steps);",
        to: "load(t + STAGES, steps);",
        check: forward,
    },
    Fault {
        what: "the halves of B's fragment are swapped",
        unit: "qmatmul",
        file: "include/qmatmul.cuh",
        from: "MMA(c[i][2 * j], a[i], b[0], b[1]);",
        to: "MMA(c[i][2 * j], a[i], b[1], b[0]);",
        check: forward,
    },
    Fault {
        what: "the quarters of A's fragment are swapped",
        unit: "qmatmul",
        file: "include/tile.cuh",
        from: "LDMATRIX(out, tile + at(row + (lane & 15), chunk + (lane >> 4)));",
        to: "LDMATRIX(out, tile + at(row + (lane & 7) + (lane >> 4) * 8, chunk + (lane >> 3 & 1)));",
        check: forward,
    },
    Fault {
        what: "no transposition in backward",
        unit: "qmatmul",
        file: "include/tile.cuh",
        from: "LDMATRIX_TRANS(out, tile + at(row + (lane & 15), chunk + (lane >> 4)));",
        to: "LDMATRIX(out, tile + at(row + (lane & 15), chunk + (lane >> 4)));",
        check: backward,
    },
    Fault {
        what: "columns beyond the matrix are read",
        unit: "qmatmul",
        file: "include/tile.cuh",
        from: "row < rows ? min(max(2 * (cols - 8 * chunk), 0), 16) : 0",
        to: "row < rows ? 16 : 0",
        check: forward,
    },
    Fault {
        what: "rows beyond the matrix are written",
        unit: "qmatmul",
        file: "include/qmatmul.cuh",
        from: "if (m0 + row >= op.m || n >= op.out) continue;",
        to: "if (m0 + row > op.m || n >= op.out) continue;",
        check: forward,
    },
    Fault {
        what: "only some threads reach a barrier",
        unit: "qmatmul",
        file: "include/qmatmul.cuh",
        from: "        // Through shared memory, so that rows leave in 16-byte pieces.\n        __syncthreads();",
        to: "        if (threadIdx.x < 64) __syncthreads();",
        check: forward,
    },
    Fault {
        what: "a warp takes another's turn",
        unit: "qmatvec",
        file: "qmatvec.cu",
        from: "g0 += 4 * WARPS",
        to: "g0 += 4 * WARPS + 4",
        check: few,
    },
    Fault {
        what: "warps' sums are added before all are there",
        unit: "qmatvec",
        file: "qmatvec.cu",
        from: "    __syncthreads();\n    for (int i = threadIdx.x; i < 8 * TILES * OUTS",
        to: "    for (int i = threadIdx.x; i < 8 * TILES * OUTS",
        check: few,
    },
    Fault {
        what: "the second rows' block takes the first's",
        unit: "qmatvec",
        file: "qmatvec.cu",
        from: "ptx::load_vector<uint4>(from) : make_uint4(0, 0, 0, 0);",
        to: "ptx::load_vector<uint4>(from - int64_t(m0) * ldx) : make_uint4(0, 0, 0, 0);",
        check: many,
    },
    Fault {
        what: "a step sees a key beyond its sequence",
        unit: "decode_attention",
        file: "decode_attention.cu",
        from: "int end = min((split + 1) * SPLIT, length);",
        to: "int end = min((split + 1) * SPLIT, length + 1);",
        check: decode,
    },
    Fault {
        what: "a step's window is one too wide",
        unit: "decode_attention",
        file: "decode_attention.cu",
        from: "lo = max(0, length - window);",
        to: "lo = max(0, length - window - 1);",
        check: decode,
    },
    Fault {
        what: "values are used before they have arrived",
        unit: "decode_attention",
        file: "decode_attention.cu",
        from: "ptx::copy_wait<0>();\n        SYNC_WARP();\n        if (at + TURN",
        to: "SYNC_WARP();\n        if (at + TURN",
        check: decode,
    },
    Fault {
        what: "the warps' sums are written over keys in use",
        unit: "decode_attention",
        file: "decode_attention.cu",
        from: "    ptx::copy_wait<0>();\n    __syncthreads();\n    // Every warp's",
        to: "    ptx::copy_wait<0>();\n    // Every warp's",
        check: decode,
    },
    Fault {
        what: "the rows of a piece lie in their own order, not in the other operand's",
        unit: "low_rank",
        file: "low_rank.cu",
        from: "lane % 8 / 2 * 8 + lane / 8 * 2 + lane % 2;",
        to: "lane;",
        check: into_branch,
    },
    Fault {
        what: "sums are written over pieces that other warps still read",
        unit: "low_rank",
        file: "low_rank.cu",
        from: "if constexpr (BACKWARD) __syncthreads();",
        to: "",
        check: into_branch,
    },
    Fault {
        what: "the second half of a turn is multiplied with the first",
        unit: "low_rank",
        file: "low_rank.cu",
        from: "second[4] = {a0.z, a1.z, a0.w, a1.w};",
        to: "second[4] = {a0.x, a1.x, a0.y, a1.y};",
        check: into_branch,
    },
    Fault {
        what: "the last split is left out",
        unit: "decode_attention",
        file: "decode_attention.cu",
        from: "for (int s = first; s <= last; ++s) {",
        to: "for (int s = first; s < last; ++s) {",
        check: decode,
    },
    Fault {
        what: "values lie where another page's keys do",
        unit: "kv_cache",
        file: "kv_cache.cu",
        from: "store_vector(to + pages.values(), ptx",
        to: "store_vector(to + 2 * pages.values(), ptx",
        check: decode,
    },
    Fault {
        what: "the change's product with the weight is left out of a norm",
        unit: "dora",
        file: "dora.cu",
        from: "double square = squares[row] + cross + change;",
        to: "double square = squares[row] + change;",
        check: decomposed,
    },
    Fault {
        what: "a row that the change takes away keeps what is left of its digits",
        unit: "dora",
        file: "dora.cu",
        from: "constexpr double CANCELLED = 1e-3;",
        to: "constexpr double CANCELLED = 0;",
        check: decomposed,
    },
    Fault {
        what: "threads' sums are read before all are there",
        unit: "dora",
        file: "dora.cu",
        from: "scratch[threadIdx.x] = x;\n    __syncthreads();",
        to: "scratch[threadIdx.x] = x;",
        check: decomposed,
    },
    Fault {
        what: "the magnitude goes over the bias too",
        unit: "dora",
        file: "dora.cu",
        from: "g.v[j] * (x.v[j] - b.v[j]) + b.v[j];",
        to: "g.v[j] * x.v[j];",
        check: decomposed,
    },
    Fault {
        what: "values are rounded before the magnitude",
        unit: "dora",
        file: "dora.cu",
        from: "store_eight(kept + i, x);",
        to: "store_eight(kept + i, x);\n    x = load_eight(kept + i);",
        check: decomposed,
    },
    Fault {
        what: "a part's last token is left out of the magnitude's gradient",
        unit: "dora",
        file: "dora.cu",
        from: "for (int t = part * blockIdx.y; t < end; ++t) {",
        to: "for (int t = part * blockIdx.y; t < end - 1; ++t) {",
        check: decomposed,
    },
    Fault {
        what: "a norm is of its neighbour's change",
        unit: "dora",
        file: "dora.cu",
        from: "const bf16* own = b + row * ldb;",
        to: "const bf16* own = b + (row ^ 1) * ldb;",
        check: decomposed,
    },
    Fault {
        what: "the change's product with the weight has the wrong sign",
        unit: "dora",
        file: "dora.cu",
        from: "cross = 2 * s * total(cross, scratch);",
        to: "cross = -2 * s * total(cross, scratch);",
        check: decomposed,
    },
    Fault {
        what: "threads' sums are written over while others read them",
        unit: "dora",
        file: "dora.cu",
        from: "sum += scratch[i];\n    __syncthreads();",
        to: "sum += scratch[i];",
        check: decomposed,
    },
    Fault {
        what: "the gradient goes past the magnitude",
        unit: "dora",
        file: "dora.cu",
        from: "d.v[j] *= g.v[j];",
        to: "",
        check: decomposed,
    },
    Fault {
        what: "a part is left out of the magnitude's gradient",
        unit: "dora",
        file: "dora.cu",
        from: "for (int p = 0; p < n_parts; ++p) sum",
        to: "for (int p = 0; p < n_parts - 1; ++p) sum",
        check: decomposed,
    },
    Fault {
        what: "what dropout took lacks what was dropped",
        unit: "dropout",
        file: "dropout.cu",
        from: "(drop == 0 ? 0 : v.v[j] * drop)",
        to: "0",
        check: masked,
    },
    Fault {
        what: "another row is picked",
        unit: "plain",
        file: "plain.cu",
        from: "const float* from = x + int64_t(index[blockIdx.x]) * c;",
        to: "const float* from = x + int64_t(index[blockIdx.x ^ 1]) * c;",
        check: rows,
    },
    Fault {
        what: "a row's second gradient is left out",
        unit: "plain",
        file: "plain.cu",
        from: "for (int k = begin; k < end; ++k) {",
        to: "for (int k = begin; k < min(end, begin + 1); ++k) {",
        check: rows,
    },
    Fault {
        what: "a token does not see itself",
        unit: "attention_forward",
        file: "include/attention.cuh",
        from: "return key <= query && key > query - window;",
        to: "return key < query && key > query - window;",
        check: attend,
    },
    Fault {
        what: "a token sees the next one",
        unit: "attention_forward",
        file: "include/attention.cuh",
        from: "return key <= query && key > query - window;",
        to: "return key <= query + 1 && key > query - window;",
        check: attend,
    },
    Fault {
        what: "the window is one too wide",
        unit: "attention_forward",
        file: "include/attention.cuh",
        from: "return key <= query && key > query - window;",
        to: "return key <= query && key >= query - window;",
        check: attend,
    },
    Fault {
        what: "the last key of a range is left out",
        unit: "attention_forward",
        file: "include/attention.cuh",
        from: "stop = min(r.y, hi + 1 - r.z);",
        to: "stop = min(r.y, hi - r.z);",
        check: attend,
    },
    Fault {
        what: "keys are overwritten while others read them",
        unit: "attention_forward",
        file: "attention_forward.cu",
        from: "product<D, ROWS, NT>(s, qs, row0, ks);\n        ptx::copy_wait<0>();\n        __syncthreads();",
        to: "product<D, ROWS, NT>(s, qs, row0, ks);\n        ptx::copy_wait<0>();",
        check: attend,
    },
    Fault {
        what: "the output is not scaled when the maximum moves",
        unit: "attention_forward",
        file: "attention_forward.cu",
        from: "out[i][j][2 * h + 1] *= factor;",
        to: "",
        check: attend,
    },
    Fault {
        what: "queries are overwritten while others read them",
        unit: "attention_backward",
        file: "attention_backward.cu",
        from: "accumulate<D>(out_k, ds[0], qs, col / 8);\n            __syncthreads();",
        to: "accumulate<D>(out_k, ds[0], qs, col / 8);",
        check: attend,
    },
    Fault {
        what: "delta is left out",
        unit: "attention_backward",
        file: "attention_backward.cu",
        from: "weight * (ds[0][j][e] - shared[query])",
        to: "weight * ds[0][j][e]",
        check: attend,
    },
    Fault {
        what: "a sum's scratch is written again too early",
        unit: "rms_norm",
        file: "include/tile.cuh",
        from: "sum += scratch[w];\n    __syncthreads();",
        to: "sum += scratch[w];",
        check: norm,
    },
    Fault {
        what: "no barrier between the steps of a branch's gradient",
        unit: "lora_gradient",
        file: "lora_gradient.cu",
        from: "__syncthreads();",
        to: "",
        check: branch,
    },
    Fault {
        what: "lanes of a warp go different ways to a shuffle",
        unit: "log_prob",
        file: "log_prob.cu",
        from: "    part = block_sum<8>(part, scratch);",
        to: "    if (threadIdx.x % 2 == 0) part = block_sum<8>(part, scratch);",
        check: head,
    },
];

/// The checks' kernels: those the faults do not touch come from the library.
fn planted(fault: &Fault, folder: &Path) -> Result<Device, String> {
    copy_sources(folder);
    let path = folder.join(fault.file);
    let text = std::fs::read_to_string(&path).map_err(|e| e.to_string())?;
    if text.matches(fault.from).count() != 1 {
        return Err(format!("`{}` is not there once", fault.from));
    }
    std::fs::write(&path, text.replace(fault.from, fault.to)).map_err(|e| e.to_string())?;
    // One format is enough, and compiles faster.
    let formats = folder.join("include/formats.cuh");
    let text = std::fs::read_to_string(&formats).map_err(|e| e.to_string())?;
    let (head, _) = text.split_once("#define FOR_EACH_FORMAT").ok_or("no list of formats")?;
    std::fs::write(&formats, format!("{head}#define FOR_EACH_FORMAT(MACRO) MACRO(q4_0, Q4_0)\n"))
        .map_err(|e| e.to_string())?;
    let library = folder.join("planted.so");
    let source = folder.join(fault.unit).with_extension("cu");
    let [source, runtime, library_name] =
        [&source, &folder.join("host/runtime.cpp"), &library].map(|p| p.to_string_lossy().into_owned());
    let shared = ["-O1", "-shared", "-fPIC", "-Wl,-Bsymbolic", "-o", &library_name];
    compile(&[&shared[..], &["-x", "c++", &source, &runtime]].concat())?;
    Device::open(&library)
}

#[test]
fn planted_faults_are_found() {
    assert_eq!(BASE.dtype, WeightDtype::Q4_0);
    let next = Mutex::new(0);
    let missed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let i = {
                let mut next = next.lock().unwrap();
                *next += 1;
                *next - 1
            };
            let Some(fault) = FAULTS.get(i) else { return };
            let folder = tempfile::tempdir().unwrap();
            let device = planted(fault, folder.path()).unwrap_or_else(|e| panic!("{}: {e}", fault.what));
            match (fault.check)(&device.with_seeds([1, 2, 3])) {
                Ok(()) => missed.lock().unwrap().push(fault.what),
                Err(why) => {
                    // Found in the kernels' work, not for want of one.
                    assert!(
                        !why.contains("no such kernel") && !why.contains("launch:"),
                        "{}: {why}",
                        fault.what
                    );
                    println!("{}: {why}", fault.what);
                }
            }
        }
    };
    std::thread::scope(|s| (0..2).for_each(|_| drop(s.spawn(work))));
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found: {missed:#?}");
}
