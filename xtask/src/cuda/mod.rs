//! The CUDA kernels: their compiler, and checks of what it makes of them. No GPU is needed for either.

mod bundle;
mod check;
mod compile;
#[path = "../../../kernels/src/manifest.rs"]
mod manifest;
mod occupancy;
mod rehearsal;
mod roofline;
mod sass;
mod toolkit;

pub use bundle::run as bundle;
pub use check::run as check;
pub use rehearsal::run as rehearse;
pub use toolkit::Toolkit;

use std::path::PathBuf;

/// The folder of the kernels.
fn kernels() -> PathBuf {
    crate::root().join("kernels")
}

/// Installs the compiler and says where it is.
pub fn install() -> Result<(), String> {
    let toolkit = Toolkit::ensure()?;
    println!("{}", toolkit.home.display());
    println!("for a build with the `cuda` feature: export CUDA_HOME={}", toolkit.home.display());
    Ok(())
}

/// A folder of the user's cache.
fn cache() -> Result<PathBuf, String> {
    let base = std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    Ok(base.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("galen"))
}

/// The hexadecimal SHA-256 of some bytes.
fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
