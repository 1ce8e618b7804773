//! Projections on one core in GF/s, beside what the core can do and beside the peers.
//!
//!     cargo run --release -p galen-bench --bin kernels -- --onednn "$(benches/onednn.sh)" [--rounds 9] [--shape M,K,N]...
//!
//! y[M, N] = x[M, K] W[N, K]^T (forward) and dx[M, K] = dy[M, N] W[N, K] (backward), 2 M K N operations each, through
//! the public operation: f32 in, f32 out, allocation included. `f32 fma` and `vdpbf16ps` are loops on registers alone;
//! `gemm` is that crate as candle calls it; oneDNN's weights are reordered once, its input is bf16 already
//! (`onednn f32 in`: converted within the time, as ours is). Contenders take turns; medians of the rounds; processor
//! time of the one thread, so that neighbours on the machine cost little.
//!
//! JSON lines on stdout, one a contender and shape; the table on stderr.

use anyhow::Context as _;
use candle_core::{Device, Tensor};
use galen_bench::{median, thread_seconds};
use galen_ops::Op;
use galen_ops::ceiling::ceilings;
use galen_ops::ops::{Compute, Frozen, Projection, Projections};
use galen_ops::quant::{QuantMatrix, WeightDtype};
use galen_testkit::blocks::random_blocks;
use galen_testkit::fuzz::Random;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

const SHAPES: [[usize; 3]; 4] = [[1024, 576, 1536], [1024, 1536, 576], [512, 2048, 2048], [64, 2048, 2048]];
const FORMATS: [WeightDtype; 5] =
    [WeightDtype::F32, WeightDtype::BF16, WeightDtype::Q4_1, WeightDtype::Q8_0, WeightDtype::Q4_K];
/// Processor time of one visit, seconds.
const VISIT: f64 = 0.025;

struct Args {
    onednn: Option<String>,
    rounds: usize,
    shapes: Vec<[usize; 3]>,
}

/// Something that is timed: a name and one call of it, which gives the operations done.
type Timed<'a> = (String, Box<dyn Fn() -> anyhow::Result<f64> + 'a>);

fn main() -> anyhow::Result<()> {
    let args = arguments()?;
    galen_ops::check_isa()?;
    // One thread for all of it: candle's product too runs in the pool it is called from.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global()?;
    let mut onednn = args.onednn.as_deref().map(OneDnn::start).transpose()?;
    eprintln!(
        "kernel path {}, {} rounds, GF/s on one core, medians; shares of the bf16 ceiling and of oneDNN, forward and backward",
        galen_ops::isa().name(),
        args.rounds
    );
    for shape in &args.shapes {
        let rows = rayon::scope(|_| measure(*shape, args.rounds, onednn.as_mut()))?;
        print_table(*shape, &rows);
        for (name, rates) in &rows {
            let [m, k, n] = *shape;
            let (lowest, highest) = rates.iter().fold((f64::MAX, 0f64), |(l, h), r| (l.min(*r), h.max(*r)));
            let line = json!({"m": m, "k": k, "n": n, "what": name, "gflops": median(rates),
                "lowest": lowest, "highest": highest, "kernel_path": galen_ops::isa().name()});
            println!("{line}");
        }
    }
    Ok(())
}

fn arguments() -> anyhow::Result<Args> {
    let mut out = Args { onednn: None, rounds: 9, shapes: Vec::new() };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("`{flag}` takes a value"))?;
        match flag.as_str() {
            "--onednn" => out.onednn = Some(value),
            "--rounds" => out.rounds = value.parse()?,
            "--shape" => {
                let sizes: Vec<usize> = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
                out.shapes.push(sizes.try_into().map_err(|_| anyhow::anyhow!("`{value}` is not M,K,N"))?);
            }
            _ => anyhow::bail!("usage: kernels [--onednn PROGRAM] [--rounds N] [--shape M,K,N]..."),
        }
    }
    if out.shapes.is_empty() {
        out.shapes = SHAPES.into();
    }
    Ok(out)
}

