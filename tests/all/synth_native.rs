//! `galen synth` with galen's own engine: the same seed the same rows, killed or not; and the clinical pipelines, small, on the
//! real model.

use crate::cli::{Bench, Said, assert_has, binary};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(|l| serde_json::from_str(l).expect("a row")).collect()
}

fn bench() -> Bench {
    let bench = Bench::in_memory();
    let row = |i: usize| json!({"n": i, "instruction": format!("Say the number {i}, and why.")});
    bench.write_rows("seeds.jsonl", &(0..24).map(row).collect::<Vec<_>>());
    bench.write(
        "p.yaml",
        "seeds: seeds.jsonl\noutput_dir: out\nengines: {teacher: {type: native, model: m.gguf, max_batch: 4, cache_mib: 64}}\n\
         steps:\n  - type: generate\n    label: answer\n    template: answer\n    n: 2\n    max_tokens: 24\n    temperature: 1\n  \
         - type: generate\n    label: shaped\n    prompt: \"Of {{ row.n }}\"\n    max_tokens: 60\n    schema: {type: object, properties: \
         {ok: {type: boolean}}, required: [ok], additionalProperties: false}\n  - {type: self_instruct, shots: 3, max_tokens: 20}\n",
    );
    bench
}

/// Bytes in the journals of `out`.
fn journalled(bench: &Bench) -> u64 {
    let files = std::fs::read_dir(bench.path("out/journal")).into_iter().flatten().flatten();
    files.filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum()
}

#[test]
fn the_same_seed_gives_the_same_rows_killed_or_not() {
    let bench = bench();
    bench.galen(&["synth", "p.yaml", "--set", "output_dir=whole"]).exits(0);
    let whole = bench.read("whole/rows.jsonl");
    assert!(rows(&whole).len() >= 24, "{whole}");
    for row in rows(&whole).iter().filter(|r| !r["ok"].is_null()) {
        assert!(row["ok"].is_boolean(), "{row}");
    }
    // Another batch, other neighbours.
    bench
        .galen(&["synth", "p.yaml", "--set", "output_dir=one", "--set", "engines.teacher.max_batch=2"])
        .exits(0);
    assert!(bench.read("one/rows.jsonl") == whole);
    // Killed as soon as it has written something, again and again. A machine may be so fast that a run is over before that is
    // seen: then it begins anew.
    let began = Instant::now();
    let mut kills = 0;
    loop {
        let before = journalled(&bench);
        let mut child = bench.command(&["synth", "p.yaml", "--resume"]).spawn().expect("starts");
        let over = loop {
            if child.try_wait().expect("a state").is_some() {
                break true;
            }
            if journalled(&bench) > before {
                break false;
            }
            assert!(began.elapsed() < Duration::from_mins(2), "{kills} kills");
            std::thread::sleep(Duration::from_micros(200));
        };
        if !over {
            child.kill().expect("a signal or the end before it");
        }
        let said = Said::of(&child.wait_with_output().expect("an end"));
        if said.code.is_none() {
            kills += 1;
            continue;
        }
        said.exits(0);
        if kills > 0 {
            break;
        }
        std::fs::remove_dir_all(bench.path("out")).expect("removed");
    }
    assert!(bench.read("out/rows.jsonl") == whole, "after {kills} kills");
    // Another seed, other rows.
    bench.galen(&["synth", "p.yaml", "--set", "output_dir=other", "--set", "seed=2"]).exits(0);
    assert!(bench.read("other/rows.jsonl") != whole);
}

#[test]
fn ctrl_c_ends_it_and_resume_goes_on() {
    let bench = bench();
    bench.write_rows(
        "seeds.jsonl",
        &(0..4000).map(|i| json!({"n": i, "instruction": format!("Say {i}.")})).collect::<Vec<_>>(),
    );
    let child = bench.command(&["synth", "p.yaml"]).spawn().expect("starts");
    let path = bench.path("out/journal/01-answer.jsonl");
    let began = Instant::now();
    while std::fs::metadata(&path).map_or(0, |m| m.len()) < 4_000 {
        assert!(began.elapsed() < Duration::from_mins(1));
        std::thread::sleep(Duration::from_millis(10));
    }
    let said = bench.galen(&["synth", "p.yaml", "--resume"]).exits(1);
    assert_has(&said.stderr, &["another run is writing into it", "hint:"]);
    crate::kill::signal(&child, "-INT");
    let said = Said::of(&child.wait_with_output().expect("an end")).exits(130);
    assert_has(&said.stderr, &["--resume"]);
}

