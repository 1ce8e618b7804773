//! Times of kernels on a card, at the shapes of an 8B model.

use super::{answers, paths};
use crate::checks::attention::segments;
use galen_ops::cuda::{CudaError, DeviceBuffer, Gpu, KernelArg};
use galen_ops::device::Descriptors;
use galen_ops::quant::WeightDtype;

/// A measured kernel.
#[derive(Debug, Clone)]
pub struct Timing {
    /// The kernel, or kernels.
    pub kernel: String,
    /// The shape.
    pub work: String,
    /// Milliseconds: the median of the runs.
    pub ms: f32,
    /// Tensor cores' work, counted as papers count it.
    pub flops: f64,
    /// Memory it must touch.
    pub bytes: f64,
}

/// How large what is timed is.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Runs whose median is taken, after three that warm up.
    runs: usize,
    pub(super) rows: usize,
    pub(super) width: usize,
    inner: usize,
    tokens: usize,
    lengths: [usize; 2],
}

impl Sizes {
    /// Of an 8B model.
    pub const FULL: Self =
        Self { runs: 15, rows: 4096, width: 4096, inner: 14_336, tokens: 16_384, lengths: [512, 4096] };
    /// For a rehearsal on the CPU.
    pub const TINY: Self = Self { runs: 1, rows: 40, width: 256, inner: 512, tokens: 32, lengths: [16, 32] };
}

impl Sizes {
    /// Runs whose median is taken.
    pub(super) fn runs(self) -> usize {
        self.runs
    }

    /// Sequences of a step of generation, tokens of each, and heads of `d`.
    pub(super) fn decoding(self, d: usize) -> (usize, usize, usize) {
        (self.tokens / 1024 + 1, self.lengths[1], self.width / d)
    }
}

/// The median time of `work` over `runs`; more than one are warmed up for.
pub fn median(
    gpu: &Gpu,
    runs: usize,
    mut work: impl FnMut() -> Result<(), CudaError>,
) -> Result<f32, CudaError> {
    for _ in 0..runs.saturating_sub(1).min(3) {
        work()?;
    }
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs.max(1) {
        let timer = gpu.time()?;
        work()?;
        times.push(timer.stop()?);
    }
    times.sort_by(f32::total_cmp);
    Ok(times[times.len() / 2])
}

/// A buffer of numbers: bf16 or float bits of small values, bytes that are harmless as codes and scales.
pub fn filled(gpu: &Gpu, bytes: usize) -> Result<DeviceBuffer, CudaError> {
    let mut z = 0x9e37_79b9_7f4a_7c15u64;
    let next = |_| {
        z ^= z << 13;
        z ^= z >> 7;
        z ^= z << 17;
        // Exponent of bf16 near one half, either sign.
        let low = 0x3e80 | (z as u32 & 0x807f);
        let high = 0x3e80 | ((z >> 32) as u32 & 0x807f);
        low | high << 16
    };
    let words: Vec<u8> = (0..bytes.div_ceil(4)).map(next).flat_map(u32::to_le_bytes).take(bytes).collect();
    gpu.upload(&words)
}

/// A weight of a format in planes: its bytes are made up.
pub struct FakeWeight {
    planes: [DeviceBuffer; 5],
    /// The format.
    pub dtype: WeightDtype,
}

impl FakeWeight {
    /// `[n, k]`.
    pub fn new(gpu: &Gpu, dtype: WeightDtype, n: usize, k: usize) -> Result<Self, CudaError> {
        let [codes, high, scales, supers] = dtype.plane_bytes(n * k / 32).unwrap_or_default();
        let levels = if dtype == WeightDtype::Nf4 { 272 * 4 } else { 0 };
        let sizes = [codes, high, scales, supers, levels];
        let mut planes = Vec::new();
        for size in sizes {
            planes.push(filled(gpu, size)?);
        }
        let planes = planes.try_into().unwrap_or_else(|_| unreachable!("five planes"));
        Ok(Self { planes, dtype })
    }

    /// Bytes a product reads of it.
    pub fn bytes(&self) -> f64 {
        self.planes.iter().map(|p| p.len() as f64).sum()
    }

    /// The kernels' six parameters.
    pub fn args(&self) -> Vec<KernelArg<'_>> {
        let mut args: Vec<_> = self.planes.iter().map(|p| buffer(p)).collect();
        args.push(KernelArg::Float(0.0));
        args
    }

    /// A product of `name`: `qmatmul_forward`, say.
    pub fn kernel(&self, name: &str) -> String {
        format!("{name}_{}", self.dtype.kernel_suffix().unwrap_or("bf16"))
    }
}

/// A buffer as an argument, null where it is empty.
pub fn buffer(b: &DeviceBuffer) -> KernelArg<'_> {
    if b.is_empty() { KernelArg::Null } else { KernelArg::Buffer(b, 0) }
}

/// An `int` argument.
pub fn int(v: usize) -> KernelArg<'static> {
    KernelArg::Int(v as i32)
}

