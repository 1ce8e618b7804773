//! Owns: chores of development that are not the product: house rules, looking at other projects' configurations, the
//! CUDA kernels' compiler and checks of what it makes.
//! Takes: the working tree; for `axolotl-check` a folder of YAML files and the built `galen`.
//! Gives: a list of what is out of order, an exit code.
//! Never: is needed by a user.

mod axolotl;
mod cuda;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo run --release -p xtask -- COMMAND
  tidy                               the house rules; also a test of this crate
  axolotl-check FOLDER [--bin GALEN] [--verbose]
                                     what `galen plan --check-config` says of every YAML below FOLDER
  cuda-toolkit                       installs NVIDIA's compiler from pip packages, into the user's cache
  cuda-check [--write]               compiles the CUDA kernels for every target and holds the code against their
                                     headers; --write renews kernels/ROOFLINE.md
  gpu-bundle [--config FILE]         packs checks and timings, and `galen` with its kernels, for a machine with a card, which needs
                                     its driver alone; FILE is handed on to cargo
  gpu-rehearsal                      runs checks and trainings without a card, over stand-ins for driver, cuBLAS and NCCL";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let outcome = match args.next().as_deref() {
        Some("tidy") => tidy::run(),
        Some("axolotl-check") => axolotl_arguments(args).and_then(|a| axolotl::run(&a)),
        Some("cuda-toolkit") => cuda::install(),
        Some("gpu-bundle") => match (args.next().as_deref(), args.next().as_deref()) {
            (None, None) => cuda::bundle(None),
            (Some("--config"), Some(file)) => cuda::bundle(Some(file)),
            _ => Err(USAGE.to_owned()),
        },
        Some("gpu-rehearsal") => cuda::rehearse(),
        Some("cuda-check") => match args.next().as_deref() {
            None => cuda::check(false),
            Some("--write") => cuda::check(true),
            _ => Err(USAGE.to_owned()),
        },
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn axolotl_arguments(mut args: impl Iterator<Item = String>) -> Result<axolotl::Args, String> {
    let (mut folder, mut binary, mut verbose) = (None, None, false);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bin" => binary = Some(PathBuf::from(args.next().ok_or(USAGE)?)),
            "--verbose" => verbose = true,
            _ if folder.is_none() => folder = Some(PathBuf::from(arg)),
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(axolotl::Args { folder: folder.ok_or(USAGE)?, binary, verbose })
}

/// The root of the working tree.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(Into::into).unwrap_or(here)
}
