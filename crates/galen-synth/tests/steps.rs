//! Every step that asks, with an engine whose answers a test writes; and what the others make of rows.

mod scripted;

use galen_reward::Network;
use galen_synth::{Pipeline, SynthError};
use scripted::{KIND, Outcome, none, run, run_in, run_with};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn generate_takes_schemas_patterns_and_several_answers() {
    let seeds = json!([{"n": 1}, {"n": 2}, {"n": 3}]);
    let out = run(
        seeds.clone(),
        json!([{"type": "generate", "prompt": "Q{{ row.n }}", "n": 2, "extract": "a=(\\w+)", "to": "a"}]),
        |prompt, k| format!("well, a={prompt}{k}!"),
    );
    assert_eq!(out.texts("a"), ["Q10", "Q11", "Q20", "Q21", "Q30", "Q31"]);
    assert_eq!(out.rows[1]["provenance"]["id"], "seeds.jsonl:1/generate.1");
    assert_eq!(out.figures.engines[0].prompt_tokens, 21);
    assert_eq!(out.figures.engines[0].completion_tokens, 18);
    assert!((out.figures.engines[0].cost - (21.0 + 36.0) / 1e6).abs() < 1e-12);
    // The first answer is of no use: it is asked again; one row never gets there.
    let out = run(
        seeds,
        json!([{"type": "generate", "prompt": "Q{{ row.n }}", "retries": 3,
                "schema": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}}]),
        {
            let asked = std::sync::Mutex::new(BTreeMap::<String, usize>::new());
            move |prompt, _| {
                let mut asked = asked.lock().unwrap();
                let n = asked.entry(prompt.to_owned()).or_default();
                *n += 1;
                if *n > 1 && prompt != "Q2" { "```json\n{\"x\": 4}\n```".into() } else { "{\"x\": ".into() }
            }
        },
    );
    assert_eq!(out.rows.iter().map(|r| r["x"].clone()).collect::<Vec<_>>(), [json!(4), json!(4)]);
    assert_eq!(out.ends(0), [("failed: answer not of the schema".to_owned(), 1)].into());
    // Cut answers, where they are not wanted.
    let out = run(
        json!([{"n": 1}, {"n": 2}]),
        json!([{"type": "generate", "prompt": "Q{{ row.n }}", "cut": "filter"}]),
        |prompt, _| if prompt == "Q1" { "on and on...".into() } else { "done".into() },
    );
    assert_eq!(out.ends(0), [("filtered: answer cut".to_owned(), 1)].into());
}

#[test]
fn rewriting_paraphrasing_and_evolving() {
    let seeds = json!([{"text": "A sore throat.", "instruction": "Name a cause of fever."}]);
    let out = run(seeds.clone(), json!([{"type": "rewrite", "instruction": "Be short."}]), |prompt, _| {
        assert!(prompt.starts_with("Be short.") && prompt.ends_with("A sore throat."), "{prompt}");
        "Throat hurts.".into()
    });
    assert_eq!(out.texts("text"), ["Throat hurts."]);
    assert_eq!(out.texts("text_before"), ["A sore throat."]);
    let out = run(seeds.clone(), json!(["rewrite"]), |_, _| "a SORE throat".into());
    assert_eq!(out.ends(0), [("filtered: unchanged".to_owned(), 1)].into());
    let out = run(
        seeds.clone(),
        json!([{"type": "paraphrase", "n": 4, "to": "said", "keep_original": true}]),
        |_, k| {
            ["It hurts to swallow.", "\"It HURTS to swallow\"", "a sore throat", "My throat burns\nand more"]
                [k]
                .into()
        },
    );
    assert_eq!(out.texts("said"), ["A sore throat.", "It hurts to swallow.", "My throat burns"]);
    let out = run(
        seeds,
        json!([{"type": "evolve", "rounds": 3, "operations": ["deepen"], "keep_rounds": true}]),
        |prompt, _| {
            let last = prompt.rsplit("Task: ").next().unwrap();
            if last.contains("babies") { "Given prompt: x y z".into() } else { format!("{last} In babies!") }
        },
    );
    assert_eq!(out.texts("instruction"), ["Name a cause of fever.", "Name a cause of fever. In babies!"]);
    assert_eq!(out.rows[1]["evolved"], json!(["deepen"]));
    assert!((out.mean(0, "rounds that succeed") - 1.0 / 3.0).abs() < 1e-12);
}

