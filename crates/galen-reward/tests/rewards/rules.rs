//! The rewards that are rules, case by case.

use crate::bench::{Sample, score};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Each (text, row's answer, reward).
fn check(entry: Value, cases: &[(&str, Value, f64)]) {
    for (text, answer, expect) in cases {
        let got = score(&entry, &[Sample::new(text, answer.clone())]).unwrap()[0].unwrap();
        assert!((got - expect).abs() <= 1e-12, "{entry} {text:?} {answer}: {got}, expected {expect}");
    }
}

#[test]
fn exact_match() {
    check(
        json!("exact_match"),
        &[
            (" E11.9\n", json!("E11.9"), 1.0),
            ("e11.9", json!("E11.9"), 0.0),
            ("E11", json!(["E10", "E11"]), 1.0),
            ("42", json!(42), 1.0),
            ("true", json!(true), 1.0),
            ("", json!("x"), 0.0),
        ],
    );
    check(json!({"name": "exact_match", "ignore_case": true}), &[("ÄB", json!("äb"), 1.0)]);
    check(json!({"name": "exact_match", "strip": false}), &[(" x", json!("x"), 0.0), ("x", json!("x"), 1.0)]);
    check(
        json!({"exact_match": {"after": "</think>", "extract": ["<answer>(.*?)</answer>", "code: (\\S+)"]}}),
        &[
            ("<think>x</think><answer>E11</answer>", json!("E11"), 1.0),
            ("<think><answer>E11</answer></think>no", json!("E11"), 0.0),
            ("<answer>E11</answer>", json!("E11"), 0.0),
            ("</think>code: E10 then code: E11", json!("E11"), 1.0),
            ("</think>E11", json!("E11"), 0.0),
        ],
    );
}

#[test]
fn fields_by_name_and_path() {
    let row = json!({"meta": {"code": "E11"}, "a.b": 1});
    let got = |field: &str, text: &str| {
        score(&json!({"exact_match": {"field": field}}), &[Sample::of_row(text, row.clone())]).unwrap()[0]
    };
    assert_eq!(got("meta.code", "E11"), Some(1.0));
    assert_eq!(got("a.b", "1"), Some(1.0));
}

#[test]
fn a_row_without_the_answer_is_named_or_skipped() {
    for (entry, row, expect) in [
        (json!("exact_match"), json!({"question": "?", "code": 1}), "no field `answer`"),
        (json!("exact_match"), json!({"answer": null}), "no field `answer`"),
        (json!("exact_match"), json!({"answer": {}}), "field `answer` is a map, expected text or a number"),
        (json!("exact_match"), json!({"answer": []}), "field `answer` is a list"),
        (
            json!("choice"),
            json!({"answer": "yes"}),
            "field `answer` is `\"yes\"`, expected one of the letters `ABCD`",
        ),
        (json!("choice"), json!({"answer": 4}), "field `answer` is `4`"),
        (json!("numeric"), json!({"answer": "many"}), "field `answer` is `\"many\"`, expected a number"),
        (json!({"name": "regex", "pattern": "x", "field": "answer"}), json!({}), "the row has no fields"),
    ] {
        let error = score(&entry, &[Sample::of_row("A 1 x", row.clone())]).unwrap_err().to_string();
        assert!(error.starts_with("datasets/a.jsonl:17: reward `"), "{error}");
        assert!(error.contains(expect) && error.contains("\nhint: `field:` names it"), "{error}");

        let mut entry = if entry.is_string() { json!({"name": entry}) } else { entry };
        entry["missing"] = "skip".into();
        assert_eq!(score(&entry, &[Sample::of_row("A 1 x", row)]).unwrap(), [None], "{entry}");
    }
}

#[test]
fn choice() {
    check(
        json!("choice"),
        &[
            ("B", json!("B"), 1.0),
            ("(B) it is", json!(1), 1.0),
            ("A patient ... The answer is C.", json!("(C)"), 1.0),
            ("none", json!("A"), 0.0),
            ("E", json!("A"), 0.0),
        ],
    );
    check(
        json!({"choice": {"letters": "xyz", "ignore_case": true}}),
        &[("Y", json!("y"), 1.0), ("z", json!(2), 1.0)],
    );
    check(
        json!({"choice": {"after": "</think>"}}),
        &[("A</think>B", json!("B"), 1.0), ("B", json!("B"), 0.0)],
    );
}

#[test]
fn numeric() {
    check(
        json!("numeric"),
        &[
            ("so 70 + 2 = 72.", json!(72), 1.0),
            ("#### 72 is my answer, not 3", json!("6 * 12 #### 72"), 1.0),
            ("#### none, 72", json!(3), 0.0),
            ("$1,234.50", json!(1234.5), 1.0),
            ("72.01", json!(72), 0.0),
            ("no number", json!(72), 0.0),
            ("-3", json!([3, -3]), 1.0),
        ],
    );
    check(json!({"numeric": {"absolute": 0.5}}), &[("72.5", json!(72), 1.0), ("72.6", json!(72), 0.0)]);
    check(json!({"numeric": {"relative": 0.01}}), &[("-99", json!(-100), 1.0), ("98.9", json!(100), 0.0)]);
    check(json!({"numeric": {"thousands": ".", "decimal": ","}}), &[("1.234,5", json!(1234.5), 1.0)]);
    check(json!({"numeric": {"thousands": "", "marker": "="}}), &[("x = 1,5 3", json!(1), 1.0)]);
}

#[test]
fn regex() {
    check(
        json!({"name": "regex", "pattern": "^\\w+\\.$"}),
        &[("yes.", json!(0), 1.0), ("yes. no", json!(0), 0.0), ("", json!(0), 0.0)],
    );
    let compare =
        |which: &str| json!({"name": "regex", "pattern": "code (\\w+)", "field": "answer", "match": which});
    check(compare("first"), &[("code E10, code E11", json!("E10"), 1.0), ("none", json!("E10"), 0.0)]);
    check(compare("last"), &[("code E10, code E11", json!("E11"), 1.0)]);
    check(
        json!({"name": "regex", "pattern": "(?<=is )\\w+", "field": "answer"}),
        &[("it is so", json!("so"), 1.0)],
    );
}

/// The second branch matches, after the first has been tried in every way: few for a short text, too many for a long one.
#[test]
fn a_pattern_that_backtracks_too_much_does_not_match() {
    let slow = "^(?:(?:(a|aa)\\1?)+b|a+c)$";
    let text = "a".repeat(200) + "c";
    check(json!({"name": "regex", "pattern": slow}), &[("aac", json!(0), 1.0), (&text, json!(0), 0.0)]);
    let extract = format!("({slow})");
    check(
        json!({"exact_match": {"extract": extract.replace("\\1", "\\2")}}),
        &[("aac", json!("aac"), 1.0), (&text, json!(text), 0.0)],
    );
}

#[test]
fn json_schema() {
    check(
        json!("json_schema"),
        &[("{\"a\": 1}", json!(0), 1.0), ("```json\n[1]\n```\n", json!(0), 1.0), ("{a: 1}", json!(0), 0.0)],
    );
    let schema = json!({"type": "object", "required": ["code"], "additionalProperties": false,
        "properties": {"code": {"type": "string", "pattern": "^[A-Z][0-9]"}, "next": {"$ref": "#"}}});
    let cases = [
        ("{\"code\": \"E11\"}", json!(0), 1.0),
        (" ```\n{\"code\": \"E11\", \"next\": {\"code\": \"E10\"}}\n```", json!(0), 1.0),
        ("{\"code\": \"11\"}", json!(0), 0.25),
        ("{}", json!(0), 0.25),
        ("{\"code\": \"E11\", \"next\": {}}", json!(0), 0.25),
        ("{\"code\": \"E11\"} and more", json!(0), 0.0),
        ("{\"code\": ", json!(0), 0.0),
        ("", json!(0), 0.0),
    ];
    check(json!({"json_schema": {"schema": schema, "parsed": 0.25}}), &cases);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), schema.to_string()).unwrap();
    check(json!({"json_schema": {"schema": file.path(), "parsed": 0.25}}), &cases);
    check(
        json!({"json_schema": {"after": "</think>"}}),
        &[("hm</think>1", json!(0), 1.0), ("1", json!(0), 0.0)],
    );
    check(json!({"json_schema": {"schema": {"$ref": "#"}}}), &[("1", json!(0), 1.0)]);
    let deep = "[".repeat(100_000);
    check(json!("json_schema"), &[(&deep, json!(0), 0.0)]);
}

