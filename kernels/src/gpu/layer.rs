//! One transformer layer of an 8B shape (4096 wide, 32 heads of 128, 8 of keys, 14,336 inside), forward and backward with
//! rank 16 on every projection: the launches of a step, on made-up numbers. 32 of them and the head are a step.

use super::bench::{FakeWeight, Timing, buffer, filled, int, launch, median};
use crate::checks::attention::segments;
use galen_ops::cuda::{CudaError, DeviceBuffer, Gpu, KernelArg};
use galen_ops::device::Descriptors;
use galen_ops::quant::WeightDtype;

const RANK: usize = 16;
const D: usize = 128;
const LAYERS: f64 = 32.0;

/// Width, width of keys, inner width of a layer.
#[derive(Debug, Clone, Copy)]
pub struct Widths {
    pub c: usize,
    pub kv: usize,
    pub f: usize,
}

/// Buffers of a layer.
pub struct Layer {
    tokens: usize,
    widths: Widths,
    /// q, k, v, o, gate, up, down: out, in.
    projections: Vec<(FakeWeight, usize, usize)>,
    /// One of bf16 `[tokens, F]` for each role.
    wide: Vec<DeviceBuffer>,
    /// f32 `[tokens, C]`.
    residual: Vec<DeviceBuffer>,
    a: DeviceBuffer,
    a_weight: FakeWeight,
    b: DeviceBuffer,
    u: DeviceBuffer,
    parts: DeviceBuffer,
    gradient: DeviceBuffer,
    norm: DeviceBuffer,
    angles: DeviceBuffer,
    row: [DeviceBuffer; 2],
    plans: [(usize, [DeviceBuffer; 3]); 3],
}

