//! `galen data` from outside.

use crate::cli::{Bench, assert_has};
use serde_json::json;
use std::collections::BTreeSet;

#[test]
fn inspect_marks_what_is_trained() {
    let bench = Bench::new();
    let inspect =
        |stage: &str| bench.galen(&["data", "inspect", "c.yaml", "--stage", stage, "-n", "1"]).exits(0);
    let turn = "<|im_start|>user\nSay 0.<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(inspect("rendered").stdout, format!("d.jsonl:1\n{turn}[+It is 0.<|im_end|>+]\n"));
    let tokens = inspect("tokenized").stdout;
    // A byte a token: nine supervised ones are the answer's eight bytes and the end of its turn.
    assert_has(
        &tokens,
        &["d.jsonl:1  row 0  35 tokens, 9 supervised", "|S|a|y| |0|.|<|im_end|>|", "[+I+]|[+t+]"],
    );
    let batch = inspect("packed").stdout;
    assert_has(&batch, &["2 segments, 18 targets", "segment 0  row ", "segment 1  row ", "[+<|im_end|>+]"]);
}

#[test]
fn inspect_takes_data_and_a_model_and_colours_only_when_told() {
    let bench = Bench::new();
    let from_data =
        ["data", "inspect", "d.jsonl", "-m", "m.gguf", "--stage", "rendered", "-n", "2", "--skip", "1"];
    let plain = bench.galen(&from_data).exits(0).stdout;
    assert_has(&plain, &["d.jsonl:2\n", "d.jsonl:3\n"]);
    // stdout is no terminal here.
    assert!(!plain.contains("d.jsonl:1\n") && !plain.contains("d.jsonl:4\n") && !plain.contains('\x1b'));
    let coloured = bench.galen(&[&from_data[..], &["--color", "always"]].concat()).exits(0).stdout;
    assert_has(&coloured, &["\x1b[32mIt is 1.<|im_end|>\x1b[0m"]);
    let other = bench.galen(&[&from_data[..], &["--chat_template", "gemma"]].concat()).exits(0).stdout;
    assert_has(&other, &["<start_of_turn>model\n"]);
    let past = bench.galen(&["data", "inspect", "c.yaml", "--skip", "99"]).exits(0);
    assert_eq!(past.stdout, "");
    assert_has(&past.stderr, &["nothing to show"]);
    let nobody = bench.galen(&["data", "inspect", "d.jsonl"]).exits(2);
    assert_has(&nobody.stderr, &["error: `d.jsonl` is data", "\nhint: `--model M`"]);
}

#[test]
fn check_counts_and_its_exit_code_tells() {
    let bench = Bench::new();
    let clean = bench.galen(&["data", "check", "c.yaml"]).exits(0);
    assert_has(&clean.stdout, &["d.jsonl (train)", "turns of assistant           24", "(216 supervised)"]);

    let good = bench.read("d.jsonl");
    let first = good.lines().next().expect("a row");
    bench.write("bad.jsonl", &format!("{good}{first}\n{{\"messages\": 3}}\n{{nope\n"));
    let check = ["data", "check", "bad.jsonl", "-m", "m.gguf", "--sequence_len", "35", "--json"];
    let said = bench.galen(&check).exits(1);
    let report = said.json();
    let entry = &report["entries"][0];
    assert_eq!(report["clean"], false);
    assert_eq!(
        (&entry["rows"], &entry["readable"], &entry["duplicates"]),
        (&json!(27), &json!(25), &json!(1))
    );
    assert_eq!(entry["bad_rows"], json!({"syntax": 1, "wrong_kind": 1}));
    assert_eq!(entry["duplicate_examples"], json!(["bad.jsonl:25 repeats bad.jsonl:1"]));
    // `Say N.` with one digit is 35 tokens, with two 36.
    let one_digit = (0..24).filter(|i| i * 37 % 100 < 10).count();
    assert_eq!(entry["too_long"], json!(24 - one_digit));
    assert_has(
        &said.stderr,
        &["error: bad.jsonl: of 27 rows 2 cannot be used", "longer than 35 tokens", "\nhint: "],
    );
}

#[test]
fn split_writes_parts_that_share_no_group_and_overwrites_nothing() {
    let bench = Bench::new();
    let rows: Vec<_> = (0..60).map(|i| json!({"text": format!("row {i}"), "section": i % 12})).collect();
    bench.write_rows("all.jsonl", &rows);
    let split = [
        "data",
        "split",
        "all.jsonl",
        "--group_by",
        "section",
        "--test",
        "10",
        "--val",
        "0.2",
        "-o",
        "parts",
    ];
    let said = bench.galen(&[&split[..], &["--json"]].concat()).exits(0).json();
    let mut seen: BTreeSet<u64> = BTreeSet::new();
    let (mut total, mut groups) = (0, 0);
    for (part, name) in said["parts"].as_array().expect("parts").iter().zip(["train", "test", "val"]) {
        let text = bench.read(&format!("parts/{name}.jsonl"));
        let sections: BTreeSet<u64> = text
            .lines()
            .map(|l| {
                serde_json::from_str::<serde_json::Value>(l).expect("a row")["section"]
                    .as_u64()
                    .expect("a number")
            })
            .collect();
        assert_eq!(part["part"], name);
        assert_eq!(part["rows"], json!(text.lines().count()));
        assert_eq!(part["groups"], json!(sections.len()));
        total += text.lines().count();
        groups += sections.len();
        seen.extend(sections);
    }
    assert_eq!((total, groups, seen.len()), (60, 12, 12));
    assert_eq!(said["parts"][1]["rows"], 10, "two groups of five fit into ten rows");

    // A folder, as the other commands read it.
    std::fs::create_dir_all(bench.path("folder")).expect("a folder");
    bench.write("folder/all.jsonl", &bench.read("all.jsonl"));
    let folder =
        ["data", "split", "folder", "--group-by", "section", "--test", "10", "--val", "0.2", "-o", "parts2"];
    bench.galen(&folder).exits(0);
    for name in ["train", "test", "val"] {
        assert_eq!(bench.read(&format!("parts2/{name}.jsonl")), bench.read(&format!("parts/{name}.jsonl")));
    }

    // One group has half of the rows: no share comes near a tenth.
    let rows: Vec<_> = (0..400).map(|i| json!({"text": format!("row {i}"), "section": i % 2})).collect();
    bench.write_rows("halves.jsonl", &rows);
    let halves = ["data", "split", "halves.jsonl", "--group-by", "section", "--test", "0.1", "-o", "parts3"];
    assert_has(&bench.galen(&halves).exits(0).stderr, &["note: test has ", "where 10.0 % were asked for"]);
    let single = ["data", "split", "halves.jsonl", "--test", "0.1", "-o", "parts4"];
    assert!(!bench.galen(&single).exits(0).stderr.contains("note:"), "of so many a tenth comes near a tenth");

    let train = bench.read("parts/train.jsonl");
    let again = bench.galen(&split).exits(2);
    assert_has(&again.stderr, &["parts/train.jsonl: exists already", "\nhint: "]);
    assert_eq!(bench.read("parts/train.jsonl"), train);
    let wrong = bench.galen(&["data", "split", "all.jsonl", "--group-by", "sektion", "-o", "other"]).exits(1);
    assert_has(&wrong.stderr, &["error: all.jsonl:1: field `sektion` is missing", "`section`"]);
    assert!(!bench.path("other").exists(), "nothing is written when nothing was split");
}
