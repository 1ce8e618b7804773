//! With the `cuda` feature: compiles `kernels/*.cu` into one fat binary each (code for sm_80, which also runs on 8.6 and 8.9,
//! and sm_90; PTX of compute_80 for cards to come) and writes the table of them. Without it: nothing.

#[path = "../../kernels/src/manifest.rs"]
#[allow(dead_code, missing_docs, reason = "also of the tests' crate and of xtask")]
mod manifest;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let kernels = here.join("../../kernels");
    for name in ["NVCC", "CUDA_HOME", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed={}", kernels.join("include").display());
    let nvcc = find_nvcc(&kernels)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut units = Vec::new();
    for entry in fs::read_dir(&kernels)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "cu") {
            println!("cargo::rerun-if-changed={}", path.display());
            units.push(path);
        }
    }
    units.sort();
    let mut table = String::from("pub static FATBINS: &[&[u8]] = &[\n");
    for unit in &units {
        let fatbin = out.join(unit.with_extension("fatbin").file_name().unwrap_or_default());
        compile(&nvcc, unit, &fatbin)?;
        // The loader wants eight-byte alignment, which `include_bytes!` does not promise.
        let _ = writeln!(table, "    &Aligned(*include_bytes!({:?})).0,", fatbin.display().to_string());
    }
    table.push_str("];\npub static LAUNCHES: &[LaunchLine] = &[\n");
    for line in manifest::Manifest::read(&kernels)?.launches {
        let manifest::LaunchLine { names, threads, shared, .. } = line;
        let _ =
            writeln!(table, "    LaunchLine {{ names: {names:?}, threads: {threads}, shared: {shared} }},");
    }
    table.push_str("];\n");
    fs::write(out.join("kernels.rs"), table)?;
    Ok(())
}

/// `NVCC`, else nvcc of `CUDA_HOME`, of `PATH`, of the pip toolkit.
fn find_nvcc(kernels: &Path) -> Outcome<PathBuf> {
    if let Some(nvcc) = env::var_os("NVCC").filter(|v| !v.is_empty()) {
        return Ok(nvcc.into());
    }
    let mut places: Vec<PathBuf> = env::var_os("CUDA_HOME")
        .filter(|v| !v.is_empty())
        .map(|h| PathBuf::from(h).join("bin"))
        .into_iter()
        .collect();
    places.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let cache = env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache")));
    if let Some(entries) = cache.and_then(|c| fs::read_dir(c.join("galen")).ok()) {
        let toolkits = entries.flatten().map(|e| e.path());
        let ours =
            |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("cuda-toolkit-"));
        places.extend(toolkits.filter(ours).map(|p| p.join("nvidia/cu13/bin")));
    }
    let found = places.into_iter().map(|p| p.join("nvcc")).find(|p| p.is_file());
    found.ok_or_else(|| {
        format!(
            "the `cuda` feature needs nvcc, which is neither in NVCC, CUDA_HOME nor PATH\n\
             hint: `cargo run --release -p xtask -- cuda-toolkit` installs it for this user ({})",
            kernels.join("toolkit.txt").display()
        )
        .into()
    })
}

fn compile(nvcc: &Path, unit: &Path, fatbin: &Path) -> Outcome<()> {
    let targets =
        ["arch=compute_80,code=sm_80", "arch=compute_90,code=sm_90", "arch=compute_80,code=compute_80"];
    let mut command = Command::new(nvcc);
    command.args(["-fatbin", "-std=c++17", "-O3", "--threads", "2"]);
    for target in targets {
        command.args(["-gencode", target]);
    }
    let out = command.arg(unit).arg("-o").arg(fatbin).output();
    let out = out.map_err(|e| format!("{}: {e}", nvcc.display()))?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", unit.display(), String::from_utf8_lossy(&out.stderr)).into())
}
