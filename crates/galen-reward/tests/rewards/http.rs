//! A reward endpoint on this machine.

use crate::bench::{Sample, completions, one, samples, score};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Debug, Clone)]
struct Request {
    first: String,
    headers: Vec<(String, String)>,
    body: Value,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

struct Answer {
    status: u16,
    headers: &'static str,
    body: String,
    /// Says nothing for this long first.
    wait: Duration,
}

fn answer(status: u16, headers: &'static str, body: impl ToString) -> Answer {
    Answer { status, headers, body: body.to_string(), wait: Duration::ZERO }
}

/// One request a connection; the handler is told how many came before.
struct Server {
    url: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(handler: impl Fn(usize, &Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/judge?v=1", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&log);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(stream, &seen, &handler);
            }
        });
        Self { url, log }
    }

    fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    fn entry(&self, options: Value) -> Value {
        let mut entry = json!({"name": "http", "url": self.url, "timeout_s": 20});
        for (key, value) in options.as_object().unwrap() {
            entry[key] = value.clone();
        }
        entry
    }

    fn fails(&self, options: Value, expect: &[&str]) -> String {
        let error = score(&self.entry(options), &samples(2)).unwrap_err().to_string();
        for part in expect {
            assert!(error.contains(part), "{error}\n(expected `{part}`)");
        }
        assert!(error.starts_with("reward `http`: http://127.0.0.1:") && !error.contains("?v=1"), "{error}");
        error
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Request>>, handler: &impl Fn(usize, &Request) -> Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = || {
        let mut text = String::new();
        reader.read_line(&mut text).unwrap_or(0);
        text.trim_end().to_owned()
    };
    let first = line();
    let headers: Vec<(String, String)> = std::iter::from_fn(|| Some(line()).filter(|l| !l.is_empty()))
        .filter_map(|l| l.split_once(':').map(|(k, v)| (k.to_owned(), v.trim().to_owned())))
        .collect();
    let mut request = Request { first, headers, body: Value::Null };
    let mut body = vec![0; request.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0)];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    request.body = serde_json::from_slice(&body).unwrap_or_default();
    let n = {
        let mut log = log.lock().unwrap();
        log.push(request.clone());
        log.len() - 1
    };
    let Answer { status, headers, body, wait } = handler(n, &request);
    std::thread::sleep(wait);
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    let _ = stream.write_all((head + &body).as_bytes());
}

/// Judges each completion by its row's answer, in reverse order.
fn judge(_: usize, request: &Request) -> Answer {
    let list = request.body["requests"].as_array().unwrap().iter().rev();
    let rewards: Vec<_> = list.map(|r| json!({"id": r["id"], "reward": r["row"]["answer"]})).collect();
    answer(200, "", json!({"rewards": rewards}))
}

