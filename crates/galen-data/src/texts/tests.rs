use super::*;
use crate::dataset::TypeSpec;
use serde_json::json;

fn open(rows: &[Value], kind: Option<TypeSpec>, fields: &[&str]) -> Result<TextRows, DataError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.jsonl");
    std::fs::write(&path, rows.iter().map(|r| format!("{r}\n")).collect::<String>()).unwrap();
    let spec = DatasetSpec { path: "d.jsonl".into(), kind, ..DatasetSpec::default() };
    let fields: Vec<String> = fields.iter().map(|f| (*f).to_owned()).collect();
    let mut opened = TextRows::open(&spec, &fields, &|_| Ok(path.clone()), Limits::default())?;
    // Read to the end while the folder is there.
    let all: Vec<_> = opened.head.chain(opened.rest).collect();
    opened.head = all.into_iter();
    opened.rest = Box::new(std::iter::empty());
    Ok(opened)
}

/// Texts of the first row, answers behind a `>`.
fn said(row: &Value, kind: Option<TypeSpec>, fields: &[&str]) -> Result<String, String> {
    let row = open(std::slice::from_ref(row), kind, fields).and_then(|mut rows| rows.next().unwrap());
    let row = row.map_err(|e| e.to_string().rsplit("d.jsonl").next().unwrap_or_default().to_owned())?;
    Ok(row
        .texts
        .iter()
        .map(|t| format!("{}{}", if t.answer { ">" } else { "" }, t.text))
        .collect::<Vec<_>>()
        .join("|"))
}

#[test]
fn what_rows_of_each_kind_say() {
    let turns = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hi", "reasoning_content": "A greeting."},
    ]);
    let alpaca = json!({"instruction": "Add.", "input": "1 2", "output": "3", "id": "x7"});
    for (row, expect) in [
        (json!({"messages": turns}), "Hello|>A greeting.\nHi"),
        (alpaca.clone(), "Add.\n1 2|>3"),
        (json!({"text": "Plain."}), "Plain."),
        (json!({"prompt": "P", "completion": "C", "label": true}), "P|>C"),
        (json!({"question": "Q", "answer": "A", "id": "7"}), "Q|>A"),
        (json!({"prompt": "P", "chosen": "good", "rejected": "bad"}), "P|>good|>bad"),
        (json!({"a": "one", "n": 3, "b": {"c": ["two", null]}}), "one|two"),
    ] {
        assert_eq!(said(&row, None, &[]).as_deref(), Ok(expect), "{row}");
    }
    let named = |name: &str| Some(TypeSpec::Named(name.into()));
    // Answers beside a chat are compared too, whether or not the type is named.
    let question = json!([{"role": "user", "content": "Q"}]);
    for (row, expect) in [
        (json!({"messages": question, "chosen": "good", "rejected": "bad"}), "Q|>good|>bad"),
        (json!({"messages": question, "completion": "C", "label": false}), "Q|>C"),
    ] {
        for kind in [None, named("chat_template"), named("chat_template.default")] {
            assert_eq!(said(&row, kind.clone(), &[]).as_deref(), Ok(expect), "{row} {kind:?}");
        }
    }
    let renamed: TypeSpec =
        serde_json::from_value(json!({"field_prompt": "q", "field_chosen": "a", "field_rejected": "b"}))
            .unwrap();
    assert_eq!(said(&json!({"q": "Q", "a": "A", "b": "B"}), Some(renamed), &[]).as_deref(), Ok("Q|>A|>B"));
    // A question under a name that the answers' type does not read is not lost.
    assert_eq!(
        said(&json!({"text": "T", "chosen": "good", "rejected": "bad"}), None, &[]).as_deref(),
        Ok("T|good|bad")
    );
    // A chat stays one where nothing is compared.
    assert_eq!(
        said(&json!({"messages": turns}), named("chat_template"), &[]).as_deref(),
        Ok("Hello|>A greeting.\nHi")
    );
    assert_eq!(said(&alpaca, named("alpaca:chat"), &[]).as_deref(), Ok("Add.\n1 2|>3"));
    let pair = json!({"question": "Q", "chosen": "good", "rejected": "bad"});
    assert_eq!(said(&pair, named("intel"), &[]).as_deref(), Ok("Q|>good|>bad"));
    let custom: TypeSpec = serde_json::from_value(
        json!({"field_instruction": "q", "field_output": "a", "format": "Say {instruction}"}),
    )
    .unwrap();
    assert_eq!(said(&json!({"q": "Q", "a": "A"}), Some(custom), &[]).as_deref(), Ok("Q|>A"));
    assert_eq!(said(&alpaca, None, &["id", "output"]).as_deref(), Ok("x7|3"));
    assert_eq!(said(&json!({"a": {"b": ["x", "y"]}}), None, &["a.b"]).as_deref(), Ok("x\ny"));
}

#[test]
fn rows_that_say_nothing_are_named() {
    let line = |row: &Value, fields: &[&str]| said(row, None, fields).unwrap_err();
    assert_eq!(line(&json!({"n": 3}), &[]), ":1: the row has no text to compare");
    assert_eq!(line(&json!({"text": "..."}), &[]), ":1: the row has no text to compare");
    assert!(line(&json!({"text": " "}), &[]).starts_with(":1: `text` is empty"));
    assert_eq!(
        line(&json!({"a": "x", "b": "y"}), &["c"]),
        ":1: field `c` is missing\nhint: the row has `a`, `b`"
    );
    assert_eq!(line(&json!({"a": [1]}), &["a"]), ":1: `a` should hold text, found a list without any");
    assert_eq!(line(&json!({"a": null}), &["a"]), ":1: the row has no text to compare");
    let unknown = said(&json!({"a": "x"}), Some(TypeSpec::Named("alpacca".into())), &[]).unwrap_err();
    assert!(unknown.contains("did you mean `alpaca`?"), "{unknown}");
    assert!(open(&[], None, &[]).is_err());
}

#[test]
fn a_bad_row_among_good_ones_ends_nothing() {
    let rows: Vec<Value> =
        (0..12).map(|i| if i == 3 || i == 10 { json!(i) } else { json!({"text": "x"}) }).collect();
    let read: Vec<_> = open(&rows, None, &[]).unwrap().collect();
    let bad: Vec<usize> = read.iter().enumerate().filter(|(_, r)| r.is_err()).map(|(i, _)| i).collect();
    assert_eq!((read.len(), bad), (12, vec![3, 10]));
    assert_eq!(
        open(&rows, None, &[]).unwrap().about(),
        "the texts of type `completion`, without system turns"
    );
}
