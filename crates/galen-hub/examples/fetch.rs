//! Fetches catalogued files into the cache: `cargo run --release -p galen-hub --example fetch -- NAME...`

use galen_hub::{Lines, Options, catalogue};
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let options = Options::from_env(false, &Lines);
    for name in std::env::args().skip(1) {
        let start = Instant::now();
        let found = catalogue().ok().and_then(|all| all.iter().find(|e| e.name == name));
        let resolved = match found.map(|e| e.kind) {
            Some(galen_hub::Kind::Data) => galen_hub::resolve_data(&name, &options),
            _ => galen_hub::resolve_model(&name, &options),
        };
        match resolved {
            Ok(r) => println!("{} ({}, {} ms)", r.path.display(), r.source, start.elapsed().as_millis()),
            Err(e) => {
                eprintln!("error: {e}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
