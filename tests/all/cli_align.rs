//! `galen align` and what goes with it, from outside.

use crate::cli::{Bench, assert_has};
use serde_json::{Value, json};

/// A directory with pairs and a configuration for them.
fn bench() -> Bench {
    let bench = Bench::new();
    let turn = |role: &str, text: String| json!([{"role": role, "content": text}]);
    let row = |i: usize| {
        json!({
            "prompt": turn("user", format!("Say {}.", i % 7)),
            "chosen": turn("assistant", format!("It is {}.", i % 3)),
            "rejected": turn("assistant", format!("No {i}")),
        })
    };
    bench.write_rows("p.jsonl", &(0..16).map(row).collect::<Vec<_>>());
    bench.write(
        "p.yaml",
        "base_model: m.gguf\nadapter: lora\nlora_r: 4\nlora_dropout: 0.1\nlearning_rate: 0.01\nrl: dpo\nrl_beta: 0.5\n\
         datasets:\n  - path: p.jsonl\nval_set_size: 4\neval_steps: 2\nmicro_batch_size: 2\ngradient_accumulation_steps: 2\n\
         max_steps: 4\nsequence_len: 128\noutput_dir: run\n",
    );
    bench
}

fn log(bench: &Bench, dir: &str) -> Vec<Value> {
    let row = |line: &str| {
        let mut row: Value = serde_json::from_str(line).expect("JSON");
        for key in ["tokens_per_second", "step_seconds", "peak_rss_bytes"] {
            row.as_object_mut().expect("an object").remove(key);
        }
        row
    };
    bench.read(&format!("{dir}/log.jsonl")).lines().map(row).collect()
}

#[test]
fn every_family_trains_and_logs_by_trls_names() {
    let bench = bench();
    for (rl, extra) in [
        ("dpo", "reference_kl"),
        ("ipo", "logps/chosen_shift"),
        ("kto", "kl"),
        ("orpo", "log_odds_ratio"),
        ("cpo", "nll_loss"),
        ("simpo", "nll_loss"),
    ] {
        let (set, out) = (format!("rl={rl}"), format!("output_dir={rl}"));
        let said = bench.galen(&["align", "p.yaml", "--set", &set, "--set", &out]).exits(0);
        assert_has(&said.stderr, &["align: 4 steps", "note: lora_dropout: alignment has no dropout"]);
        if rl != "kto" {
            assert_has(&said.stderr, &["answers: chosen ", "rewards/accuracies"]);
        }
        let rows = log(&bench, rl);
        for key in
            ["rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen", "logps/rejected", extra]
        {
            assert!(rows[0][key].is_number(), "{rl}: {key} is not in {}", rows[0]);
        }
        let validation = rows.iter().find(|r| r["eval_loss"].is_number()).expect("a validation");
        assert!(validation["eval_rewards/chosen"].is_number(), "{rl}: {validation}");
    }
}

#[test]
fn a_reward_model_is_trained_saved_and_taken_for_no_policy() {
    let bench = bench();
    let reward = ["--set", "rl=reward", "--set", "center_rewards_coefficient=0.01"];
    let plan = bench.galen(&[&["plan", "p.yaml", "--json"][..], &reward].concat()).exits(0).json();
    assert_eq!(plan["estimate"]["pass"]["predicting"], json!(0), "{plan}");
    let said = bench.galen(&[&["align", "p.yaml"][..], &reward].concat()).exits(0);
    assert_has(
        &said.stderr,
        &["note: rl_beta: `rl: reward` does not read it", "align: 4 steps", ", accuracy ", ", margin "],
    );
    assert!(!said.stderr.contains("supervised tokens right"), "{}", said.stderr);
    let rows = log(&bench, "run");
    for key in ["accuracy", "margin", "min_reward", "mean_reward", "max_reward"] {
        assert!(rows[0][key].is_number(), "{key} is not in {}", rows[0]);
    }
    assert!(rows[0].get("mean_token_accuracy").is_none(), "{}", rows[0]);
    let validation = rows.iter().find(|r| r["eval_loss"].is_number()).expect("a validation");
    assert!(validation["eval_accuracy"].is_number() && validation["eval_margin"].is_number(), "{validation}");
    let config: Value = serde_json::from_str(&bench.read("run/adapter_config.json")).expect("JSON");
    assert_eq!((&config["task_type"], &config["modules_to_save"][1]), (&json!("SEQ_CLS"), &json!("score")));
    assert_has(&bench.read("run/README.md"), &["AutoModelForSequenceClassification", "reward_model"]);
    let refused = bench.galen(&["generate", "--adapter", "run", "-p", "x"]).exits(1);
    assert_has(&refused.stderr, &["it scores answers and writes none", "hint: "]);
    // The run's own configuration resumes it.
    let again = bench.galen(&["align", "run/config.yaml", "--resume"]).exits(0);
    assert_has(&again.stderr, &["all 4 steps were done before"]);
}