#[test]
fn self_instruct_shows_others_and_names_their_seeds() {
    let seeds: Value =
        (0..8).map(|i| json!({"instruction": format!("Name disease number {i} please")})).collect();
    let out = run(
        seeds,
        json!([{"type": "self_instruct", "shots": 3, "n": 2, "keep_seeds": false}]),
        |prompt, _| {
            assert_eq!(prompt.matches("Name disease").count(), 3, "{prompt}");
            let own = prompt.lines().nth(2).unwrap();
            format!(
                "1. List the signs of {own}\n2. too short\n{own}\n3. Explain the course of {own}\n4. And a third one here"
            )
        },
    );
    assert_eq!(out.rows.len(), 16);
    assert!(
        out.texts("instruction").iter().all(|t| t.starts_with("List the signs") || t.starts_with("Explain"))
    );
    assert!(out.rows.iter().all(|r| r["provenance"]["seeds"].as_array().unwrap().len() == 3));
}

#[test]
fn documents_give_only_answers_that_they_support() {
    let text = "Fever is a raised body temperature.\n\nA cough clears the airways.";
    let out = run(
        json!([{"text": text}, {"text": "Nothing here."}]),
        json!([{"type": "from_document", "chunk_chars": 100, "min_support": 0.7}]),
        |prompt, _| match prompt {
            p if p.contains("Write the question only") => "What is it?\nmore".into(),
            p if p.contains("airways") => "Fever is a raised temperature.".into(),
            _ => "Something entirely different altogether.".into(),
        },
    );
    assert_eq!(out.texts("question"), ["What is it?"]);
    assert_eq!(out.rows[0]["support"], 1.0);
    assert!(out.rows[0]["chunk"].as_str().unwrap().contains("cough") && out.rows[0]["text"].is_null());
    assert_eq!(out.ends(0), [("filtered: no supported answer".to_owned(), 1)].into());
    // A model is asked too, and says no.
    let out = run(
        json!([{"text": text}]),
        json!([{"type": "from_document", "min_support": 0, "check": "model"}]),
        |prompt, _| if prompt.contains("yes or no") { "No.".into() } else { "Yes, what?".into() },
    );
    assert_eq!(out.rows.len(), 0);
}