#[test]
fn prompts_are_shown_without_a_model() {
    let bench = bench();
    std::fs::remove_file(bench.path("m.gguf")).expect("removed");
    let said = bench.galen(&["synth", "p.yaml", "--render", "2"]).exits(0);
    assert_has(
        &said.stdout,
        &["=== answer: seeds.jsonl:1", "Say the number 0, and why.", "=== shaped: seeds.jsonl:2", "Of 1"],
    );
    assert!(!bench.path("out").exists() && !said.stdout.contains("seeds.jsonl:3\n"));
    let said = bench.galen(&["synth", "p.yaml", "--render", "1", "--json"]).exits(0).json();
    assert_eq!(said[0]["prompts"][0]["prompt"], "Say the number 0, and why.");
}

fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/clinical/synth")
}

/// A recipe in the bench, with the fixture's facts, an examination of nothing much, and the real model.
fn recipe(bench: &Bench, name: &str, model: Option<&Path>, sets: &[&str]) -> Said {
    let folder = bench.path("recipe");
    for sub in ["data", "prompts"] {
        std::fs::create_dir_all(folder.join(sub)).expect("a folder");
    }
    std::fs::copy(recipes().join("facts.sample.jsonl"), folder.join("data/facts.jsonl")).expect("facts");
    for entry in std::fs::read_dir(recipes().join("prompts")).expect("prompts").flatten() {
        std::fs::copy(entry.path(), folder.join("prompts").join(entry.file_name())).expect("a template");
    }
    for set in ["test", "validation"] {
        let question =
            json!({"diagnosis": "Gonococcal infection of lower genitourinary tract", "prompt": "x"});
        std::fs::write(folder.join(format!("data/{set}.questions.jsonl")), format!("{question}\n"))
            .expect("questions");
    }
    let mut command = Command::new(binary());
    command
        .current_dir(&folder)
        .arg("synth")
        .arg(recipes().join(name))
        .arg("--offline")
        .args(["--set", "output_dir=out"]);
    if let Some(model) = model {
        command.args(["--set", &format!("engines.teacher.model={}", model.display())]);
    }
    for set in sets {
        command.args(["--set", set]);
    }
    command.env("XDG_CACHE_HOME", bench.path("cache")).stdin(Stdio::null());
    Said::of(&command.output().expect("the binary starts"))
}

#[test]
fn the_clinical_pipelines_without_a_model() {
    let bench = Bench::in_memory();
    let said = recipe(&bench, "templated.yaml", None, &[]).exits(0);
    let made = rows(&bench.read("recipe/out/sft.jsonl"));
    assert!(made.len() >= 20, "{}", said.stderr);
    for row in &made {
        let (user, letter) = (
            row["messages"][0]["content"].as_str().unwrap(),
            row["messages"][1]["content"].as_str().unwrap(),
        );
        assert!(user.starts_with("ICD-10-CM letter: ") && letter.len() == 1, "{row}");
        assert!(row["provenance"]["seeds"][0].as_str().unwrap().starts_with(letter), "{row}");
    }
    std::fs::remove_dir_all(bench.path("recipe/out")).expect("removed");
    recipe(&bench, "choices.yaml", None, &[]).exits(0);
    let pairs = rows(&bench.read("recipe/out/pairs.jsonl"));
    assert!(pairs.len() >= 10, "{}", pairs.len());
    for pair in &pairs {
        assert_ne!(pair["chosen"][0]["content"], pair["rejected"][0]["content"]);
        assert_has(pair["prompt"][0]["content"].as_str().unwrap(), &["A. ", "D. "]);
    }
    // What was written is read by the commands that train.
    let path = |file: &str| bench.path(&format!("recipe/out/{file}"));
    bench.galen(&["data", "check", path("questions.jsonl").to_str().unwrap(), "-m", "m.gguf"]).exits(0);
    let config = format!(
        "base_model: m.gguf\nrl: dpo\nadapter: lora\nlearning_rate: 1e-4\noutput_dir: run\ndatasets:\n  - path: {}\n",
        path("pairs.jsonl").display()
    );
    bench.write("dpo.yaml", &config);
    let said = bench.galen(&["data", "check", "dpo.yaml"]).exits(0);
    assert_has(
        &format!("{}{}", said.stdout, said.stderr),
        &[&format!("{}  (type `preference`)", pairs.len())],
    );
}