/// Launches with a grid of sizes.
pub fn launch(gpu: &Gpu, kernel: &str, grid: [usize; 3], args: &[KernelArg]) -> Result<(), CudaError> {
    // SAFETY: the arguments below are in the order of the kernels' signatures, buffers of the sizes of their shapes.
    unsafe { gpu.launch(kernel, grid.map(|g| g as u32), args) }
}

/// Everything that is timed, as far as memory allows; what fails says so.
pub fn all(gpu: &Gpu, sizes: Sizes) -> (Vec<Timing>, Vec<String>) {
    let (mut timings, mut failures) = (Vec::new(), Vec::new());
    let mut note = |what: String, found: Result<Timing, CudaError>| match found {
        Ok(t) => timings.push(t),
        Err(e) => failures.push(format!("{what}: {e}")),
    };
    for dtype in WeightDtype::with_kernels() {
        for (name, m) in [
            ("qmatmul_forward", sizes.rows),
            ("qmatmul_backward", sizes.rows),
            ("qmatvec_8", 1),
            ("qmatvec_16", 16),
        ] {
            note(format!("{name} {dtype}"), product(gpu, sizes, dtype, name, m));
        }
        note(format!("dequantize {dtype}"), dequantize(gpu, sizes, dtype));
    }
    for name in ["low_rank_forward_16", "low_rank_backward_16"] {
        for m in [1, sizes.rows] {
            note(format!("{name}, {m} rows"), low_rank(gpu, sizes, name, m));
        }
    }
    for (what, found) in paths::all(gpu, sizes) {
        note(what, found);
    }
    for d in [64, 128, 256] {
        note(format!("attention of steps {d}"), answers::decode(gpu, sizes, d));
    }
    for d in [64, 96, 128, 256] {
        for backward in [false, true] {
            for tokens in sizes.lengths {
                note(format!("attention {d}"), attention(gpu, sizes, d, tokens, backward));
            }
        }
    }
    (timings, failures)
}

fn product(gpu: &Gpu, sizes: Sizes, dtype: WeightDtype, name: &str, m: usize) -> Result<Timing, CudaError> {
    let few = name.starts_with("qmatvec");
    let (n, k, rank) = (sizes.width, if few { sizes.inner } else { sizes.width }, 16);
    let weight = FakeWeight::new(gpu, dtype, n, k)?;
    let [x, u, v, y] =
        [m * k.max(n), m * rank, rank * k.max(n), m * k.max(n)].map(|values| filled(gpu, 2 * values));
    let (x, u, v, y) = (x?, u?, v?, y?);
    let backward = name.contains("backward");
    let (out, inner) = if backward { (k, n) } else { (n, k) };
    let kernel = weight.kernel(name);
    let blocks = if few { n.div_ceil(32) } else { m.div_ceil(128) * out.div_ceil(128) };
    let mut args = vec![buffer(&x), int(inner)];
    args.extend(weight.args());
    args.extend([
        int(out),
        int(inner),
        buffer(&u),
        int(rank),
        buffer(&v),
        int(if backward { out } else { rank }),
    ]);
    args.extend([int(rank), KernelArg::Null, buffer(&y), int(out), int(m), int(0)]);
    let ms = median(gpu, sizes.runs, || launch(gpu, &kernel, [blocks, 1, 1], &args))?;
    let flops = 2.0 * m as f64 * n as f64 * (k + rank) as f64;
    let bytes = weight.bytes() + 2.0 * (m * (inner + out)) as f64;
    Ok(Timing { kernel, work: format!("m {m}, n {n}, k {k}, rank {rank}"), ms, flops, bytes })
}

/// Into a branch of rank 16.
fn low_rank(gpu: &Gpu, sizes: Sizes, kernel: &str, m: usize) -> Result<Timing, CudaError> {
    let (k, rank) = (sizes.width, 16);
    let (x, w, u) = (filled(gpu, 2 * m * k)?, filled(gpu, 2 * rank * k)?, gpu.alloc(2 * m * rank)?);
    let ldw = if kernel.contains("backward") { rank } else { k };
    let args = [
        buffer(&x),
        int(k),
        buffer(&w),
        int(ldw),
        int(rank),
        int(k),
        KernelArg::Float(1.0),
        buffer(&u),
        int(rank),
        int(m),
    ];
    let ms = median(gpu, sizes.runs, || launch(gpu, kernel, [m.div_ceil(16), 1, 1], &args))?;
    let flops = 2.0 * (m * rank * k) as f64;
    let bytes = (x.len() + w.len() + u.len()) as f64;
    Ok(Timing { kernel: kernel.into(), work: format!("m {m}, k {k}, rank {rank}"), ms, flops, bytes })
}

