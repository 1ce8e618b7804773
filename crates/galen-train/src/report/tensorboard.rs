//! TensorBoard's event files: TFRecord frames around hand-encoded `Event` messages with scalar summaries.
//!
//! A frame is `length: u64, masked crc32c(length): u32, data, masked crc32c(data): u32`, little-endian. The messages are
//! `Event {1: wall_time double, 2: step int64, 3: file_version string, 5: summary, 7: session_log}` and
//! `Summary {1: value {1: tag string, 2: simple_value float}}` of tensorflow's `event.proto` and `summary.proto`.

use super::ReportError;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Appends scalars to one event file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    out: BufWriter<File>,
}

impl EventWriter {
    /// Creates `events.out.tfevents.SECONDS.galen` in `folder`. `seconds`: Unix time, part of the name, so that a
    /// resumed run gets a file of its own. `first_step`: points of older files from this step on are superseded.
    pub fn create(folder: &Path, seconds: u64, first_step: u64) -> Result<Self, ReportError> {
        let path = folder.join(format!("events.out.tfevents.{seconds:010}.galen"));
        let file = File::create(&path).map_err(|source| ReportError::Io { path: path.clone(), source })?;
        let mut writer = Self { path, out: BufWriter::new(file) };
        let mut version = Message::default();
        version.double(1, seconds as f64);
        version.bytes(3, b"brain.Event:2");
        writer.record(&version.0)?;
        let mut start = Message::default();
        start.varint_field(1, 1);
        let mut session = Message::default();
        session.double(1, seconds as f64);
        session.varint_field(2, first_step);
        session.bytes(7, &start.0);
        writer.record(&session.0)?;
        Ok(writer)
    }

    /// Writes the values of one step; `unix_time` in seconds. Values TensorBoard cannot show are written as they are.
    pub fn scalars(&mut self, step: u64, unix_time: f64, values: &[(&str, f64)]) -> Result<(), ReportError> {
        let mut summary = Message::default();
        for (tag, value) in values {
            let mut entry = Message::default();
            entry.bytes(1, tag.as_bytes());
            entry.float(2, *value as f32);
            summary.bytes(1, &entry.0);
        }
        let mut event = Message::default();
        event.double(1, unix_time);
        event.varint_field(2, step);
        event.bytes(5, &summary.0);
        self.record(&event.0)
    }

    /// Hands what is written so far to the operating system, for a TensorBoard that watches.
    pub fn flush(&mut self) -> Result<(), ReportError> {
        self.out.flush().map_err(|source| ReportError::Io { path: self.path.clone(), source })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn record(&mut self, data: &[u8]) -> Result<(), ReportError> {
        let length = (data.len() as u64).to_le_bytes();
        let parts: [&[u8]; 4] =
            [&length, &masked(crc32c(&length)).to_le_bytes(), data, &masked(crc32c(data)).to_le_bytes()];
        for part in parts {
            self.out.write_all(part).map_err(|source| ReportError::Io { path: self.path.clone(), source })?;
        }
        Ok(())
    }
}

/// A protobuf message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint_field(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }
}

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), a bit at a time: records are short.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// TFRecord's masking, so that a checksum of data holding checksums is not weak.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, B.4, and the check value of the CRC catalogue.
    #[test]
    fn crc_vectors() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46dd_794e);
    }

    /// Bytes that `tensorboard`'s own EventFileLoader read back as step 3, `train/loss` 0.5 (and these checksums).
    #[test]
    fn frames_and_messages_to_the_byte() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(folder.path(), 1_700_000_000, 1).unwrap();
        writer.scalars(3, 1_700_000_001.5, &[("train/loss", 0.5)]).unwrap();
        writer.flush().unwrap();
        assert!(writer.path().ends_with("events.out.tfevents.1700000000.galen"));
        let bytes = std::fs::read(writer.path()).unwrap();
        let mut records = Vec::new();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let n = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked(crc32c(&rest[..8])).to_le_bytes());
            let data = &rest[12..12 + n];
            assert_eq!(rest[12 + n..16 + n], masked(crc32c(data)).to_le_bytes());
            records.push(data.to_vec());
            rest = &rest[16 + n..];
        }
        assert_eq!(records.len(), 3);
        assert!(records[0].ends_with(b"\x1a\x0dbrain.Event:2"));
        let mut expect = vec![9];
        expect.extend(1_700_000_001.5f64.to_le_bytes());
        expect.extend(b"\x10\x03\x2a\x13\x0a\x11\x0a\x0atrain/loss\x15");
        expect.extend(0.5f32.to_le_bytes());
        assert_eq!(records[2], expect);
    }
}