#[test]
fn length() {
    let check = |entry: Value, cases: &[(usize, f64)]| {
        for (n, expect) in cases {
            let got = score(&entry, &[Sample::of_tokens(vec![1; *n])]).unwrap()[0].unwrap();
            assert!((got - expect).abs() <= 1e-12, "{entry} {n}: {got}, expected {expect}");
        }
    };
    check(
        json!({"length": {"target": 100}}),
        &[(100, 1.0), (50, 0.5), (150, 0.5), (0, 0.0), (200, 0.0), (9999, 0.0)],
    );
    check(
        json!({"length": {"min": 10, "max": 20, "slack": 5}}),
        &[(10, 1.0), (20, 1.0), (9, 0.8), (24, 0.2), (5, 0.0), (30, 0.0)],
    );
    check(
        json!({"length": {"max": 10, "best": 0, "worst": -1}}),
        &[(0, 0.0), (10, 0.0), (15, -0.5), (20, -1.0)],
    );
    let third = 0.5 * (1.0 + (std::f64::consts::PI / 4.0).cos());
    check(
        json!({"length": {"target": 8, "decay": "cosine"}}),
        &[(8, 1.0), (12, 0.5), (10, third), (6, third), (0, 0.0)],
    );
    check(json!({"length": {"max": 0}}), &[(0, 1.0), (1, 0.0)]);
    let text = |entry: Value, text: &str| score(&entry, &[Sample::new(text, 0)]).unwrap()[0];
    assert_eq!(text(json!({"length": {"target": 4, "unit": "characters"}}), "äöüß"), Some(1.0));
}

