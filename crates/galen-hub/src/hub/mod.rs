//! The hub: its HTTP, its cache layout, resumable downloads.
//!
//! Our own few hundred lines over `ureq` rather than the `hf-hub` crate (0.4.3): that one sets no time-outs,
//! checks no digest, waits five seconds at most for another process's lock, and cannot use its cache when the hub
//! is unreachable.

mod client;
mod download;
#[cfg(test)]
mod fuzz;
mod repo;

pub(crate) use repo::{Repo, RepoKind, Snapshot};
