//! The engine over mistralrs-core beside the native one: the same tokens, by the same options.

use crate::cli::{Bench, Said, assert_has};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn answers(bench: &Bench, out: &str, args: &[&str], exact: bool) -> BTreeMap<String, Value> {
    let args = [&["run-batch", "-i", "in.jsonl", "-o", out], args].concat();
    let mut command = bench.command(&args);
    if exact {
        // The native engine in f32, as the other one is over f32 weights.
        command.env("GALEN_ISA", "portable");
    }
    Said::of(&command.output().expect("the binary starts")).exits(0);
    let parse = |line: &str| {
        let mut answer: Value = serde_json::from_str(line).expect("JSON");
        answer["response"]["body"].as_object_mut().expect("a body").remove("created");
        (answer["custom_id"].as_str().expect("a name").to_owned(), answer["response"].take())
    };
    bench.read(out).lines().map(parse).collect()
}

fn ask(name: &str, mut body: Value, more: Value) -> Value {
    body.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
    json!({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body})
}

#[test]
fn a_gguf_of_135_million_weights_gives_the_first_twenty_tokens_that_the_native_engine_gives() {
    let Some(model) = galen_testkit::models::real_model("smollm2-135m-instruct") else { return };
    let bench = Bench::new();
    // Where one token is far likelier than the others: mistralrs-core rounds activations to eight bits.
    let prompts = [
        "def add(a, b):\n    return a + b\n\ndef sub(a, b):\n",
        "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday, Monday, Tuesday,",
    ];
    let ask = |(i, prompt): (usize, &&str)| {
        let body = json!({"model": "m", "prompt": prompt, "max_tokens": 20, "temperature": 0});
        json!({"custom_id": i.to_string(), "method": "POST", "url": "/v1/completions", "body": body})
    };
    bench.write_rows("in.jsonl", &prompts.iter().enumerate().map(ask).collect::<Vec<_>>());
    let path = model.display().to_string();
    let served = ["-m", &path, "--served-model-name", "m"];
    let native = answers(&bench, "native.jsonl", &[&served[..], &["--kernels", "blocks"]].concat(), false);
    let other = answers(&bench, "other.jsonl", &[&served[..], &["--engine", "mistralrs"]].concat(), false);
    for (name, response) in &native {
        assert_eq!(response["body"]["usage"]["completion_tokens"], 20, "{name}: {response}");
        let text = |response: &Value| response["body"]["choices"][0]["text"].clone();
        assert_eq!(text(response), text(&other[name]), "{name}");
    }
}

#[test]
fn options_seeds_schemas_and_an_adapter_mean_the_same() {
    let bench = Bench::new();
    bench.galen(&["train", "c.yaml", "--set", "bf16=false"]).exits(0);
    bench.galen(&["export", "--model", "m.gguf", "--format", "hf", "--out", "base"]).exits(0);
    bench.galen(&["export", "--model", "run", "--format", "peft", "--out", "adapter"]).exits(0);
    let schema = json!({"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"],
                        "additionalProperties": false});
    let asked = |model: &str| -> Vec<Value> {
        let messages = json!([{"role": "user", "content": "Say 3."}]);
        let body = json!({"model": model, "messages": messages, "max_tokens": 24, "seed": 5});
        let json_schema = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
        vec![
            ask("greedy", body.clone(), json!({"temperature": 0})),
            ask("drawn", body.clone(), json!({"temperature": 0.9, "top_p": 0.9, "n": 3})),
            ask(
                "penalised",
                body.clone(),
                json!({"temperature": 0, "frequency_penalty": 1.5, "logit_bias": {"65": 3}}),
            ),
            ask("stopped", body.clone(), json!({"temperature": 0, "stop": "t "})),
            ask("schema", body.clone(), json!({"temperature": 1, "response_format": json_schema})),
            ask("logprobs", body, json!({"temperature": 0, "logprobs": true, "top_logprobs": 2})),
        ]
    };
    for (model, served) in [("base", vec!["-m", "base"]), ("x", vec!["-m", "base", "--adapter", "x=adapter"])]
    {
        bench.write_rows("in.jsonl", &asked(model));
        let with = |engine: &str| {
            let out = format!("{model}-{engine}.jsonl");
            answers(&bench, &out, &[&served[..], &["--engine", engine]].concat(), true)
        };
        let (mut native, mut other) = (with("native"), with("mistralrs"));
        for (name, native) in &mut native {
            let other = other.get_mut(name).expect("an answer");
            close(&mut native["body"]["choices"], &mut other["body"]["choices"], name);
        }
        assert_eq!(native, other);
    }
    let two = ["run-batch", "-i", "in.jsonl", "-o", "two.jsonl", "-m", "base", "--engine", "mistralrs"];
    let refused = bench.galen(&[&two[..], &["--adapter", "x=adapter", "y=adapter"]].concat()).exits(1);
    assert_has(&refused.stderr, &["more than one `--adapter`", "--engine native"]);
    let gguf = ["run-batch", "-i", "in.jsonl", "-o", "two.jsonl", "-m", "m.gguf", "--engine", "mistralrs"];
    let refused = bench.galen(&[&gguf[..], &["--adapter", "x=adapter"]].concat()).exits(1);
    assert_has(&refused.stderr, &["over a folder of safetensors"]);
}

/// Log-probabilities that are close are made equal; those that are not fail.
fn close(a: &mut Value, b: &mut Value, name: &str) {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.iter_mut().zip(b).for_each(|(a, b)| close(a, b, name)),
        (Value::Object(a), Value::Object(b)) => {
            for (key, a) in a {
                let Some(b) = b.get_mut(key) else { continue };
                if key == "logprob" {
                    let (x, y) = (a.as_f64().expect("a number"), b.as_f64().expect("a number"));
                    assert!((x - y).abs() <= 2e-3 * (1.0 + y.abs()), "{name}: {x} {y}");
                    *b = a.clone();
                } else {
                    close(a, b, name);
                }
            }
        }
        _ => {}
    }
}