impl Layer {
    /// For `tokens` tokens in segments of at most 512.
    pub fn new(gpu: &Gpu, dtype: WeightDtype, tokens: usize, widths: Widths) -> Result<Self, CudaError> {
        let Widths { c, kv, f } = widths;
        let shapes = [(c, c), (kv, c), (kv, c), (c, c), (f, c), (f, c), (c, f)];
        let mut projections = Vec::new();
        for (out, inner) in shapes {
            projections.push((FakeWeight::new(gpu, dtype, out, inner)?, out, inner));
        }
        let mut wide = Vec::new();
        for _ in 0..8 {
            wide.push(filled(gpu, 2 * tokens * f)?);
        }
        let mut residual = Vec::new();
        for _ in 0..3 {
            residual.push(filled(gpu, 4 * tokens * c)?);
        }
        let batch = segments(&vec![(tokens.min(512) as u32, None); tokens.div_ceil(512)]);
        let ints = |v: &[i32]| gpu.upload(&v.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
        let upload = |size, keys| -> Result<(usize, [DeviceBuffer; 3]), CudaError> {
            let p = if keys { Descriptors::keys(&batch, size) } else { Descriptors::queries(&batch, size) };
            Ok((p.tiles.len(), [ints(&p.tiles.concat())?, ints(&p.offsets)?, ints(&p.ranges.concat())?]))
        };
        Ok(Self {
            tokens,
            widths,
            projections,
            wide,
            residual,
            a: filled(gpu, 2 * RANK * f)?,
            a_weight: FakeWeight::new(gpu, WeightDtype::BF16, RANK * 2, f)?,
            b: filled(gpu, 2 * RANK * f)?,
            u: filled(gpu, 2 * tokens * RANK)?,
            parts: gpu.alloc(4 * RANK * f * tokens.div_ceil(256))?,
            gradient: filled(gpu, 4 * RANK * f)?,
            norm: filled(gpu, 4 * c)?,
            angles: filled(gpu, 4 * tokens * D / 2)?,
            row: [filled(gpu, 4 * tokens * c / D)?, filled(gpu, 4 * tokens * c / D)?],
            plans: [upload(128, false)?, upload(64, false)?, upload(64, true)?],
        })
    }

    /// y = x W^T + u B^T, after u = x A^T.
    fn project(&self, gpu: &Gpu, which: usize, x: usize, y: usize) -> Result<(), CudaError> {
        let (weight, out, inner) = &self.projections[which];
        self.product(gpu, &self.a_weight, "qmatmul_forward", x, &self.u, (RANK, *inner), false)?;
        self.product(gpu, weight, "qmatmul_forward", x, &self.wide[y], (*out, *inner), true)
    }

    /// dx = dy W + du A, after du = dy B; and both gradients of the branch.
    fn project_back(&self, gpu: &Gpu, which: usize, dy: usize, dx: usize) -> Result<(), CudaError> {
        let (weight, out, inner) = &self.projections[which];
        // As wide as dy: B's gradient is transposed, so its product is one with a plain matrix.
        self.product(gpu, &self.a_weight, "qmatmul_forward", dy, &self.u, (RANK, *out), false)?;
        self.product(gpu, weight, "qmatmul_backward", dy, &self.wide[dx], (*inner, *out), true)?;
        for (x, n, flags) in [(dx, *inner, 0), (dy, *out, 1)] {
            let parts = self.tokens.div_ceil(256);
            let grid = [n.div_ceil(128), 1, parts];
            let args = [
                buffer(&self.u),
                int(RANK),
                buffer(&self.wide[x]),
                int(n),
                int(self.tokens),
                int(RANK),
                int(n),
            ];
            launch(gpu, "lora_gradient", grid, &[&args[..], &[int(256), buffer(&self.parts)]].concat())?;
            let args =
                [buffer(&self.parts), int(parts), int(RANK), int(n), KernelArg::Float(0.5), int(flags)];
            let grid = [(RANK * n).div_ceil(256), 1, 1];
            launch(gpu, "lora_gradient_sum", grid, &[&args[..], &[buffer(&self.gradient)]].concat())?;
        }
        Ok(())
    }

    fn product(
        &self,
        gpu: &Gpu,
        weight: &FakeWeight,
        name: &str,
        x: usize,
        y: &DeviceBuffer,
        (out, inner): (usize, usize),
        branch: bool,
    ) -> Result<(), CudaError> {
        let backward = name.ends_with("backward");
        let mut args = vec![buffer(&self.wide[x]), int(inner)];
        args.extend(weight.args());
        let v = if backward { &self.a } else { &self.b };
        args.extend([int(out), int(inner), buffer(&self.u), int(RANK), buffer(v)]);
        args.extend([
            int(if backward { out } else { RANK }),
            int(if branch { RANK } else { 0 }),
            KernelArg::Null,
        ]);
        args.extend([buffer(y), int(out), int(self.tokens), int(0)]);
        let blocks = self.tokens.div_ceil(128) * out.div_ceil(128);
        launch(gpu, &weight.kernel(name), [blocks, 1, 1], &args)
    }

    fn norm(&self, gpu: &Gpu, y: usize) -> Result<(), CudaError> {
        let [x, _, r] = [0, 1, 2].map(|i| buffer(&self.residual[i]));
        let args =
            [x, buffer(&self.wide[7]), buffer(&self.norm), KernelArg::Float(1e-5), int(self.widths.c), r];
        let args = [&args[..], &[buffer(&self.wide[y])]].concat();
        launch(gpu, "rms_norm_forward", [self.tokens, 1, 1], &args)
    }

    fn norm_back(&self, gpu: &Gpu, dy: usize) -> Result<(), CudaError> {
        let [x, dr, dx] = [0, 1, 2].map(|i| buffer(&self.residual[i]));
        let args = [
            x,
            buffer(&self.norm),
            KernelArg::Float(1e-5),
            int(self.widths.c),
            buffer(&self.wide[dy]),
            dr,
            dx,
        ];
        launch(gpu, "rms_norm_backward", [self.tokens, 1, 1], &args)
    }

    fn rope(&self, gpu: &Gpu, x: usize, width: usize, sign: f32) -> Result<(), CudaError> {
        let angles = buffer(&self.angles);
        let args =
            [buffer(&self.wide[x]), angles, angles, int(self.tokens), int(width / D), int(D), int(width)];
        let args = [&args[..], &[KernelArg::Float(sign), buffer(&self.wide[x])]].concat();
        launch(gpu, "rope", [(self.tokens * width).div_ceil(16 * 256), 1, 1], &args)
    }

    /// Everything but the output: what all passes of attention share.
    fn attention(&self, which: usize) -> Vec<KernelArg<'_>> {
        let [q, k, v] = [1, 2, 3].map(|i| buffer(&self.wide[i]));
        let mut args = vec![q, k, v, int(self.widths.c), int(self.widths.kv)];
        args.extend(self.plans[which].1.iter().map(buffer));
        args.extend([
            int(self.tokens),
            int(self.widths.c / self.widths.kv),
            KernelArg::Float(0.088),
            KernelArg::Float(0.0),
        ]);
        args.push(int(i32::MAX as usize));
        args
    }

