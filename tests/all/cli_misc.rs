//! `galen generate`, `eval`, `init`, `plan` and the scripts, from outside.

use crate::cli::{Bench, assert_has};
use serde_json::{Value, json};

#[test]
fn generate_is_the_same_twice_and_ends_where_it_is_told() {
    let bench = Bench::new();
    bench.galen(&["train", "c.yaml"]).exits(0);
    let base = |more: &[&str]| {
        let args = [&["generate", "-m", "m.gguf", "-p", "Say 3.", "-n", "12", "--json"], more].concat();
        bench.galen(&args).exits(0).json()
    };
    let greedy = base(&["--chat"]);
    assert_eq!(greedy, base(&["--chat"]));
    // A byte a token: `<|im_start|>user\nSay 3.<|im_end|>\n<|im_start|>assistant\n`.
    assert_eq!(greedy["prompt_tokens"], 1 + 5 + 6 + 1 + 1 + 1 + 10);
    assert!(greedy["tokens"].as_array().is_some_and(|t| !t.is_empty() && t.len() <= 12));
    let drawn = |seed: &str| base(&["--temp", "1", "--seed", seed])["tokens"].clone();
    assert_eq!(drawn("7"), drawn("7"));
    assert_ne!(drawn("7"), drawn("8"));

    // The run directory stands for adapter and base; two epochs teach the tiny model how answers begin.
    let trained = |more: &[&str]| {
        let args = [&["generate", "--adapter", "run", "-p", "Say 3.", "-n", "12", "--chat"], more].concat();
        bench.galen(&args).exits(0).stdout
    };
    let answer = trained(&[]);
    assert!(answer.starts_with("It ") && answer.ends_with('\n'), "{answer:?}");
    assert_eq!(trained(&["--stop", "t "]), "I\n");
    let nothing = bench.galen(&["generate", "-m", "none.gguf", "-p", "x"]).exits(1);
    assert_has(&nothing.stderr, &["none.gguf"]);
    assert_eq!(nothing.stdout, "");
}

#[test]
fn an_evaluation_decodes_many_prompts_together_as_each_alone() {
    let bench = Bench::new();
    bench.write(
        "say.yaml",
        "task: say\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: e.jsonl\ntest_split: test\n\
         output_type: generate_until\nrepeats: 2\ndoc_to_text: '{{q}}'\ndoc_to_target: 'x'\n\
         generation_kwargs: {until: [\"\\n\"], max_gen_toks: 9, do_sample: true, temperature: 0.7}\n\
         metric_list:\n  - metric: exact_match\n",
    );
    // More than are decoded at once; two prompts are the same, one is a single token.
    let prompt = |i: usize| if i == 4 { "x".into() } else { format!("Say {}.", "so ".repeat(i % 5)) };
    bench.write_rows("e.jsonl", &(0..11).map(|i| json!({"q": prompt(i)})).collect::<Vec<_>>());
    let out =
        ["eval", "-m", "m.gguf", "--tasks", "say.yaml", "--log_samples", "--out", "g.json", "--seed", "0"];
    bench.galen(&out).exits(0);
    let samples = bench.read("g.samples.jsonl");
    let samples: Vec<Value> = samples.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    assert_eq!(samples.len(), 11);
    for (i, sample) in samples.iter().enumerate() {
        let seed = sample["doc_id"].as_u64().expect("a number") << 16;
        for repeat in 0..2 {
            let (prompt, seed) = (prompt(i), (seed + repeat).to_string());
            let args = ["generate", "-m", "m.gguf", "-n", "9", "--stop", "\n", "--temp", "0.7", "--json"];
            let alone = bench.galen(&[&args[..], &["--seed", &seed, "-p", &prompt]].concat()).exits(0).json();
            assert_eq!(sample["answers"][repeat as usize], alone["text"], "{prompt}, repeat {repeat}");
        }
    }
}