#[test]
fn batches_are_posted_and_answers_read() {
    let server = Server::start(judge);
    let got = score(&server.entry(json!({"batch_size": 2})), &samples(5)).unwrap();
    assert_eq!(got, [0.0, 1.0, 2.0, 3.0, 4.0].map(Some));
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    assert_eq!(requests[0].first, "POST /judge?v=1 HTTP/1.1");
    assert_eq!(requests[0].header("content-type"), Some("application/json"));
    assert_eq!(requests[0].header("authorization"), None);
    let expect = json!({"id": 1, "prompt": "2 + 2?", "completion": "c1", "tokens": null, "finish_reason": "stop", "row": {"answer": 1}});
    assert_eq!(requests[0].body["requests"][1], expect);
    assert_eq!(requests[2].body["requests"].as_array().unwrap().len(), 1);
    let plain = Server::start(|_, _| answer(200, "", r#"{"rewards": [null, 0.5]}"#));
    assert_eq!(score(&plain.entry(json!({})), &samples(2)).unwrap(), [None, Some(0.5)]);
    // A text of elsewhere has no tokens; one that was sampled has.
    let counting = Server::start(|_, _| answer(200, "", r#"{"rewards": [1]}"#));
    score(&counting.entry(json!({})), &[Sample::of_tokens(vec![7, 8, 9])]).unwrap();
    assert_eq!(counting.requests()[0].body["requests"][0]["tokens"], 3);
}

#[test]
fn a_key_is_sent_and_never_shown() {
    // A variable that every test run has stands for the key.
    let key = std::env::var("CARGO_PKG_NAME").unwrap();
    let server = Server::start(move |n, _| match n {
        0 => answer(200, "", r#"{"rewards": [1, 1]}"#),
        _ => answer(403, "", format!("no such key: {key}")),
    });
    let options = json!({"api_key_env": "CARGO_PKG_NAME"});
    let entry = server.entry(options.clone());
    score(&entry, &samples(2)).unwrap();
    assert_eq!(server.requests()[0].header("authorization"), Some("Bearer galen-reward"));
    assert!(!format!("{:?}", one(&entry)).contains("galen-reward"));
    let error =
        server.fails(options, &["access refused (status 403), saying `no such key: ***`", "the key in use"]);
    assert!(!error.contains("galen-reward"), "{error}");
    server.fails(json!({}), &["hint: `api_key_env` names"]);
}

#[test]
fn what_may_pass_is_tried_again() {
    let server = Server::start(|n, request| match n {
        0 => answer(429, "Retry-After: 0\r\n", "slow down"),
        1 => answer(503, "Retry-After: 0\r\n", ""),
        2 => answer(500, "", ""),
        _ => judge(n, request),
    });
    assert_eq!(score(&server.entry(json!({"retries": 3})), &samples(2)).unwrap(), [Some(0.0), Some(1.0)]);
    let bodies: Vec<_> = server.requests().into_iter().map(|r| r.body).collect();
    assert_eq!(bodies.len(), 4);
    assert!(bodies.iter().all(|b| *b == bodies[0]));
    let down = Server::start(|_, _| answer(503, "Retry-After: 0\r\n", "over\nloaded"));
    down.fails(json!({"retries": 2}), &["status 503, saying `over loaded`, tried 3 times"]);
    assert_eq!(down.requests().len(), 3);
}

#[test]
fn what_will_not_pass_is_not() {
    for (status, headers, body, expect) in [
        (400, "", "{\"detail\": \"bad\"}", "status 400, saying `{\"detail\": \"bad\"}`"),
        (404, "", "", "status 404"),
        (
            302,
            "Location: http://judge.test/?k=secret\r\n",
            "",
            "redirects to `http://judge.test/`, which is not followed",
        ),
        (200, "", "<html>", "answered `<html>`, which is not JSON"),
        (200, "", "{\"rewards\": [1]}", "answered `1` rewards to `2` requests"),
        (200, "", "{\"rewards\": [1, NaN]}", "which is not JSON"),
    ] {
        let server = Server::start(move |_, _| answer(status, headers, body));
        let error = server.fails(json!({}), &[expect]);
        assert!(!error.contains("secret"), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn silence_and_closed_doors() {
    let server = Server::start(|_, _| Answer { wait: Duration::from_secs(3), ..answer(200, "", "") });
    server.fails(json!({"timeout_s": 0.2, "retries": 0}), &["no answer in time, tried 1 times"]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let entry = json!({"name": "http", "url": format!("http://{closed}/"), "retries": 0});
    let error = score(&entry, &samples(1)).unwrap_err().to_string();
    assert!(error.contains("no connection: ") && error.contains("tried 1 times"), "{error}");
}

#[test]
fn large_batches_pass() {
    let server = Server::start(judge);
    let large: Vec<_> = (0..8).map(|i| Sample::new(&"y".repeat(500_000), i)).collect();
    let set = one(&server.entry(json!({})));
    assert_eq!(set.score(&completions(&large)).unwrap().total.len(), 8);
}
