//! The test of the paths' tests: a library or a decoder that goes wrong must be found.

use galen_kernels::checks::products::projection;
use galen_kernels::place::{Bytes, OnHost};
use galen_ops::Result;
use galen_ops::device::{Argument, Backend, Gemm, Library, Path};
use galen_ops::quant::WeightDtype;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    Nothing,
    /// What y holds is forgotten: the branch and the bias are lost.
    Forgets,
    /// What y holds is added where it should not be.
    Adds,
    /// The last of the inner dimension is left out.
    Short,
    /// The last group of a weight is not decoded.
    Undecoded,
}

struct Faulty(OnHost, Fault);

impl Backend for Faulty {
    type Buffer = Bytes;

    fn alloc(&self, bytes: usize) -> Result<Bytes> {
        self.0.alloc(bytes)
    }

    fn upload(&self, bytes: &[u8]) -> Result<Bytes> {
        self.0.upload(bytes)
    }

    fn write(&self, buffer: &Self::Buffer, bytes: &[u8]) -> Result<()> {
        self.0.write(buffer, bytes)
    }

    fn download(&self, buffer: &Bytes) -> Result<Vec<u8>> {
        self.0.download(buffer)
    }

    fn launch(&self, kernel: &str, grid: [usize; 3], args: &[Argument<Bytes>]) -> Result<()> {
        if self.1 == Fault::Undecoded && kernel.starts_with("dequantize") {
            let args: Vec<Argument<Bytes>> = args
                .iter()
                .enumerate()
                .map(|(i, arg)| match arg {
                    // The rows.
                    Argument::Int(rows) if i == 6 => Argument::Int(rows - 1),
                    Argument::Int(v) => Argument::Int(*v),
                    Argument::Read(b, at) => Argument::Read(*b, *at),
                    Argument::Write(b, at) => Argument::Write(*b, *at),
                    Argument::Float(v) => Argument::Float(*v),
                    Argument::Long(v) => Argument::Long(*v),
                    Argument::Null => Argument::Null,
                })
                .collect();
            return self.0.launch(kernel, grid, &args);
        }
        self.0.launch(kernel, grid, args)
    }

    fn library(&self) -> Option<Library> {
        self.0.library()
    }

    fn gemm(&self, of: &Gemm<Bytes>) -> Result<()> {
        let Gemm { way, m, out, x, w, y, number, .. } = *of;
        let inner = if self.1 == Fault::Short { of.inner - 1 } else { of.inner };
        let accumulate = match self.1 {
            Fault::Forgets => false,
            Fault::Adds => true,
            _ => of.accumulate,
        };
        self.0.gemm(&Gemm { way, m, out, inner, x, w, y, number, accumulate })
    }

    fn with_scratch(&self, bytes: usize, work: &mut dyn FnMut(&Arc<Bytes>) -> Result<()>) -> Result<()> {
        self.0.with_scratch(bytes, work)
    }
}

#[test]
fn faults_of_the_library_s_path_are_found() {
    let check = |fault, dtype| {
        projection(&Faulty(OnHost::with(Path::Library), fault), dtype, (19, 24, 64, 3)).map(drop)
    };
    for dtype in [WeightDtype::Nf4, WeightDtype::BF16] {
        check(Fault::Nothing, dtype).unwrap();
        for fault in [Fault::Forgets, Fault::Adds, Fault::Short] {
            let found = check(fault, dtype).unwrap_err().to_string();
            println!("{fault:?} {dtype}: {found}");
            assert!(found.contains("element"), "{found}");
        }
    }
    let found = check(Fault::Undecoded, WeightDtype::Nf4).unwrap_err().to_string();
    assert!(found.contains("element"), "{found}");
    // A bf16 weight is not decoded.
    check(Fault::Undecoded, WeightDtype::BF16).unwrap();
}
