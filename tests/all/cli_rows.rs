//! `galen data dedup`, `contamination` and `align` from outside.

use crate::cli::{Bench, assert_has};
use serde_json::{Value, json};

fn chat(question: &str, answer: &str) -> Value {
    json!({"messages": [{"role": "system", "content": "You are a careful assistant that answers in one word and no more."},
        {"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
}

const LONG: &str =
    "A 54 year old man with a history of smoking has had chest pain and fever for three days now";

#[test]
fn dedup_keeps_the_first_of_each() {
    let bench = Bench::new();
    let near = LONG.replace("three days now", "three days");
    let rows = [
        chat(LONG, "x"),
        chat("Cholera?", "A"),
        chat("CHOLERA", "a."),
        chat(&near, "x"),
        chat("Plague?", "A"),
        chat("Cholera?", "A"),
    ];
    bench.write_rows("a.jsonl", &rows);
    let said = bench.galen(&["data", "dedup", "a.jsonl", "-o", "kept.jsonl", "--json"]).exits(0).json();
    assert_eq!(
        (&said["rows"], &said["exact_duplicates"], &said["near_duplicates"], &said["kept"]),
        (&json!(6), &json!(2), &json!(1), &json!(3))
    );
    // Rows as they were: the lines of the first, the second and the fifth row.
    let input = bench.read("a.jsonl");
    let lines: Vec<&str> = input.lines().collect();
    assert_eq!(bench.read("kept.jsonl"), format!("{}\n{}\n{}\n", lines[0], lines[1], lines[4]));
    let near = &said["near_examples"][0];
    assert_eq!((&near["row"], &near["of"]), (&json!("a.jsonl:4"), &json!("a.jsonl:1")));
    assert_eq!(said["most_repeated"][0]["times"], 2);

    // Several files of other formats against one another, by a field; exact ones alone; and the exit code for scripts.
    bench.write("b.csv", "q,a\nCholera,x\nPlague,y\n\"plague\",z\n");
    bench.write(
        "c.json",
        "[{\"q\": \"Plague!\", \"n\": 1.10}, {\"q\": \"Malaria\", \"n\": 12345678901234567890}]",
    );
    let args =
        ["data", "dedup", "b.csv", "c.json", "--field", "q", "--threshold", "2", "--out", "kept2.jsonl"];
    let said = bench.galen(&args).exits(0);
    assert_has(
        &said.stdout,
        &["exact duplicates           2  40.0 %", "rows kept                  3", "c.json:1 is b.csv:3"],
    );
    assert_eq!(
        bench.read("kept2.jsonl"),
        "{\"q\":\"Cholera\",\"a\":\"x\"}\n{\"q\":\"Plague\",\"a\":\"y\"}\n{\"q\":\"Malaria\",\"n\":12345678901234567890}\n"
    );
    let said = bench.galen(&["data", "dedup", "b.csv", "--field", "q", "--check"]).exits(1);
    assert_has(&said.stderr, &["error: 1 of 3 rows repeats an earlier one", "\nhint: "]);
    bench.galen(&["data", "dedup", "b.csv", "--field", "a", "--fail-on-duplicates"]).exits(0);
}

#[test]
fn answers_beside_a_chat_are_compared() {
    let bench = Bench::new();
    let row = |chosen: &str, rejected: &str| {
        let ask = json!([{"role": "user", "content": "Which letter has cholera?"}]);
        json!({"messages": ask, "chosen": chosen, "rejected": rejected})
    };
    bench.write_rows("p.jsonl", &[row("a", "b"), row("c", "d"), row("c", "d")]);
    bench.write_rows("eval.jsonl", &[json!({"text": LONG})]);
    bench.write_rows("q.jsonl", &[row("no", &format!("{LONG}, so it is"))]);
    for kind in [&[][..], &["--type", "chat_template.default"]] {
        let said = bench.galen(&[&["data", "dedup", "p.jsonl", "--json"], kind].concat()).exits(0).json();
        assert_eq!((&said["exact_duplicates"], &said["kept"]), (&json!(1), &json!(2)), "{kind:?}");
        let args =
            [&["data", "contamination", "q.jsonl", "--against", "eval.jsonl", "--json"], kind].concat();
        assert_eq!(bench.galen(&args).exits(0).json()["contaminated"], 1, "{kind:?}");
    }
}

/// Evaluation sets of several splits: what is examined on is read, and said, or nothing is.
#[test]
fn contamination_reads_what_is_evaluated() {
    let bench = Bench::new();
    let rows = |what: &str| format!("{{\"question\": \"{what}\", \"answer\": \"M\"}}\n");
    bench.write("train.jsonl", &[rows("Plague?"), rows("Cholera?"), rows("Malaria?")].concat());
    let against = |set: &str, flags: &[&str]| {
        bench.galen(
            &[&["--offline", "data", "contamination", "train.jsonl", "--against", set], flags].concat(),
        )
    };
    let write = |dir: &str| {
        let cached = format!("hf/hub/datasets--org--{dir}");
        let commit = "0123456789abcdef0123456789abcdef01234567";
        std::fs::create_dir_all(bench.path(dir)).expect("a folder");
        std::fs::create_dir_all(bench.path(&format!("{cached}/refs"))).expect("a folder");
        std::fs::create_dir_all(bench.path(&format!("{cached}/snapshots/{commit}"))).expect("a folder");
        bench.write(&format!("{cached}/refs/main"), commit);
        format!("{cached}/snapshots/{commit}")
    };
    // Each as a folder, and as a data set of the hub in the cache.
    for (dir, files, expect) in [
        (
            "both",
            &[("train.jsonl", "Plague?"), ("test.jsonl", "Cholera?"), ("dev.jsonl", "Malaria?")][..],
            Some(("test", "CHOLERA")),
        ),
        ("dev", &[("train.jsonl", "Plague?"), ("dev.jsonl", "Malaria?")], Some(("validation", "MALARIA"))),
        ("plain", &[("rows.jsonl", "Plague?")], Some(("", "PLAGUE"))),
        ("only", &[("train.jsonl", "Plague?")], None),
    ] {
        let snapshot = write(dir);
        for (name, what) in files {
            bench.write(&format!("{dir}/{name}"), &rows(what));
            bench.write(&format!("{snapshot}/{name}"), &rows(what));
        }
        for set in [dir.to_owned(), format!("org/{dir}")] {
            let Some((split, hit)) = expect else {
                let said = against(&set, &[]).exits(1);
                assert_has(&said.stderr, &["without a split `test` or `validation`", "\nhint: "]);
                continue;
            };
            let said = against(&set, &["--json"]).exits(0).json();
            let found = &said["sets"][0];
            assert_eq!((&said["contaminated"], &found["rows"]), (&json!(1), &json!(1)), "{set}: {said}");
            let text = found["examples"][0]["text"].as_str().unwrap_or_default().to_uppercase();
            assert!(text.starts_with(hit), "{set}: {text}");
            if split.is_empty() {
                assert_eq!(found["split"], Value::Null, "{set}");
            } else {
                assert_eq!(found["split"], split, "{set}");
                let about = found["compared"].as_str().unwrap_or_default();
                assert!(about.ends_with(&format!("split `{split}`")), "{set}: {about}");
                let said = against(&set, &[]).exits(0);
                assert_has(&said.stdout, &[&format!("{set} ({split})")]);
                assert_has(&said.stderr, &[&format!("split `{split}`")]);
            }
        }
    }
    // A file is what it is, whatever its name.
    assert_eq!(against("both/train.jsonl", &["--json"]).exits(0).json()["sets"][0]["split"], Value::Null);
    // An error within the split is told; nothing else is read in its place.
    bench.write("both/test.jsonl", "{\"question\": \n");
    assert_has(&against("both", &[]).exits(1).stderr, &["test.jsonl:1: not valid JSON"]);
    bench.write("both/test.jsonl", "");
    assert_has(&against("both", &[]).exits(1).stderr, &["both: it has no rows"]);
}

#[test]
fn rows_of_a_task_that_say_nothing_are_bad_rows() {
    let bench = Bench::new();
    let row = |q: &str| json!({"q": q, "a": "!"});
    bench.write_rows("test.jsonl", &[row("Which letter has cholera?"), row("...")]);
    bench.write_rows("train.jsonl", &[json!({"text": "Which letter has cholera?"})]);
    bench.write(
        "task.yaml",
        "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: test.jsonl}}\ntest_split: test\n\
         output_type: generate_until\ndoc_to_text: q\ndoc_to_target: a\n",
    );
    bench.write_rows("data.jsonl", &[json!({"text": "Which letter has plague?"}), json!({"text": "..."})]);
    for set in ["task.yaml", "data.jsonl"] {
        let args = ["data", "contamination", "train.jsonl", "--against", set];
        let said = bench.galen(&args).exits(1);
        assert_has(&said.stderr, &[":2: the row has no text to compare", "\nhint: `--on-bad-row skip`"]);
        let skip = [&args[..], &["--on-bad-row", "skip"]].concat();
        let found = &bench.galen(&[&skip[..], &["--json"]].concat()).exits(0).json()["sets"][0];
        assert_eq!((&found["rows"], &found["left_out"]), (&json!(1), &json!(1)), "{set}");
        assert_has(&bench.galen(&skip).exits(0).stdout, &["and 1 row of it left out"]);
    }
    // Flags that would do nothing.
    for (flags, words) in [
        (&["--common", "0"][..], &["--common"][..]),
        (&["--whole-from", "20"], &["`--whole-from 20` is above `--ngram 13`", "\nhint: "]),
    ] {
        let args = [&["data", "contamination", "train.jsonl", "--against", "data.jsonl"], flags].concat();
        assert_has(&bench.galen(&args).exits(2).stderr, words);
    }
}

#[test]
fn hostile_files_are_named_by_line_and_nothing_is_written() {
    let bench = Bench::new();
    let good = chat("Cholera?", "A").to_string();
    bench.write("empty.jsonl", "");
    bench.write("broken.jsonl", &format!("{good}\n{{\"messages\": [\n{good}\n"));
    bench.write_bytes("latin.jsonl", &[good.as_bytes(), b"\n{\"messages\": \"caf\xe9\"}\n"].concat());
    bench.write("silent.jsonl", "{\"a\": \"word\"}\n{\"a\": \"...\"}\n{\"a\": 7}\n");
    bench.write("one.jsonl", "{\"q\": \"Cholera\"}\n");
    for command in ["dedup", "contamination", "align"] {
        let more: &[&str] = match command {
            "contamination" => &["--against", "one.jsonl"],
            "align" => &["--target", "one.jsonl", "--budget", "1"],
            _ => &[],
        };
        let galen = |file: &str, flags: &[&str]| {
            bench.galen(&[&["data", command, file, "-o", "x.jsonl"], more, flags].concat())
        };
        for (file, flags, words) in [
            ("empty.jsonl", &[][..], &["error: empty.jsonl: it has no rows"][..]),
            ("broken.jsonl", &[], &["error: broken.jsonl:2: not valid JSON", "\nhint: `--on-bad-row skip`"]),
            ("latin.jsonl", &[], &["error: latin.jsonl:2: it is not UTF-8", "\nhint: "]),
            ("silent.jsonl", &[], &["error: silent.jsonl:2: the row has no text to compare", "\nhint: "]),
            (
                "silent.jsonl",
                &["--field", "b"],
                &["silent.jsonl:1: field `b` is missing", "hint: the row has `a`"],
            ),
            ("missing.jsonl", &[], &["error: missing.jsonl: "]),
        ] {
            let said = galen(file, flags).exits(1);
            assert_has(&said.stderr, words);
            assert!(!bench.path("x.jsonl").exists(), "{command} {file}");
        }
        let said = galen("broken.jsonl", &["--on-bad-row", "skip", "--json"]).exits(0);
        assert_eq!((&said.json()["rows"], &said.json()["left_out"]), (&json!(2), &json!(1)), "{command}");
        assert_has(&said.stderr, &["left out: broken.jsonl:2: "]);
        std::fs::remove_file(bench.path("x.jsonl")).expect("it was written");
        // What is read stays.
        for out in ["one.jsonl", "./broken.jsonl", "d.jsonl"] {
            let args = [&["data", command, "broken.jsonl", "one.jsonl", "-o", out], more].concat();
            let said = bench.galen(&args).exits(2);
            assert_has(&said.stderr, &["\nhint: name another file"]);
        }
        assert_eq!(bench.read("one.jsonl"), "{\"q\": \"Cholera\"}\n");
        let said = bench.galen(&[&["data", command, "one.jsonl", "-o", "x.csv"], more].concat()).exits(2);
        assert_has(&said.stderr, &["rows are written as JSON lines"]);
    }
    let left: Vec<_> =
        std::fs::read_dir(bench.path(".")).expect("a folder").flatten().map(|e| e.file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().starts_with(".tmp-")), "{left:?}");
}

#[test]
fn contamination_counts_by_evaluation_set() {
    let bench = Bench::new();
    let instruction = "Give the first letter of the code that this diagnosis has in the classification: ";
    let ask = |what: &str| format!("{instruction}{what}");
    let test: Vec<Value> = (0..12)
        .map(|i| json!({"question": ask(&format!("disorder {i} of the knee")), "letter": "M", "id": format!("t{i}")}))
        .collect();
    bench.write_rows("test.jsonl", &test);
    bench.write(
        "task.yaml",
        "task: knees\ndataset_path: json\ndataset_kwargs: {data_files: {test: test.jsonl}}\ntest_split: test\n\
         output_type: multiple_choice\ndoc_to_text: question\ndoc_to_choice: [K, M]\ndoc_to_target: letter\n",
    );
    bench.write_rows("notes.jsonl", &[json!({"text": LONG}), json!({"text": "Another note."})]);
    let train = [
        chat(&ask("fracture of the wrist"), "M"),
        chat(&ask("DISORDER 3 of the knee."), "M"),
        chat("What ails him?", &format!("{LONG}; that is all.")),
        chat("Another note", "x"),
    ];
    bench.write_rows("train.jsonl", &train);
    let args = ["data", "contamination", "train.jsonl", "--against", "task.yaml", "notes.jsonl"];
    let said = bench.galen(&[&args[..], &["-o", "clean.jsonl", "--json"]].concat()).exits(0).json();
    assert_eq!((&said["contaminated"], &said["clean"]), (&json!(3), &json!(1)));
    let set = |i: usize| {
        let s = &said["sets"][i];
        json!([s["set"], s["rows"], s["repeated"], s["training_rows_by_kind"]])
    };
    // The instruction that all questions begin with, and the label that is every answer, are no contamination.
    assert_eq!(set(0), json!(["task.yaml", 12, 1, {"the same text": 1}]));
    assert_eq!(set(1), json!(["notes.jsonl", 2, 2, {"shared words": 1, "the same text": 1}]));
    let hit = &said["sets"][0]["examples"][0];
    assert_eq!((&hit["row"], &hit["hit"]["origin"]), (&json!("train.jsonl:2"), &json!("test.jsonl:4")));
    assert_eq!(bench.read("clean.jsonl"), format!("{}\n", train[0]));

    let said = bench.galen(&[&args[..], &["--check"]].concat()).exits(1);
    assert_has(&said.stdout, &["task.yaml", "1 (8.3 %)", "train.jsonl:3  shares words with notes.jsonl:1"]);
    assert_has(&said.stderr, &["error: 3 of 4 rows repeat evaluation questions", "\nhint: "]);
    // With everything counted the instruction is found too.
    let all =
        bench.galen(&[&args[..4], &["task.yaml", "--common", "100", "--json"]].concat()).exits(0).json();
    assert_eq!(all["contaminated"], 2);
    // Short questions within texts, where asked for; and fields of the sets' rows.
    let short = [
        "data",
        "contamination",
        "train.jsonl",
        "--against",
        "notes.jsonl",
        "--whole-from",
        "2",
        "--against-field",
        "text",
    ];
    assert_eq!(bench.galen(&[&short[..], &["--json"]].concat()).exits(0).json()["contaminated"], 2);
    let wrong = bench.galen(&[&args[..4], &["nowhere.yaml"]].concat()).exits(1);
    assert_has(&wrong.stderr, &["nowhere.yaml"]);
    let twice = bench.galen(&[&args[..4], &["notes.jsonl", "notes.jsonl"]].concat()).exits(2);
    assert_has(&twice.stderr, &["is named twice"]);
}

#[test]
fn align_keeps_what_is_like_the_target() {
    let bench = Bench::new();
    let clinical =
        |i: usize| json!({"prompt": format!("Code this: disorder {i} of the left knee"), "completion": "M"});
    let other = |i: usize| json!({"prompt": format!("A shop sells {i} apples at 3 coins, how many?"), "completion": "9"});
    let rows: Vec<Value> = (0..40).map(|i| if i % 2 == 0 { clinical(i) } else { other(i) }).collect();
    bench.write_rows("mixed.jsonl", &rows);
    bench.write_rows("target.jsonl", &(100..104).map(clinical).collect::<Vec<_>>());
    for method in ["dsir", "ngrams"] {
        let out = format!("{method}.jsonl");
        let args = [
            "data",
            "align",
            "mixed.jsonl",
            "--target",
            "target.jsonl",
            "--method",
            method,
            "--budget",
            "0.5",
            "-o",
            &out,
        ];
        let said = bench.galen(&[&args[..], &["--json"]].concat()).exits(0).json();
        assert_eq!((&said["rows"], &said["kept"], &said["target_rows"]), (&json!(40), &json!(20), &json!(4)));
        let far = |name: &str| said["divergence"][name].as_f64().expect("a number");
        assert!(far("kept") < 0.5 * far("random") && far("kept") < 0.5 * far("all"), "{said}");
        // Rows as they were, in their order.
        let expect: String = rows.iter().step_by(2).map(|r| format!("{r}\n")).collect();
        assert_eq!(bench.read(&out), expect);
        assert_eq!(said["best"][0]["kept"], true);
        assert_eq!(said["worst"][0]["kept"], false);
    }
    // All rows with their scores.
    let weigh = [
        "data",
        "align",
        "mixed.jsonl",
        "--target",
        "target.jsonl",
        "--out",
        "w.jsonl",
        "--weight-field",
        "w",
    ];
    let said = bench.galen(&weigh).exits(0);
    assert_has(
        &said.stdout,
        &["distance from the target's 4 rows", "all 40 rows", "median", "best rows", "worst rows"],
    );
    let weighed: Vec<Value> =
        bench.read("w.jsonl").lines().map(|l| serde_json::from_str(l).expect("a row")).collect();
    let w = |i: usize| weighed[i]["w"].as_f64().expect("a number");
    assert!(weighed.len() == 40 && (0..40).step_by(2).all(|i| w(i) > w(1)));
    bench
        .galen(&[
            "data",
            "align",
            "w.jsonl",
            "--target",
            "target.jsonl",
            "-o",
            "v.jsonl",
            "--weight-field",
            "w",
        ])
        .exits(2);
    // The seed decides what is drawn.
    let drawn = |seed: &str, out: &str| {
        let args = [
            "data",
            "align",
            "mixed.jsonl",
            "--target",
            "mixed.jsonl",
            "--method",
            "dsir",
            "--budget",
            "10",
            "--seed",
            seed,
            "-o",
            out,
        ];
        bench.galen(&args).exits(0);
        bench.read(out)
    };
    assert_eq!(drawn("1", "s1.jsonl"), drawn("1", "s2.jsonl"));
    assert_ne!(bench.read("s1.jsonl"), drawn("2", "s3.jsonl"));
}

const ALIGN: [&str; 5] = ["data", "align", "rows.jsonl", "--target", "target.jsonl"];

#[test]
fn align_asks_a_model_where_told() {
    let bench = Bench::new();
    // What the tiny model has learned: nothing. So that only the arithmetic is looked at: a row that repeats the target is
    // nearest to it.
    let texts = ["abab abab abab", "zyx wvu tsr", "abab abab abab", "0918 2736 4554", "qwerty uiop"];
    bench.write_rows("rows.jsonl", &texts.map(|t| json!({"text": t})));
    bench.write_rows("target.jsonl", &[json!({"text": "abab abab abab"})]);
    let args = [&ALIGN[..], &["--model", "m.gguf", "--json", "--budget", "2"]].concat();
    let said =
        bench.galen(&[&args[..], &["--method", "embedding", "-o", "e.jsonl"]].concat()).exits(0).json();
    assert_eq!(bench.read("e.jsonl"), "{\"text\":\"abab abab abab\"}\n".repeat(2));
    let best = said["best"][0]["score"].as_f64().expect("a number");
    assert!((best - 1.0).abs() < 1e-4, "the cosine of a text with itself: {best}");
    let said = bench
        .galen(&[&args[..], &["--method", "likelihood", "--shots", "1", "-o", "l.jsonl"]].concat())
        .exits(0);
    assert_has(&said.stderr, &["1 example of the target before each row"]);
    let scores: Vec<f64> =
        said.json()["best"].as_array().expect("rows").iter().filter_map(|r| r["score"].as_f64()).collect();
    assert!(scores.len() == 5 && scores.iter().all(|s| s.is_finite()) && scores[0] > scores[4]);

    for (flags, words) in [
        (&["--method", "embedding"][..], &["without a model", "`--model M`"][..]),
        (&["--model", "m.gguf"], &["`--model` with `--method ngrams`", "`embedding` or `likelihood`"]),
        (&["--shots", "3"], &["`--shots` with `--method ngrams`", "`likelihood`"]),
        (&["--max-tokens", "9", "--method", "dsir"], &["`--max-tokens` with `--method dsir`"]),
        (
            &["--model", "m.gguf", "--method", "embedding", "--shots", "3"],
            &["`--shots` with `--method embedding`"],
        ),
        (&["--out", "x.jsonl"], &["`--budget N`", "`--weight-field NAME`"]),
        (&["--weight-field", "w"], &["without `--out`"]),
        (&["--method", "dsri"], &["dsir"]),
    ] {
        let said = bench
            .galen(&[&["data", "align", "rows.jsonl", "--target", "target.jsonl"], flags].concat())
            .exits(2);
        assert_has(&said.stderr, words);
    }
}

#[test]
fn a_text_of_one_token_has_no_score() {
    let bench = Bench::new();
    let rows = ["zyx wvu tsr", "x", "0918 2736 4554"].map(|t| json!({"text": t}));
    bench.write_rows("rows.jsonl", &rows);
    bench.write_rows("target.jsonl", &[json!({"text": "abab abab abab"})]);
    let args =
        [&ALIGN[..], &["--method", "likelihood", "--model", "m.gguf", "--max-tokens", "100000"]].concat();
    let keep = ["--budget", "2", "--json", "--out", "kept.jsonl"];
    let said = bench.galen(&[&args[..], &keep].concat()).exits(0);
    assert_has(&said.stderr, &["tokens of a text are read, not 100000: half of what the model can read"]);
    let said = said.json();
    assert_eq!(bench.read("kept.jsonl"), format!("{}\n{}\n", rows[0], rows[2]));
    assert_eq!(
        (&said["worst"][0]["row"], &said["worst"][0]["score"]),
        (&json!("rows.jsonl:2"), &Value::Null)
    );
    assert!(
        said["without_score"] == 1
            && said["quantiles"]["0"].is_number()
            && said["best"][0]["score"].is_number()
    );
    let weigh = ["--out", "weighed.jsonl", "--weight-field", "w"];
    let said = bench.galen(&[&args[..], &weigh].concat()).exits(0);
    assert_has(&said.stdout, &["note: 1 row without a score", "no score  rows.jsonl:2"]);
    let weighed = bench.read("weighed.jsonl");
    assert_eq!(weighed.lines().nth(1), Some("{\"text\":\"x\",\"w\":null}"));
}

#[test]
fn align_does_not_choose_by_what_is_evaluated() {
    let bench = Bench::new();
    let row = |i: usize| json!({"q": format!("Which letter has disorder {i}?"), "a": "M"});
    bench.write_rows("test.jsonl", &(0..4).map(row).collect::<Vec<_>>());
    bench.write_rows("examples.jsonl", &(7..9).map(row).collect::<Vec<_>>());
    bench.write_rows("rows.jsonl", &(0..9).map(row).collect::<Vec<_>>());
    let task = |training: &str| {
        format!(
            "task: t\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: test.jsonl, train: examples.jsonl}}}}\n{training}\
             test_split: test\noutput_type: generate_until\ndoc_to_text: q\ndoc_to_target: a\n"
        )
    };
    bench.write("task.yaml", &task(""));
    let args = ["data", "align", "rows.jsonl", "--field", "q", "--target", "task.yaml"];
    let said = bench.galen(&args).exits(1);
    assert_has(&said.stderr, &["no split beside `test`, which it evaluates", "\nhint: "]);
    bench.write("task.yaml", &task("training_split: train\n"));
    let said = bench.galen(&args).exits(0);
    assert_has(&said.stdout, &["from the target's 2 rows"]);
    assert_has(&said.stderr, &["questions and right answers of split `train` of task `t`"]);
}