/// Rates of each contender, one a round.
fn measure(
    [m, k, n]: [usize; 3],
    rounds: usize,
    mut onednn: Option<&mut OneDnn>,
) -> anyhow::Result<Vec<(String, Vec<f64>)>> {
    let operations = 2.0 * (m * k * n) as f64;
    let random = &mut Random::new(1);
    let mut values = |rows: usize, cols: usize| {
        let below_one = |r: &mut Random| (r.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let values: Vec<f32> = (0..rows * cols).map(|_| below_one(random)).collect();
        Tensor::from_vec(values, (rows, cols), &Device::Cpu)
    };
    let (x, dy, w) = (values(m, k)?, values(m, n)?, values(n, k)?);
    let transposed = w.t()?;
    let (x, dy, w, transposed) = (&x, &dy, &w, &transposed);
    let mut contenders: Vec<Timed> = Vec::new();
    for ceiling in ceilings() {
        contenders.push((ceiling.name.into(), Box::new(move || Ok((ceiling.run)(100_000) as f64))));
    }
    let weights = FORMATS.iter().filter_map(|dtype| Some((*dtype, Arc::new(weight(*dtype, n, k)?))));
    let mut frozen: Vec<(String, Frozen)> = Vec::new();
    for (dtype, weight) in weights {
        if dtype == WeightDtype::F32 {
            frozen.push(("f32".into(), Frozen::new(weight.clone(), Compute::F32)));
            frozen.push(("bf16 packed".into(), Frozen::packed(weight)));
        } else {
            frozen.push((format!("bf16 {dtype}"), Frozen::new(weight, Compute::Bf16)));
        }
    }
    for (name, weight) in frozen {
        let projection = Arc::new(Projections::frozen(Projection::new(weight, None)?));
        let forward = projection.clone();
        let (_, saved) = projection.forward(&[x])?;
        contenders.push((
            format!("galen {name} forward"),
            Box::new(move || {
                std::hint::black_box(forward.forward(&[x])?);
                Ok(operations)
            }),
        ));
        contenders.push((
            format!("galen {name} backward"),
            Box::new(move || {
                let gradients = vec![Some(dy.clone())];
                std::hint::black_box(projection.backward(&saved, gradients, &[true])?);
                Ok(operations)
            }),
        ));
    }
    contenders.push((
        "gemm f32 forward".into(),
        Box::new(move || {
            std::hint::black_box(x.matmul(transposed)?);
            Ok(operations)
        }),
    ));
    contenders.push((
        "gemm f32 backward".into(),
        Box::new(move || {
            std::hint::black_box(dy.matmul(w)?);
            Ok(operations)
        }),
    ));
    let mut rows: Vec<(String, Vec<f64>)> = contenders.iter().map(|(n, _)| (n.clone(), vec![])).collect();
    for (_, run) in &contenders {
        run()?;
    }
    let first = rows.len();
    for _ in 0..rounds {
        for ((_, run), (_, rates)) in contenders.iter().zip(&mut rows) {
            rates.push(visit(run)?);
        }
        for (i, (name, rate)) in
            onednn.as_mut().map_or(Ok(vec![]), |o| o.ask(m, k, n))?.into_iter().enumerate()
        {
            match rows.get_mut(first + i) {
                Some((_, rates)) => rates.push(rate),
                None => rows.push((name, vec![rate])),
            }
        }
    }
    Ok(rows)
}

/// GF/s of as many calls as fill a visit.
fn visit(run: &dyn Fn() -> anyhow::Result<f64>) -> anyhow::Result<f64> {
    let start = thread_seconds();
    let mut operations = 0.0;
    loop {
        operations += run()?;
        let took = thread_seconds() - start;
        if took >= VISIT {
            return Ok(operations / took / 1e9);
        }
    }
}

/// Random weights; none where a row is not whole blocks.
fn weight(dtype: WeightDtype, rows: usize, cols: usize) -> Option<QuantMatrix> {
    let mut bytes = Vec::new();
    let whole = cols.is_multiple_of(dtype.block_size());
    let made = whole
        && random_blocks(dtype, rows * cols, 1.0 / (cols as f32).sqrt(), &mut Random::new(2), &mut bytes);
    made.then(|| QuantMatrix::new(dtype, rows, cols, bytes.into()).ok()).flatten()
}

/// The program of `onednn.cpp`, asked a shape at a time.
struct OneDnn {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl OneDnn {
    fn start(program: &str) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.env("OMP_NUM_THREADS", "1").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| program.to_owned())?;
        let (input, output) = (child.stdin.take().context("stdin")?, child.stdout.take().context("stdout")?);
        Ok(Self { child, input, output: BufReader::new(output) })
    }

    fn ask(&mut self, m: usize, k: usize, n: usize) -> anyhow::Result<Vec<(String, f64)>> {
        writeln!(self.input, "{m} {k} {n}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("oneDNN said `{line}`"))?;
        let names = [
            ("onednn bf16 forward", "forward"),
            ("onednn bf16 backward", "backward"),
            ("onednn f32 in forward", "forward_from_f32"),
            ("onednn f32 in backward", "backward_from_f32"),
            ("onednn bf16 out forward", "forward_to_bf16"),
            ("onednn bf16 out backward", "backward_to_bf16"),
        ];
        let rate = |key: &str| answer[key].as_f64().with_context(|| format!("no `{key}` in `{line}`"));
        names.iter().map(|(name, key)| Ok(((*name).to_owned(), rate(key)?))).collect()
    }
}

impl Drop for OneDnn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn print_table([m, k, n]: [usize; 3], rows: &[(String, Vec<f64>)]) {
    let of = |name: &str| rows.iter().find(|(n, _)| n == name).and_then(|(_, r)| median(r));
    eprintln!("\nM {m}, K {k}, N {n}");
    let (mut f32_ceiling, mut bf16_ceiling) = (None, None);
    for (name, rates) in rows.iter().filter(|(n, _)| !n.ends_with("ward")) {
        let slot = if name.contains("bf16") { &mut bf16_ceiling } else { &mut f32_ceiling };
        *slot = median(rates);
        eprintln!("  {name:<18}{:>8.1}", slot.unwrap_or(0.0));
    }
    let beside = if of("onednn bf16 forward").is_some() { "  of onednn bf16" } else { "" };
    eprintln!("  {:<18}{:>8} {:>9}  of ceiling{beside}", "", "forward", "backward");
    let ceiling = bf16_ceiling.or(f32_ceiling).unwrap_or(f64::NAN);
    for (name, forward) in rows {
        let Some(name) = name.strip_suffix(" forward") else { continue };
        let forward = median(forward).unwrap_or(f64::NAN);
        let backward = of(&format!("{name} backward")).unwrap_or(f64::NAN);
        let shares = |whole: [f64; 2]| {
            format!("{:>5.0} {:>3.0} %", 100.0 * forward / whole[0], 100.0 * backward / whole[1])
        };
        let peer = of("onednn bf16 forward").zip(of("onednn bf16 backward"));
        let peer = peer.map_or_else(String::new, |(f, b)| format!("     {}", shares([f, b])));
        eprintln!("  {name:<18}{forward:>8.1} {backward:>9.1} {}{peer}", shares([ceiling; 2]));
    }
}
