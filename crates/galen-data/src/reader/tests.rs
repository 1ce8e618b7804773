use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value};
use std::io::Write;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../datasets/fixtures").join(name)
}

fn read(path: &Path, limits: Limits) -> Result<Vec<RawRow>, DataError> {
    open_file(path, "F", None, limits)?.collect()
}

/// The rows as JSON, their null fields left out (formats differ in whether they have them).
fn values(path: &Path) -> Vec<Value> {
    fn lean(value: &mut Value) {
        match value {
            Value::Object(o) => {
                o.retain(|_, v| !v.is_null());
                o.values_mut().for_each(lean);
            }
            Value::Array(a) => a.iter_mut().for_each(lean),
            _ => {}
        }
    }
    let rows = read(path, Limits::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    rows.into_iter()
        .map(|r| {
            let mut value = Value::Object(r.fields);
            lean(&mut value);
            value
        })
        .collect()
}

fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn every_format_gives_the_same_rows() {
    // Written by pyarrow, csv, json, gzip: datasets/fixtures/make.py.
    let expected = values(&fixture("rows.jsonl"));
    assert_eq!(expected.len(), 3);
    assert_eq!(expected[0]["messages"][1]["content"], "Too little blood.");
    for name in [
        "rows.json",
        "rows_data.json",
        "rows.jsonl.gz",
        "rows.jsonl.zst",
        "rows_none.parquet",
        "rows_snappy.parquet",
        "rows_gzip.parquet",
        "rows_zstd.parquet",
        "rows_lz4.parquet",
        "rows_v2.parquet",
        "rows.parquet.gz",
    ] {
        assert_eq!(values(&fixture(name)), expected, "{name}");
    }
    let csv = values(&fixture("rows.csv"));
    for (row, expected) in csv.iter().zip(&expected) {
        assert_eq!(row["id"], expected["id"].to_string());
        assert_eq!(row["text"], expected["text"]);
    }
    assert_eq!(csv.len(), 3);
}

#[test]
fn origins_name_lines_or_records() {
    let lines = |name, bytes: &[u8]| {
        let (_folder, path) = written(name, bytes);
        let rows = open_file(&path, "F", None, Limits::default()).unwrap();
        rows.map(|r| r.map_or_else(|e| e.to_string(), |r| r.origin.to_string())).collect::<Vec<_>>()
    };
    let cases: &[(&str, &[u8], &[&str])] = &[
        (
            "a.jsonl",
            b"\xef\xbb\xbf{}\n\n{\"a\":}\r\n{}",
            &["F:1", "F:3: not valid JSON: expected value (column 6)", "F:4"],
        ),
        (
            "a.jsonl",
            b"[1]\n\xff\n",
            &[
                "F:1: expected a JSON object, found a list\nhint: a list of rows is a `.json` file",
                "F:2: it is not UTF-8\nhint: `iconv -f latin1 -t utf8` (or `-f utf16`) makes it so",
            ],
        ),
        (
            "a.json",
            b" [ {}, 3 , {\"a\": [\"]}\", {}]} ] ",
            &["F:1", "F:2: expected a JSON object, found a number", "F:3"],
        ),
        ("a.json", b"{\"a\": 1}\n{\"data\": []}\n{}", &["F:1", "F:2", "F:3"]),
        ("a.json", b"{\"data\": [{\"x\": 1}, {\"x\": 2}], \"v\": 1}", &["F:1", "F:2"]),
        ("a.json", b"{\"data\": [1, 2]}", &["F:1"]),
        ("a.json", b"", &[]),
        ("a.json", b"[]", &[]),
        ("a.json", b"[{}", &["F:1", "F:1: not valid JSON: the array does not end"]),
        ("a.json", b"[{} {}]", &["F:1", "F:1: not valid JSON: expected `,` or `]`"]),
        ("a.json", b"[{}] x", &["F:1", "F:1: not valid JSON: text behind the array"]),
        (
            "a.json",
            b"\n[\n{\"a\": \"",
            &["F:3: not valid JSON: the file ends within a value that begins here"],
        ),
        ("a.json", b"]", &["F:1: not valid JSON: expected value (column 1)"]),
        ("a.csv", b"a,b\n1,2\n3\n\"x\ny\",4\n", &["F:2", "F:3: `1` values for `2` columns", "F:4"]),
        ("a.csv", b"a\n\xff\nb\n", &["F:2: not valid UTF-8 in column `1`", "F:3"]),
        ("a.txt", b"one\r\n\ntwo", &["F:1", "F:3"]),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(lines(name, bytes), *expected, "{name} {:?}", String::from_utf8_lossy(bytes));
    }
    let e = open_file(Path::new("a.docx"), "a.docx", None, Limits::default()).err().unwrap().to_string();
    assert!(e.starts_with("a.docx: not a data file galen can read\nhint: known endings: .jsonl"), "{e}");
    let (_folder, twice) = written("a.csv", b"q,q,a\n1,2,3\n");
    let e = read(&twice, Limits::default()).unwrap_err().to_string();
    assert!(e.contains("F:1: column `q` is there twice"), "{e}");
    assert!(open_file(Path::new("/nonexistent/a.csv"), "F", None, Limits::default()).is_err());
}

#[test]
fn limits_hold() {
    let limits = Limits { max_row_bytes: 100, ..Limits::default() };
    let long = format!("{{\"a\": \"{}\"}}\n", "x".repeat(200));
    let in_array = format!("[{long}]");
    let cell = format!("a\n\"{}\n", "x".repeat(300_000));
    for (name, text) in
        [("a.jsonl", &long), ("a.json", &in_array), ("a.json", &long), ("a.txt", &long), ("a.csv", &cell)]
    {
        let (_folder, path) = written(name, text.as_bytes());
        let e = read(&path, limits).unwrap_err().to_string();
        assert!(e.contains("row is longer than the limit of `100` bytes"), "{name}: {e}");
        assert!(e.starts_with("F:1") || e.starts_with("F:2"), "{e}");
    }
    // 80 MB of spaces pack into a few kB.
    let bomb = vec![b' '; 80 << 20];
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&bomb).unwrap();
    let (_folder, path) = written("a.json.gz", &gz.finish().unwrap());
    let strict = Limits { max_unpack_ratio: 10, ..Limits::default() };
    let e = read(&path, strict).unwrap_err().to_string();
    assert!(e.contains("unpacks to more than the limit"), "{e}");
    let tiny = Limits { max_unpacked_bytes: 1000, ..Limits::default() };
    let (_folder, path) = written("a.jsonl.zst", &zstd::encode_all(&bomb[..5000], 3).unwrap());
    let e = read(&path, tiny).unwrap_err().to_string();
    assert!(e.contains("unpacks to more than the limit of `1000` bytes"), "{e}");
    for name in ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"] {
        let (_folder, path) = written(name, b"this is not what its ending says");
        assert!(read(&path, Limits::default()).is_err(), "{name}");
    }
    let e = read(&fixture("rows_none.parquet"), Limits { max_unpacked_bytes: 50, ..limits }).unwrap_err();
    assert!(e.to_string().contains("unpack to more than the limit"), "{e}");
}

