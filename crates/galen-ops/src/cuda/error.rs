//! What can be wrong with a card, each with what to do about it.

use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

/// Something is wrong with a card, its driver or what was asked of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// libcuda cannot be loaded.
    #[error(
        "no NVIDIA driver is installed (libcuda cannot be loaded)\nhint: install NVIDIA's driver, version 580 or newer; in a \
         container, start it with `--gpus all`"
    )]
    NoDriver,
    /// The driver is older than the code.
    #[error(
        "NVIDIA's driver supports CUDA {}.{}, this build needs 13.0\nhint: install driver 580 or newer",
        version / 1000,
        version % 1000 / 10
    )]
    OldDriver {
        /// As the driver says it: 1000 major + 10 minor.
        version: i32,
    },
    /// There is a driver and no card, or none of that number.
    #[error("there are {count} NVIDIA cards, so none has the number {ordinal}\nhint: {}", no_card(*.count))]
    NoCard {
        /// Which was asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// A card without what the kernels need.
    #[error(
        "`{name}` has compute capability {major}.{minor}; the kernels need 8.0 or higher (Ampere, 2020)\nhint: compute on \
         the CPU, or use a newer card"
    )]
    OldCard {
        /// The card.
        name: String,
        /// Compute capability.
        major: i32,
        /// Compute capability.
        minor: i32,
    },
    /// An allocation that does not fit.
    #[error("the card has no memory for {bytes} more bytes ({free} of {total} are free)\nhint: {SMALLER}")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
        /// Bytes free.
        free: usize,
        /// Bytes of the card.
        total: usize,
    },
    /// The same where the driver or a library takes memory of its own.
    #[error("the card has no memory left ({call})\nhint: {SMALLER}")]
    NoMemory {
        /// The call.
        call: &'static str,
    },
    /// The fat binaries hold nothing for this card, or nothing that its driver can make code of.
    #[error("the kernels in this program do not fit this card ({call}: {code})\nhint: {}", fitting(.code))]
    NoImage {
        /// The call.
        call: &'static str,
        /// The driver's name of the error.
        code: String,
    },
    /// A name that no fat binary has.
    #[error("there is no kernel `{0}` in this program")]
    NoKernel(String),
    /// A launch that cannot be.
    #[error("`{kernel}`: {what}")]
    Launch {
        /// The kernel.
        kernel: String,
        /// What is wrong.
        what: String,
    },
    /// cuBLAS refuses or fails.
    #[error("cuBLAS: {call}: {code}\nhint: GALEN_CUDA_PRODUCTS=kernels computes without cuBLAS")]
    Blas {
        /// The call.
        call: &'static str,
        /// cuBLAS' name of the error.
        code: String,
    },
    /// NCCL refuses or fails.
    #[error(
        "NCCL: {call}: {code}\nhint: `NCCL_DEBUG=WARN` tells more; GALEN_CUDA_SUMS=host trains without NCCL"
    )]
    Nccl {
        /// The call.
        call: &'static str,
        /// NCCL's words.
        code: String,
    },
    /// `GALEN_CUDA_SUMS` asks for what is not there, or for nothing there is.
    #[error("GALEN_CUDA_SUMS: {what}\nhint: `auto`, `host` or, where NCCL is installed, `nccl`")]
    Sums {
        /// What is wrong.
        what: String,
    },
    /// `GALEN_CUDA_PRODUCTS` asks for what is not there, or for nothing there is.
    #[error("GALEN_CUDA_PRODUCTS: {what}\nhint: `auto`, `kernels` or, where cuBLAS is installed, `library`")]
    Products {
        /// What is wrong.
        what: String,
    },
    /// Anything else the driver says.
    #[error("CUDA: {call}: {code}\nhint: {}", remedy(.code))]
    Driver {
        /// The call.
        call: &'static str,
        /// The driver's name of the error.
        code: String,
    },
}

/// What helps where a card is full.
const SMALLER: &str = "lower `micro_batch_size` or `sequence_len`, set `gradient_checkpointing: true`, load the base in 4 bits, or end \
                       what else runs on the card; to answer, fewer sequences at a time (`--max-num-seqs`, `--cache-mib`), or `--device cpu`";