    fn gated(&self, gpu: &Gpu, backward: bool) -> Result<(), CudaError> {
        let n = self.tokens * self.widths.f;
        let [gate, up, y, dgate, dup] = [1, 2, 3, 4, 5].map(|i| buffer(&self.wide[i]));
        let count = KernelArg::Long(n as u64);
        let grid = [n.div_ceil(8 * 256), 1, 1];
        if backward {
            launch(gpu, "gated_backward", grid, &[gate, up, y, count, int(0), dgate, dup])
        } else {
            launch(gpu, "gated_forward", grid, &[gate, up, count, int(0), y])
        }
    }

    fn forward(&self, gpu: &Gpu) -> Result<(), CudaError> {
        self.norm(gpu, 0)?;
        for (which, y) in [(0, 1), (1, 2), (2, 3)] {
            self.project(gpu, which, 0, y)?;
        }
        self.rope(gpu, 1, self.widths.c, 1.0)?;
        self.rope(gpu, 2, self.widths.kv, 1.0)?;
        let mut args = self.attention(0);
        args.extend([buffer(&self.wide[4]), buffer(&self.row[0])]);
        launch(gpu, "attention_forward_128", [self.plans[0].0, self.widths.c / D, 1], &args)?;
        self.project(gpu, 3, 4, 7)?;
        self.norm(gpu, 0)?;
        self.project(gpu, 4, 0, 1)?;
        self.project(gpu, 5, 0, 2)?;
        self.gated(gpu, false)?;
        self.project(gpu, 6, 3, 7)
    }

    fn backward(&self, gpu: &Gpu) -> Result<(), CudaError> {
        self.project_back(gpu, 6, 7, 3)?;
        self.gated(gpu, true)?;
        self.project_back(gpu, 4, 4, 0)?;
        self.project_back(gpu, 5, 5, 0)?;
        self.norm_back(gpu, 0)?;
        self.project_back(gpu, 3, 7, 4)?;
        let (o, g) = (buffer(&self.wide[5]), buffer(&self.wide[4]));
        let heads = self.widths.c / D;
        let args = [o, g, int(self.widths.c), int(self.tokens), int(heads), int(D), buffer(&self.row[1])];
        launch(gpu, "attention_delta", [(self.tokens * heads).div_ceil(8), 1, 1], &args)?;
        let gradient = [buffer(&self.row[0]), buffer(&self.row[1]), g];
        let args = [&self.attention(1)[..], &gradient, &[buffer(&self.wide[5])]].concat();
        launch(gpu, "attention_backward_q_128", [self.plans[1].0, heads, 1], &args)?;
        let args =
            [&self.attention(2)[..], &gradient, &[buffer(&self.wide[6]), buffer(&self.wide[0])]].concat();
        launch(gpu, "attention_backward_kv_128", [self.plans[2].0, self.widths.kv / D, 1], &args)?;
        self.rope(gpu, 5, self.widths.c, -1.0)?;
        self.rope(gpu, 6, self.widths.kv, -1.0)?;
        for (which, dy) in [(0, 5), (1, 6), (2, 0)] {
            self.project_back(gpu, which, dy, 4)?;
        }
        self.norm_back(gpu, 4)
    }

    /// Forward and backward without recomputation.
    pub fn time(&self, gpu: &Gpu, runs: usize) -> Result<Timing, CudaError> {
        let ms = median(gpu, runs, || self.forward(gpu).and_then(|()| self.backward(gpu)))?;
        let weights: f64 = self.projections.iter().map(|(_, out, inner)| (out * inner) as f64).sum();
        let dtype = self.projections[0].0.dtype;
        let per_second = self.tokens as f64 / (f64::from(ms) * 1e-3 * LAYERS);
        let work = format!(
            "{dtype}: {} tokens, rank {RANK}; 32 such layers: {per_second:.0} tokens/s without the head",
            self.tokens
        );
        let bytes = self.projections.iter().map(|(w, _, _)| 2.0 * w.bytes()).sum();
        let flops = 4.0 * weights * self.tokens as f64;
        Ok(Timing { kernel: "layer of an 8B shape, forward and backward".into(), work, ms, flops, bytes })
    }
}
