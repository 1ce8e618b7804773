use super::*;
use serde_json::json;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn load_from(folder: &tempfile::TempDir, spec: Value, on_bad_row: OnBadRow) -> Result<Loaded, String> {
    let spec: DatasetSpec = serde_json::from_value(spec).unwrap();
    let resolve = |spec: &DatasetSpec| match spec.path.as_str() {
        "missing" => Err("no such data set".to_owned()),
        path => Ok(folder.path().join(path)),
    };
    load(&spec, &resolve, on_bad_row, Limits::default())
        .map_err(|e| e.to_string().replace(&folder.path().display().to_string(), ""))
}

fn texts(loaded: &Loaded) -> String {
    let text = |c: &Conversation| match c {
        Conversation::Pieces { pieces, .. } => pieces[0].0.clone(),
        Conversation::Chat { .. } => "chat".to_owned(),
    };
    loaded.rows.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[test]
fn entries_find_their_rows() {
    let a = "{\"text\": \"a1\"}\n{\"text\": \"a2\"}\n{\"text\": \"a3\"}\n{\"text\": \"a4\"}\n";
    let folder = folder(&[
        ("one.jsonl", a),
        ("many/x.jsonl", "{\"text\": \"x\"}\n"),
        ("many/y.csv", "text\ny\n"),
        ("hub/german/train-0.jsonl", "{\"text\": \"g\"}\n"),
        ("hub/german/test-0.jsonl", "{\"text\": \"t\"}\n"),
        ("odd.data", a),
    ]);
    let odd = folder.path().join("odd.data").display().to_string();
    for (spec, expect) in [
        (json!({"path": "one.jsonl"}), Ok("a1 a2 a3 a4")),
        (json!({"path": "one.jsonl", "split": "train[1:3]"}), Ok("a2 a3")),
        (json!({"path": "one.jsonl", "split": "train[:25%]"}), Ok("a1")),
        (json!({"path": "many"}), Ok("x y")),
        (json!({"path": "many", "data_files": "y.csv"}), Ok("y")),
        (json!({"path": "many", "data_files": ["y.csv", "x.jsonl"]}), Ok("y x")),
        (json!({"path": "hub", "name": "german"}), Ok("g")),
        (json!({"path": "hub", "name": "german", "split": "test"}), Ok("t")),
        (json!({"path": "odd.data", "ds_type": "json"}), Ok("a1 a2 a3 a4")),
        (json!({"path": "json", "data_files": odd}), Ok("a1 a2 a3 a4")),
        (json!({"path": "odd.data"}), Err("/odd.data: not a data file galen can read")),
        (json!({"path": "missing"}), Err("missing: no such data set")),
        (
            json!({"path": "one.jsonl", "ds_type": "arrow"}),
            Err("one.jsonl: unknown `ds_type: arrow`\nhint: known: `jsonl`"),
        ),
        (
            json!({"path": "one.jsonl", "split": "train[9:]"}),
            Err("one.jsonl: `split: train[9:]` takes none of `4` rows"),
        ),
        (json!({"path": "one.jsonl", "type": "alpaca"}), Err("/one.jsonl:1: field `instruction` is missing")),
    ] {
        let found = load_from(&folder, spec.clone(), OnBadRow::Error).map(|l| texts(&l));
        match expect {
            Ok(expect) => assert_eq!(found.as_deref(), Ok(expect), "{spec}"),
            Err(expect) => assert!(found.clone().unwrap_err().starts_with(expect), "{spec}: {found:?}"),
        }
    }
}

#[test]
fn bad_rows_stop_or_are_counted() {
    let text = "{\"text\": \"a\"}\n{\"text\": \n{\"text\": \"\"}\n{\"txt\": \"b\"}\n{\"text\": [1]}\n{\"text\": \"c\"}\n";
    let folder = folder(&[("a.jsonl", text)]);
    let spec = json!({"path": "a.jsonl", "type": "completion"});
    let e = load_from(&folder, spec.clone(), OnBadRow::Error).unwrap_err();
    assert!(e.starts_with("/a.jsonl:2: not valid JSON"), "{e}");
    let loaded = load_from(&folder, spec, OnBadRow::Skip).unwrap();
    assert_eq!(texts(&loaded), "a c");
    let faults: Vec<_> = loaded.bad_rows.iter().map(|b| b.fault).collect();
    assert_eq!(faults, [Fault::Syntax, Fault::EmptyTurn, Fault::MissingField, Fault::WrongKind]);
    assert!(
        loaded.bad_rows[2].text.ends_with("a.jsonl:4: field `text` is missing\nhint: did you mean `txt`?")
    );
}

#[test]
fn key_lists_are_the_structs() {
    let full = |value: Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let spec: Map<String, Value> = DATASET_KEYS
        .iter()
        .map(|k| {
            let value = match *k {
                "message_property_mappings" => json!({"role": "r"}),
                "roles" => json!({"user": ["u"]}),
                "roles_to_train" => json!(["assistant"]),
                "train_on_eos" | "train_on_eot" => json!("last"),
                "drop_system_message" => json!(true),
                _ => json!("x"),
            };
            ((*k).to_owned(), value)
        })
        .collect();
    let parsed: DatasetSpec = serde_json::from_value(spec.clone().into()).unwrap();
    let mut written = full(serde_json::to_value(&parsed).unwrap());
    let mut listed: Vec<_> = DATASET_KEYS.iter().map(|k| (*k).to_owned()).collect();
    written.sort();
    listed.sort();
    assert_eq!(written, listed, "a key is not read, or not listed");
    let preference: Map<String, Value> =
        PREFERENCE_KEYS.iter().map(|k| ((*k).to_owned(), json!(format!("x {k}")))).collect();
    for kind in ["entry", "type"] {
        let written = match kind {
            "entry" => serde_json::to_value(
                serde_json::from_value::<DatasetSpec>(preference.clone().into()).unwrap(),
            ),
            _ => {
                serde_json::to_value(serde_json::from_value::<CustomType>(preference.clone().into()).unwrap())
            }
        };
        let mut written = written.unwrap();
        written.as_object_mut().unwrap().remove("path");
        assert_eq!(written, Value::Object(preference.clone()), "{kind}");
    }
    let custom: Map<String, Value> = CUSTOM_TYPE_KEYS.iter().map(|k| ((*k).to_owned(), json!("x"))).collect();
    let parsed: CustomType = serde_json::from_value(custom.into()).unwrap();
    assert_eq!(full(serde_json::to_value(&parsed).unwrap()).len(), CUSTOM_TYPE_KEYS.len());
}
