//! The galen command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(galen::run())
}
