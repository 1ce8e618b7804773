use super::*;
use crate::dataset::CustomType;
use serde_json::json;

fn spec(value: Value) -> DatasetSpec {
    serde_json::from_value(value).unwrap()
}

fn fields(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other}"),
    }
}

fn read(spec: &DatasetSpec, row: Value) -> Result<Conversation, String> {
    let row = fields(row);
    let (_, reader) = choose(spec, &[&row]).map_err(|e| e.to_string())?;
    reader.conversation(RawRow { origin: Origin::new("a.jsonl", 17), fields: row }).map_err(|e| e.to_string())
}

/// A conversation as one line: trained turns and pieces in brackets.
fn shown(conversation: &Conversation) -> String {
    match conversation {
        Conversation::Pieces { pieces, append_eos, .. } => {
            let mut out: String =
                pieces.iter().map(|(t, s)| if *s { format!("[{t}]") } else { t.clone() }).collect();
            out.push_str(if *append_eos { "$" } else { "" });
            out
        }
        Conversation::Chat { messages, tools, template_kwargs, .. } => {
            let turn = |m: &Message| {
                let text = Value::Object(m.fields.clone()).to_string();
                if m.train { format!("[{text}]") } else { text }
            };
            let mut out = messages.iter().map(turn).collect::<Vec<_>>().join(" ");
            for extra in tools
                .iter()
                .cloned()
                .chain((!template_kwargs.is_empty()).then(|| template_kwargs.clone().into()))
            {
                out = format!("{out} {extra}");
            }
            out
        }
    }
}

use galen_types::Message;

#[test]
fn detection_and_names() {
    for (row, expect) in [
        (json!({"messages": [{"role": "user", "content": "x"}]}), Some("chat_template")),
        (json!({"messages": "[{\"role\": \"user\"}]"}), Some("chat_template")),
        (json!({"conversations": [{"role": "user", "content": "x"}]}), Some("chat_template")),
        (json!({"conversations": [{"from": "human", "value": "x"}]}), Some("sharegpt")),
        (json!({"instruction": "a", "output": "b"}), Some("alpaca")),
        (json!({"prompt": "a", "completion": "b"}), Some("prompt_completion")),
        (json!({"segments": [{"label": true, "text": "x"}]}), Some("input_output")),
        (json!({"text": "a"}), Some("completion")),
        (json!({"question": "a"}), None),
    ] {
        let row = fields(row);
        assert_eq!(detect(&[&row]).map(|t| t.name), expect, "{row:?}");
    }
    let (a, b) = (fields(json!({"text": "a"})), fields(json!({"other": "a"})));
    assert!(detect(&[&a, &b]).is_none(), "all rows must look like it");
    for (name, expect) in [
        ("messages", Ok("chat_template")),
        ("text", Ok("completion")),
        ("chat_template.default", Ok("chat_template")),
        ("alpaca:chatml", Ok("alpaca")),
        ("alpacca", Err("D: unknown dataset `type: alpacca`\nhint: did you mean `alpaca`?")),
        (
            "alpaca:chatmll",
            Err("D: `type: alpaca` has no variant `chatmll`\nhint: did you mean `alpaca:chatml`?"),
        ),
        ("completion:x", Err("D: `type: completion` has no variant `x`")),
    ] {
        let spec = spec(json!({"path": "D", "type": name}));
        let found = build(&spec).map(|b| b.map(|b| b.0)).map_err(|e| e.to_string());
        assert_eq!(found, expect.map(Some).map_err(str::to_owned), "{name}");
    }
    let e = read(&spec(json!({"path": "D"})), json!({"question": "a"})).unwrap_err();
    assert!(
        e.starts_with("D: cannot tell the dataset type from the fields `question`\nhint: set `type:`"),
        "{e}"
    );
    let mut names = std::collections::HashSet::new();
    assert!(TYPES.iter().flat_map(|t| t.aliases.iter().chain([&t.name])).all(|n| names.insert(*n)));
}

#[test]
fn plain_text_types() {
    let custom = json!({"type": {"field_instruction": "q", "field_output": "a", "format": "[INST] {instruction} {input} [/INST]",
        "no_input_format": "[INST] {instruction} [/INST]", "system_format": "<<{system}>>", "system_prompt": "Be kind."}});
    let cases = [
        // Expected prompts: Axolotl's AlpacaPrompter on the same rows.
        (
            json!({}),
            json!({"instruction": "Add.", "input": "1 {2}", "output": "3"}),
            "Below is an instruction that describes a task, paired with an input that provides further context. Write a \
          response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n### Input:\n1 {2}\n\n### \
          Response:\n[3]$",
        ),
        (
            json!({}),
            json!({"instruction": "Add.", "input": "", "output": "3"}),
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n\
          ### Instruction:\nAdd.\n\n### Response:\n[3]$",
        ),
        (
            json!({"type": "alpaca:chat"}),
            json!({"instruction": "Add.", "output": "3"}),
            "SYSTEM: Below is an instruction that describes a task. Write a response that appropriately completes the \
          request.\nUSER: Add.\nASSISTANT:[3]$",
        ),
        (custom.clone(), json!({"q": "x", "a": 7}), "<<Be kind.>>[INST] x [/INST][7]$"),
        (
            custom.clone(),
            json!({"q": "x", "input": "y", "a": "z", "system": "s"}),
            "<<s>>[INST] x y [/INST][z]$",
        ),
        (json!({"type": {"field_instruction": "q"}}), json!({"q": "x", "output": "z"}), "x [z]$"),
        (json!({}), json!({"text": "abc"}), "[abc]$"),
        (json!({"field": "body"}), json!({"body": "abc"}), "[abc]$"),
        (json!({}), json!({"prompt": "p ", "completion": "c"}), "p [c]$"),
        (
            json!({}),
            json!({"segments": [{"label": false, "text": "a"}, {"label": true, "text": "b"}, {"label": true, "text": ""}]}),
            "a[b]",
        ),
    ];
    for (given, row, expect) in cases {
        assert_eq!(read(&spec(given), row.clone()).map(|c| shown(&c)), Ok(expect.to_owned()), "{row}");
    }
}

