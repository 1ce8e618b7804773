//! Preference types against hand-worked readings.

use super::*;
use galen_types::{Answer, Boundary, Message, Origin, Prompt};
use serde_json::{Value, json};

fn fields(value: Value) -> Fields {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other}"),
    }
}

fn read(spec: Value, row: Value) -> Result<(&'static str, Preference), String> {
    let mut spec: DatasetSpec = serde_json::from_value(spec).unwrap();
    spec.path = "D".to_owned();
    let row = fields(row);
    let (name, reader) = choose(&spec, &[&row]).map_err(|e| e.to_string())?;
    let row = RawRow { origin: Origin::new("p.jsonl", 17), fields: row };
    reader.preference(row).map(|row| (name, row)).map_err(|e| e.to_string())
}

fn turns(turns: &[Message]) -> String {
    turns
        .iter()
        .map(|m| format!("<{}>{}", &m.role[..1], m.fields["content"].as_str().unwrap_or("-")))
        .collect()
}

/// A row in one line: prompt | answer | answer. Turns are `<r>text`, text is in quotes, merged prompts end with `~`.
fn shown(row: &Preference) -> String {
    let answer = |a: &Answer| match a {
        Answer::Text(text) => format!("{text:?}"),
        Answer::Turns(messages) => turns(messages),
    };
    let prompt = match row.prompt() {
        Prompt::Text { text, boundary: Boundary::Cut } => format!("{text:?}"),
        Prompt::Text { text, boundary: Boundary::Merged } => format!("{text:?}~"),
        Prompt::Chat { messages, .. } => turns(messages),
    };
    let rest: Vec<String> = match row {
        Preference::Pair(row) => vec![answer(&row.chosen), answer(&row.rejected)],
        Preference::Labelled(row) => vec![answer(&row.completion), row.label.to_string()],
        Preference::Ranked(row) => row.answers.iter().map(|(a, s)| format!("{} {s}", answer(a))).collect(),
        Preference::Prompt(row) => vec![Value::Object(row.fields.clone()).to_string()],
    };
    std::iter::once(prompt).chain(rest).collect::<Vec<_>>().join(" | ")
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn said(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

#[test]
fn rows_are_read_as_their_types_say() {
    let chat = |a: Value| json!([user("Q"), a]);
    let cases = [
        // TRL's shapes.
        (
            json!({}),
            json!({"prompt": "p", "chosen": " a", "rejected": " b"}),
            "preference",
            r#""p" | " a" | " b""#,
        ),
        (
            json!({}),
            json!({"prompt": [user("Q")], "chosen": [said("A")], "rejected": [said("B")]}),
            "preference",
            "<u>Q | <a>A | <a>B",
        ),
        (
            json!({}),
            json!({"chosen": chat(said("A")), "rejected": chat(said("B"))}),
            "preference",
            "<u>Q | <a>A | <a>B",
        ),
        // A prompt of text beside whole conversations: the turns say more.
        (
            json!({}),
            json!({"prompt": "Q", "chosen": chat(said("A")), "rejected": chat(said("B"))}),
            "preference",
            "<u>Q | <a>A | <a>B",
        ),
        (
            json!({}),
            json!({"prompt": [user("Q")], "chosen": chat(said("A")), "rejected": chat(said("B"))}),
            "preference",
            "<u>Q | <a>A | <a>B",
        ),
        (
            json!({}),
            json!({"system": "S", "prompt": [user("Q")], "chosen": "A", "rejected": "B"}),
            "preference",
            "<s>S<u>Q | <a>A | <a>B",
        ),
        (
            json!({}),
            json!({"chosen": "The sky is blue", "rejected": "The sky is green"}),
            "preference",
            r#""The sky is"~ | " blue" | " green""#,
        ),
        (json!({}), json!({"chosen": "same", "rejected": "same"}), "preference", r#""sam"~ | "e" | "e""#),
        (json!({}), json!({"chosen": "ab", "rejected": "abc"}), "preference", r#""a"~ | "b" | "bc""#),
        (
            json!({}),
            json!({"chosen": chat(said("A")), "rejected": chat(said("A"))}),
            "preference",
            "<u>Q | <a>A | <a>A",
        ),
        (
            json!({}),
            json!({"prompt": "p", "completion": " a", "label": 0}),
            "unpaired",
            r#""p" | " a" | false"#,
        ),
        (
            json!({}),
            json!({"prompt": [user("Q")], "completion": [said("A")], "label": "True"}),
            "unpaired",
            "<u>Q | <a>A | true",
        ),
        // Axolotl's.
        (json!({}), json!({"question": "Q", "chosen": "A", "rejected": "B"}), "intel", "<u>Q | <a>A | <a>B"),
        (
            json!({"type": "chatml.intel"}),
            json!({"system": "S", "question": "Q", "chosen": "A", "rejected": "B"}),
            "intel",
            r#""<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n" | "A<|im_end|>" | "B<|im_end|>""#,
        ),
        (
            json!({"type": "llama3.intel"}),
            json!({"question": "Q", "chosen": "A", "rejected": "B"}),
            "intel",
            r#""<|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n" | "A<|eot_id|>" | "B<|eot_id|>""#,
        ),
        (
            json!({}),
            json!({"instruction": "Q", "chosen_response": "A", "rejected_response": "B"}),
            "argilla",
            "<u>Q | <a>A | <a>B",
        ),
        (
            json!({"type": "chatml.argilla"}),
            json!({"prompt": "Q", "chosen": "A", "rejected": "B"}),
            "argilla",
            r#""<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n" | "A<|im_end|>" | "B<|im_end|>""#,
        ),
        (
            json!({"type": "llama3.default"}),
            json!({"input": "Q", "chosen": "A", "rejected": "B"}),
            "argilla",
            r#""<|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n" | "A<|eot_id|>" | "B<|eot_id|>""#,
        ),
        (json!({}), json!({"input": "Q", "chosen": "A", "rejected": "B"}), "icr", "<u>Q | <a>A | <a>B"),
        // Alpaca's rows as LLaMA-Factory pairs them: what is to be done, and with what.
        (
            json!({}),
            json!({"instruction": "I", "input": "Q", "chosen": "A", "rejected": "B"}),
            "argilla",
            "<u>I\nQ | <a>A | <a>B",
        ),
        (
            json!({}),
            json!({"instruction": "I", "input": "", "chosen": "A", "rejected": "B"}),
            "argilla",
            "<u>I | <a>A | <a>B",
        ),
        // UltraFeedback's binarised rows: `messages` is `chosen`.
        (
            json!({}),
            json!({"prompt": "Q", "messages": [user("Q"), said("A")], "chosen": [user("Q"), said("A")], "rejected": [user("Q"), said("B")]}),
            "preference",
            "<u>Q | <a>A | <a>B",
        ),
        // Axolotl's reward models.
        (
            json!({"type": "bradley_terry.chat_template"}),
            json!({"system": "S", "input": "Q", "chosen": "A", "rejected": "B"}),
            "icr",
            "<s>S<u>Q | <a>A | <a>B",
        ),
        (
            json!({"type": "bradley_terry.llama3.icr"}),
            json!({"input": "Q", "chosen": "A", "rejected": "B"}),
            "icr",
            r#""<|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n" | "A<|eot_id|>" | "B<|eot_id|>""#,
        ),
        (
            json!({"type": "prompt_pairs"}),
            json!({"prompt": "Q", "chosen": "A", "rejected": "B"}),
            "prompt_pairs",
            "<u>Q | <a>A | <a>B",
        ),
        (
            json!({"type": "ultra"}),
            json!({"prompt": "Q", "chosen": chat(said("A")), "rejected": chat(said("B"))}),
            "ultra",
            "<u>Q | <a>A | <a>B",
        ),
        (
            json!({"type": "chatml.argilla_chat"}),
            json!({"chosen": chat(said("A")), "rejected": chat(said("B"))}),
            "argilla_chat",
            r#""<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n" | "A<|im_end|>" | "B<|im_end|>""#,
        ),
        (
            json!({"type": "chat_template.argilla_chat"}),
            json!({"completion": chat(said("A")), "label": true}),
            "argilla_chat",
            "<u>Q | <a>A | true",
        ),
        (
            json!({"type": "chatml.intel"}),
            json!({"question": "Q", "completion": "A", "label": true}),
            "intel",
            r#""<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n" | "A<|im_end|>" | true"#,
        ),
        (
            json!({"type": "llama3.argilla"}),
            json!({"instruction": "Q", "completion": "A", "label": false}),
            "argilla",
            r#""<|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n" | "A<|eot_id|>" | false"#,
        ),
        (
            json!({"type": "chat_template.default", "field_messages": "conversation", "field_chosen": "good",
                "field_rejected": "bad", "message_field_role": "who", "message_field_content": "what",
                "roles": {"user": ["human"], "assistant": ["bot"]}}),
            json!({"conversation": [{"who": "human", "what": "Q"}], "good": {"who": "bot", "what": "A"},
                "bad": [{"who": "human", "what": "Q"}, {"who": "bot", "what": "B"}]}),
            "chat_template",
            "<u>Q | <a>A | <a>B",
        ),
        (
            json!({}),
            json!({"messages": [user("Q")], "chosen": "A", "rejected": "B"}),
            "chat_template",
            "<u>Q | <a>A | <a>B",
        ),
        (
            json!({"type": "user_defined.default", "field_prompt": "q", "prompt_format": "[{system}] {prompt}:",
                "field_chosen": "a", "field_rejected": "b", "chosen_format": " {chosen}."}),
            json!({"system": "S", "q": "Q{", "a": "A", "b": "B"}),
            "user_defined",
            r#""[S] Q{:" | " A." | "B""#,
        ),
        (
            json!({"type": {"field_prompt": "q", "field_completion": "a", "field_label": "ok", "completion_format": " {completion}!"}}),
            json!({"q": "Q", "a": "A", "ok": 1}),
            "user_defined",
            r#""Q" | " A!" | true"#,
        ),
        // Ranked lists.
        (
            json!({}),
            json!({"prompt": "Q", "responses": ["x", "y"], "scores": [1, 2.5]}),
            "ranked",
            r#""Q" | "x" 1 | "y" 2.5"#,
        ),
        (
            json!({}),
            json!({"prompt": [user("Q")], "completions": ["x", [said("y")]], "ranks": [2, 1]}),
            "ranked",
            "<u>Q | <a>x -2 | <a>y -1",
        ),
        (
            json!({"type": "chat_template.ranked"}),
            json!({"prompt": "Q", "answers": [{"answer": "x", "rank": 1}, {"answer": "y", "rank": 2}]}),
            "ranked",
            "<u>Q | <a>x -1 | <a>y -2",
        ),
        // Prompts.
        (json!({}), json!({"prompt": "Q", "gold": "7"}), "prompt", r#""Q" | {"gold":"7"}"#),
        (json!({}), json!({"messages": [user("Q"), said("A")], "gold": 7}), "prompt", r#"<u>Q | {"gold":7}"#),
        (
            json!({"type": "chat_template.prompt", "field_prompt": "question"}),
            json!({"question": "Q", "answer": "7"}),
            "prompt",
            r#"<u>Q | {"answer":"7"}"#,
        ),
        (
            json!({"field_prompt": "q", "field_chosen": "good", "field_rejected": "bad"}),
            json!({"q": "p", "good": " a", "bad": " b"}),
            "preference",
            r#""p" | " a" | " b""#,
        ),
    ];
    for (spec, row, name, expect) in cases {
        let found = read(spec.clone(), row.clone()).unwrap_or_else(|e| panic!("{spec} {row}: {e}"));
        assert_eq!((found.0, shown(&found.1).as_str()), (name, expect), "{spec} {row}");
    }
}

#[test]
fn bad_rows_say_what_is_wrong() {
    for (spec, row, expect) in [
        (
            json!({}),
            json!({"prompt": "p", "chosen": "a", "rejected": "  "}),
            "p.jsonl:17: `rejected` is empty",
        ),
        (
            json!({}),
            json!({"system": "S", "prompt": "p", "chosen": "a", "rejected": "b"}),
            "p.jsonl:17: `system` has no place before a prompt of plain text",
        ),
        (
            json!({"type": "chat_template"}),
            json!({"messages": [user("Q"), said("A")], "chosen": [user("Q"), said("A")], "rejected": [user("Q"), said("B")]}),
            "p.jsonl:17: `messages` ends with the answer of `chosen` itself",
        ),
        (
            json!({}),
            json!({"prompt": "p", "chosen": [user("x")], "rejected": "b"}),
            "p.jsonl:17: `chosen` is turns and `rejected` is text: both must be of one kind",
        ),
        (
            json!({}),
            json!({"chosen": [user("Q"), said("A")], "rejected": [user("R"), said("B")]}),
            "p.jsonl:17: `chosen` and `rejected` answer different prompts: they differ first in turn 1 (`user`)",
        ),
        (
            json!({"type": "ultra"}),
            json!({"prompt": "Q", "chosen": [user("Q"), said("A")], "rejected": [user("R"), said("B")]}),
            "p.jsonl:17: `chosen` and `rejected` answer different prompts: they differ in turn 1",
        ),
        (
            json!({}),
            json!({"prompt": [user("Q")], "chosen": [user("A")], "rejected": [said("B")]}),
            "p.jsonl:17: the answer `chosen` begins with a turn of `user`, not of the assistant",
        ),
        (
            json!({"type": "intel"}),
            json!({"quesion": "Q", "chosen": "A", "rejected": "B"}),
            "p.jsonl:17: field `question` is missing\nhint: did you mean `quesion`?",
        ),
        (
            json!({}),
            json!({"prompt": "p", "completion": "a", "label": 2}),
            "p.jsonl:17: `label` should be true, false, 0 or 1, found `2`",
        ),
        (
            json!({}),
            json!({"prompt": "p", "responses": ["a", "b"], "ranks": [1]}),
            "p.jsonl:17: `ranks` has `1` entries for `2` of `responses`",
        ),
        (
            json!({}),
            json!({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "large"}),
            "p.jsonl:17: `margin` should be a number, found `\"large\"`",
        ),
        (
            json!({}),
            json!({"prompt": "P", "chosen": [user("Q"), said("A")], "rejected": [user("Q"), said("B")]}),
            "p.jsonl:17: `prompt` is none of the `user` turns before the answers",
        ),
        (
            json!({"type": "ranked"}),
            json!({"prompt": "p", "responses": ["a", "b"]}),
            "p.jsonl:17: `responses` has neither `ranks` nor `scores`",
        ),
        (
            json!({"type": "chatml.preference"}),
            json!({"prompt": [user("Q")], "chosen": [said("A"), user("x"), said("y")], "rejected": [said("B")]}),
            "p.jsonl:17: an answer of `3` turns has no place in the frame `chatml`\nhint: write `type: chat_template.*`",
        ),
        (
            json!({"type": "chatml.inel"}),
            json!({}),
            "D: unknown preference `type: chatml.inel`\nhint: known types: `ranked`",
        ),
        (
            json!({}),
            json!({"question": "Q"}),
            "D: cannot tell the preference type from the fields `question`\nhint: name the fields",
        ),
    ] {
        let e = read(spec, row.clone()).map(|r| shown(&r.1)).unwrap_err();
        assert!(e.starts_with(expect), "{row}\n{e}");
    }
}

#[test]
fn margins_are_numbers_also_as_text() {
    for (margin, expect) in [
        (json!(0.5), Some(0.5)),
        (json!("0.5"), Some(0.5)),
        (json!(" -2 "), Some(-2.0)),
        (json!(""), None),
        (json!(null), None),
    ] {
        let row = json!({"prompt": "p", "chosen": "a", "rejected": "b", "margin": margin});
        let Ok((_, Preference::Pair(pair))) = read(json!({}), row.clone()) else { panic!("{row}") };
        assert_eq!(pair.margin, expect, "{row}");
    }
}

/// A prompt of text before answers of turns is the question, whether or not the turns repeat it.
#[test]
fn a_prompt_of_text_stands_before_answers_of_turns() {
    let alone = json!({"system": "S", "prompt": "Q", "chosen": [said("A")], "rejected": [said("B")]});
    let repeated = json!({"system": "S", "prompt": "Q ", "chosen": [user("Q"), said("A")], "rejected": [user("Q"), said("B")]});
    let of = |row: Value| match read(json!({}), row).unwrap().1 {
        Preference::Pair(pair) => match pair.prompt {
            Prompt::Chat { messages, .. } => turns(&messages),
            other @ Prompt::Text { .. } => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!(of(alone.clone()), of(repeated));
    assert!(of(alone.clone()).contains('S') && of(alone).contains('Q'));
}

#[test]
fn names_are_unique() {
    let mut names = std::collections::HashSet::new();
    assert!(
        PREFERENCE_TYPES.iter().flat_map(|t| t.aliases.iter().chain([&t.name])).all(|n| names.insert(*n))
    );
}
