//! NVIDIA's cards: what of them is there, memory, launches. The driver is loaded at run time; without it everything here
//! gives [`CudaError::NoDriver`] and the rest of the program goes on.

mod backend;
mod blas;
mod buffer;
mod error;
mod gpu;
mod nccl;

pub use blas::blas_version;
pub use buffer::DeviceBuffer;
pub use error::CudaError;
pub use gpu::{Card, Gpu, KernelArg, Timer, cards};
pub use nccl::{Nccl, nccl_version, sums};

/// A fat binary, aligned as the loader wants it.
#[repr(C, align(64))]
struct Aligned<const N: usize>([u8; N]);

/// How kernels are launched, by their headers.
struct LaunchLine {
    names: &'static str,
    threads: u32,
    shared: u32,
}

/// The compiled kernels, by `build.rs`.
mod compiled {
    use super::{Aligned, LaunchLine};

    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// Whether `name` is of the form `pattern`, where `*` stands for any letters.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => {
            name.strip_prefix(head).is_some_and(|tail| (0..=tail.len()).any(|i| matches(rest, &tail[i..])))
        }
    }
}

impl LaunchLine {
    fn of(kernel: &str) -> Option<&'static Self> {
        compiled::LAUNCHES.iter().find(|l| matches(l.names, kernel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_compiled_in_and_a_missing_driver_is_an_error_with_a_remedy() {
        assert!(compiled::FATBINS.len() >= 15 && compiled::FATBINS.iter().all(|f| f.len() > 1000));
        assert_eq!(
            LaunchLine::of("qmatmul_forward_q4_0").map(|l| (l.threads, l.shared)),
            Some((128, 81_920))
        );
        match cards() {
            Err(e) => assert!(e.to_string().contains("hint:"), "{e}"),
            Ok(cards) => assert!(cards.iter().all(|c| !c.name.is_empty())),
        }
    }
}
