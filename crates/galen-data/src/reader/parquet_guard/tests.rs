//! Files made by hand, so that one thing at a time can be a lie.

use super::*;
use std::io::Write;

/// Writes Thrift's compact protocol: a struct is a list of (field number, value).
enum T {
    I(i64),
    L(Vec<T>),
    S(Vec<(u8, T)>),
}

fn varint(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn write(value: &T, out: &mut Vec<u8>) {
    match value {
        T::I(v) => varint(((v << 1) ^ (v >> 63)) as u64, out),
        T::L(list) => {
            let kind = list.first().map_or(12, kind);
            out.push(0xf0 | kind);
            varint(list.len() as u64, out);
            for v in list {
                write(v, out);
            }
        }
        T::S(fields) => {
            let mut last = 0;
            for (id, value) in fields {
                out.push((id - last) << 4 | kind(value));
                last = *id;
                write(value, out);
            }
            out.push(0);
        }
    }
}

fn kind(value: &T) -> u8 {
    match value {
        T::I(_) => 6,
        T::L(_) => 9,
        T::S(_) => 12,
    }
}

/// One column chunk: what its footer and its page header state.
#[derive(Clone)]
struct Chunk {
    codec: i64,
    values: i64,
    size: Option<i64>,
    start: i64,
    page_kind: i64,
    unpacked: i64,
    packed: i64,
    page_values: i64,
    encoding: i64,
    body: Vec<u8>,
}

/// A sound chunk of two values in eight bytes.
fn sound() -> Chunk {
    Chunk {
        codec: 0,
        values: 2,
        size: None,
        start: 4,
        page_kind: 0,
        unpacked: 8,
        packed: 8,
        page_values: 2,
        encoding: 0,
        body: vec![0; 8],
    }
}

fn file_of(chunk: &Chunk, rows: i64, schema: Vec<T>) -> Vec<u8> {
    let mut file = b"PAR1".to_vec();
    let inner = |encoding_at| {
        let mut fields = vec![
            (1, T::I(chunk.page_values)),
            (2, T::I(0)),
            (3, T::I(0)),
            (4, T::I(0)),
            (5, T::I(0)),
            (6, T::I(0)),
        ];
        fields[encoding_at] = (encoding_at as u8 + 1, T::I(chunk.encoding));
        T::S(fields)
    };
    let (field, encoding_at) = match chunk.page_kind {
        2 => (7, 1),
        3 => (8, 3),
        _ => (5, 1),
    };
    let header = T::S(vec![
        (1, T::I(chunk.page_kind)),
        (2, T::I(chunk.unpacked)),
        (3, T::I(chunk.packed)),
        (field, inner(encoding_at)),
    ]);
    write(&header, &mut file);
    file.extend(&chunk.body);
    let size = chunk.size.unwrap_or(file.len() as i64 - 4);
    let meta =
        T::S(vec![(4, T::I(chunk.codec)), (5, T::I(chunk.values)), (7, T::I(size)), (9, T::I(chunk.start))]);
    let group = T::S(vec![(1, T::L(vec![T::S(vec![(3, meta)])])), (3, T::I(rows))]);
    let footer = T::S(vec![(2, T::L(schema)), (3, T::I(rows)), (4, T::L(vec![group]))]);
    let before = file.len();
    write(&footer, &mut file);
    let len = (file.len() - before) as u32;
    file.extend(len.to_le_bytes());
    file.extend(b"PAR1");
    file
}

fn element(children: i64) -> T {
    T::S(vec![(5, T::I(children))])
}

fn flat() -> Vec<T> {
    vec![element(1), element(0)]
}

fn verdict(bytes: &[u8]) -> Result<(), String> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    check(&mut file, Limits::default())
}