#[test]
fn a_remembered_reference_and_a_resumed_run_give_the_same_bits() {
    let bench = bench();
    bench.galen(&["align", "p.yaml"]).exits(0);
    let want = log(&bench, "run");
    let remembered = ["align", "p.yaml", "--set", "precompute_ref_log_probs=true", "--set"];
    for out in ["first", "second"] {
        let set = format!("output_dir={out}");
        bench.galen(&[&remembered[..], &[set.as_str()]].concat()).exits(0);
        assert_eq!(log(&bench, out), want, "{out}");
    }
    // Training goes on from an adapter: the reference is where it starts, so the first margin is 0.
    let said =
        bench.galen(&["align", "p.yaml", "--set", "lora_model_dir=run", "--set", "output_dir=on"]).exits(0);
    assert_has(&said.stderr, &["rewards/margins"]);
    assert_eq!(log(&bench, "on")[0]["rewards/margins"], json!(0.0));
    let again = bench.galen(&["align", "p.yaml", "--resume"]).exits(0);
    assert_has(&again.stderr, &["all 4 steps were done before"]);
    let longer = bench.galen(&["align", "p.yaml", "--resume", "--set", "rl_beta=0.2"]).exits(1);
    assert_has(&longer.stderr, &["the run was started with `rl_beta: 0.5`, now it is `0.2`"]);
}

#[test]
fn train_and_align_know_each_others_configurations() {
    let bench = bench();
    let train = bench.galen(&["train", "p.yaml"]).exits(2);
    assert_has(&train.stderr, &["p.yaml: `rl: dpo` is preference alignment", "hint: `galen align p.yaml`"]);
    let align = bench.galen(&["align", "c.yaml"]).exits(2);
    assert_has(&align.stderr, &["c.yaml: `rl:` is not set", "hint: `galen train c.yaml`"]);
    let one = bench.galen(&["align", "p.yaml", "--set", "rl=kto", "--set", "micro_batch_size=1"]).exits(2);
    assert_has(&one.stderr, &["micro_batch_size: 1", "apo_zero_unpaired"]);
    assert!(!bench.path("run").exists(), "nothing was begun");
}

