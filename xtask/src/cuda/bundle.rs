//! `gpu-bundle`: one archive with the checks and timings for a card: no compiler, no network, nothing but the driver is
//! needed there.

use super::{Toolkit, kernels};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Most bytes of the archive.
const MOST_BYTES: u64 = 40 << 20;

/// Builds the program with the kernels inside and packs it with what runs it.
pub fn run() -> Result<(), String> {
    let toolkit = Toolkit::ensure()?;
    let root = crate::root();
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // The whole workspace's features, so that what is compiled already is not compiled again.
    build.current_dir(&root).args(["build", "--release", "--locked", "--workspace"]);
    build.args(["--features", "galen-kernels/gpu", "--bin", "galen-gpu-check"]);
    run_it(build.env("CUDA_HOME", &toolkit.home))?;
    let folder = target.join("cuda/galen-gpu-check");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let program = target.join("release/galen-gpu-check");
    for (from, name) in [
        (program, "galen-gpu-check"),
        (kernels().join("bundle/run.sh"), "run.sh"),
        (kernels().join("bundle/peers.py"), "peers.py"),
        (kernels().join("ROOFLINE.md"), "ROOFLINE.md"),
    ] {
        fs::copy(&from, folder.join(name)).map_err(|e| format!("{}: {e}", from.display()))?;
    }
    run_it(Command::new("strip").arg(folder.join("galen-gpu-check")))?;
    let archive = target.join("cuda/galen-gpu-check.tar.gz");
    run_it(
        Command::new("tar")
            .arg("-czf")
            .arg(&archive)
            .arg("-C")
            .arg(target.join("cuda"))
            .arg("galen-gpu-check"),
    )?;
    let bytes = fs::metadata(&archive).map_err(|e| format!("{}: {e}", archive.display()))?.len();
    if bytes > MOST_BYTES {
        return Err(format!("{}: {bytes} bytes, at most {MOST_BYTES}", archive.display()));
    }
    println!("{}: {:.1} MB", archive.display(), bytes as f64 / 1e6);
    println!("on a machine with a card: tar -xzf galen-gpu-check.tar.gz && galen-gpu-check/run.sh");
    Ok(())
}

fn run_it(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|e| format!("{command:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}