#[test]
fn chats() {
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    let stringly = json!([{"type": "function", "function": {"name": "f", "strict": null, "parameters": "{\"type\": \"object\"}"}}]);
    let cases = [
        (json!({}), json!({"messages": [{"role": "human", "content": "q"}, {"role": "assistant", "content": "a"}]}),
         r#"{"role":"user","content":"q"} [{"role":"assistant","content":"a"}]"#.to_owned()),
        // Flags of a turn decide before its role, and never reach the template.
        (json!({"message_field_training": "learn"}), json!({"messages": [
            {"role": "user", "content": "q", "train": true}, {"role": "assistant", "content": "a", "weight": 0},
            {"role": "assistant", "content": "b", "train": null}, {"role": "assistant", "content": "c", "learn": false, "train": true}]}),
         r#"[{"role":"user","content":"q"}] {"role":"assistant","content":"a"} [{"role":"assistant","content":"b"}] {"role":"assistant","content":"c"}"#.to_owned()),
        (json!({"roles_to_train": ["human", "tool"], "roles": {"user": ["human"], "bot": ["model"]}}),
         json!({"messages": [{"role": "human", "content": "q"}, {"role": "model", "content": "a"}, {"role": "tool", "content": ""}]}),
         r#"[{"role":"user","content":"q"}] {"role":"bot","content":"a"} [{"role":"tool","content":""}]"#.to_owned()),
        (json!({"field_messages": "chat", "message_property_mappings": {"role": "who", "content": "says"}, "field_thinking": "thought"}),
         json!({"chat": [{"says": "q", "who": "user"}, {"who": "assistant", "says": "a", "thought": "t"}]}),
         r#"{"role":"user","content":"q"} [{"role":"assistant","content":"a","reasoning_content":"t"}]"#.to_owned()),
        (json!({"type": "sharegpt"}), json!({"system": "S", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}),
         r#"{"role":"system","content":"S"} {"role":"user","content":"q"} [{"role":"assistant","content":"a"}]"#.to_owned()),
        (json!({"drop_system_message": true}), json!({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}]}),
         r#"{"role":"user","content":"q"}"#.to_owned()),
        // Tools and calls given as text become JSON; nulls of shared columns go.
        (json!({}), json!({"tools": stringly, "chat_template_kwargs": {"enable_thinking": false}, "messages": [
            {"role": "assistant", "content": null, "tool_calls": [{"id": null, "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
            {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "tool_calls": []}]}),
         format!(r#"[{{"role":"assistant","tool_calls":[{{"function":{{"name":"f","arguments":{{"x":1}}}}}}]}}] [{{"role":"assistant","content":"ab"}}] [{tool}] {{"enable_thinking":false}}"#)),
        (json!({}), json!({"tools": json!([tool]).to_string(), "messages": json!([{"role": "user", "content": "q"}]).to_string()}),
         format!(r#"{{"role":"user","content":"q"}} [{tool}]"#)),
        (json!({}), json!({"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}),
         r#"{"role":"user","content":"q"} [{"role":"assistant","content":"a"}]"#.to_owned()),
        (json!({}), json!({"system": "S", "prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}),
         r#"{"role":"system","content":"S"} {"role":"user","content":"q"} [{"role":"assistant","content":"a"}]"#.to_owned()),
        (json!({"drop_system_message": true}), json!({"prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "q"}],
            "completion": [{"role": "assistant", "content": "a"}]}),
         r#"{"role":"user","content":"q"} [{"role":"assistant","content":"a"}]"#.to_owned()),
        (json!({}), json!({"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "q", "name": "n"}]}),
         r#"{"role":"system","content":""} {"role":"user","content":"q","name":"n"}"#.to_owned()),
    ];
    for (given, row, expect) in cases {
        assert_eq!(read(&spec(given), row.clone()).map(|c| shown(&c)), Ok(expect), "{row}");
    }
}

#[test]
fn bad_rows_say_what_is_wrong() {
    let turns = |turn: Value| json!({"messages": [turn]});
    let cases = [
        (
            json!({"type": "chat_template"}),
            json!({"mesages": []}),
            "field `messages` is missing\nhint: did you mean `mesages`?",
        ),
        (
            json!({"type": "chat_template"}),
            json!({"q": 1}),
            "field `messages` is missing\nhint: the row has `q`",
        ),
        (json!({"type": "chat_template"}), json!({"messages": null}), "field `messages` is null"),
        (json!({"type": "chat_template"}), json!({"messages": []}), "`messages` has no turns"),
        (
            json!({"type": "chat_template"}),
            json!({"messages": {"a": 1}}),
            "`messages` should be a list of turns, found an object",
        ),
        (
            json!({"type": "chat_template"}),
            json!({"messages": "hello"}),
            "`messages` is a string but not a JSON list of turns: expected value at line 1 column 1",
        ),
        (
            json!({"type": "chat_template"}),
            turns(json!("hello")),
            "turn 1: should be an object, found a string",
        ),
        (
            json!({"type": "chat_template"}),
            turns(json!({"from": "gpt", "value": "x"})),
            "turn 1: field `role` is missing\nhint: turns of `from` and `value` are `type: sharegpt`",
        ),
        (
            json!({}),
            turns(json!({"role": 1, "content": "x"})),
            "turn 1: its role should be a string, found a number",
        ),
        (json!({}), turns(json!({"role": "assistant", "content": " \n"})), "turn 1: assistant turn is empty"),
        (json!({}), turns(json!({"role": "user"})), "turn 1: user turn has no `content`"),
        (
            json!({}),
            turns(json!({"role": "user", "content": 7})),
            "turn 1: its content should be a string, found a number",
        ),
        (
            json!({}),
            turns(json!({"role": "user", "content": [{"type": "image"}]})),
            "turn 1: a content part of type `image`; galen trains on text",
        ),
        (
            json!({}),
            turns(json!({"role": "user", "content": "x", "weight": 0.5})),
            "turn 1: `weight` should be true, false, 0 or 1, found `0.5`",
        ),
        (
            json!({}),
            turns(json!({"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]})),
            "turn 1: the arguments of a tool call are not JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            json!({}),
            json!({"messages": [{"role": "user", "content": "x"}], "tools": {"a": 1}}),
            "`tools` should be a list of tool definitions, found an object",
        ),
        (
            json!({}),
            json!({"messages": [{"role": "user", "content": "x"}], "images": ["a.png"]}),
            "the row has `images`; galen trains on text",
        ),
        (json!({}), json!({"instruction": "x", "output": ""}), "`output` is empty"),
        (
            json!({"type": "alpaca"}),
            json!({"instruction": ["x"], "output": "y"}),
            "`instruction` should be a string, found a list",
        ),
        (
            json!({}),
            json!({"segments": [{"label": "yes", "text": "x"}]}),
            "`label` should be a boolean, found a string",
        ),
        (
            json!({"type": "input_output"}),
            json!({"segments": [{"label": true, "text": ""}]}),
            "all `segments` are empty",
        ),
        (
            json!({}),
            json!({"prompt": [], "completion": "x"}),
            "`prompt` should be a string, as its other half is, found a list",
        ),
        (json!({}), json!({"prompt": [], "completion": []}), "`completion` has no turns"),
        (json!({}), json!({"text": "  "}), "`text` is empty"),
    ];
    for (given, row, expect) in cases {
        let found = read(&spec(given), row.clone()).map(|c| shown(&c));
        assert_eq!(found, Err(format!("a.jsonl:17: {expect}")), "{row}");
    }
    for (format, expect) in [
        ("{instruction} {", "D: a lone `{` in `{instruction} {`; write `{{` for a brace"),
        ("{question}", "D: unknown place `{question}` in `{question}`; known: `instruction`, `input`"),
    ] {
        let custom = CustomType { format: Some(format.to_owned()), ..CustomType::default() };
        let spec = DatasetSpec {
            path: "D".to_owned(),
            kind: Some(TypeSpec::Custom(Box::new(custom))),
            ..DatasetSpec::default()
        };
        assert_eq!(build(&spec).err().map(|e| e.to_string()).as_deref(), Some(expect));
    }
}

#[test]
fn fuzz() {
    let reader = |t: &DatasetType| build(&spec(json!({"type": t.name}))).unwrap().unwrap().1;
    let readers: Vec<_> = TYPES.iter().map(reader).collect();
    let (mut sound, mut detected) = (0, 0);
    let inputs = galen_testkit::fuzz::run("rows", &galen_testkit::fuzz::corpus("rows"), |bytes| {
        let Ok(Value::Object(fields)) = serde_json::from_slice(bytes) else { return };
        detected += u64::from(detect(&[&fields]).is_some());
        for reader in &readers {
            let row = RawRow { origin: Origin::new("F", 1), fields: fields.clone() };
            sound += u64::from(reader.conversation(row).is_ok());
        }
    });
    println!("rows: {inputs} inputs, {detected} of a type, {sound} readings");
    assert!(sound > 0 && detected > 0);
}