#[test]
fn data_commands_and_plan_take_pairs() {
    let bench = bench();
    let rendered =
        bench.galen(&["data", "inspect", "p.yaml", "--stage", "rendered", "-n", "1"]).exits(0).stdout;
    let prompt = "<|im_start|>user\nSay 0.<|im_end|>\n<|im_start|>assistant\n";
    assert_has(
        &rendered,
        &[
            &format!("chosen  p.jsonl:1\n{prompt}[+It is 0.<|im_end|>\n+]"),
            &format!("rejected  p.jsonl:1\n{prompt}[+No 0<|im_end|>\n+]"),
        ],
    );
    let tokens = bench.galen(&["data", "inspect", "p.yaml", "-n", "1", "--skip", "2"]).exits(0).stdout;
    assert_has(&tokens, &["chosen  p.jsonl:3  row 2", "rejected  p.jsonl:3", "[+I+]|[+t+]"]);
    let packed = bench.galen(&["data", "inspect", "p.yaml", "--stage", "packed", "-n", "1"]).exits(0).stdout;
    assert_has(&packed, &[" after segment 0"]);
    let kto = ["data", "inspect", "p.yaml", "--stage", "rendered", "-n", "1", "--set", "rl=kto", "--json"];
    let line: Value = serde_json::from_str(bench.galen(&kto).exits(0).stdout.lines().next().expect("a line"))
        .expect("JSON");
    assert_eq!((&line["answer"], &line["row"]), (&json!("chosen"), &json!(0)));

    let check = bench.galen(&["data", "check", "p.yaml"]).exits(0).stdout;
    assert_has(&check, &["p.jsonl (train)", "identical answers", "chosen longer in"]);
    let short = bench.galen(&["data", "check", "p.yaml", "--set", "sequence_len=20"]).exits(1);
    assert_has(&short.stderr, &["p.jsonl: of 16 rows 16 are longer than 20 tokens"]);

    let steps = |set: &str| -> (f64, f64) {
        let plan = bench.galen(&["plan", "p.yaml", "--json", "--set", set]).exits(0).json();
        let of = |part: &str, key: &str| {
            plan["estimate"][part][key].as_f64().unwrap_or_else(|| panic!("{part}.{key} in {plan}"))
        };
        (of("work", "step_flops"), of("memory", "total_bytes"))
    };
    let (with, without) = (steps("seed=1"), steps("precompute_ref_log_probs=true"));
    assert!(
        (with.0 / without.0 - 1.5).abs() < 1e-9,
        "the reference is half a step more: {with:?}, {without:?}"
    );
    assert!(!(with.1 - without.1).is_normal());
}

/// Prompts of GRPO are shown without an answer, and a plan counts the answers that will be sampled, as long as they may be.
#[test]
fn data_inspect_and_plan_take_prompts() {
    let bench = bench();
    let row =
        |i: usize| json!({"prompt": [{"role": "user", "content": format!("Say {}.", i % 7)}], "letter": "A"});
    bench.write_rows("g.jsonl", &(0..16).map(row).collect::<Vec<_>>());
    let config = |length: usize, iterations: usize| {
        format!(
            "base_model: m.gguf\nadapter: lora\nlora_r: 4\nlearning_rate: 0.01\nrl: grpo\ndatasets:\n  - path: g.jsonl\n\
             micro_batch_size: 8\ngradient_accumulation_steps: 1\nmax_steps: 6\nsequence_len: 4096\noutput_dir: run\ntrl:\n  \
             num_generations: 4\n  max_completion_length: {length}\n  num_iterations: {iterations}\n  reward_funcs:\n    \
             - exact_match: {{field: letter}}\n"
        )
    };
    bench.write("g.yaml", &config(100, 1));
    let shown = bench.galen(&["data", "inspect", "g.yaml", "--stage", "rendered", "-n", "1"]).exits(0).stdout;
    assert_has(&shown, &["g.jsonl:1", "<|im_start|>user\nSay 0.<|im_end|>\n<|im_start|>assistant\n"]);
    assert!(!shown.contains("[+"), "a prompt has nothing to train on: {shown}");

    let planned = |length, iterations, key| {
        bench.write("g.yaml", &config(length, iterations));
        let plan = bench.galen(&["plan", "g.yaml", "--json"]).exits(0).json();
        assert_eq!(plan["estimate"]["run"]["steps"], 6, "{plan}");
        plan["estimate"].pointer(key).and_then(Value::as_f64).unwrap_or_else(|| panic!("{key} in {plan}"))
    };
    assert_has(
        &bench.galen(&["plan", "g.yaml"]).exits(0).stdout,
        &["sampling 8 answers a step, of at most 100 tokens"],
    );
    // Eight answers, behind two prompts.
    let tokens = |length| planned(length, 1, "/pass/tokens");
    let (short, long) = (tokens(100), tokens(300));
    assert!((long - short - 8.0 * 200.0).abs() < 0.5, "{short}, {long}");
    // Two prompts a step; answers that are learned from twice take two.
    let epoch = |iterations| planned(100, iterations, "/steps_per_epoch");
    assert_eq!((epoch(1), epoch(2)), (8.0, 16.0));
}
