//! Launches written down, for `host/replay.cpp` to run again under the sanitizers with buffers of exactly their size.

use crate::launch::Arg;
use crate::manifest::LaunchLine;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

/// Launches and what they gave.
#[derive(Default)]
pub struct Recorder {
    bytes: Vec<u8>,
    launches: usize,
    kernels: BTreeSet<String>,
}

impl Recorder {
    /// Launches so far.
    pub fn launches(&self) -> usize {
        self.launches
    }

    /// Their kernels.
    pub fn kernels(&self) -> &BTreeSet<String> {
        &self.kernels
    }

    /// Name, grid, threads, shared bytes, number of arguments; for each its kind (0 null, 1 read, 2 written, 3 value),
    /// length and bytes, for 2 before and after.
    pub(crate) fn add(
        &mut self,
        kernel: &str,
        grid: [u32; 3],
        line: &LaunchLine,
        args: &[Arg],
        before: &[Option<Vec<u8>>],
    ) {
        let mut put = |bytes: &[u8]| self.bytes.extend_from_slice(bytes);
        put(&(kernel.len() as u64).to_ne_bytes());
        put(kernel.as_bytes());
        for n in grid.iter().map(|g| u64::from(*g)).chain([
            line.threads.into(),
            line.shared as u64,
            args.len() as u64,
        ]) {
            put(&n.to_ne_bytes());
        }
        for (arg, before) in args.iter().zip(before) {
            let (kind, bytes): (u64, &[u8]) = match arg {
                Arg::Null => (0, &[]),
                Arg::In(bytes) => (1, bytes),
                Arg::Out(bytes) | Arg::InOut(bytes) => (2, bytes),
                Arg::Value(bytes) => (3, bytes),
            };
            put(&kind.to_ne_bytes());
            put(&(bytes.len() as u64).to_ne_bytes());
            if let Some(before) = before {
                put(before);
            }
            put(bytes);
        }
        self.launches += 1;
        self.kernels.insert(kernel.to_owned());
    }

    /// Writes them to a file.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        std::fs::File::create(path)?.write_all(&self.bytes)
    }
}
