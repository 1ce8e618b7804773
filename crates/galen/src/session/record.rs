//! Hashes of what went into a run.

use anyhow::Context as _;
use sha2::{Digest, Sha256};
use std::io::Read as _;
use std::path::Path;

/// SHA-256 of a file, or of a model folder's configuration and weights in order of name.
pub fn sha256_file(path: &Path) -> anyhow::Result<String> {
    let mut hasher = Sha256::new();
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = std::fs::read_dir(path)
            .with_context(|| path.display().to_string())?
            .flatten()
            .map(|e| e.path())
            .filter(|p| {
                let ends = ["safetensors", "gguf", "json", "jinja"].map(Some);
                ends.contains(&p.extension().and_then(|e| e.to_str())) || p.ends_with("Modelfile")
            })
            .collect();
        files.sort();
        anyhow::ensure!(!files.is_empty(), "{}: no model lies in it", path.display());
    }
    let mut buffer = vec![0u8; 1 << 20];
    for path in files {
        let mut file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
        loop {
            let n = file.read(&mut buffer).with_context(|| path.display().to_string())?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
        }
    }
    Ok(hex(&hasher.finalize()))
}

/// SHA-256 of a text.
pub fn sha256_text(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}
