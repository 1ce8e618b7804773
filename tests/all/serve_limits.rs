//! What a server does not let happen: wrong keys, large bodies, full queues, clients that go, a stop in between.

use crate::cli::{Bench, assert_has};
use crate::serve_support::{Server, bench, read, request};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};

const CHAT: &str = "/v1/chat/completions";

fn long(i: usize) -> Value {
    json!({"model": "zero", "prompt": "Go on.", "max_tokens": 480, "seed": i, "logit_bias": {"256": -100, "258": -100}})
}

#[test]
fn what_would_change_an_answer_is_done_or_refused() {
    let bench = bench();
    let server = Server::start(&bench, &["--max-num-seqs", "4", "--max-waiting", "3"]);
    let good = json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2});
    server.chat(&good).is(200);
    // What changes nothing, and what asks for what is done anyway.
    let mut harmless = good.clone();
    for (field, value) in [
        ("user", json!("u")),
        ("tools", json!([])),
        ("response_format", json!({"type": "text"})),
        ("seed", json!(-3)),
        ("top_k", json!(-1)),
        ("logit_bias", json!({})),
        ("stop", json!("x")),
        ("n", json!(null)),
    ] {
        harmless[field] = value;
    }
    server.chat(&harmless).is(200);
    let refused = [
        ("model", json!("none"), 404),
        ("model", json!(3), 400),
        ("messages", json!([]), 400),
        ("messages", json!("x"), 400),
        ("messages", json!([{"role": "tool", "content": "x"}]), 400),
        ("messages", json!([{"role": "user", "content": [{"type": "image_url"}]}]), 400),
        ("messages", json!([{"role": "user", "content": "x", "weight": 1}]), 400),
        ("messages", json!([{"role": "user", "content": "y".repeat(600)}]), 400),
        ("temperature", json!(-1), 400),
        ("temperature", json!("hot"), 400),
        ("top_p", json!(1.5), 400),
        ("max_tokens", json!(0), 400),
        ("max_tokens", json!(511), 400),
        ("max_completion_tokens", json!(9), 400),
        ("n", json!(5), 400),
        ("n", json!(1000), 400),
        ("stop", json!([""]), 400),
        ("stop", json!([1]), 400),
        ("logprobs", json!(3), 400),
        ("top_logprobs", json!(2), 400),
        ("logit_bias", json!({"x": 1}), 400),
        ("stream_options", json!({"include_usage": true}), 400),
        ("tools", json!([{}]), 400),
        ("response_format", json!({"type": "xml"}), 400),
        ("response_format", json!({"type": "json_schema", "json_schema": {}}), 400),
        (
            "response_format",
            json!({"type": "json_schema", "json_schema": {"schema": {"type": "strange"}}}),
            400,
        ),
        ("reasoning_effort", json!("high"), 400),
        ("no_such_field", json!(1), 400),
    ];
    for (field, value, status) in refused {
        let mut body = good.clone();
        body[field] = value.clone();
        let error = server.chat(&body).is(status).json()["error"].clone();
        let param = error["param"].as_str().unwrap_or_else(|| panic!("{field} {value}: {error}"));
        assert!(param.starts_with(field), "{field} {value}: {error}");
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()) && error["type"].is_string());
    }
    let text = |more: Value| {
        let mut body = json!({"model": "m"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        server.post("/v1/completions", &body)
    };
    for more in [
        json!({}),
        json!({"prompt": ""}),
        json!({"prompt": []}),
        json!({"prompt": [1, "x"]}),
        json!({"prompt": [259]}),
        json!({"prompt": [-1]}),
        json!({"prompt": ["a", "b", "c", "d"]}),
        json!({"prompt": "x", "echo": true}),
        json!({"prompt": "x", "suffix": "y"}),
        json!({"prompt": "x", "best_of": 2}),
        json!({"prompt": "x", "logprobs": 21}),
    ] {
        text(more).is(400);
    }
    let models = server.get("/v1/models").is(200).json();
    let names: Vec<&str> =
        models["data"].as_array().expect("models").iter().filter_map(|m| m["id"].as_str()).collect();
    assert_eq!(names, ["m", "one", "two", "zero"]);
    assert_eq!(server.get("/v1/models/one").is(200).json()["parent"], "m");
    server.get("/v1/models/none").is(404);
    server.get("/nowhere").is(404);
    server.get(CHAT).is(405);
}

#[test]
fn bodies_keys_and_hosts_are_checked() {
    let bench = bench();
    bench.write("keys", "# of the test\nfirst-key-0123456789\nsecond-key-0123456789\n");
    let args = ["--api-key-file", "keys", "--max-body-kib", "8", "--receive-timeout", "1"];
    let server = Server::start(&bench, &args);
    let body =
        json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}).to_string();
    for (header, status) in [
        ("", 401),
        ("Authorization: Bearer first-key-0123456788\r\n", 401),
        ("Authorization: Bearer first-key\r\n", 401),
        ("Authorization: Basic first-key-0123456789\r\n", 401),
        ("Authorization: Bearer first-key-0123456789\r\n", 200),
        ("authorization: bearer second-key-0123456789\r\n", 200),
    ] {
        let reply = server.raw(&request(CHAT, header, &body)).is(status);
        assert_eq!(status == 401, reply.head.contains("www-authenticate: bearer"), "{reply:?}");
    }
    server.get("/v1/models").is(401);
    server.get("/metrics").is(401);
    server.get("/health").is(200);
    let key = "Authorization: Bearer first-key-0123456789\r\n";
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ("\"x\"", 400),
        ("{\"model\": \"m\", \"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}", 400),
        (&"[".repeat(5000), 400),
        (&format!("\"{}\"", "x".repeat(9000)), 413),
    ] {
        server.raw(&request(CHAT, key, body)).is(status);
    }
    // Without a length, and more than may be.
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000)).repeat(3);
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n{key}\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    server.raw(format!("{head}{chunk}0\r\n\r\n").as_bytes()).is(413);
    let form = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n{key}\r\n{{}}"
    );
    server.raw(form.as_bytes()).is(415);
    // A body that does not come, a head that does not come, what is no HTTP.
    let mut late = server.connect();
    late.write_all(format!("{head}5\r\n").as_bytes()).expect("sent");
    read(late).is(408);
    let mut silent = server.connect();
    silent.write_all(b"POST / HT").expect("sent");
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest);
    server.raw(b"\x16\x03\x01\x00\x00 no HTTP\r\n\r\n").is(400);
    server.get("/health").is(200);
    drop(server);

    let open = Server::start(&bench, &["--allowed-host", "proxy.example"]);
    let of = |host: &str| {
        open.raw(format!("GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes())
    };
    for host in ["localhost:80", "127.0.0.1", "[::1]:9", "proxy.example"] {
        of(host).is(200);
    }
    for host in ["evil.example", "localhost.evil.example:80", ""] {
        of(host).is(403);
    }
    let page = open.get("/").is(200);
    assert_has(&page.head, &["default-src 'none'", "frame-ancestors 'none'", "nosniff"]);
}

#[test]
fn addresses_of_a_network_need_a_key() {
    let bench = Bench::new();
    let said = bench.galen(&["serve", "-m", "m.gguf", "--host", "0.0.0.0", "--port", "0"]).exits(2);
    assert_has(&said.stderr, &["API key", "--api-key-file"]);
    bench.write("keys", "short\n");
    let said = bench.galen(&["serve", "-m", "m.gguf", "--api-key-file", "keys"]).exits(1);
    assert_has(&said.stderr, &["line 1", "16 characters"]);
}

#[test]
fn a_full_queue_says_so_and_those_who_hang_up_make_room() {
    let bench = bench();
    let server = Server::start(&bench, &["--max-num-seqs", "1", "--max-waiting", "4", "--kernels", "blocks"]);
    let send = |i: usize| {
        let mut stream = server.connect();
        stream.write_all(&request("/v1/completions", "", &long(i).to_string())).expect("sent");
        stream
    };
    // More than run and wait: somebody is turned away.
    let asked: Vec<_> = (0..24).map(send).collect();
    server.until("a full queue", |s| s.get("/metrics").body.contains("status=\"429\""));
    let replies: Vec<_> = asked.into_iter().map(read).collect();
    let turned_away: Vec<_> = replies.iter().filter(|r| r.status == 429).collect();
    assert!(!turned_away.is_empty() && turned_away.len() < 24, "{} of 24", turned_away.len());
    assert!(
        turned_away
            .iter()
            .all(|r| r.head.contains("retry-after: 1") && r.json()["error"]["code"] == "queue_full")
    );
    assert!(replies.iter().all(|r| [200, 429].contains(&r.status)));

    let before = server.metric("galen_requests_cancelled_total");
    for round in 0..6 {
        let streams: Vec<_> = (0..5).map(|i| send(round * 5 + i)).collect();
        server.until("a request", |s| s.metric("galen_sequences_running") > 0 || round > 0);
        drop(streams);
    }
    server.until("a cancelled request", |s| s.metric("galen_requests_cancelled_total") > before);
    server.until("an empty batch", |s| {
        s.metric("galen_sequences_running")
            + s.metric("galen_requests_waiting")
            + s.metric("galen_cache_tokens_reserved")
            == 0
    });
    server.post("/v1/completions", &long(1)).is(200);
}

#[test]
fn a_stream_whose_reader_goes_leaves_the_batch() {
    let bench = bench();
    let server = Server::start(&bench, &["--max-num-seqs", "32"]);
    let mut body = long(3);
    body["stream"] = json!(true);
    body["n"] = json!(32);
    body["logprobs"] = json!(20);
    let mut stream = server.connect();
    stream.write_all(&request("/v1/completions", "", &body.to_string())).expect("sent");
    let mut first = [0u8; 900];
    stream.read_exact(&mut first).expect("an event");
    drop(stream);
    server.until("a cancelled request", |s| s.metric("galen_requests_cancelled_total") == 1);
    server.until("an empty batch", |s| s.metric("galen_sequences_running") == 0);
    let generated = server.metric("galen_generated_tokens_total");
    assert!(generated < 32 * 480, "all {generated} tokens were drawn for nobody");
}

#[test]
fn who_leaves_an_answer_unread_holds_no_connection() {
    let bench = bench();
    let limits = ["--max-num-seqs", "32", "--max-connections", "1", "--receive-timeout", "1"];
    let server = Server::start(&bench, &limits);
    let mut body = long(3);
    body["stream"] = json!(true);
    body["n"] = json!(32);
    body["logprobs"] = json!(20);
    let mut unread = server.connect();
    unread.write_all(&request("/v1/completions", "", &body.to_string())).expect("sent");
    // There is one connection to be had: this one waits until the other is given up.
    server.get("/health").is(200);
    drop(unread);
}

#[test]
fn what_is_under_way_at_a_sigterm_is_answered() {
    let bench = bench();
    let server = Server::start(&bench, &["--max-num-seqs", "1"]);
    std::thread::scope(|scope| {
        let server = &server;
        let asked: Vec<_> = (0..12)
            .map(|i| {
                let mut body = long(i);
                body["stream"] = json!(i % 2 == 0);
                let mut stream = server.connect();
                stream.write_all(&request("/v1/completions", "", &body.to_string())).expect("sent");
                scope.spawn(move || (i, read(stream)))
            })
            .collect();
        server.until("requests", |s| s.metric("galen_requests_waiting") > 3);
        server.terminate();
        for asked in asked {
            let (i, reply) = asked.join().expect("read");
            let reply = reply.is(200);
            if i % 2 == 0 {
                assert_eq!(reply.events().last().expect("an end")["choices"][0]["finish_reason"], "length");
            } else {
                assert_eq!(reply.json()["usage"]["completion_tokens"], 480);
            }
        }
    });
    assert_eq!(server.wait(), Some(0));

    let server = Server::start(&bench, &["--max-num-seqs", "1", "--drain-timeout", "0"]);
    let asked: Vec<_> = (0..60)
        .map(|i| {
            let mut stream = server.connect();
            stream.write_all(&request("/v1/completions", "", &long(i).to_string())).expect("sent");
            stream
        })
        .collect();
    server.until("requests", |s| s.metric("galen_requests_waiting") > 9);
    server.terminate();
    assert_eq!(server.wait(), Some(143));
    drop(asked);
}

#[test]
fn adapters_come_and_go_where_that_is_allowed() {
    let bench = bench();
    let load = json!({"lora_name": "late", "lora_path": "a1"});
    let server = Server::start(&bench, &[]);
    let off = server.post("/v1/load_lora_adapter", &load).is(403);
    assert_has(&off.body, &["--adapter-dir"]);
    server.post("/v1/unload_lora_adapter", &json!({"lora_name": "one"})).is(403);
    drop(server);

    std::fs::create_dir(bench.path("allowed")).expect("a directory");
    std::fs::create_dir(bench.path("allowed/broken")).expect("a directory");
    std::fs::rename(bench.path("a1"), bench.path("allowed/a1")).expect("moved");
    #[cfg(unix)]
    std::os::unix::fs::symlink(bench.path("a2"), bench.path("allowed/out")).expect("a link");
    let export =
        ["export", "-m", "m.gguf", "--adapter", "a0", "--format", "gguf-lora", "--out", "allowed/g.gguf"];
    bench.galen(&export).exits(0);
    let args = ["serve", "-m", "m.gguf", "--port", "0", "--adapter-dir", "allowed"];
    let server = Server::start_with(&bench, &args);
    let ask = |model: &str| {
        server.post("/v1/completions", &json!({"model": model, "prompt": "Hi", "seed": 1, "temperature": 1}))
    };
    ask("late").is(404);
    let added = server.post("/v1/load_lora_adapter", &load).is(200);
    assert_eq!(added.body, "Success: LoRA adapter 'late' added successfully.");
    let text = |model: &str| ask(model).is(200).json()["choices"][0]["text"].clone();
    let (base, late) = (text("m"), text("late"));
    assert_ne!(base, late);
    server.post("/v1/load_lora_adapter", &load).is(400);
    // A GGUF adapter too; a model's file is none, and one elsewhere is not looked at.
    server.post("/v1/load_lora_adapter", &json!({"lora_name": "file", "lora_path": "g.gguf"})).is(200);
    assert!(![&base, &late].contains(&&text("file")));
    server.post("/v1/unload_lora_adapter", &json!({"lora_name": "file"})).is(200);
    for path in
        ["../m.gguf", "../a0", "a9", "out", "broken", ".", "", bench.path("a0").to_str().expect("text")]
    {
        let reply =
            server.post("/v1/load_lora_adapter", &json!({"lora_name": "x", "lora_path": path})).is(400);
        assert!(!reply.body.contains("secret"), "{reply:?}");
        ask("x").is(404);
    }
    server.post("/v1/load_lora_adapter", &json!({"lora_name": "m", "lora_path": "a1"})).is(400);
    server.post("/v1/load_lora_adapter", &json!({"lora_name": "y", "lora_path": "a1", "more": 1})).is(400);
    server.post("/v1/unload_lora_adapter", &json!({"lora_name": "late"})).is(200);
    ask("late").is(404);
    server.post("/v1/unload_lora_adapter", &json!({"lora_name": "late"})).is(404);
    server.post("/v1/unload_lora_adapter", &json!({"lora_name": "m"})).is(404);
    assert_eq!(text("m"), base);
    server.post("/v1/load_lora_adapter", &load).is(200);
    assert_eq!(text("late"), late);
}