fn dequantize(gpu: &Gpu, sizes: Sizes, dtype: WeightDtype) -> Result<Timing, CudaError> {
    let (n, k) = (sizes.inner, sizes.width);
    let weight = FakeWeight::new(gpu, dtype, n, k)?;
    let y = gpu.alloc(2 * n * k)?;
    let kernel = weight.kernel("dequantize");
    let mut args = weight.args();
    args.extend([int(n), int(k), buffer(&y)]);
    let ms = median(gpu, sizes.runs, || launch(gpu, &kernel, [(n * k).div_ceil(32 * 256), 1, 1], &args))?;
    let bytes = weight.bytes() + y.len() as f64;
    Ok(Timing { kernel, work: format!("n {n}, k {k}"), ms, flops: 0.0, bytes })
}

/// What all passes of attention have behind their operands.
fn shared(plan: &[DeviceBuffer; 3], tokens: usize, group: usize) -> Vec<KernelArg<'_>> {
    let mut args: Vec<_> = plan.iter().map(buffer).collect();
    args.extend([
        int(tokens),
        int(group),
        KernelArg::Float(0.088),
        KernelArg::Float(0.0),
        int(i32::MAX as usize),
    ]);
    args
}

/// A causal layer of 16,384 tokens in segments of `tokens`, 4096 wide, keys and values for a quarter of the heads.
fn attention(gpu: &Gpu, sizes: Sizes, d: usize, tokens: usize, backward: bool) -> Result<Timing, CudaError> {
    // A quarter of the heads, to the whole: 4096 is no multiple of 96.
    let (all, kv) = (sizes.tokens, (sizes.width / d / 4).max(1));
    let heads = if sizes.width / d < 4 { sizes.width / d } else { 4 * kv };
    let batch = segments(&vec![(tokens as u32, None); all / tokens]);
    let (ldq, ldk) = (heads * d, kv * d);
    let lengths = [
        2 * all * ldq,
        2 * all * ldk,
        2 * all * ldk,
        2 * all * ldq,
        2 * all * ldq,
        2 * all * ldk,
        2 * all * ldk,
    ];
    let mut buffers = Vec::new();
    for size in lengths {
        buffers.push(filled(gpu, size)?);
    }
    let [q, k, v, g, o, dk, dv] = &buffers[..] else { return Err(CudaError::NoKernel("attention".into())) };
    let (lse, delta, dq) =
        (gpu.alloc(4 * all * heads)?, gpu.alloc(4 * all * heads)?, gpu.alloc(2 * all * ldq)?);
    let ints = |values: &[i32]| gpu.upload(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
    let upload = |size, keys| -> Result<(usize, [DeviceBuffer; 3]), CudaError> {
        let p = if keys { Descriptors::keys(&batch, size) } else { Descriptors::queries(&batch, size) };
        Ok((p.tiles.len(), [ints(&p.tiles.concat())?, ints(&p.offsets)?, ints(&p.ranges.concat())?]))
    };
    let operands = [buffer(q), buffer(k), buffer(v), int(ldq), int(ldk)];
    let (n_forward, forward) = upload(if d == 256 { 64 } else { 128 }, false)?;
    let mut args = operands.to_vec();
    args.extend(shared(&forward, all, heads / kv));
    args.extend([buffer(o), buffer(&lse)]);
    let run_forward = || launch(gpu, &format!("attention_forward_{d}"), [n_forward, heads, 1], &args);
    // Half of the square, twice for multiply and add: S and O.
    let flops = 2.0 * 2.0 * all as f64 * tokens as f64 / 2.0 * (heads * d) as f64;
    let work = format!("{} segments of {tokens}, {heads} heads, {kv} of keys", all / tokens);
    let bytes = 2.0 * all as f64 * (2 * ldq + 2 * ldk) as f64;
    if !backward {
        let ms = median(gpu, sizes.runs, run_forward)?;
        return Ok(Timing { kernel: format!("attention_forward_{d}"), work, ms, flops, bytes });
    }
    run_forward()?;
    let (n_q, of_q) = upload(64, false)?;
    let (n_k, of_k) = upload(64, true)?;
    let gradient = [buffer(&lse), buffer(&delta), buffer(g)];
    let mut for_q = operands.to_vec();
    for_q.extend(shared(&of_q, all, heads / kv));
    for_q.extend(gradient);
    for_q.push(buffer(&dq));
    let mut for_k = operands.to_vec();
    for_k.extend(shared(&of_k, all, heads / kv));
    for_k.extend(gradient);
    for_k.extend([buffer(dk), buffer(dv)]);
    let for_delta = [buffer(o), buffer(g), int(ldq), int(all), int(heads), int(d), buffer(&delta)];
    let ms = median(gpu, sizes.runs, || {
        launch(gpu, "attention_delta", [(all * heads).div_ceil(8), 1, 1], &for_delta)?;
        launch(gpu, &format!("attention_backward_q_{d}"), [n_q, heads, 1], &for_q)?;
        launch(gpu, &format!("attention_backward_kv_{d}"), [n_k, kv, d.div_ceil(128)], &for_k)
    })?;
    // As FlashAttention-2 counts: two and a half times forward.
    Ok(Timing { kernel: format!("attention_backward_{d}"), work, ms, flops: 2.5 * flops, bytes: 2.0 * bytes })
}
