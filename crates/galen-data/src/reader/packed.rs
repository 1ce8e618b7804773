//! `.gz` and `.zst`, with bounds on what they may unpack to.

use super::Limits;
use crate::DataError;
use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Unpacked bytes that need no justification by the packed size: short files of repeated text pack very well.
const FREE_BYTES: u64 = 64 << 20;

/// `name` without a packing ending.
pub(super) fn strip_extension(name: &str) -> &str {
    [".gz", ".zst"].iter().find_map(|e| name.strip_suffix(e)).unwrap_or(name)
}

/// The file's bytes, unpacked by its ending.
pub(super) fn unpack(file: File, path: &Path, limits: Limits) -> Result<Box<dyn Read + Send>, DataError> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let packed_bytes = Arc::new(AtomicU64::new(0));
    let counted = Counted { inner: file, seen: packed_bytes.clone() };
    let unpacked: Box<dyn Read + Send> = match extension.as_str() {
        "gz" => Box::new(flate2::read::MultiGzDecoder::new(counted)),
        "zst" => {
            let mut decoder =
                zstd::Decoder::new(counted).map_err(|e| DataError::io(path.display().to_string(), e))?;
            // 2^27 bytes of window: zstd's own default ceiling for files from strangers.
            decoder.window_log_max(27).map_err(|e| DataError::io(path.display().to_string(), e))?;
            Box::new(decoder)
        }
        _ => return Ok(Box::new(counted)),
    };
    Ok(Box::new(Bounded { inner: unpacked, packed_bytes, unpacked_bytes: 0, limits }))
}

struct Counted {
    inner: File,
    seen: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.seen.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

struct Bounded {
    inner: Box<dyn Read + Send>,
    packed_bytes: Arc<AtomicU64>,
    unpacked_bytes: u64,
    limits: Limits,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.unpacked_bytes += n as u64;
        let earned = self.packed_bytes.load(Ordering::Relaxed).saturating_mul(self.limits.max_unpack_ratio);
        let allowed = FREE_BYTES.saturating_add(earned).min(self.limits.max_unpacked_bytes);
        if self.unpacked_bytes > allowed {
            let what = format!("unpacks to more than the limit of `{allowed}` bytes");
            return Err(Error::new(ErrorKind::InvalidData, what));
        }
        Ok(n)
    }
}