#[test]
fn the_clinical_teacher_on_the_real_model() {
    let Some(model) = crate::support::real("smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf") else {
        return;
    };
    let bench = Bench::in_memory();
    let sets = ["steps[0].sample.n=1", "steps[2].n=1", "steps[2].max_tokens=32"];
    let said = recipe(&bench, "vignettes.yaml", Some(&model), &sets).exits(0);
    let figures: Value = serde_json::from_str(&bench.read("recipe/out/synth_report.json")).expect("figures");
    assert!(figures["seeds"].as_u64().unwrap() >= 10, "{}", said.stderr);
    let judge =
        figures["steps"].as_array().unwrap().iter().find(|s| s["kind"] == "judge_options").expect("a judge");
    let agreement = &judge["figures"]["agrees with the known answer"];
    assert!(agreement["mean"].as_f64().is_some_and(|m| (0.0..=1.0).contains(&m)), "{judge}");
    let sum = |key: &str| figures[key].as_u64().unwrap();
    assert_eq!(sum("seeds"), sum("seeds_kept") + sum("seeds_filtered") + sum("seeds_failed"));
    assert!(figures["engines"][0]["completion_tokens"].as_u64().unwrap() > 50);
}

#[test]
fn an_endpoint_that_is_galen_itself_gives_the_native_engine_s_rows() {
    let bench = crate::serve_support::bench();
    let row = |i: usize| json!({"n": i, "instruction": format!("Say the number {i}, and why.")});
    bench.write_rows("seeds.jsonl", &(0..8).map(row).collect::<Vec<_>>());
    let server = crate::serve_support::Server::start(&bench, &[]);
    let config = |dir: &str, engine: &str| {
        bench.write(
            "p.yaml",
            &format!(
                "seeds: seeds.jsonl\noutput_dir: {dir}\nengines: {{teacher: {engine}}}\nsteps:\n  - {{type: generate, template: answer, \
                 max_tokens: 16, temperature: 0, to: plain}}\n  - {{type: generate, template: answer, max_tokens: 16, temperature: 1, top_k: 9, \
                 min_p: 0.01, n: 2, raw: true, to: drawn}}\n  - type: generate\n    prompt: 'Of {{{{ row.n }}}}'\n    max_tokens: 40\n    \
                 temperature: 0\n    schema: {{type: object, properties: {{ok: {{type: boolean}}}}, required: [ok]}}\n"
            ),
        );
        let mut command = Command::new(binary());
        command.args(["synth", "p.yaml"]).current_dir(bench.path(".")).stdin(Stdio::null());
        command
            .env("XDG_CACHE_HOME", bench.path("cache"))
            .env_remove("OPENAI_API_KEY")
            .env_remove("HF_HUB_OFFLINE");
        let said = Said::of(&command.output().expect("the binary starts")).exits(0);
        (rows(&bench.read(&format!("{dir}/rows.jsonl"))), said)
    };
    let url = format!("http://{}/v1", server.address);
    let (there, _) =
        config("there", &format!("{{type: openai, model: m, base_url: '{url}', concurrency: 3}}"));
    // As the server computes: 32 sequences at most.
    let (here, _) = config("here", "{type: native, model: m.gguf, max_batch: 32, cache_mib: 64}");
    assert_eq!((here.len(), there.len()), (16, 16));
    for (a, b) in here.iter().zip(&there) {
        for field in ["plain", "drawn", "ok"] {
            assert_eq!(a[field], b[field], "{a}\n{b}");
        }
    }
    let tokens = |dir: &str| {
        let report: Value =
            serde_json::from_str(&bench.read(&format!("{dir}/synth_report.json"))).expect("figures");
        (report["engines"][0]["prompt_tokens"].clone(), report["engines"][0]["completion_tokens"].clone())
    };
    assert_eq!(tokens("here"), tokens("there"));
}
