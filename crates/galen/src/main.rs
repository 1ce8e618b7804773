//! The galen command line.
fn main() {}
