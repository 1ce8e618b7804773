//! From the configuration to rewards: what is accepted, and what is said of what is not.

use crate::bench::{Sample, completions};
use galen_reward::{Network, Outside, REWARDS, Reward, RewardSet, page, parse};
use serde_json::{Value, json};

fn read(funcs: Value, weights: Value) -> Result<RewardSet<'static>, String> {
    parse(&funcs, &weights, Network::Allowed, &mut []).map_err(|e| e.to_string())
}

#[test]
fn every_form_of_an_entry() {
    let labels = |funcs: Value| {
        let set = read(funcs, Value::Null).unwrap();
        set.functions().map(|(l, w)| (l.to_owned(), w)).collect::<Vec<_>>()
    };
    assert_eq!(labels(json!("choice")), [("choice".into(), 1.0)]);
    assert_eq!(labels(json!({"name": "choice", "letters": "AB"})), [("choice".into(), 1.0)]);
    assert_eq!(labels(json!({"choice": {"letters": "AB", "label": "mc"}})), [("mc".into(), 1.0)]);
    assert_eq!(
        labels(json!(["choice", {"choice": null, }, ]).as_array().unwrap()[1].clone()),
        [("choice".into(), 1.0)]
    );
    let two = json!(["numeric", {"name": "numeric", "label": "near", "absolute": 1}]);
    let set = read(two, json!([0.5, -2])).unwrap();
    assert_eq!(set.functions().collect::<Vec<_>>(), [("numeric", 0.5), ("near", -2.0)]);
    assert!(read(json!(["choice"]), json!(3)).is_ok());
}

#[test]
fn what_is_wrong_is_named_with_its_key() {
    let check = |funcs: Value, weights: Value, expect: &[&str]| {
        let error = read(funcs.clone(), weights).expect_err(&funcs.to_string());
        for part in expect {
            assert!(error.contains(part), "{funcs}: {error}");
        }
    };
    let funcs = |funcs: Value, expect: &[&str]| check(funcs, Value::Null, expect);
    funcs(Value::Null, &["`reward_funcs`: takes a list of rewards, not nothing"]);
    funcs(json!([]), &["`reward_funcs`: names no reward", "hint: there are `exact_match`"]);
    funcs(json!([3]), &["`reward_funcs[0]`: takes a name or a map, not `3`"]);
    funcs(json!([{"field": "x", "a": 1}]), &["`reward_funcs[0]`: has no `name`"]);
    funcs(
        json!(["choice", "exact_mach"]),
        &["`reward_funcs[1]`: there is no reward `exact_mach`", "did you mean `exact_match`?"],
    );
    funcs(json!(["rewards.rand_reward_func"]), &["Python functions are not run", "`command`"]);
    funcs(
        json!(["think_format_reward"]),
        &["that is `regex` with `pattern: '(?s)^<think>(?!.*<think>).*?</think>'` here"],
    );
    funcs(json!(["zzz"]), &["hint: there are `exact_match`, `choice`"]);
    funcs(
        json!(["choice", "choice"]),
        &["`reward_funcs[1]`: a reward before it is called `choice` too", "`label:`"],
    );
    funcs(json!([{"name": "choice", "label": 3}]), &["`reward_funcs[0].label`"]);
    funcs(
        json!([{"name": "choice", "leters": "AB"}]),
        &["`reward_funcs[0].leters`", "did you mean `letters`?"],
    );
    funcs(json!([{"name": "choice", "letters": "A1"}]), &["`reward_funcs[0].letters`"]);
    funcs(json!([{"name": "choice", "letters": "ABA"}]), &["a letter twice"]);
    funcs(json!([{"name": "choice", "ignore_case": "yes"}]), &["takes true or false, not `\"yes\"`"]);
    funcs(json!([{"name": "choice", "missing": "drop"}]), &["takes `error`, `skip`, not `\"drop\"`"]);
    funcs(json!([{"name": "choice", "field": " "}]), &["`reward_funcs[0].field`: is empty"]);
    funcs(json!(["regex"]), &["`reward_funcs[0].pattern`: is required"]);
    funcs(json!([{"name": "regex", "pattern": "("}]), &["`reward_funcs[0].pattern`: `(`: "]);
    funcs(json!([{"name": "exact_match", "extract": ["x", "["]}]), &["`reward_funcs[0].extract`: `[`"]);
    funcs(
        json!([{"name": "exact_match", "extract": ["x", 3]}]),
        &["takes text, or a list of texts, not a list"],
    );
    funcs(json!([{"name": "numeric", "absolute": -1}]), &["takes 0 or more, not `-1`"]);
    funcs(json!([{"name": "numeric", "decimal": ","}]), &["is `thousands` too"]);
    funcs(json!([{"name": "numeric", "decimal": "ab"}]), &["takes one character"]);
    funcs(
        json!([{"name": "json_schema", "schema": {"type": 3}}]),
        &["`reward_funcs[0].schema`: is no schema: "],
    );
    funcs(
        json!([{"name": "json_schema", "schema": {"$ref": "https://judge.test/s.json"}}]),
        &["is no schema: "],
    );
    funcs(json!([{"name": "json_schema", "schema": {"$ref": "file:///etc/hostname"}}]), &["is no schema: "]);
    funcs(json!([{"name": "json_schema", "schema": "/no/such.json"}]), &["/no/such.json: "]);
    funcs(json!([{"name": "json_schema", "schema": 3}]), &["takes a map or a path, not `3`"]);
    let deep = (0..200).fold(json!(true), |inner, _| json!({ "not": inner }));
    funcs(json!([{"name": "json_schema", "schema": deep}]), &["is nested more than `128` deep"]);
    funcs(json!(["length"]), &["`reward_funcs[0].target`: is required, or `min` or `max`"]);
    funcs(json!([{"name": "length", "target": 3, "max": 4}]), &["goes without"]);
    funcs(json!([{"name": "length", "min": 5, "max": 4}]), &["is `5`, above `max`, `4`"]);
    funcs(json!([{"name": "length", "max": -4}]), &["takes whole number, 0 or more, not `-4`"]);
    funcs(json!([{"name": "length", "max": 4, "slack": 0}]), &["takes 1 or more"]);
    funcs(
        json!([{"name": "soft_overlong_punishment", "max_completion_len": 5}]),
        &["soft_punish_cache`: is required"],
    );
    funcs(
        json!([{"name": "soft_overlong_punishment", "max_completion_len": 5, "soft_punish_cache": 6}]),
        &["is `6`, above"],
    );
    funcs(json!([{"name": "repetition", "ngram_size": 0}]), &["takes 1 or more"]);
    funcs(json!([{"name": "repetition", "max_penalty": 1}]), &["takes 0 or less"]);
    funcs(json!([{"name": "format", "tags": ["<think>"]}]), &["`<think>` is no tag's name", "write `think`"]);
    funcs(json!([{"name": "format", "tags": []}]), &["has no marks"]);
    funcs(json!([{"name": "format", "template": "<a>...<a>"}]), &["mark `<a>` occurs twice"]);
    funcs(json!([{"name": "command", "command": "judge 'x"}]), &["`reward_funcs[0].command`: `judge 'x`"]);
    funcs(json!([{"name": "command", "command": "  "}]), &["names no program"]);
    funcs(json!([{"name": "command", "command": []}]), &["names no program"]);
    funcs(json!([{"name": "command", "command": "x", "timeout_s": 0}]), &["takes seconds above 0"]);
    funcs(json!([{"name": "http", "url": "judge.test"}]), &["begins with neither"]);
    funcs(
        json!([{"name": "http", "url": "https://judge.test/x"}]),
        &["host `judge.test` is another machine", "allow_remote"],
    );
    funcs(
        json!([{"name": "http", "url": "http://localhost/", "api_key_env": "GALEN_TEST_NOT_SET"}]),
        &["`GALEN_TEST_NOT_SET` is not set"],
    );
    funcs(
        json!([{"name": "http", "url": "http://judge.test/", "allow_remote": "judge.test", "api_key_env": "PATH"}]),
        &["would carry the key in clear"],
    );
    check(json!(["choice"]), json!([1, 2]), &["`reward_weights`: has `2` weights for `1` rewards"]);
    check(json!(["choice"]), json!(["x"]), &["`reward_weights[0]`: takes a number, not `\"x\"`"]);
    check(json!(["choice"]), json!("x"), &["`reward_weights`: takes a list of numbers"]);

    let offline = json!([{"name": "http", "url": "http://localhost:1/"}]);
    let error = parse(&offline, &Value::Null, Network::Offline, &mut []).unwrap_err();
    assert_eq!(error.key, "reward_funcs[0].url");
    assert!(error.what.contains("offline"));
}