#[test]
fn hostile_parquet_never_panics() {
    // Every second byte of two files: the whole of all four took a minute and found the same.
    for name in ["rows_gzip.parquet", "rows_v2.parquet"] {
        let good = std::fs::read(fixture(name)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let mut refused = 0;
        let mut attempt = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            refused += u32::from(read(&path, Limits::default()).is_err());
        };
        for n in (0..good.len()).step_by(101) {
            attempt(&good[..n]);
        }
        for at in (0..good.len()).step_by(2) {
            let mut bad = good.clone();
            bad[at] = if at % 4 == 0 { 0xff } else { good[at].wrapping_add(1) };
            attempt(&bad);
        }
        assert!(refused > 200, "{name}: {refused}");
    }
    let e = read(&fixture("refused_delta_byte_array.parquet"), Limits::default()).unwrap_err().to_string();
    assert_eq!(
        e,
        "F: not valid Parquet: a column is encoded as `DELTA_BYTE_ARRAY`, which galen does not read"
    );
}

#[test]
fn folders_give_their_data_files() {
    let folder = tempfile::tempdir().unwrap();
    let touch = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "{}\n").unwrap();
    };
    let names = |split: &str| {
        data_files(folder.path(), split).map(|files| {
            let name = |f: PathBuf| f.strip_prefix(folder.path()).unwrap().display().to_string();
            files.into_iter().map(name).collect::<Vec<_>>().join(" ")
        })
    };
    assert!(names("train").unwrap_err().to_string().ends_with("the folder holds no data files"));
    for name in ["b.jsonl", "a/c.csv.gz", ".hidden.jsonl", "README.md", "dataset_infos.json"] {
        touch(name);
    }
    assert_eq!(names("train").unwrap(), "a/c.csv.gz b.jsonl");
    assert!(names("test").is_err());
    touch("data/train-00000-of-00001.parquet");
    touch("data/test-00000-of-00001.parquet");
    touch("data/train_extra-00000.parquet");
    assert_eq!(names("train").unwrap(), "data/train-00000-of-00001.parquet");
    assert_eq!(names("train_extra").unwrap(), "data/train_extra-00000.parquet");
    assert_eq!(names("test").unwrap(), "data/test-00000-of-00001.parquet");
    let e = names("validation").unwrap_err().to_string();
    assert!(e.contains("no file of the split `validation`\nhint: there is `test`, `train`"), "{e}");
    let one = folder.path().join("b.jsonl");
    assert_eq!(data_files(&one, "whatever").unwrap(), [one]);
    let rows = open_files(data_files(folder.path(), "train_extra").unwrap(), None, Limits::default());
    assert_eq!(rows.count(), 1, "one error, then the end");
}

