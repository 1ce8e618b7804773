//! A device of this crate as a place for galen-ops' operations, and the checks of those.

use crate::{Device, Launch};
use galen_ops::device::{Argument, Backend};
use galen_ops::{Error, Result};
use std::cell::RefCell;

/// Runs galen-ops' launches on a [`Device`].
pub struct Launches<'a>(pub &'a Device);

/// What is written comes back whole; the rest of a launch reads copies.
enum Held {
    Read(Vec<u8>),
    Write(Vec<u8>),
    Other,
}

impl Backend for Launches<'_> {
    type Buffer = RefCell<Vec<u8>>;

    fn alloc(&self, bytes: usize) -> Result<Self::Buffer> {
        Ok(RefCell::new(vec![crate::POISON; bytes]))
    }

    fn upload(&self, bytes: &[u8]) -> Result<Self::Buffer> {
        Ok(RefCell::new(bytes.to_vec()))
    }

    fn download(&self, buffer: &Self::Buffer) -> Result<Vec<u8>> {
        Ok(buffer.borrow().clone())
    }

    fn launch(&self, kernel: &str, grid: [usize; 3], args: &[Argument<Self::Buffer>]) -> Result<()> {
        let mut held: Vec<Held> = args
            .iter()
            .map(|a| match a {
                Argument::Read(b, at) => Held::Read(b.borrow()[*at..].to_vec()),
                Argument::Write(b, at) => Held::Write(b.borrow()[*at..].to_vec()),
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
        self.0.run(launch).map_err(Error::Device)?;
        for (arg, held) in args.iter().zip(held) {
            if let (Argument::Write(b, at), Held::Write(bytes)) = (arg, held) {
                b.borrow_mut()[*at..].copy_from_slice(&bytes);
            }
        }
        Ok(())
    }
}