#[test]
fn format() {
    check(
        json!("format"),
        &[
            ("<think>a</think><answer>b</answer>", json!(0), 1.0),
            ("\n<think>\na\n</think>\n\n<answer> b </answer>\n", json!(0), 1.0),
            ("<think>a</think>x<answer>b</answer>", json!(0), 0.0),
            ("<think>a</think><answer>b</answer>x", json!(0), 0.0),
            ("<think> </think><answer>b</answer>", json!(0), 0.0),
            ("<think>a</think><answer>b", json!(0), 0.0),
            ("<answer>b</answer><think>a</think>", json!(0), 0.0),
            ("<think>a<think></think><answer>b</answer>", json!(0), 0.0),
            ("", json!(0), 0.0),
        ],
    );
    check(
        json!({"format": {"partial": true}}),
        &[
            ("<think>a</think><answer>b</answer>", json!(0), 1.0),
            ("<think>a</think><answer>b</answer>x", json!(0), 0.8),
            ("<think>a</think> b", json!(0), 0.4),
            ("<answer>b</answer><think>a</think>", json!(0), 0.4),
            ("b", json!(0), 0.0),
        ],
    );
    check(json!({"format": {"tags": "r"}}), &[("<r>x</r>", json!(0), 1.0), ("<r></r>", json!(0), 0.0)]);
    check(
        json!({"format": {"template": "Reasoning: ... Code: ..."}}),
        &[
            ("Reasoning: long.\nCode: E11", json!(0), 1.0),
            ("Code: E11 Reasoning: x", json!(0), 0.0),
            ("Reasoning: x Code:", json!(0), 0.0),
            ("Well. Reasoning: x Code: y", json!(0), 0.0),
        ],
    );
}

#[test]
fn repetition_of_words() {
    check(
        json!({"repetition": {"unit": "words", "ngram_size": 2}}),
        &[
            ("so it is so IT goes", json!(0), -0.2),
            ("a b c", json!(0), 0.0),
            ("a a a a a", json!(0), -0.75),
            ("", json!(0), 0.0),
        ],
    );
}

proptest! {
    /// No text breaks a rule, and what is given keeps within its bounds.
    #[test]
    fn any_text_is_judged(text in "\\PC*", marked in "(</?think>|</?answer>|```|\\{|\\}|\"|[0-9A-D.,\n ]){0,40}") {
        let rules = [
            json!({"exact_match": {"after": "<answer>", "extract": ["\\d+", "(a|b)*c"]}}),
            json!("choice"), json!("numeric"), json!({"name": "regex", "pattern": "(\\w+) \\1"}),
            json!("json_schema"), json!({"format": {"partial": true}}),
            json!({"length": {"target": 5, "unit": "characters", "decay": "cosine"}}),
            json!({"repetition": {"unit": "words"}}),
        ];
        for rule in rules {
            let answer = if rule == "choice" { json!("A") } else { json!(1) };
            let samples = [Sample::new(&text, answer.clone()), Sample::new(&marked, answer)];
            for reward in score(&rule, &samples).unwrap() {
                let reward = reward.unwrap();
                prop_assert!((-1.0..=1.0).contains(&reward), "{}: {}", rule, reward);
            }
        }
    }
}