#[test]
fn an_evaluation_set_is_never_the_training_split() {
    let folder = tempfile::tempdir().unwrap();
    let touch = |name: &str| std::fs::write(folder.path().join(name), "{}\n").unwrap();
    let found = || {
        evaluation_files(folder.path()).map(|(files, split)| {
            let name = |f: &PathBuf| f.strip_prefix(folder.path()).unwrap().display().to_string();
            (files.iter().map(name).collect::<Vec<_>>().join(" "), split)
        })
    };
    assert!(found().unwrap_err().to_string().ends_with("the folder holds no data files"));
    touch("b.jsonl");
    touch("a.csv");
    assert_eq!(found().unwrap(), ("a.csv b.jsonl".into(), None));
    touch("train.jsonl");
    let e = found().unwrap_err().to_string();
    assert!(e.contains("without a split `test` or `validation`") && e.contains("\nhint: "), "{e}");
    touch("dev.jsonl");
    assert_eq!(found().unwrap(), ("dev.jsonl".into(), Some("validation")));
    touch("eval.jsonl");
    assert_eq!(found().unwrap(), ("eval.jsonl".into(), Some("test")));
    let one = folder.path().join("train.jsonl");
    assert_eq!(evaluation_files(&one).unwrap(), (vec![one.clone()], None));
    assert!(evaluation_files(&folder.path().join("nowhere")).is_err());
}

#[test]
fn the_registry_is_sound() {
    let mut seen = std::collections::HashSet::new();
    for format in FORMATS {
        assert!(seen.insert(format.name));
        for extension in format.extensions {
            assert!(seen.insert(extension) || *extension == format.name, "{extension}");
            let path = PathBuf::from(format!("x.{extension}.gz"));
            assert_eq!(format_by_extension(&path).map(|f| f.name), Some(format.name));
        }
        assert_eq!(format_by_name(format.name).map(|f| f.name), Some(format.name));
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[\\[\\]{}\",:\\\\ \n\u{e9}a]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a\"\\\\]{0,3}", inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn streamed_json_is_what_serde_reads(rows in prop::collection::vec(any_value(), 0..6), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&rows) } else { serde_json::to_string(&rows) }.unwrap();
        let (_folder, path) = written("a.json", text.as_bytes());
        let found: Vec<Option<Map<String, Value>>> = open_file(&path, "F", None, Limits::default())
            .unwrap()
            .map(|r| match r {
                Ok(row) => Some(row.fields),
                Err(e) => { assert_eq!(e.fault(), Some(crate::Fault::Syntax), "{e}"); None }
            })
            .collect();
        let expected: Vec<_> = rows.into_iter().map(|v| if let Value::Object(o) = v { Some(o) } else { None }).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(b'{'), Just(b'['), Just(b','), Just(b'}'), Just(b'\n')], 0..200), which in 0..6_usize) {
        let name = ["a.json", "a.jsonl", "a.csv", "a.txt", "a.parquet", "a.json.zst"][which];
        let (_folder, path) = written(name, &bytes);
        if let Ok(rows) = open_file(&path, "F", None, Limits::default()) {
            prop_assert!(rows.count() <= bytes.len() + 1);
        }
        let _ = thrift::read_struct(&bytes);
    }
}
