//! What rewards give, from a configuration to the weighted sum.

#![allow(clippy::unwrap_used, reason = "test code")]

mod bench;
#[cfg(unix)]
mod command;
mod config;
mod http;
mod rules;
mod set;
mod trl;