#[test]
fn eval_writes_the_promised_json() {
    let bench = Bench::new();
    bench.galen(&["train", "c.yaml"]).exits(0);
    bench.write(
        "tiny_choice.yaml",
        "task: tiny_choice\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: e.jsonl\ntest_split: test\n\
         output_type: multiple_choice\ndoc_to_text: 'Say {{n}}.'\ndoc_to_choice: ['It is 0.', 'It is 1.', 'It is 2.']\n\
         doc_to_target: '{{a}}'\nmetric_list:\n  - metric: acc\n",
    );
    bench.write_rows("e.jsonl", &(0..12).map(|i| json!({"n": i, "a": i % 3})).collect::<Vec<_>>());
    let args = [
        "eval",
        "-m",
        "m.gguf",
        "--adapter",
        "run",
        "--tasks",
        "tiny_choice.yaml",
        "--apply_chat_template",
        "--limit",
        "9",
        "--log_samples",
        "--out",
        "e.json",
    ];
    let said = bench.galen(&args).exits(0);
    assert_has(&said.stdout, &["tiny_choice", "adapter"]);
    let report: Value = serde_json::from_str(&bench.read("e.json")).expect("JSON");
    assert_eq!((&report["model"], &report["adapter"]), (&json!("m.gguf"), &json!("run")));
    let task = &report["tasks"]["tiny_choice"];
    assert_eq!(task["n"], 9);
    assert!((task["chance"].as_f64().expect("a number") - 1.0 / 3.0).abs() < 1e-12);
    let acc = &task["metrics"]["acc"];
    let number = |v: &Value| v.as_f64().unwrap_or_else(|| panic!("{v} in {report}"));
    let (value, low, high) = (number(&acc["value"]), number(&acc["ci95"][0]), number(&acc["ci95"][1]));
    assert!(0.0 <= low && low <= value && value <= high && high <= 1.0, "{acc}");
    let flat = &report["results"]["tiny_choice"];
    assert_eq!((number(&flat["acc,none"]), number(&flat["acc_stderr,none"]) > 0.0), (value, true));
    let compared = &report["comparisons"][0];
    assert_eq!(
        (&compared["task"], &compared["a"], &compared["b"]),
        (&json!("tiny_choice"), &json!("base"), &json!("adapter"))
    );
    let p = number(&compared["p_mcnemar"]);
    assert!((0.0..=1.0).contains(&p) && compared["ci95"].as_array().is_some_and(|c| c.len() == 2));
    let runs: Vec<f64> =
        [0, 1].map(|i| number(&report["runs"][i]["tasks"]["tiny_choice"]["metrics"]["acc"]["value"])).into();
    assert!((number(&compared["delta"]) - (runs[1] - runs[0])).abs() < 1e-12);

    let sound = bench.galen(&["eval", "validate", "tiny_choice.yaml"]).exits(0);
    assert_has(&sound.stdout, &["12 items are sound", "Say 0."]);
    bench.galen(&["eval", "-m", "m.gguf", "--tasks", "no_such_task"]).exits(1);
}

#[test]
fn what_init_writes_is_planned_and_trained() {
    let bench = Bench::new();
    bench.galen(&["init", "-m", "m.gguf", "-d", "d.jsonl", "-o", "i.yaml"]).exits(0);
    let checked = bench.galen(&["plan", "i.yaml", "--check-config"]).exits(0);
    assert_has(&checked.stdout, &["the configuration is sound"]);
    let plan = bench.galen(&["plan", "i.yaml"]).exits(0);
    assert_has(&plan.stdout, &["memory together", "trained parameters"]);
    bench.galen(&["train", "i.yaml", "--set", "output_dir=i"]).exits(0);
    for file in ["adapter_model.safetensors", "adapter_config.json", "run.json", "report.html", "README.md"] {
        assert!(bench.path("i").join(file).is_file(), "{file}");
    }
    // Running the written configuration again gives the same bits.
    bench.galen(&["train", "i/config.yaml", "--set", "output_dir=again"]).exits(0);
    let adapter =
        |dir: &str| std::fs::read(bench.path(dir).join("adapter_model.safetensors")).expect("a file");
    assert!(adapter("i") == adapter("again"));
}

#[test]
fn threads_change_no_bit() {
    let bench = Bench::new();
    for n in ["1", "2", "3"] {
        bench.galen(&["train", "c.yaml", "--threads", n, "--set", &format!("output_dir=t{n}")]).exits(0);
    }
    let adapter =
        |n: u32| std::fs::read(bench.path(&format!("t{n}/adapter_model.safetensors"))).expect("a file");
    assert!(adapter(1) == adapter(2) && adapter(2) == adapter(3));
}

#[test]
fn mistakes_are_named_with_line_and_remedy() {
    let bench = Bench::new();
    let config = bench.read("c.yaml");
    bench.write("bad.yaml", &format!("{config}lora_rank: 8\n"));
    let line = config.lines().count() + 1;
    let said = bench.galen(&["train", "bad.yaml"]).exits(2);
    assert_eq!(
        said.stderr,
        format!("error: bad.yaml:{line}: unknown key `lora_rank`\nhint: did you mean `lora_r`?\n")
    );
    assert!(said.stdout.is_empty() && !bench.path("run").exists());
    let said = bench.galen(&["train", "c.yaml", "--set", "learning_rat=1"]).exits(2);
    assert_has(&said.stderr, &["learning_rat", "did you mean `learning_rate`?"]);
    bench.galen(&["train", "none.yaml"]).exits(2);
    bench.galen(&["trian"]).exits(2);
    assert_has(&bench.galen(&["completions", "bash"]).exits(0).stdout, &["_galen()", "quickstart"]);
    assert_has(&bench.galen(&["man"]).exits(0).stdout, &[".TH galen"]);
    assert_has(&bench.galen(&["--version"]).exits(0).stdout, &["galen "]);
}

