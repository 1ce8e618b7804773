//! What a server answers: the right model, the same alone and among others, whole and in pieces.

use crate::serve_support::{Server, bench, model};
use galen_engine::{Continuation, Finish, Next, Options};
use galen_model::Session;
use galen_model::tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::sync::Arc;

const MODELS: [&str; 4] = ["m", "zero", "one", "two"];

fn ask(model: &str, i: usize) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": format!("Say {}.", "so ".repeat(i % 7))}],
        "temperature": 0.9,
        "seed": i,
        "max_tokens": 5 + 9 * i % 40,
    })
}

fn content(answer: &Value) -> String {
    answer["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[test]
fn every_request_gets_its_own_models_answer_whatever_runs_beside_it() {
    let bench = bench();
    for kernels in ["blocks", "passes"] {
        let server = Server::start(&bench, &["--kernels", kernels, "--max-num-seqs", "24"]);
        let alone: Vec<String> =
            (0..48).map(|i| content(&server.chat(&ask(MODELS[i % 4], i)).is(200).json())).collect();
        for i in [0, 1, 2, 3] {
            assert!((0..4).all(|j| i == j || alone[i + 8] != alone[j + 8]), "models answer alike: {alone:?}");
        }
        // Another command, another loop: the same tokens.
        if kernels == "blocks" {
            for (i, want) in alone.iter().enumerate().take(8) {
                let body = ask(MODELS[i % 4], i);
                let prompt = body["messages"][0]["content"].as_str().expect("text");
                let (n, seed) = (body["max_tokens"].to_string(), i.to_string());
                let mut args =
                    vec!["generate", "-m", "m.gguf", "--chat", "-p", prompt, "-n", &n, "--seed", &seed];
                args.extend(["--temp", "0.9", "--json"]);
                let adapter = format!("a{}", i % 4 - usize::from(i % 4 > 0));
                if i % 4 > 0 {
                    args.extend(["--adapter", &adapter]);
                }
                assert_eq!(bench.galen(&args).exits(0).json()["text"], json!(want), "{i}");
            }
        }
        std::thread::scope(|scope| {
            for client in 0..16 {
                let (server, alone) = (&server, &alone);
                scope.spawn(move || {
                    for turn in 0..6 {
                        let i = (client * 7 + turn * 11) % alone.len();
                        let mut body = ask(MODELS[i % 4], i);
                        // Further completions leave the first as it is.
                        if client % 3 == 0 {
                            body["n"] = json!(3);
                        }
                        let got = server.chat(&body).is(200).json();
                        assert_eq!(content(&got), alone[i], "client {client}, request {i}");
                        assert_eq!(got["model"], MODELS[i % 4]);
                    }
                });
            }
        });
        server.until("an empty batch", |s| {
            s.metric("galen_sequences_running") + s.metric("galen_cache_tokens_reserved") == 0
        });
        assert!(!server.said().contains("so so"), "prompts are logged");
    }
}

#[test]
fn a_stream_says_what_the_whole_answer_says() {
    let bench = bench();
    let server = Server::start(&bench, &[]);
    for (path, kind) in [("/v1/chat/completions", "chat.completion"), ("/v1/completions", "text_completion")]
    {
        for stop in [json!(null), json!(["e", "\u{e9}"])] {
            let mut body = json!({
                "model": "one", "seed": 5, "n": 2, "max_tokens": 60, "temperature": 1.3, "top_p": 0.95, "stop": stop,
            });
            if kind == "text_completion" {
                body["prompt"] = json!(["Na\u{ef}ve \u{1f600}", [72, 73]]);
                body["logprobs"] = json!(2);
            } else {
                body["messages"] = json!([{"role": "user", "content": "Na\u{ef}ve \u{1f600}"}]);
                body["logprobs"] = json!(true);
                body["top_logprobs"] = json!(2);
            }
            let whole = server.post(path, &body).is(200).json();
            assert_eq!(whole["object"], kind);
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
            let reply = server.post(path, &body).is(200);
            assert!(reply.head.contains("content-type: text/event-stream"), "{reply:?}");
            let mut events = reply.events();
            let last = events.pop().expect("usage");
            assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
            for (i, want) in whole["choices"].as_array().expect("choices").iter().enumerate() {
                let mine: Vec<&Value> =
                    events.iter().map(|e| &e["choices"][0]).filter(|c| c["index"] == i).collect();
                let texts = mine.iter().filter_map(|c| c["text"].as_str().or(c["delta"]["content"].as_str()));
                let text: String = texts.collect();
                let whole_text = want["text"].as_str().or(want["message"]["content"].as_str());
                assert_eq!(Some(text.as_str()), whole_text, "{path}, choice {i}");
                assert_eq!(mine.last().expect("an end")["finish_reason"], want["finish_reason"]);
                for list in ["content", "tokens", "token_logprobs", "top_logprobs", "text_offset"] {
                    let parts = mine.iter().filter_map(|c| c["logprobs"][list].as_array()).flatten();
                    let joined: Vec<Value> = parts.cloned().collect();
                    let whole = want["logprobs"][list].as_array().cloned().unwrap_or_default();
                    assert_eq!(joined, whole, "{path}, choice {i}, `{list}`");
                }
                if kind == "chat.completion" {
                    assert_eq!(mine[0]["delta"]["role"], "assistant");
                }
            }
        }
    }
}

#[test]
fn log_probabilities_are_the_models_own() {
    let bench = bench();
    let server = Server::start(&bench, &["--kernels", "blocks"]);
    let ids = [72, 105, 33, 32];
    let body = json!({
        "model": "m", "prompt": ids, "max_tokens": 12, "temperature": 0.7, "logprobs": 3, "seed": 2, "presence_penalty": 0.5,
    });
    let answer = server.post("/v1/completions", &body).is(200).json();
    let tokens = answer["choices"][0]["logprobs"]["token_logprobs"].as_array().expect("numbers").clone();
    let names = answer["choices"][0]["logprobs"]["tokens"].as_array().expect("names").clone();
    let model = model(&bench);
    let tokenizer = Tokenizer::open(&bench.path("m.gguf")).expect("a tokenizer");
    let id_of = |name: &str| {
        let of = |id: u32| tokenizer.token_bytes(id).expect("a token");
        let bytes = match name.strip_prefix("bytes:\\x") {
            Some(hex) => vec![u8::from_str_radix(hex, 16).expect("hex")],
            None => name.as_bytes().to_vec(),
        };
        (0..259).find(|id| of(*id) == bytes).unwrap_or_else(|| panic!("`{name}`"))
    };
    let mut session = Session::new(&model, None);
    let mut logits = session.feed(&ids).expect("fed");
    assert!(tokens.len() > 4);
    for (got, name) in tokens.iter().zip(&names) {
        let id = id_of(name.as_str().expect("text"));
        let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        let want = f64::from(logits[id as usize]) - sum.ln();
        assert!((got.as_f64().expect("a number") - want).abs() <= 1e-5, "{name}: {got} for {want}");
        logits = session.feed(&[id]).expect("fed");
    }
    // A prompt without answer tokens to spare, a bias that decides, and an end that is told.
    let forced = json!({"model": "m", "prompt": "x", "max_tokens": 3, "logit_bias": {"65": 100}});
    let forced = server.post("/v1/completions", &forced).is(200).json();
    assert_eq!(forced["choices"][0]["text"], "AAA");
    assert_eq!(forced["choices"][0]["finish_reason"], "length");
    let ended = json!({"model": "m", "prompt": "x", "logit_bias": {"258": 100}});
    let ended = server.post("/v1/completions", &ended).is(200).json();
    assert_eq!(
        (&ended["choices"][0]["text"], &ended["choices"][0]["finish_reason"]),
        (&json!(""), &json!("stop"))
    );
    assert_eq!(ended["usage"], json!({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}));
}

#[test]
fn pieces_are_whole_characters_and_stop_texts_never_show() {
    let bench = bench();
    let tokenizer = Tokenizer::open(&bench.path("m.gguf")).expect("a tokenizer");
    let run = |text: &str, stop: &[&str]| {
        let stop = stop.iter().map(|s| (*s).to_owned()).collect();
        let options = Options { stop, logprobs: Some(0), ..Options::default() };
        let mut continuation = Continuation::new(&tokenizer, &[1], Arc::new(options), 0, 99);
        let (mut pieces, mut bytes) = (Vec::new(), Vec::new());
        for byte in text.bytes() {
            let id = (0..259).find(|id| tokenizer.token_bytes(*id) == Some(vec![byte])).expect("a token");
            let mut logits = vec![0f32; 259];
            logits[id as usize] = 9.0;
            let (piece, next) = continuation.take(&logits).expect("taken");
            bytes.extend(piece.tokens.iter().flat_map(|t| t.bytes.clone()));
            pieces.push(piece.text);
            if let Next::End(finish) = next {
                return (pieces, bytes, Some(finish));
            }
        }
        let mut logits = vec![0f32; 259];
        logits[258] = 9.0;
        let (piece, next) = continuation.take(&logits).expect("taken");
        bytes.extend(piece.tokens.iter().flat_map(|t| t.bytes.clone()));
        pieces.push(piece.text);
        assert_eq!(next, Next::End(Finish::Stop));
        (pieces, bytes, None)
    };
    let text = "na\u{ef}ve \u{20ac}5 \u{1f600}\u{1f468}\u{200d}\u{1f469} \u{6f22}";
    let (pieces, bytes, _) = run(text, &[]);
    assert_eq!((pieces.concat().as_str(), bytes), (text, text.as_bytes().to_vec()));
    assert!(pieces.iter().all(|p| !p.contains('\u{fffd}')), "{pieces:?}");
    // Held back while it may be the beginning of a stop text, given out when it is not.
    let (pieces, bytes, finish) = run("one END\u{20ac} two", &["END\u{20ac}", "ENDS"]);
    assert_eq!((pieces.concat().as_str(), finish), ("one ", Some(Finish::Stop)));
    assert_eq!(bytes, b"one ".to_vec());
    let (pieces, _, finish) = run("one ENd", &["END"]);
    assert_eq!((pieces.concat().as_str(), finish), ("one ENd", None));
}

#[test]
fn an_answer_with_a_schema_is_of_it_alone_and_among_others() {
    let bench = bench();
    let server = Server::start(&bench, &[]);
    let schema = json!({
        "type": "object",
        "properties": {
            "chapter": {"type": "string", "enum": ["A", "C", "na\u{ef}ve"]},
            "n": {"type": "integer", "minimum": 1, "maximum": 12},
            "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}, "maxItems": 2},
        },
        "required": ["chapter", "n", "parts"],
        "additionalProperties": false,
        "$defs": {"part": {"type": "boolean"}},
    });
    let ask = |i: usize| {
        let body = json!({
            "model": MODELS[i % 4], "messages": [{"role": "user", "content": "x"}], "temperature": 1.5, "seed": i,
            "n": 2, "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
        });
        server.chat(&body).is(200).json()["choices"].clone()
    };
    let alone: Vec<Value> = (0..8).map(ask).collect();
    for choice in alone.iter().flat_map(|c| c.as_array().expect("choices")) {
        assert_eq!(choice["finish_reason"], "stop", "{choice}");
        let answer: Value =
            serde_json::from_str(choice["message"]["content"].as_str().expect("text")).expect("JSON");
        let fields: Vec<&String> = answer.as_object().expect("an object").keys().collect();
        assert_eq!(fields, ["chapter", "n", "parts"]);
        assert!(["A", "C", "na\u{ef}ve"].iter().any(|c| answer["chapter"] == *c), "{answer}");
        assert!(answer["n"].as_u64().is_some_and(|n| (1..=12).contains(&n)), "{answer}");
        let parts = answer["parts"].as_array().expect("a list");
        assert!(parts.len() <= 2 && parts.iter().all(Value::is_boolean), "{answer}");
    }
    std::thread::scope(|scope| {
        let ask = &ask;
        let all: Vec<_> = (0..8).map(|i| scope.spawn(move || ask(i))).collect();
        for (i, (got, want)) in all.into_iter().zip(&alone).enumerate() {
            assert_eq!(got.join().expect("asked"), *want, "{i}");
        }
    });
}
