//! A device of this crate as a place for galen-ops' operations, and the checks of those.

use crate::{Device, Launch};
#[cfg(feature = "host")]
use galen_ops::device::Scratch;
use galen_ops::device::{Argument, Backend, Gemm, Library, Path};
use galen_ops::{Error, Result};
#[cfg(feature = "host")]
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Memory of such a place.
pub struct Bytes(Mutex<Vec<u8>>);

impl Bytes {
    fn new(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(bytes))
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut all = self.lock();
        let has = all.len();
        let to = all.get_mut(..bytes.len());
        let to = to.ok_or_else(|| Error::Device(format!("{} bytes for a buffer of {has}", bytes.len())))?;
        to.copy_from_slice(bytes);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs galen-ops' launches on a [`Device`], products with weights by a path.
pub struct Launches<'a>(pub &'a Device, pub Path);

/// What is written comes back whole; the rest of a launch reads copies.
enum Held {
    Read(Vec<u8>),
    Write(Vec<u8>),
    Other,
}

fn run(device: &Device, kernel: &str, grid: [usize; 3], args: &[Argument<Bytes>]) -> Result<()> {
    let mut held: Vec<Held> = args
        .iter()
        .map(|a| match a {
            Argument::Read(b, at) => Held::Read(b.lock()[*at..].to_vec()),
            Argument::Write(b, at) => Held::Write(b.lock()[*at..].to_vec()),
            _ => Held::Other,
        })
        .collect();
    let mut launch = Launch::new(kernel, grid);
    for (arg, held) in args.iter().zip(&mut held) {
        launch = match (arg, held) {
            (_, Held::Read(bytes)) => launch.input(&bytes[..]),
            (_, Held::Write(bytes)) => launch.inout(&mut bytes[..]),
            (Argument::Int(v), _) => launch.int(*v),
            (Argument::Float(v), _) => launch.float(*v),
            (Argument::Long(v), _) => launch.long(*v),
            _ => launch.input::<u8>(&[]),
        };
    }
    device.run(launch).map_err(Error::Device)?;
    for (arg, held) in args.iter().zip(held) {
        if let (Argument::Write(b, at), Held::Write(bytes)) = (arg, held) {
            b.lock()[*at..].copy_from_slice(&bytes);
        }
    }
    Ok(())
}

/// A product over copies of its buffers.
fn product(
    product: &Gemm<Bytes>,
    by: impl FnOnce(&Gemm<Vec<u8>>) -> std::result::Result<Vec<u8>, String>,
) -> Result<()> {
    let Gemm { way, m, out, inner, x, w, y, number, accumulate } = *product;
    let [held_x, held_w, held_y] = [x, w, y].map(|(bytes, _, _)| bytes.lock().clone());
    let (x, w, to) = ((&held_x, x.1, x.2), (&held_w, w.1, w.2), (&held_y, y.1, y.2));
    let found = by(&Gemm { way, m, out, inner, x, w, y: to, number, accumulate });
    *y.0.lock() = found.map_err(Error::Device)?;
    Ok(())
}

impl Backend for Launches<'_> {
    type Buffer = Bytes;

    fn alloc(&self, bytes: usize) -> Result<Bytes> {
        Ok(Bytes::new(vec![crate::POISON; bytes]))
    }

    fn upload(&self, bytes: &[u8]) -> Result<Bytes> {
        Ok(Bytes::new(bytes.to_vec()))
    }

    fn write(&self, buffer: &Bytes, bytes: &[u8]) -> Result<()> {
        buffer.write(bytes)
    }

    fn download(&self, buffer: &Bytes) -> Result<Vec<u8>> {
        Ok(buffer.lock().clone())
    }

    fn launch(&self, kernel: &str, grid: [usize; 3], args: &[Argument<Bytes>]) -> Result<()> {
        run(self.0, kernel, grid, args)
    }

    fn library(&self) -> Option<Library> {
        // The capability does not matter where the path is given.
        self.0.has_library().then_some(Library { capability: (8, 0), forced: Some(self.1) })
    }

    fn gemm(&self, of: &Gemm<Bytes>) -> Result<()> {
        product(of, |p| self.0.gemm(p))
    }
}

/// The kernels on the CPU as a device for whole models, from any thread: each launch runs once. A library in plain loops stands
/// beside them where a path is given.
#[cfg(feature = "host")]
#[derive(Default)]
pub struct OnHost {
    products: Option<Path>,
    scratch: Scratch<Bytes>,
}

#[cfg(feature = "host")]
impl OnHost {
    /// All products with weights by this path.
    pub fn with(path: Path) -> Self {
        Self { products: Some(path), scratch: Scratch::default() }
    }
}

#[cfg(feature = "host")]
impl Backend for OnHost {
    type Buffer = Bytes;

    fn alloc(&self, bytes: usize) -> Result<Bytes> {
        Ok(Bytes::new(vec![crate::POISON; bytes]))
    }

    fn upload(&self, bytes: &[u8]) -> Result<Bytes> {
        Ok(Bytes::new(bytes.to_vec()))
    }

    fn write(&self, buffer: &Bytes, bytes: &[u8]) -> Result<()> {
        buffer.write(bytes)
    }

    fn download(&self, buffer: &Bytes) -> Result<Vec<u8>> {
        Ok(buffer.lock().clone())
    }

    fn launch(&self, kernel: &str, grid: [usize; 3], args: &[Argument<Bytes>]) -> Result<()> {
        thread_local! {
            static DEVICE: std::result::Result<Device, String> = Device::new().map(|d| d.with_seeds([1]));
        }
        DEVICE.with(|device| match device {
            Ok(device) => run(device, kernel, grid, args),
            Err(e) => Err(Error::Device(e.clone())),
        })
    }

    fn library(&self) -> Option<Library> {
        self.products.map(|path| Library { capability: (9, 0), forced: Some(path) })
    }

    fn gemm(&self, of: &Gemm<Bytes>) -> Result<()> {
        product(of, crate::products::plain)
    }

    fn with_scratch(&self, bytes: usize, work: &mut dyn FnMut(&Arc<Bytes>) -> Result<()>) -> Result<()> {
        self.scratch.with(bytes, |bytes| self.alloc(bytes), work)
    }
}