#[test]
fn judges_score_choose_and_compare() {
    let seeds =
        json!([{"text": "a", "right": "B"}, {"text": "b", "right": "A"}, {"text": "c", "right": "B"}]);
    let out = run(seeds.clone(), json!([{"type": "judge", "min": 3}]), |prompt, _| {
        match prompt.lines().last().unwrap() {
            "a" => "Score: 4".into(),
            "b" => "I give it a 2 of 5".into(),
            _ => "no idea".to_owned(),
        }
    });
    assert_eq!(out.rows[0]["score"], 4.0);
    let ends = [("filtered: score too low".to_owned(), 1), ("failed: no score in the reply".to_owned(), 1)];
    assert_eq!(out.ends(0), ends.into());
    let out = run(
        seeds.clone(),
        json!([{"type": "judge", "choices": ["A", "B"], "known": "right", "samples": 3, "to": "judged"}]),
        |_, k| ["It is B.", "A", "B"][k].into(),
    );
    assert_eq!(
        (out.texts("text"), out.texts("judged")),
        (vec!["a".into(), "c".into()], vec!["B".into(), "B".into()])
    );
    assert!((out.mean(0, "agrees with the known answer") - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(out.ends(0), [("filtered: judge disagrees".to_owned(), 1)].into());
    // A judge that always says A is undecided; one that knows is not, wherever it stands.
    let seeds = json!([{"text": "a", "options": ["x", "y", "z"], "right": "y"}]);
    let step = json!([{"type": "judge_options", "known": "right"}]);
    let out = run(seeds.clone(), step.clone(), |_, _| "A".into());
    assert_eq!(out.ends(0), [("filtered: judge undecided".to_owned(), 1)].into());
    assert_eq!((out.mean(0, "names place A"), out.mean(0, "names place B")), (1.0, 0.0));
    let knows = |prompt: &str, _: usize| {
        let line = prompt.lines().find(|l| l.ends_with(". y")).unwrap();
        format!("It is {}.", &line[..1])
    };
    let out = run(seeds, step, knows);
    assert_eq!((out.texts("judged"), out.rows[0]["agrees"].clone()), (vec!["y".into()], json!(true)));
    assert_eq!(out.mean(0, "names place A"), 1.0 / 3.0);
    // `long` wins in both orders; between the others the first read wins: a tie.
    let out = run(json!([{"candidates": ["x", "long answer", "y"]}]), json!(["rank"]), |prompt, _| {
        let (a, b) = (prompt.find("long answer"), prompt.find("B:\n").unwrap());
        if a.is_some_and(|a| a > b) { "B".into() } else { "A".into() }
    });
    assert_eq!(out.rows[0]["scores"], json!([0.25, 1.0, 0.25]));
    assert_eq!((out.texts("best"), out.texts("worst")), (vec!["long answer".into()], vec!["x".into()]));
    assert!((out.mean(0, "both orders agree") - 2.0 / 3.0).abs() < 1e-12);
    let out = run(
        json!([{"q": 1, "known": "5"}, {"q": 2, "known": "5"}]),
        json!([{"type": "self_consistency", "prompt": "Q{{ row.q }}", "k": 4, "known": "known"}]),
        |prompt, k| if prompt == "Q1" { format!("think\n{}", [5, 5, 6, 5][k]) } else { format!("{k}") },
    );
    assert_eq!((out.texts("answer"), out.rows[0]["agreement"].clone()), (vec!["5".into()], json!(0.75)));
    assert_eq!(out.ends(0), [("filtered: answers disagree".to_owned(), 1)].into());
}

#[test]
fn options_pairs_and_checks() {
    let taxonomy: String =
        [("A", ""), ("B", ""), ("A1", "A"), ("A2", "A"), ("A3", "A"), ("B1", "B"), ("B2", "B")]
            .iter()
            .map(|(id, up)| json!({"id": id, "parent": up, "text": format!("text {id}")}).to_string() + "\n")
            .collect();
    let more = json!({"files": {"t.jsonl": taxonomy}, "taxonomy": {"path": "DIR/t.jsonl"}});
    let out = run_with(
        json!([{"id": "A1", "text": "text A1"}, {"id": "A", "text": "text A"}, {"id": "X", "text": "x"}]),
        json!([{"type": "distractors", "n": 3},
               {"type": "preference_pair", "by": "options", "prompt": "Which? {{ row.choices }}", "as": "letter"}]),
        more,
        none,
    );
    let row = &out.rows[0];
    let options: Vec<&str> = row["options"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert_eq!(options.len(), 4);
    // Siblings first, then a cousin.
    for near in ["text A1", "text A2", "text A3"] {
        assert!(options.contains(&near), "{options:?}");
    }
    assert!(options.iter().any(|o| o.starts_with("text B")));
    let at = row["answer_index"].as_u64().unwrap() as usize;
    assert_eq!((options[at], &row["chosen"]), ("text A1", &row["answer_letter"]));
    assert_ne!(row["chosen"], row["rejected"]);
    let ends = [("filtered: too few relatives".to_owned(), 1), ("failed: not in the taxonomy".to_owned(), 1)];
    assert_eq!(out.ends(0), ends.into());
    // Best of N against worst, and a known answer where none is right.
    let out = run(
        json!([{"q": "1", "answer": "B"}, {"q": "2", "answer": "B"}, {"q": "3", "answer": "A"}]),
        json!([{"type": "preference_pair", "by": "samples", "prompt": "{{ row.q }}", "n": 3, "right": "answer",
                "checks": ["exact_match"]}]),
        |prompt, k| match prompt {
            "1" => ["A", "B", "C"][k].into(),
            "2" => ["A", "C", "A"][k].into(),
            _ => "A".into(),
        },
    );
    assert_eq!(
        (out.texts("chosen"), out.texts("rejected")),
        (vec!["B".into(), "B".into()], vec!["A".into(), "A".into()])
    );
    assert_eq!(out.ends(0), [("filtered: no better and worse".to_owned(), 1)].into());
    let out = run(
        json!([{"text": "42", "answer": "42"}, {"text": "41", "answer": "42"}]),
        json!([{"type": "verify", "checks": [{"exact_match": {}}, {"regex": {"pattern": "^[0-9]+$"}}], "min": 2}]),
        none,
    );
    assert_eq!(out.texts("text"), ["42"]);
    assert_eq!(out.ends(0), [("filtered: not verified".to_owned(), 1)].into());
}

#[test]
fn filters_say_why() {
    let long = "The patient has had a high fever and a dry cough for three days and nights now.";
    let out = run_with(
        json!([
            {"text": long}, {"text": long.to_uppercase()}, {"text": format!("{long} Also tired.")},
            {"text": "Der Patient hat seit drei Tagen hohes Fieber und trockenen Husten, er schläft schlecht."},
            {"text": "I'm sorry, but as an AI language model I cannot help with medical questions."},
            {"text": "Sure! Here is a sentence:\n\nShe coughs at night and sleeps badly, says her mother."},
            {"text": "short"}, {"text": "One two three four five six seven eight nine ten eleven twelve thirteen fourteen."},
            {"other": 1},
        ]),
        json!([
            {"type": "length", "min_words": 2}, "language", "refusal", {"type": "dedup", "threshold": 0.7},
            {"type": "contamination", "against": ["DIR/test.jsonl"]},
            {"type": "filter", "expression": "'mother' in row.text or 'fever' in row.text"},
        ]),
        json!({"files": {"test.jsonl":
            "{\"question\": \"zero one two three four five six seven eight nine ten eleven twelve thirteen x\"}\n"},
            "coverage": "other"}),
        none,
    );
    assert_eq!(out.texts("text"), [long, "She coughs at night and sleeps badly, says her mother."]);
    let one = |reason: &str| -> BTreeMap<String, usize> { [(reason.to_owned(), 1)].into() };
    let ends = [("failed: field missing".to_owned(), 1), ("filtered: too short".to_owned(), 1)];
    assert_eq!(out.ends(0), ends.into());
    assert_eq!(out.ends(1), one("filtered: other language"));
    assert_eq!(out.ends(2), one("filtered: refusal"));
    let ends = [("filtered: duplicate".to_owned(), 1), ("filtered: near duplicate".to_owned(), 1)];
    assert_eq!(out.ends(3), ends.into());
    assert_eq!(out.ends(4), one("filtered: contaminated by test"));
    let hit = &out.figures.steps[4].filtered["contaminated by test"].examples[0][1];
    assert!(hit.contains("test.jsonl:1") && hit.contains("one two three"), "{hit}");
    assert_eq!(out.figures.coverage["(none)"], [8, 2, 2]);
    assert_eq!(out.figures.samples.len(), 2);
}

/// Every file of a folder, and the one that is left knows that it was not the first.
#[test]
fn duplicates_of_a_folder_s_rows_end() {
    let there = |text: &str| format!("{{\"text\": \"{text}\"}}\n");
    let known =
        ["She coughs at night.", "He has had a fever for three days.", "Her knee hurts when she climbs."];
    let out = run_with(
        json!([{"text": known[0]}, {"text": "A rash on both arms."}, {"text": known[1].to_uppercase()},
               {"text": "a rash, on both arms"}, {"text": known[2]}]),
        json!([{"type": "dedup", "against": ["DIR/known"]}]),
        json!({"files": {"known/a.jsonl": there(known[0]), "known/more/b.jsonl": there(known[1]) + &there(known[2])}}),
        none,
    );
    assert_eq!(out.texts("text"), ["A rash on both arms."]);
    assert_eq!(out.ends(0), [("filtered: duplicate".to_owned(), 4)].into());
    let hits = &out.figures.steps[0].filtered["duplicate"].examples;
    assert!(hits.iter().any(|h| h[1].contains("1.00 like a row of `against`")), "{hits:?}");
}

#[test]
fn samples_are_by_seed_and_rows_pass_by_where_a_step_is_not_for_them() {
    let seeds: Value = (0..40).map(|i| json!({"n": i, "group": i % 4})).collect();
    let steps = json!([{"type": "sample", "n": 3, "per": "group"},
                       {"type": "render", "prompt": "even {{ row.n }}", "when": "row.n % 2 == 0"}]);
    let out = run(seeds.clone(), steps.clone(), none);
    assert_eq!(out.rows.len(), 12);
    for group in 0..4 {
        assert_eq!(out.rows.iter().filter(|r| r["group"] == group).count(), 3);
    }
    for row in &out.rows {
        let even = row["n"].as_u64().unwrap() % 2 == 0;
        assert_eq!(row["text"].is_string(), even, "{row}");
        assert_eq!(row["provenance"]["steps"].as_array().unwrap().len(), usize::from(even));
    }
    let again = run(seeds.clone(), steps.clone(), none);
    let of = |o: &Outcome| o.rows.iter().map(|r| r["n"].clone()).collect::<Vec<_>>();
    assert_eq!(of(&out), of(&again));
    let other = run_with(seeds, steps, json!({"seed": 2}), none);
    assert_ne!(of(&out), of(&other));
}

#[test]
fn an_option_that_would_be_ignored_is_refused() {
    for (step, said) in [
        (
            json!({"type": "preference_pair", "by": "options", "prompt": "x", "n": 3}),
            "`steps[0].n`: has no effect",
        ),
        (json!({"type": "judge", "filter": "none"}), "`steps[0].filter`: has no effect"),
        (json!({"type": "dedup", "against_field": "x"}), "`steps[0].against_field`: has no effect"),
        (json!({"type": "generate", "prompt": "x", "gather": true, "schema": {}}), "beside `schema`"),
        // Texts of rows have no tokens: each would be of length 0.
        (json!({"type": "verify", "checks": [{"length": {"max": 9}}]}), "`length` looks at tokens"),
        (
            json!({"type": "verify", "checks": [{"repetition": {"ngram_size": 2, "max_penalty": -1}}]}),
            "`repetition` looks at tokens",
        ),
        (
            json!({"type": "judge_options", "by": "logprobs", "known": "right"}),
            "`logprobs` are not given by engine `t`",
        ),
    ] {
        let config = json!({"seeds": "s.jsonl", "output_dir": "o", "steps": [step], "engines": {"t": {"type": "scripted"}}});
        let kind = galen_synth::EngineKind { logprobs: false, ..KIND };
        let kind: &'static galen_synth::EngineKind = Box::leak(Box::new(kind));
        let errors = Pipeline::parse(&config, &[kind], Network::Offline).err().expect("an error");
        assert!(errors[0].to_string().contains(said), "{}", errors[0]);
    }
    let words = json!([{"type": "verify", "checks": [{"length": {"max": 2, "unit": "characters"}}]}]);
    let out = run(json!([{"text": "ab"}, {"text": "abcdefgh"}]), words, none);
    assert_eq!(out.texts("text"), ["ab"]);
}

#[test]
fn seeds_of_every_format_and_folders_of_documents() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../datasets/fixtures");
    let steps = json!([{"type": "render", "prompt": "{{ row|length }} fields"}]);
    for (file, rows) in
        [("rows.jsonl", 3), ("rows.json", 0), ("rows.csv", 0), ("rows_none.parquet", 0), ("rows.jsonl.gz", 3)]
    {
        let seeds = json!([{"path": format!("{fixtures}/{file}")}]);
        let out = run_with(json!([{}]), steps.clone(), json!({"seeds": seeds}), none);
        assert!(out.rows.len() >= rows.max(2), "{file}: {}", out.rows.len());
        assert_eq!(out.rows[0]["provenance"]["id"], format!("{file}:1"));
    }
    let more = json!({
        "files": {"a.md": "# One\n\nText of one.", "b.txt": "Two."},
        "seeds": [{"path": "DIR", "documents": true, "where": "row.title == 'One'"}, {"path": "DIR/b.txt", "id": "text"}],
    });
    let out =
        run_with(json!([{}]), json!([{"type": "render", "prompt": "{{ row.text }}", "to": "x"}]), more, none);
    assert_eq!(out.texts("x"), ["# One\n\nText of one.", "Two."]);
    assert_eq!(out.rows[0]["provenance"]["id"], "1/a.md:1");
    assert_eq!(out.rows[1]["provenance"]["id"], "Two.");
}

#[test]
fn examples_are_other_rows_drawn_by_the_seed() {
    let seeds: Value = (0..30).map(|i| json!({"q": format!("question {i}"), "a": i})).collect();
    let step = json!([{"type": "generate", "examples": 3, "args": {"mark": "#"},
        "prompt": "{% for e in examples %}{{ args.mark }}{{ e.q }} -> {{ e.a }}\n{% endfor %}now {{ row.q }}"}]);
    let echo = |prompt: &str, _: usize| prompt.to_owned();
    let out = run(seeds.clone(), step.clone(), echo);
    for (i, text) in out.texts("response").iter().enumerate() {
        assert!(text.matches('#').count() == 3 && text.ends_with(&format!("now question {i}")), "{text}");
        assert!(!text.contains(&format!("#question {i} ")), "{text}");
    }
    assert_eq!(out.texts("response"), run(seeds.clone(), step.clone(), echo).texts("response"));
    let other = run_with(seeds, step, json!({"seed": 9}), echo);
    assert_ne!(out.texts("response"), other.texts("response"));
}

#[cfg(unix)]
#[test]
fn a_program_verifies() {
    let script = "while read -r line; do id=$(printf %s \"$line\" | sed 's/.*\"id\":\\([0-9]*\\).*/\\1/'); case \"$line\" in \
                  *good*) r=1;; *) r=0;; esac; printf '{\"id\": %s, \"reward\": %s}\\n' \"$id\" $r; done";
    let out = run(
        json!([{"text": "a good text"}, {"text": "a bad text"}, {"text": "good too"}]),
        json!([{"type": "verify", "checks": [{"command": {"command": ["sh", "-c", script]}}]}]),
        none,
    );
    assert_eq!(out.texts("text"), ["a good text", "good too"]);
    assert_eq!(out.ends(0), [("filtered: not verified".to_owned(), 1)].into());
}

/// Whatever a configuration says, it is a pipeline or a list of complaints.
#[test]
fn fuzz() {
    let whole = json!({
        "seeds": [{"path": "s.jsonl", "id": "x", "limit": 3, "where": "row.x > 1", "documents": false}], "output_dir": "o", "seed": 3,
        "engines": {"t": {"type": "scripted"}}, "coverage": "c", "outputs": [{"type": "alpaca", "path": "a.jsonl", "instruction": "x",
        "output": "{{ row.y }}"}],
        "steps": ["dedup", {"filter": {"expression": "row.x", "label": "f", "when": "true"}}, {"type": "judge", "choices": ["A", "B"],
        "known": "k"}, {"sample": {"n": 2, "per": "x"}}, {"type": "generate", "prompt": "{{ row.x }}", "schema": {"type": "object"},
        "temperature": 0.5, "stop": ["x"]}, {"verify": {"checks": [{"regex": {"pattern": "x+"}}]}}],
    });
    let corpus = vec![whole.to_string().into_bytes(), serde_json::to_vec_pretty(&whole).unwrap()];
    let (mut built, mut refused) = (0_u64, 0_u64);
    let inputs = galen_testkit::fuzz::run("synth_config", &corpus, |bytes| {
        let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
        match Pipeline::parse(&value, &[&KIND], Network::Offline) {
            Ok(_) => built += 1,
            Err(errors) => {
                assert!(!errors.is_empty());
                refused += 1;
            }
        }
    });
    println!("synth_config: {inputs} inputs, {built} built, {refused} refused");
    assert!(built > 0 && refused > 0);
}

/// The second row's first answer is of no use, and the third's second one; the fourth says what the second will.
fn retried(
    dir: &Path,
    seeds: usize,
    broken: bool,
    stop: Option<&'static AtomicBool>,
) -> Result<Outcome, SynthError> {
    let seeds = (1..=seeds).map(|n| json!({"n": n})).collect();
    let schema = json!({"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]});
    let ask = |label: &str, prompt: &str| json!({"type": "generate", "label": label, "prompt": prompt, "schema": schema});
    let steps = json!([ask("a", "A{{ row.n }}"), {"dedup": {"field": "x"}}, ask("b", "B{{ row.n }}")]);
    let reply = move |prompt: &str, _: usize| {
        if let Some(stop) = stop {
            stop.store(prompt.starts_with('B'), Ordering::Relaxed);
        }
        match prompt {
            "A2" | "B3" if broken => "no".into(),
            "A2" | "A4" => "{\"x\": 2}".to_owned(),
            _ if broken => format!("{{\"x\": {}}}", &prompt[1..]),
            // Whoever is asked again: only what failed, and what follows from it.
            "B2" | "B3" => format!("{{\"x\": {}}}", &prompt[1..]),
            _ => panic!("{prompt} was answered before"),
        }
    };
    let retry = !broken && stop.is_some();
    let never = AtomicBool::new(false);
    run_in(dir, seeds, steps, json!({}), retry, stop.unwrap_or(&never), reply)
}

#[test]
fn rows_that_failed_are_done_again_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let out = retried(dir.path(), 5, true, None).unwrap();
    assert_eq!(out.ends(0), [("failed: answer not of the schema".to_owned(), 1)].into());
    assert_eq!(out.ends(2), [("failed: answer not of the schema".to_owned(), 1)].into());
    let ids = |out: &Outcome| out.rows.iter().map(|r| r["n"].as_u64().unwrap()).collect::<Vec<_>>();
    assert_eq!(ids(&out), [1, 4, 5]);
    let spent = out.figures.engines[0].requests;
    let folder = |name: &str| dir.path().join("out").join(name).is_dir();
    // Other seeds: refused, and everything stays where it was.
    let said = retried(dir.path(), 6, true, None).err().unwrap().to_string();
    assert!(said.contains("seeds are others"), "{said}");
    // Stopped on its way: what was put aside is there for the next.
    static STOP: AtomicBool = AtomicBool::new(false);
    let stopped = retried(dir.path(), 5, false, Some(&STOP));
    assert!(matches!(stopped.err(), Some(SynthError::Stopped)) && folder("journal.earlier"));
    let out = retried(dir.path(), 5, false, None).unwrap();
    assert!(!folder("journal.earlier") && folder("journal"));
    // The second came back, and is the first to say it now.
    assert_eq!(ids(&out), [1, 2, 3, 5]);
    assert_eq!(out.ends(1).values().sum::<usize>(), 1);
    assert!(out.ends(0).is_empty() && out.ends(2).is_empty());
    // What was spent on rows that failed or fell away still counts.
    assert_eq!(out.figures.engines[0].requests, spent + 3);
    // Nothing is left to be done again.
    let again = retried(dir.path(), 5, false, None).unwrap();
    assert_eq!(ids(&again), ids(&out));
}