#[test]
fn lies_are_found_before_they_are_believed() {
    assert_eq!(verdict(&file_of(&sound(), 2, flat())), Ok(()));
    let packed = gzip(&[0; 100]);
    let gzip_chunk = Chunk { codec: 2, unpacked: 100, packed: packed.len() as i64, body: packed, ..sound() };
    assert_eq!(verdict(&file_of(&gzip_chunk, 2, flat())), Ok(()));
    let cases = [
        (Chunk { size: Some(-1), ..sound() }, "of `-1` bytes lies outside of the file"),
        (Chunk { size: Some(1 << 60), ..sound() }, "lies outside of the file"),
        (Chunk { size: Some(i64::MAX), ..sound() }, "lies outside of the file"),
        (Chunk { start: 0, ..sound() }, "a column chunk at `0`"),
        (Chunk { start: -9, ..sound() }, "a column chunk at `-9`"),
        (Chunk { start: i64::MIN, ..sound() }, "lies outside of the file"),
        (Chunk { packed: 9, unpacked: 9, ..sound() }, "reaches past its column chunk"),
        (Chunk { packed: i64::from(i32::MAX), ..sound() }, "reaches past its column chunk"),
        (Chunk { packed: -8, ..sound() }, "the page header at `4` is not valid"),
        (Chunk { unpacked: -8, ..sound() }, "the page header at `4` is not valid"),
        (Chunk { unpacked: 1 << 40, ..sound() }, "the page header at `4` is not valid"),
        (Chunk { unpacked: 1 << 30, ..sound() }, "states two sizes"),
        (Chunk { page_values: -1, ..sound() }, "the page header at `4` is not valid"),
        (Chunk { page_kind: 9, ..sound() }, "the page header at `4` is not valid"),
        (
            Chunk { page_kind: 2, page_values: 1 << 30, ..sound() },
            "the dictionary at `4` states `1073741824` values in `8` bytes",
        ),
        (Chunk { values: 3, ..sound() }, "states `3` values and has `2`"),
        (Chunk { values: -1, ..sound() }, "states `-1` values"),
        (
            Chunk { values: 1 << 30, page_values: 1 << 30, ..sound() },
            "states `1073741824` values in `8` bytes",
        ),
        (Chunk { encoding: 7, ..sound() }, "encoded as `DELTA_BYTE_ARRAY`"),
        (Chunk { encoding: 6, page_kind: 3, ..sound() }, "encoded as `DELTA_LENGTH_BYTE_ARRAY`"),
        (Chunk { unpacked: 99, ..gzip_chunk.clone() }, "unpacks to more than it states"),
    ];
    for (chunk, expect) in cases {
        let e = verdict(&file_of(&chunk, 2, flat())).unwrap_err();
        assert!(e.contains(expect), "{e}, not {expect}");
    }
    assert_eq!(verdict(&file_of(&sound(), -1, flat())), Err("a row group has `-1` rows".to_owned()));
    let nulls = Chunk { values: 1 << 30, page_values: 1 << 30, ..sound() };
    let e = verdict(&file_of(&nulls, 1 << 30, flat())).unwrap_err();
    assert_eq!(e, "it states `1073741824` rows in `8` bytes");
    let deep: Vec<T> = (0..5000).map(|_| element(1)).chain([element(0)]).collect();
    let schemas = [
        (deep, "nested deeper than `24`"),
        (vec![element(-1)], "has `-1` children"),
        (vec![element(1 << 40)], "children"),
        (vec![element(2), element(0)], "fewer elements than it states"),
        (vec![element(1), element(0), element(0)], "more than one root"),
    ];
    for (schema, expect) in schemas {
        let e = verdict(&file_of(&sound(), 2, schema)).unwrap_err();
        assert!(e.contains(expect), "{e}, not {expect}");
    }
}

#[test]
fn footers_are_measured() {
    let good = file_of(&sound(), 2, flat());
    let with_len = |len: u32| {
        let mut file = good.clone();
        let at = file.len() - 8;
        file[at..at + 4].copy_from_slice(&len.to_le_bytes());
        file
    };
    for (bytes, expect) in [
        (vec![], "`0` bytes are too few"),
        (b"PAR1\0\0\0\0PARX".to_vec(), "it does not end with `PAR1`"),
        (b"PAR1\0\0\0\0PARE".to_vec(), "the file is encrypted"),
        (with_len(u32::MAX), "a footer of `4294967295` bytes"),
        (with_len(1), "the footer"),
        (with_len(0), "the footer is not valid"),
    ] {
        let e = verdict(&bytes).unwrap_err();
        assert!(e.contains(expect), "{e}, not {expect}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
