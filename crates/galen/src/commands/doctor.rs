//! `galen doctor`: what galen found on this machine and what it uses of it.

use crate::cli::Globals;
use crate::progress::bytes;
use crate::stdout;
use galen_hub::{Options, Silent};
use galen_ops::{Isa, available_isas, ceiling::has_bf16_dot, check_isa};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Flags of `galen doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "GALEN_ISA chooses a kernel path, for tests: avx512, avx2 or portable.")]
pub struct Args {}

#[derive(Serialize)]
struct Doctor {
    galen: &'static str,
    system: String,
    cpu: Cpu,
    kernels: Kernels,
    memory: Memory,
    caches: Vec<Cache>,
    catalogue: Vec<Catalogued>,
}

#[derive(Serialize)]
struct Cpu {
    model: Option<String>,
    /// Cores this process may use.
    cores: usize,
    /// Threads that compute.
    threads: usize,
}

#[derive(Serialize)]
struct Kernels {
    available: Vec<&'static str>,
    chosen: &'static str,
    /// `GALEN_ISA`, where it chose.
    forced: Option<String>,
    avx512_bf16: bool,
    devices: Vec<String>,
    cuda: Cuda,
}

#[derive(Serialize)]
struct Cuda {
    /// Whether this program holds the kernels.
    built: bool,
    /// The installed driver's version, where the system tells.
    driver: Option<String>,
    /// Cards, as the driver names them, each with what came of opening it.
    cards: Vec<String>,
    /// The names of those that open.
    usable: Vec<String>,
    /// The cuBLAS of this machine, of a build with kernels.
    products: Option<String>,
    /// Who adds up the gradients of several cards, of such a build.
    sums: Option<String>,
    /// Why there are none, and what to do.
    problem: Option<String>,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the unit is part of a field's name in JSON too")]
struct Memory {
    total_bytes: Option<u64>,
    available_bytes: Option<u64>,
    /// The limit of the process's control group, where it is below the total.
    limit_bytes: Option<u64>,
}

#[derive(Serialize)]
struct Cache {
    what: &'static str,
    path: PathBuf,
    exists: bool,
}

#[derive(Serialize)]
struct Catalogued {
    name: String,
    path: Option<PathBuf>,
}

/// Looks at the machine and opens its cards; opens no socket, loads no model.
pub fn run(_: &Args, globals: &Globals) -> anyhow::Result<()> {
    let doctor = examine(globals.offline)?;
    if globals.json {
        return stdout::print_json(&doctor);
    }
    stdout::print(&text(&doctor))
}

fn examine(offline: bool) -> anyhow::Result<Doctor> {
    let options = Options::from_env(offline, &Silent);
    let cache = |what, path: &Path| Cache { what, exists: path.is_dir(), path: path.to_owned() };
    let names = galen_hub::catalogue().map_or_else(|_| vec![], |entries| entries.iter().collect::<Vec<_>>());
    let proc = |file: &str| std::fs::read_to_string(Path::new("/proc").join(file)).unwrap_or_default();
    let cpu_info = proc("cpuinfo");
    let cuda = cuda(&proc("driver/nvidia/version"));
    Ok(Doctor {
        galen: env!("CARGO_PKG_VERSION"),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        cpu: Cpu {
            model: cpu_model(&cpu_info),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            threads: rayon::current_num_threads(),
        },
        kernels: Kernels {
            available: available_isas().into_iter().map(Isa::name).collect(),
            chosen: check_isa()?.name(),
            forced: std::env::var("GALEN_ISA").ok().filter(|v| !v.is_empty()),
            avx512_bf16: has_bf16_dot(),
            devices: std::iter::once("cpu".to_owned()).chain(cuda.usable.iter().cloned()).collect(),
            cuda,
        },
        memory: memory(&proc("meminfo"), galen_train::limit_bytes()),
        caches: vec![cache("galen", &options.galen_cache), cache("hub", &options.hub_cache)],
        catalogue: names
            .into_iter()
            .map(|e| Catalogued { name: e.name.clone(), path: galen_hub::cached(&e.name).map(|r| r.path) })
            .collect(),
    })
}

/// What there is of NVIDIA's: `version` is `/proc/driver/nvidia/version`.
fn cuda(version: &str) -> Cuda {
    let driver = driver_version(version);
    #[cfg(feature = "cuda")]
    {
        let (found, problem) = match galen_ops::cuda::cards() {
            Ok(found) if found.is_empty() => (vec![], Some("the driver sees no card".to_owned())),
            Ok(found) => (found, None),
            Err(e) => (vec![], Some(e.to_string())),
        };
        let (mut cards, mut usable) = (Vec::new(), Vec::new());
        for card in &found {
            match galen_ops::cuda::Gpu::open(card.ordinal) {
                Ok(gpu) => {
                    let name = format!("cuda:{}", card.ordinal);
                    let note = gpu.note().map_or_else(String::new, |note| format!("; {note}"));
                    cards.push(format!("{card} (`--device {name}`, to train and to answer{note})"));
                    usable.push(name);
                }
                Err(e) => cards.push(format!("{card}: {e}")),
            }
        }
        Cuda { built: true, driver, cards, usable, products: Some(products()), sums: Some(sums()), problem }
    }
    #[cfg(not(feature = "cuda"))]
    {
        // Said only where it helps: a machine without a driver has no use for the kernels.
        let problem = driver.as_ref().map(|_| {
            "this program holds no kernels for it\nhint: `cargo build --release --features cuda` (docs/cuda.md)".to_owned()
        });
        Cuda { built: false, driver, cards: vec![], usable: vec![], products: None, sums: None, problem }
    }
}

/// Who forms large products on a card.
#[cfg(feature = "cuda")]
fn products() -> String {
    match galen_ops::cuda::blas_version() {
        Some(version) => {
            format!("cuBLAS {version} on cards where it is faster (docs/cuda.md), else galen's kernels")
        }
        None => "galen's kernels (libcublas cannot be loaded)".to_owned(),
    }
}

/// Who adds up the gradients of several cards.
#[cfg(feature = "cuda")]
fn sums() -> String {
    match galen_ops::cuda::nccl_version() {
        Some(version) => format!("NCCL {version}"),
        None => "the host (libnccl.so.2 cannot be loaded)".to_owned(),
    }
}

/// The number in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  ...`.
fn driver_version(text: &str) -> Option<String> {
    let line = text.lines().find(|l| l.starts_with("NVRM version"))?;
    let is_version = |w: &&str| w.contains('.') && w.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

fn cpu_model(cpu_info: &str) -> Option<String> {
    let line = cpu_info.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory(mem_info: &str, limit: Option<u64>) -> Memory {
    let kib = |name: &str| -> Option<u64> {
        let line = mem_info.lines().find_map(|l| l.strip_prefix(name))?;
        line.strip_prefix(':')?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let total_bytes = kib("MemTotal");
    let limit_bytes = limit.filter(|l| total_bytes.is_none_or(|t| *l < t));
    Memory { total_bytes, available_bytes: kib("MemAvailable"), limit_bytes }
}

fn text(d: &Doctor) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<14}{value}");
    };
    line("galen", format!("{} ({})", d.galen, d.system));
    line("processor", d.cpu.model.clone().unwrap_or_else(|| "unknown".into()));
    line("cores", format!("{}, computing with {} threads", d.cpu.cores, d.cpu.threads));
    let forced = d.kernels.forced.as_ref().map_or("", |_| " (GALEN_ISA)");
    line("kernels", format!("{}{forced}, of {}", d.kernels.chosen, d.kernels.available.join(", ")));
    line("avx512_bf16", if d.kernels.avx512_bf16 { "yes" } else { "no" }.into());
    line("devices", d.kernels.devices.join(", "));
    let built = if d.kernels.cuda.built { "with kernels" } else { "this build has no CUDA kernels" };
    let driver =
        d.kernels.cuda.driver.as_ref().map_or_else(|| "no driver".to_owned(), |v| format!("driver {v}"));
    line("cuda", format!("{built}, {driver}"));
    for card in &d.kernels.cuda.cards {
        card.lines().for_each(|part| line("cuda: card", part.to_owned()));
    }
    if let Some(products) = &d.kernels.cuda.products {
        line("cuda products", products.clone());
    }
    if let Some(sums) = &d.kernels.cuda.sums {
        line("cuda sums", sums.clone());
    }
    for part in d.kernels.cuda.problem.iter().flat_map(|p| p.lines()) {
        line("cuda: note", part.to_owned());
    }
    let shown = |b: Option<u64>| b.map_or_else(|| "unknown".into(), bytes);
    let limit = d.memory.limit_bytes.map_or_else(String::new, |l| format!(", limited to {}", bytes(l)));
    let available = shown(d.memory.available_bytes);
    line("memory", format!("{}, {available} available{limit}", shown(d.memory.total_bytes)));
    for cache in &d.caches {
        let there = if cache.exists { "" } else { " (not there yet)" };
        line(&format!("cache: {}", cache.what), format!("{}{there}", cache.path.display()));
    }
    for entry in &d.catalogue {
        let place = entry.path.as_ref().map_or_else(|| "not fetched".into(), |p| p.display().to_string());
        line("catalogue", format!("{}: {place}", entry.name));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_files_are_read() {
        let info = "processor\t: 0\nmodel name\t: EPYC: the 9\nflags\t: fpu\n";
        assert_eq!(cpu_model(info).as_deref(), Some("EPYC: the 9"));
        assert_eq!(cpu_model("Hardware : x"), None);
        let m = memory("MemTotal:       1000 kB\nMemAvailable:    400 kB\n", Some(512_000));
        assert_eq!(
            (m.total_bytes, m.available_bytes, m.limit_bytes),
            (Some(1_024_000), Some(409_600), Some(512_000))
        );
        assert_eq!(memory("MemTotal: 1000 kB\n", Some(u64::MAX)).limit_bytes, None);
        assert_eq!(memory("", None).total_bytes, None);
    }

    #[test]
    fn the_driver_s_version_is_read() {
        let text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:10:06 UTC 2025\nGCC version: x";
        assert_eq!(driver_version(text).as_deref(), Some("580.65.06"));
        assert_eq!(driver_version(""), None);
        let cuda = cuda("");
        assert!(cuda.cards.is_empty() || cuda.problem.is_none());
    }

    #[test]
    fn the_text_names_everything() {
        let text = text(&examine(true).unwrap());
        for word in ["galen", "processor", "cores", "kernels", "avx512_bf16", "cuda", "memory", "cache: hub"]
        {
            assert!(text.contains(word), "`{word}` is not in:\n{text}");
        }
    }
}
