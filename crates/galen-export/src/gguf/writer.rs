//! GGUF version 3, written (ggml `docs/gguf.md`).

use crate::error::{Result, at};
use galen_ops::quant::WeightDtype;
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Tensors lie at multiples of this where the metadata does not say otherwise.
const ALIGNMENT: u64 = 32;

/// A metadata value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    U32(u32),
    F32(f32),
    Bool(bool),
    Str(&'a str),
    Strs(&'a [String]),
    I32s(&'a [i32]),
    F32s(&'a [f32]),
}

impl Value<'_> {
    /// The number of the type, then the value.
    fn bytes(self) -> Vec<u8> {
        let mut out = Vec::new();
        let kind = |out: &mut Vec<u8>, n: u32| out.extend(n.to_le_bytes());
        let array = |out: &mut Vec<u8>, element: u32, len: usize| {
            kind(out, 9);
            kind(out, element);
            out.extend((len as u64).to_le_bytes());
        };
        match self {
            Self::U32(v) => {
                kind(&mut out, 4);
                out.extend(v.to_le_bytes());
            }
            Self::F32(v) => {
                kind(&mut out, 6);
                out.extend(v.to_le_bytes());
            }
            Self::Bool(v) => {
                kind(&mut out, 7);
                out.push(u8::from(v));
            }
            Self::Str(v) => {
                kind(&mut out, 8);
                text(&mut out, v);
            }
            Self::Strs(list) => {
                array(&mut out, 8, list.len());
                list.iter().for_each(|v| text(&mut out, v));
            }
            Self::I32s(list) => {
                array(&mut out, 5, list.len());
                list.iter().for_each(|v| out.extend(v.to_le_bytes()));
            }
            Self::F32s(list) => {
                array(&mut out, 6, list.len());
                list.iter().for_each(|v| out.extend(v.to_le_bytes()));
            }
        }
        out
    }
}

fn text(out: &mut Vec<u8>, v: &str) {
    out.extend((v.len() as u64).to_le_bytes());
    out.extend(v.as_bytes());
}

/// Metadata in the order it is written.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    pairs: Vec<(String, Vec<u8>)>,
    alignment: Option<u64>,
}

impl Metadata {
    /// Adds a pair, or replaces the value of one that is there.
    pub(crate) fn push(&mut self, key: impl Into<String>, value: Value) {
        let (key, bytes) = (key.into(), value.bytes());
        match self.pairs.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = bytes,
            None => self.pairs.push((key, bytes)),
        }
    }

    /// Adds a pair as another file has it.
    pub(crate) fn push_raw(&mut self, key: &str, bytes: &[u8]) {
        self.pairs.push((key.to_owned(), bytes.to_vec()));
    }

    /// Tensors lie at multiples of this, as a copied pair says.
    pub(crate) fn align(&mut self, alignment: u64) {
        self.alignment = Some(alignment);
    }
}

/// A tensor as the header describes it.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// Row-major; written in reverse.
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: WeightDtype,
}

impl Tensor {
    fn nbytes(&self) -> u64 {
        let elements: usize = self.shape.iter().product();
        (elements / self.dtype.block_size() * self.dtype.block_bytes()) as u64
    }
}

/// Writes a file; `data` gives a tensor's bytes by its number, asked for in order. Returns the file's bytes.
pub(crate) fn write<'a>(
    path: &Path,
    metadata: &Metadata,
    tensors: &[Tensor],
    mut data: impl FnMut(usize) -> Result<Cow<'a, [u8]>>,
) -> Result<u64> {
    let alignment = metadata.alignment.unwrap_or(ALIGNMENT);
    let mut header = b"GGUF".to_vec();
    header.extend(3u32.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    header.extend((metadata.pairs.len() as u64).to_le_bytes());
    for (key, bytes) in &metadata.pairs {
        text(&mut header, key);
        header.extend(bytes);
    }
    let mut offset = 0u64;
    for t in tensors {
        text(&mut header, &t.name);
        header.extend((t.shape.len() as u32).to_le_bytes());
        t.shape.iter().rev().for_each(|d| header.extend((*d as u64).to_le_bytes()));
        header.extend(t.dtype.format().ggml_id.unwrap_or_default().to_le_bytes());
        header.extend(offset.to_le_bytes());
        offset += t.nbytes().next_multiple_of(alignment);
    }
    header.resize((header.len() as u64).next_multiple_of(alignment) as usize, 0);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(at(path))?);
    file.write_all(&header).map_err(at(path))?;
    for (i, t) in tensors.iter().enumerate() {
        let bytes = data(i)?;
        debug_assert_eq!(bytes.len() as u64, t.nbytes(), "{}", t.name);
        file.write_all(&bytes).map_err(at(path))?;
        let rest = (bytes.len() as u64).next_multiple_of(alignment) - bytes.len() as u64;
        file.write_all(&vec![0; rest as usize]).map_err(at(path))?;
    }
    file.flush().map_err(at(path))?;
    Ok(header.len() as u64 + offset)
}