/// What helps where code and card do not fit.
fn fitting(code: &str) -> &'static str {
    if code.contains("PTX_VERSION") {
        "this program was built with a newer CUDA than the driver knows: install a newer driver, or build with CUDA 13.0 \
         (`xtask cuda-toolkit` installs it)"
    } else if code.contains("JIT_COMPILER") {
        "for this card kernels are compiled by the driver, whose compiler (libnvidia-ptxjitcompiler) is not there: install the whole \
         driver; in a container, start it with `NVIDIA_DRIVER_CAPABILITIES=compute,utility`"
    } else {
        "build galen for it: `cargo build --release --features cuda`, with CUDA 13.0 or newer"
    }
}

fn no_card(count: usize) -> &'static str {
    if count == 0 {
        "`nvidia-smi` lists the cards the driver sees; CUDA_VISIBLE_DEVICES hides those it does not name"
    } else {
        "cards are numbered from 0"
    }
}

/// What helps against an error of a running program.
fn remedy(code: &str) -> &'static str {
    if ["ILLEGAL", "LAUNCH_FAILED", "LAUNCH_TIMEOUT", "MISALIGNED", "HARDWARE_STACK", "INVALID_PC"]
        .iter()
        .any(|c| code.contains(c))
    {
        "a kernel went wrong: please report it, with the output of `galen doctor`"
    } else if code.contains("ECC") || code.contains("NVLINK") {
        "the card reports a fault of its hardware: see `nvidia-smi -q` and the system's log"
    } else if code.contains("SYSTEM_NOT_READY") {
        "cards that are joined by NVSwitch wait for their fabric manager: `systemctl status nvidia-fabricmanager`"
    } else if code.contains("SYSTEM_DRIVER_MISMATCH") {
        "restart the machine, or the container, so that driver and library are of one version"
    } else if code.contains("DEVICE_UNAVAILABLE") {
        "another program holds the card alone (compute mode): see `nvidia-smi`"
    } else {
        "`nvidia-smi` shows whether the card and its driver work"
    }
}

impl CudaError {
    /// Of a call that failed.
    pub(super) fn of(call: &'static str, error: DriverError) -> Self {
        let code = format!("{:?}", error.0);
        match error.0 {
            CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU
            | CUresult::CUDA_ERROR_INVALID_IMAGE
            | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION
            | CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND
            | CUresult::CUDA_ERROR_INVALID_PTX => Self::NoImage { call, code },
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => Self::NoMemory { call },
            CUresult::CUDA_ERROR_NO_DEVICE => Self::NoCard { ordinal: 0, count: 0 },
            _ => Self::Driver { call, code },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_remedy() {
        let driver = |code| CudaError::of("cuLaunchKernel", DriverError(code));
        for (error, word) in [
            (CudaError::NoDriver, "580"),
            (CudaError::OldDriver { version: 12_040 }, "12.4"),
            (CudaError::NoCard { ordinal: 0, count: 0 }, "CUDA_VISIBLE_DEVICES"),
            (CudaError::OldCard { name: "T4".into(), major: 7, minor: 5 }, "Ampere"),
            (CudaError::OutOfMemory { bytes: 1, free: 2, total: 3 }, "gradient_checkpointing"),
            (driver(CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU), "--features cuda"),
            (driver(CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION), "newer driver"),
            (driver(CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND), "ptxjitcompiler"),
            (driver(CUresult::CUDA_ERROR_OUT_OF_MEMORY), "gradient_checkpointing"),
            (driver(CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE), "compute mode"),
            (driver(CUresult::CUDA_ERROR_SYSTEM_NOT_READY), "fabric"),
            (driver(CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR), "report"),
            (driver(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS), "report"),
            (driver(CUresult::CUDA_ERROR_ECC_UNCORRECTABLE), "hardware"),
            (driver(CUresult::CUDA_ERROR_UNKNOWN), "nvidia-smi"),
            (CudaError::Blas { call: "cublasCreate", code: "x".into() }, "GALEN_CUDA_PRODUCTS=kernels"),
            (CudaError::Products { what: "x".into() }, "`auto`"),
            (CudaError::Nccl { call: "ncclAllReduce", code: "x".into() }, "GALEN_CUDA_SUMS=host"),
            (CudaError::Sums { what: "x".into() }, "`auto`"),
        ] {
            let text = error.to_string();
            assert!(text.contains("hint:") && text.contains(word), "{text}");
        }
    }
}
