//! The C++ compiler, for copies of the kernels that tests build apart from the library.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the kernels.
pub fn kernels() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs the compiler `CXX` names, or `c++`.
pub fn compile(args: &[&str]) -> Result<(), String> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let base = ["-std=c++17", "-ffp-contract=off", "-Wno-unknown-pragmas", "-DGALEN_HOST"];
    let out =
        Command::new(&compiler).args(base).args(args).output().map_err(|e| format!("{compiler}: {e}"))?;
    if out.status.success() {
        Ok(())
    } else {
        Err(format!("{compiler} {args:?}: {}", String::from_utf8_lossy(&out.stderr)))
    }
}

/// Names of the `.cu` files, without the ending.
pub fn units() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(kernels())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "cu"))
        .map(|p| p.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A copy of the kernels' sources below `to`.
pub fn copy_sources(to: &Path) {
    for folder in ["", "include", "host"] {
        std::fs::create_dir_all(to.join(folder)).unwrap();
        for entry in std::fs::read_dir(kernels().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| ["cu", "cuh", "h", "cpp"].iter().any(|x| e == *x)) {
                std::fs::copy(&path, to.join(folder).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
}
