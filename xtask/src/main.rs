//! Development chores: `cargo run -p xtask -- tidy`.
fn main() {}
