//! `gpu-bundle`: an archive with the checks and timings for a card, and one with `galen` itself: no compiler, no network, nothing but
//! the driver is needed there.

use super::{Toolkit, kernels};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most bytes of an archive.
const MOST_BYTES: u64 = 40 << 20;

/// Cargo's target directory.
pub(super) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from)
}

/// Builds both programs with the kernels inside and packs them, each with what belongs to it. `profile`: a file of cargo's
/// configuration, for archives that are rehearsed and thrown away.
pub fn run(profile: Option<&str>) -> Result<(), String> {
    let toolkit = Toolkit::ensure()?;
    let root = crate::root();
    let target = target();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // The whole workspace's features, so that what is compiled already is not compiled again.
    build.current_dir(&root).args(["build", "--release", "--locked", "--workspace"]);
    build.args(["--features", "galen-kernels/gpu,galen/cuda", "--bin", "galen-gpu-check", "--bin", "galen"]);
    // What the rehearsal trains.
    build.args(["--example", "tiny_model"]);
    build.args(profile.into_iter().flat_map(|file| ["--config", file]));
    run_it(build.env("CUDA_HOME", &toolkit.home))?;
    let check = [
        (target.join("release/galen-gpu-check"), "galen-gpu-check"),
        (kernels().join("bundle/run.sh"), "run.sh"),
        (kernels().join("bundle/peers.py"), "peers.py"),
        (kernels().join("ROOFLINE.md"), "ROOFLINE.md"),
    ];
    pack(&target, "galen-gpu-check", &check)?;
    let galen = [
        (target.join("release/galen"), "galen"),
        (root.join("docs/cuda.md"), "cuda.md"),
        (root.join("LICENSE-MIT"), "LICENSE-MIT"),
        (root.join("LICENSE-APACHE"), "LICENSE-APACHE"),
    ];
    pack(&target, "galen-cuda", &galen)?;
    let program = target.join("cuda/galen-cuda/galen");
    // Here there may be no driver: it must start all the same.
    let said = Command::new(&program).arg("doctor").output();
    let said = said.map_err(|e| format!("{}: {e}", program.display()))?;
    let text = String::from_utf8_lossy(&said.stdout);
    if !said.status.success() || !text.contains("with kernels") {
        let wrong = String::from_utf8_lossy(&said.stderr);
        return Err(format!("{} doctor: {}\n{text}{wrong}", program.display(), said.status));
    }
    text.lines().filter(|l| l.starts_with("cuda")).for_each(|l| println!("galen doctor: {l}"));
    println!("on a machine with a card: tar -xzf galen-gpu-check.tar.gz && galen-gpu-check/run.sh");
    Ok(())
}

/// A folder of these files below `target/cuda`, the first of them a program, and its archive.
fn pack(target: &Path, name: &str, files: &[(PathBuf, &str)]) -> Result<(), String> {
    let all = target.join("cuda");
    let folder = all.join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for (from, name) in files {
        fs::copy(from, folder.join(name)).map_err(|e| format!("{}: {e}", from.display()))?;
    }
    if let Some((_, program)) = files.first() {
        run_it(Command::new("strip").arg(folder.join(program)))?;
    }
    let archive = all.join(format!("{name}.tar.gz"));
    run_it(Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&all).arg(name))?;
    let bytes = fs::metadata(&archive).map_err(|e| format!("{}: {e}", archive.display()))?.len();
    if bytes > MOST_BYTES {
        return Err(format!("{}: {bytes} bytes, at most {MOST_BYTES}", archive.display()));
    }
    println!("{}: {:.1} MB", archive.display(), bytes as f64 / 1e6);
    Ok(())
}

pub(super) fn run_it(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}
