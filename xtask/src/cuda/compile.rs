//! Compiling the kernels: each `.cu` for each target, cached by what it is made of.

use super::{Toolkit, cache, digest, kernels};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What is compiled for: cubins by the real architecture, PTX for those to come.
pub const TARGETS: &[(&str, &str)] = &[("sm_80", "-cubin"), ("sm_90", "-cubin"), ("compute_80", "-ptx")];

/// A compiled file.
pub struct Compiled {
    /// The `.cu` file, without the ending.
    pub unit: String,
    /// Its target.
    pub target: &'static str,
    /// The cubin or PTX.
    pub path: PathBuf,
    /// What the compiler said of registers and spills.
    pub log: String,
}

/// Flags besides the target.
const FLAGS: &[&str] = &["-std=c++17", "-O3", "-Xptxas", "-v", "--threads", "1"];

/// Compiles everything that has changed, `jobs` files at a time, the slowest first.
pub fn compile_all(toolkit: &Toolkit, jobs: usize) -> Result<Vec<Compiled>, String> {
    let folder = kernels();
    let mut headers = String::new();
    for path in sorted(&folder.join("include"), "cuh")? {
        headers.push_str(&fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?);
    }
    let mut units = sorted(&folder, "cu")?;
    units.sort_by_key(|p| p.file_stem().is_none_or(|n| n != "qmatmul"));
    let mut work: Vec<(PathBuf, &'static str, &'static str)> =
        TARGETS.iter().flat_map(|(t, kind)| units.iter().map(move |u| (u.clone(), *t, *kind))).collect();
    work.sort_by_key(|(u, _, _)| u.file_stem().is_none_or(|n| n != "qmatmul"));
    work.reverse();
    let (queue, done) = (Mutex::new(work), Mutex::new(Vec::new()));
    let each = || {
        loop {
            let next = queue.lock().ok().and_then(|mut q| q.pop());
            let Some((source, target, kind)) = next else { return };
            let compiled = compile(toolkit, &source, &headers, target, kind);
            if let Ok(mut done) = done.lock() {
                done.push(compiled);
            }
        }
    };
    std::thread::scope(|s| (0..jobs.max(1)).for_each(|_| drop(s.spawn(each))));
    let done = done.into_inner().map_err(|e| e.to_string())?;
    let mut all = done.into_iter().collect::<Result<Vec<_>, _>>()?;
    all.sort_by(|a, b| (&a.unit, a.target).cmp(&(&b.unit, b.target)));
    Ok(all)
}

fn compile(
    toolkit: &Toolkit,
    source: &Path,
    headers: &str,
    target: &'static str,
    kind: &str,
) -> Result<Compiled, String> {
    let unit = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let text = fs::read_to_string(source).map_err(|e| format!("{}: {e}", source.display()))?;
    let key = digest(format!("{}\n{target}\n{FLAGS:?}\n{text}\n{headers}", toolkit.version).as_bytes());
    let place = cache()?.join("cubins").join(&key[..32]);
    let path = place.join(format!("{unit}.{}", if kind == "-cubin" { "cubin" } else { "ptx" }));
    if let Ok(log) = fs::read_to_string(place.join("log"))
        && path.exists()
    {
        return Ok(Compiled { unit, target, path, log });
    }
    let new = place.with_extension(std::process::id().to_string());
    fs::create_dir_all(&new).map_err(|e| format!("{}: {e}", new.display()))?;
    let mut command = toolkit.program("nvcc");
    command.args([kind, "-arch", target]).args(FLAGS);
    command.current_dir(kernels()).arg(source.file_name().unwrap_or_default());
    let out = command.arg("-o").arg(new.join(path.file_name().unwrap_or_default())).output();
    let out = out.map_err(|e| format!("{command:?}: {e}"))?;
    let log = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    if !out.status.success() {
        let _ = fs::remove_dir_all(&new);
        return Err(format!("{}: for {target}:\n{log}", source.display()));
    }
    fs::write(new.join("log"), &log).map_err(|e| format!("{}: {e}", new.display()))?;
    let _ = fs::remove_dir_all(&place);
    fs::rename(&new, &place).map_err(|e| format!("{}: {e}", place.display()))?;
    Ok(Compiled { unit, target, path, log })
}

/// Files of a folder that end so, by name.
fn sorted(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == ending))
        .collect();
    paths.sort();
    Ok(paths)
}

/// What the compiler said of one kernel.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Usage {
    pub kernel: String,
    pub registers: u32,
    /// Bytes of shared memory the kernel declares itself.
    pub shared: usize,
    pub spill_stores: u64,
    pub spill_loads: u64,
}

/// Reads `ptxas -v`.
pub fn usages(log: &str) -> Vec<Usage> {
    let number_before = |line: &str, words: &str| -> Option<u64> {
        let (before, _) = line.split_once(words)?;
        before.trim_end().rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let mut found: Vec<Usage> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            found.push(Usage { kernel, ..Usage::default() });
        }
        let Some(last) = found.last_mut() else { continue };
        if let Some(n) = number_before(line, " bytes spill stores") {
            last.spill_stores = n;
            last.spill_loads = number_before(line, " bytes spill loads").unwrap_or(0);
        }
        if let Some(n) = number_before(line, " registers") {
            last.registers = n as u32;
            last.shared = number_before(line, " bytes smem").unwrap_or(0) as usize;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_s_words_are_read() {
        let log = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'a_b' for 'sm_80'\n\
            ptxas info    : Function properties for a_b\n\
            \u{20}   16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads\n\
            ptxas info    : Used 253 registers, used 1 barriers, 64 bytes smem, 484 bytes cmem[0]\n\
            ptxas info    : Compiling entry function 'c' for 'sm_80'\n\
            \u{20}   0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 40 registers, used 0 barriers, 484 bytes cmem[0]\n";
        let a = Usage { kernel: "a_b".into(), registers: 253, shared: 64, spill_stores: 12, spill_loads: 8 };
        let c = Usage { kernel: "c".into(), registers: 40, ..Usage::default() };
        assert_eq!(usages(log), [a, c]);
    }
}
