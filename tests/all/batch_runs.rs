//! `galen run-batch`: each answer is a function of its own line, and a killed run goes on where it was.

use crate::cli::{Bench, assert_has};
use crate::serve_support::bench;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn line(i: usize) -> Value {
    let model = ["m", "zero", "one"][i % 3];
    let (url, body) = if i % 4 == 3 {
        (
            "/v1/completions",
            json!({"model": model, "prompt": format!("Go {i}"), "max_tokens": 200, "n": 1 + i % 2}),
        )
    } else {
        let messages = json!([{"role": "user", "content": format!("Say {i}.")}]);
        (
            "/v1/chat/completions",
            json!({"model": model, "messages": messages, "max_tokens": 150, "temperature": 1.1}),
        )
    };
    json!({"custom_id": format!("r{i}"), "method": "POST", "url": url, "body": body})
}

/// Answers by name, without the time they were made.
fn answers(bench: &Bench, name: &str) -> BTreeMap<String, Value> {
    let parse = |line: &str| {
        let mut answer: Value = serde_json::from_str(line).expect("JSON");
        if let Some(body) = answer["response"]["body"].as_object_mut() {
            body.remove("created");
        }
        (answer["custom_id"].as_str().expect("a name").to_owned(), answer)
    };
    bench.read(name).lines().map(parse).collect()
}

const RUN: [&str; 7] = ["run-batch", "-m", "m.gguf", "--adapter", "zero=a0", "one=a1", "--json"];

#[test]
fn a_killed_batch_goes_on_and_the_order_of_requests_does_not_matter() {
    let bench = bench();
    let mut lines: Vec<Value> = (0..40).map(line).collect();
    bench.write_rows("in.jsonl", &lines);
    let said = bench.galen(&[&RUN[..], &["-i", "in.jsonl", "-o", "whole.jsonl"]].concat()).exits(0).json();
    assert_eq!((&said["requests"], &said["failed"]), (&json!(40), &json!(0)));
    let whole = answers(&bench, "whole.jsonl");
    let names: Vec<String> = bench.read("whole.jsonl").lines().map(|l| l[..70].to_owned()).collect();
    assert!(
        names.iter().enumerate().all(|(i, n)| n.contains(&format!("\"custom_id\":\"r{i}\""))),
        "{names:?}"
    );
    for (name, answer) in &whole {
        assert_eq!(answer["response"]["status_code"], 200, "{name}");
        assert!(
            answer["error"].is_null() && answer["id"].as_str().is_some_and(|i| i.starts_with("batch_req_"))
        );
    }

    // In another order, and one at a time.
    lines.reverse();
    bench.write_rows("reversed.jsonl", &lines);
    let alone = ["-i", "reversed.jsonl", "-o", "alone.jsonl", "--max-num-seqs", "2", "--kernels", "passes"];
    bench.galen(&[&RUN[..], &alone].concat()).exits(0);
    assert_eq!(answers(&bench, "alone.jsonl"), whole);

    let again = [&RUN[..], &["-i", "in.jsonl", "-o", "out.jsonl", "--kernels", "passes"]].concat();
    let mut child = bench.command(&[&again[..], &["--max-num-seqs", "2"]].concat()).spawn().expect("starts");
    let partial = bench.path("out.jsonl.partial");
    let lines_there = || std::fs::read_to_string(&partial).map_or(0, |t| t.lines().count());
    while lines_there() < 4 {
        assert!(child.try_wait().expect("asked").is_none(), "it ended before it could be killed");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().expect("killed");
    child.wait().expect("waited for");
    let left = lines_there();
    assert!(left < 41 && !bench.path("out.jsonl").exists(), "{left} lines");
    let mut torn = std::fs::read(&partial).expect("a file");
    torn.extend(b"{\"id\":\"batch_req_");
    std::fs::write(&partial, torn).expect("written");

    let other = bench.galen(&[&RUN[..], &["-i", "reversed.jsonl", "-o", "out.jsonl"]].concat()).exits(2);
    assert_has(&other.stderr, &["another input", "hint:"]);
    let resumed = bench.galen(&again).exits(0);
    assert_has(&resumed.stderr, &["were answered before"]);
    assert_eq!(answers(&bench, "out.jsonl"), whole);
    assert!(!partial.exists());
    let there = bench.galen(&again).exits(2);
    assert_has(&there.stderr, &["is there already"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_batch_ends_at_once_though_requests_wait() {
    let bench = bench();
    let lines: Vec<Value> = (0..60).map(line).collect();
    bench.write_rows("in.jsonl", &lines);
    let args = [&RUN[..], &["-i", "in.jsonl", "-o", "out.jsonl", "--max-num-seqs", "2"]].concat();
    let mut child = bench.command(&args).spawn().expect("starts");
    let partial = bench.path("out.jsonl.partial");
    while std::fs::read_to_string(&partial).map_or(0, |t| t.lines().count()) < 3 {
        assert!(child.try_wait().expect("asked").is_none(), "it ended before it was interrupted");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    crate::kill::signal(&child, "-INT");
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    let status = loop {
        if let Some(status) = child.try_wait().expect("asked") {
            break status;
        }
        if std::time::Instant::now() > deadline {
            child.kill().expect("killed");
            panic!("it hangs");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert_eq!(status.code(), Some(130));
    assert!(partial.is_file() && !bench.path("out.jsonl").exists());
}

#[test]
fn what_cannot_be_answered_says_why() {
    let bench = bench();
    let with = |field: &str, value: Value| {
        let mut line = line(0);
        line["custom_id"] = json!(format!("{field}-{value}"));
        line["body"][field] = value;
        line
    };
    bench.write_rows(
        "in.jsonl",
        &[line(0), with("model", json!("none")), with("stream", json!(true)), with("made_up", json!(1))],
    );
    let args = ["run-batch", "-m", "m.gguf", "-i", "in.jsonl", "-o", "out.jsonl", "--json"];
    assert_eq!(bench.galen(&args).exits(0).json()["failed"], 3);
    let statuses: Vec<Value> = bench
        .read("out.jsonl")
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).expect("JSON")["response"].clone())
        .collect();
    let status = |i: usize| statuses[i]["status_code"].as_u64();
    assert_eq!([0, 1, 2, 3].map(status), [Some(200), Some(404), Some(400), Some(400)]);
    assert_eq!(statuses[3]["body"]["error"]["param"], "made_up");
    for (text, said) in [
        (format!("{}\n{}\n", line(1), line(1)), "in.jsonl:2: `custom_id` `r1` is line 1's too"),
        (format!("{}\nnonsense\n", line(1)), "in.jsonl:2: not JSON"),
        ("\n\n".to_owned(), "no request"),
    ] {
        bench.write("in.jsonl", &text);
        let failed =
            bench.galen(&["run-batch", "-m", "m.gguf", "-i", "in.jsonl", "-o", "other.jsonl"]).exits(1);
        assert_has(&failed.stderr, &[said]);
    }
}