#[test]
fn a_run_stands_for_its_base_and_keeps_its_template() {
    let bench = Bench::new();
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}";
    bench.write("t.jinja", template);
    let sets = ["--set", "chat_template_jinja=t.jinja", "--set", "base_model_name_or_path=org/base"];
    bench.galen(&[&["train", "c.yaml"], &sets[..]].concat()).exits(0);
    let say = |flags: &[&str]| {
        let prompt = ["--chat", "-p", "Say 1.", "-n", "6", "--json"];
        bench.galen(&[&["generate"], flags, &prompt].concat()).exits(0).json()
    };
    let run = say(&["--model", "run"]);
    assert_eq!(run, say(&["--adapter", "run"]));
    assert_eq!(run, say(&["-m", "m.gguf", "--adapter", "run", "--chat-template", "t.jinja"]));
    assert_ne!(run["prompt_tokens"], say(&["-m", "m.gguf"])["prompt_tokens"]);
    // The name given for the base is in everything that names it.
    let record: serde_json::Value = serde_json::from_str(&bench.read("run/run.json")).expect("JSON");
    assert_eq!(record["base_model_name_or_path"], "org/base");
    assert_has(&bench.read("run/README.md"), &["base_model: \"org/base\"", "from_pretrained(\"org/base\")"]);
}

#[test]
fn what_cannot_be_resumed_leaves_no_trace() {
    let bench = Bench::new();
    bench.galen(&["train", "c.yaml", "--set", "max_steps=4"]).exits(0);
    let files = || {
        let names = std::fs::read_dir(bench.path("run")).expect("a folder").flatten();
        let mut names: Vec<_> = names.map(|e| e.file_name()).collect();
        names.sort();
        (names, bench.read("run/run.json"), bench.read("run/config.yaml"))
    };
    let before = files();
    let resume = ["train", "c.yaml", "--set", "max_steps=4", "--resume"];
    let said = bench.galen(&[&resume[..], &["--set", "learning_rate=0.5"]].concat()).exits(1);
    assert_has(&said.stderr, &["was started with `learning_rate: 0.01`, now it is `0.5`", "lora_model_dir"]);
    let rows = bench.read("d.jsonl");
    bench.write("d.jsonl", rows.split_once('\n').expect("two rows").1);
    let said = bench.galen(&resume).exits(1);
    assert_has(&said.stderr, &["the data is not what the run was started with"]);
    assert_eq!(before, files());
}

#[test]
fn data_that_cannot_be_used_is_told_apart() {
    let bench = Bench::new();
    bench.write("empty.jsonl", "\n");
    bench.write("broken.jsonl", "{\"text\": \n");
    bench.write("semi.csv", "instruction;output\na;b\n");
    for (file, expect) in [
        ("empty.jsonl", "error: empty.jsonl: it has no rows\n"),
        ("none.jsonl", "error: none.jsonl: no such file or folder\n"),
        ("broken.jsonl", "error: broken.jsonl:1: not valid JSON"),
        ("semi.csv", "separate them by commas"),
    ] {
        let said = bench.galen(&["data", "check", file, "-m", "m.gguf"]).exits(1);
        assert_has(&said.stderr, &[expect]);
    }
    bench.write("file", "");
    bench.galen(&["train", "c.yaml", "--set", "output_dir=file"]).exits(2);
}

#[test]
fn questions_with_answers_are_found() {
    let bench = Bench::new();
    let row =
        |i: usize| serde_json::json!({"id": i, "question": format!("Q{i}?"), "answer": format!("A{i}")});
    bench.write_rows("qa.jsonl", &(0..8).map(row).collect::<Vec<_>>());
    bench.galen(&["init", "-m", "m.gguf", "-d", "qa.jsonl", "-o", "qa.yaml"]).exits(0);
    let shown =
        bench.galen(&["data", "inspect", "qa.yaml", "--stage", "rendered", "-n", "1", "--json"]).exits(0);
    let shown = shown.json();
    assert_eq!(
        (&shown["text"], &shown["supervised_bytes"]),
        (&"Q0?\nA0".into(), &serde_json::json!([[4, 6]]))
    );
    let kind = "{field_instruction: question, field_output: answer}";
    bench.galen(&["data", "check", "qa.jsonl", "-m", "m.gguf", "--type", kind]).exits(0);
}
