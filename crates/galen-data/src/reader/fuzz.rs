//! Each reader on mutated files: it may refuse, it may not panic, go on without end, nor allocate without bound
//! (`testing.rs` bounds the test binary). `GALEN_FUZZ_SECONDS` or `GALEN_FUZZ_INPUTS`; corpus in `tests/fuzz`.

use super::*;
use galen_testkit::fuzz;

/// Tight, so that small files reach them.
const LIMITS: Limits = Limits { max_row_bytes: 4096, max_unpacked_bytes: 1 << 20, max_unpack_ratio: 250 };

/// Reads mutated files of the corpus `name` to their end, of which there must be one within `most` rows.
fn read(name: &str, file: &str, most: impl Fn(&[u8]) -> usize) {
    let folder = fuzz::folder();
    let path = folder.path().join(file);
    let (mut sound, mut rows) = (0, 0);
    let inputs = fuzz::run(name, &fuzz::corpus(name), |bytes| {
        std::fs::write(&path, bytes).unwrap();
        let Ok(mut file) = open_file(&path, "F", None, LIMITS) else { return };
        let most = most(bytes);
        let mut whole = true;
        for n in 0.. {
            let Some(row) = file.next() else { break };
            assert!(n < most, "more than {most} rows");
            whole &= row.is_ok();
            rows += 1;
        }
        sound += u64::from(whole);
    });
    println!("{name}: {inputs} inputs, {sound} of them still whole, {rows} rows");
    assert!(sound > 0 && rows > 0);
}

/// A row of text takes at least a byte.
fn one_a_byte(bytes: &[u8]) -> usize {
    bytes.len() + 1
}

#[test]
fn json() {
    read("json", "a.json", one_a_byte);
}

#[test]
fn json_lines() {
    read("jsonl", "a.jsonl", one_a_byte);
}

#[test]
fn csv() {
    read("csv", "a.csv", one_a_byte);
}

#[test]
fn text() {
    read("text", "a.txt", one_a_byte);
}

#[test]
fn gzip() {
    read("gzip", "a.jsonl.gz", |_| LIMITS.max_unpacked_bytes as usize);
}

#[test]
fn zstd() {
    read("zstd", "a.jsonl.zst", |_| LIMITS.max_unpacked_bytes as usize);
}

#[test]
fn parquet() {
    fuzz::hush_dependencies();
    read("parquet", "a.parquet", |_| 1 << 21);
}

#[test]
fn thrift() {
    let mut sound = 0;
    let inputs = fuzz::run("thrift", &fuzz::corpus("thrift"), |bytes| {
        let Some((value, used)) = super::thrift::read_struct(bytes) else { return };
        assert!(used <= bytes.len());
        check_ranges(&value, bytes.len());
        sound += 1;
    });
    println!("thrift: {inputs} inputs, {sound} of them still structs");
    assert!(sound > 0);
}

fn check_ranges(value: &super::thrift::Value, len: usize) {
    use super::thrift::Value::{Bytes, List, Struct};
    match value {
        Bytes(range) => assert!(range.start <= range.end && range.end <= len),
        List(items) => items.iter().for_each(|v| check_ranges(v, len)),
        Struct(fields) => fields.iter().for_each(|(_, v)| check_ranges(v, len)),
        _ => {}
    }
}