#[test]
fn a_reward_from_outside_borrows_what_it_needs() {
    struct Model<'m>(&'m [f64]);
    impl Reward for Model<'_> {
        fn score(
            &self,
            completions: &[galen_reward::Completion<'_>],
        ) -> Result<Vec<Option<f64>>, galen_reward::RewardError> {
            Ok(completions.iter().map(|c| self.0.get(c.text.len()).copied()).collect())
        }
    }
    let weights = vec![0.5, 1.5];
    let outside = || Outside {
        name: "reward_model",
        build: Box::new(|given| match given.get("model") {
            Some(_) => Ok(Box::new(Model(&weights)) as Box<dyn Reward + '_>),
            None => Err("has no `model`".into()),
        }),
    };
    let funcs = json!(["json_schema", {"reward_model": {"model": "runs/rm"}}]);
    let set = parse(&funcs, &json!([0, 2]), Network::Allowed, &mut [outside()]).unwrap();
    let samples = [Sample::new("1", 0), Sample::new("", 0)];
    assert_eq!(set.score(&completions(&samples)).unwrap().total, [Some(3.0), Some(1.0)]);
    let error = parse(&json!("reward_model"), &Value::Null, Network::Allowed, &mut [outside()]).unwrap_err();
    assert_eq!(error.to_string(), "`reward_funcs[0]`: has no `model`");
    let error = parse(&json!("reward_modl"), &Value::Null, Network::Allowed, &mut [outside()]).unwrap_err();
    assert!(error.to_string().contains("did you mean `reward_model`?"));
}

#[test]
fn the_page_is_up_to_date_and_names_everything() {
    let page = page();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rewards.md");
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        written, page,
        "write it with `cargo run -p galen-reward --example rewards > docs/rewards.md`"
    );
    for entry in REWARDS {
        assert!(page.contains(&format!("## {}\n", entry.name)));
        for param in entry.params() {
            assert!(page.contains(&format!("| `{}` |", param.name)), "{}", param.name);
        }
    }
    let mut names: Vec<_> = REWARDS.iter().map(|e| e.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), REWARDS.len());
}
