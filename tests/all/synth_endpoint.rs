//! `galen synth` with an endpoint: errors, garbage, kills, limits, and what must not be said.

use crate::cli::{Bench, Said, assert_has, binary};
use crate::synth_mock::{Act, Asked, Counts, Mock, completion};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const KEY: &str = "sk-test-1234567890-secret";

/// The binary in the bench's directory, sockets allowed.
fn command(bench: &Bench, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).current_dir(bench.path(".")).env("TEACHER_KEY", KEY).env_remove("OPENAI_API_KEY");
    command.env_remove("HF_HUB_OFFLINE").env_remove("http_proxy").env_remove("HTTP_PROXY");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn galen(bench: &Bench, args: &[&str]) -> Said {
    Said::of(&command(bench, args).output().expect("the binary starts"))
}

fn config(bench: &Bench, mock: &Mock, engine: &str, rest: &str) {
    let text = format!(
        "seeds: [{{path: seeds.jsonl, id: name}}]\noutput_dir: out\nengines:\n  teacher:\n    type: openai\n    model: m\n    \
         base_url: {}\n    api_key_env: TEACHER_KEY\n    retry_pause_s: 0.01\n{engine}{rest}",
        mock.url()
    );
    bench.write("p.yaml", &text);
}

fn seeds(bench: &Bench, n: usize) {
    let row = |i: usize| json!({"name": format!("s{i}"), "n": i, "group": i % 7, "fact": format!("fact number {i}")});
    bench.write_rows("seeds.jsonl", &(0..n).map(row).collect::<Vec<_>>());
}

/// Lines of a journal without its head.
fn journal(bench: &Bench, name: &str) -> Vec<Value> {
    let text = bench.read(&format!("out/journal/{name}"));
    text.lines().skip(1).map(|l| serde_json::from_str(l).expect("a line")).collect()
}

/// The number at the end of a prompt.
fn number(prompt: &str) -> usize {
    prompt.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}

/// Peak resident memory of a process, bytes.
fn peak(child: &Child) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).map_or(0, |kb| kb * 1024)
}

#[test]
fn ten_thousand_rows_with_errors_and_two_kills_end_once_each() {
    const ROWS: usize = 10_000;
    let bench = Bench::in_memory();
    seeds(&bench, ROWS);
    let good: Counts = Counts::default();
    let counted = good.clone();
    let mock = Mock::start(move |asked: &Asked| {
        let i = number(&asked.prompt);
        // By arrival, so that a second try fares otherwise; some rows never fare well.
        let lot = asked.number.wrapping_mul(2_654_435_761) >> 7 & 1023;
        match lot {
            _ if i % 100 == 13 => {
                Act::Raw(400, String::new(), b"{\"error\": {\"message\": \"bad row\"}}".to_vec())
            }
            0..26 => Act::Raw(500, String::new(), b"oops".to_vec()),
            26..38 => Act::Raw(429, "Retry-After: 0\r\n".into(), b"{}".to_vec()),
            38..51 => Act::Break,
            51..77 => Act::Raw(200, String::new(), b"{\"choices\": [{\"mess".to_vec()),
            77..102 => Act::Say("{\"note\": \"unfinished".into(), Duration::ZERO),
            _ => {
                *counted.lock().unwrap().entry(asked.prompt.clone()).or_default() += 1;
                let pause = Duration::from_millis(if lot < 150 { 40 } else { 0 });
                Act::Say(json!({"note": format!("note on {i}"), "grade": i % 5}).to_string(), pause)
            }
        }
    });
    config(
        &bench,
        &mock,
        "    concurrency: 24\n",
        "steps:\n  - type: generate\n    label: write\n    prompt: \"On {{ row.n }}\"\n    retries: 6\n    schema:\n      \
         type: object\n      properties: {note: {type: string}, grade: {type: integer}}\n      required: [note, grade]\n  \
         - filter: {expression: row.grade > 0, reason: grade 0}\n  - dedup: {field: note, threshold: 1}\n\
         outputs:\n  - {type: chat_template, path: sft.jsonl, user: fact, assistant: note}\n",
    );
    let mut memory = 0;
    for kill_at in [3_000, 7_000] {
        let mut child = command(&bench, &["synth", "p.yaml", "--resume"]).spawn().expect("starts");
        let path = bench.path("out/journal/01-write.jsonl");
        let began = Instant::now();
        loop {
            let lines = std::fs::File::open(&path).map_or(0, |f| std::io::BufReader::new(f).lines().count());
            memory = memory.max(peak(&child));
            if lines > kill_at {
                break;
            }
            assert!(child.try_wait().expect("a state").is_none() && began.elapsed() < Duration::from_mins(5));
            std::thread::sleep(Duration::from_millis(30));
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("an end");
    }
    let mut child = command(&bench, &["synth", "p.yaml", "--resume", "--json"]).spawn().expect("starts");
    while child.try_wait().expect("a state").is_none() {
        memory = memory.max(peak(&child));
        std::thread::sleep(Duration::from_millis(10));
    }
    let said = Said::of(&child.wait_with_output().expect("an end")).exits(0);
    println!(
        "peak memory {} MB, {} requests",
        memory >> 20,
        mock.requests.load(std::sync::atomic::Ordering::SeqCst)
    );
    assert!(memory > 0 && memory < 200 << 20, "{memory} bytes");

    // Every seed once in the first step, and once as kept, filtered or failed in all.
    let written = journal(&bench, "01-write.jsonl");
    assert_eq!(written.len(), ROWS);
    let mut fates: BTreeMap<String, &str> = BTreeMap::new();
    let mut ends = |name: &str, last: bool, lines: &[Value]| {
        for line in lines {
            let (id, fate) =
                (line["id"].as_str().expect("an id").to_owned(), line["fate"].as_str().expect("a fate"));
            if fate != "kept" || last {
                if fate != "kept" {
                    assert!(!line["reason"].as_str().unwrap_or_default().is_empty(), "{name}: {line}");
                }
                let fate = ["kept", "filtered", "failed"].into_iter().find(|f| *f == fate).expect("a fate");
                assert!(fates.insert(id, fate).is_none(), "{name}: twice: {line}");
            }
        }
    };
    ends("write", false, &written);
    ends("filter", false, &journal(&bench, "02-filter.jsonl"));
    ends("dedup", true, &journal(&bench, "03-dedup.jsonl"));
    assert_eq!(fates.len(), ROWS);
    let count = |fate: &str| fates.values().filter(|f| **f == fate).count();
    let (kept, filtered, failed) = (count("kept"), count("filtered"), count("failed"));
    // A hundred rows fail for good; hardly any other is unlucky six times.
    assert!((100..110).contains(&failed), "{failed} failed");
    assert!(filtered > 1_900 && filtered <= 2_000, "{filtered} filtered");
    assert_eq!(kept + filtered + failed, ROWS);
    let figures = said.json();
    let of = |key: &str| figures[key].as_u64().expect("a number") as usize;
    assert_eq!([of("seeds_kept"), of("seeds_filtered"), of("seeds_failed")], [kept, filtered, failed]);
    let rows: Vec<Value> =
        bench.read("out/sft.jsonl").lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let ids: HashSet<&str> = rows.iter().filter_map(|r| r["provenance"]["id"].as_str()).collect();
    assert_eq!((rows.len(), ids.len()), (kept, kept));
    for row in &rows {
        let i = number(row["messages"][0]["content"].as_str().unwrap());
        assert_eq!(row["messages"][1]["content"], format!("note on {i}"));
        assert_eq!(row["provenance"]["seeds"], json!([format!("s{i}")]));
        assert_eq!(row["provenance"]["steps"][0]["engines"][0]["model"], "m");
    }
    // Nothing is asked again but what was under way when it was killed.
    let again: usize = good.lock().unwrap().values().map(|n| n - 1).sum();
    assert!(again <= 2 * 24, "{again} rows were answered twice");
    // Nothing is left to do.
    let before = mock.requests.load(std::sync::atomic::Ordering::SeqCst);
    let text = bench.read("out/sft.jsonl");
    galen(&bench, &["synth", "p.yaml", "--resume"]).exits(0);
    assert_eq!(mock.requests.load(std::sync::atomic::Ordering::SeqCst), before);
    assert!(bench.read("out/sft.jsonl") == text);
    assert!(!bench.path("out/sft.jsonl.partial").exists());
}

#[test]
fn hostile_replies_and_templates_are_failures_of_their_rows() {
    let bench = Bench::in_memory();
    seeds(&bench, 20);
    let mock = Mock::start(|asked: &Asked| {
        let ok = || Act::Say("{\"note\": \"fine\"}".into(), Duration::ZERO);
        match number(&asked.prompt) {
            1 => Act::Raw(200, String::new(), vec![b' '; 50 << 20]),
            2 => Act::Raw(
                200,
                String::new(),
                b"{\"choices\": [{\"message\": {\"content\": \"\xff\xfe\"}}]}".to_vec(),
            ),
            3 => Act::Raw(200, String::new(), "[".repeat(1 << 20).into_bytes()),
            4 => Act::Say("[".repeat(1 << 20), Duration::ZERO),
            5 => Act::Say("{\"note\": 7}".into(), Duration::ZERO),
            6 => Act::Say(String::new(), Duration::ZERO),
            7 => Act::Raw(200, String::new(), completion("x", 3).to_string().into_bytes()),
            8 => Act::Break,
            9 => Act::Raw(
                200,
                String::new(),
                format!("{{\"choices\": {}1{}}}", "[".repeat(500), "]".repeat(500)).into_bytes(),
            ),
            _ => ok(),
        }
    });
    let loops = "{% if row.n == 11 %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}\
                 {% if row.n == 12 %}{{ range(999999999)|list }}{% endif %}\
                 {% if row.n == 13 %}{% include '/etc/passwd' %}{% endif %}\
                 {% if row.n == 14 %}{{ row.__class__.__mro__ }}{% endif %}\
                 {% if row.n == 15 %}{{ row.missing }}{% endif %}On {{ row.n }}";
    bench.write("t.txt", "");
    std::fs::create_dir_all(bench.path("prompts")).expect("a folder");
    bench.write("prompts/hostile.jinja", loops);
    config(
        &bench,
        &mock,
        "    retries: 1\n    timeout_s: 20\n    concurrency: 4\n",
        "prompts_dir: prompts\nsteps:\n  - generate:\n      template: hostile\n      retries: 1\n      schema: {type: object, \
         properties: {note: {type: string}}, required: [note]}\n",
    );
    let said = galen(&bench, &["synth", "p.yaml"]).exits(0);
    assert_has(&said.stderr, &["20 seeds: 6 kept, 0 filtered, 14 failed"]);
    let lines: HashMap<String, Value> = journal(&bench, "01-generate.jsonl")
        .into_iter()
        .map(|l| (l["id"].as_str().expect("an id").to_owned(), l))
        .collect();
    for (id, reason, detail) in [
        ("s1", "no answer", "answered more than `2097152` bytes"),
        ("s2", "no answer", "not valid UTF-8"),
        ("s3", "no answer", "not JSON: recursion limit"),
        ("s4", "answer not of the schema", "no JSON"),
        ("s5", "answer not of the schema", "`/note`"),
        ("s6", "answer not of the schema", "empty"),
        ("s7", "no answer", "3 choices of 1"),
        ("s8", "no answer", "broke off"),
        ("s9", "no answer", "not JSON: recursion limit"),
        ("s11", "template", "hostile.jinja: line 1: it runs too long"),
        ("s12", "template", "range"),
        ("s13", "template", "/etc/passwd"),
        ("s14", "template", "undefined"),
        ("s15", "template", "undefined"),
    ] {
        let line = &lines[id];
        assert_eq!(
            (line["fate"].as_str(), line["reason"].as_str()),
            (Some("failed"), Some(reason)),
            "{line}"
        );
        assert_has(line["detail"].as_str().unwrap_or_default(), &[detail]);
    }
    assert_eq!(lines["s0"]["rows"][0]["fields"]["note"], "fine");
    assert_has(&bench.read("out/synth_report.html"), &["answer not of the schema", "not valid UTF-8"]);
}

#[test]
fn access_is_refused_keys_are_never_said_and_other_machines_need_leave() {
    let bench = Bench::in_memory();
    seeds(&bench, 30);
    let mock = Mock::start(|asked: &Asked| {
        assert!(asked.head.contains(&format!("authorization: bearer {KEY}")));
        let body = format!("{{\"error\": {{\"message\": \"no: {KEY}\"}}}}");
        Act::Raw(401, String::new(), body.into_bytes())
    });
    let steps = "steps:\n  - generate: {prompt: \"On {{ row.n }}\"}\n";
    config(&bench, &mock, "", steps);
    let said = galen(&bench, &["synth", "p.yaml"]).exits(1);
    assert_has(&said.stderr, &["access refused (status 401)", "***", "hint: the key in use may not do this"]);
    assert!(mock.requests.load(std::sync::atomic::Ordering::SeqCst) < 20);
    // Nothing was put down to the rows: with access they are all asked.
    assert_eq!(journal(&bench, "01-generate.jsonl"), Vec::<Value>::new());
    for entry in walk(&bench.path("out")) {
        let text = std::fs::read(&entry).expect("a file");
        assert!(!String::from_utf8_lossy(&text).contains(KEY), "{}", entry.display());
    }
    assert!(!said.stderr.contains(KEY));

    // Endless failures end the run, and are nobody's.
    let down = Mock::start(|_: &Asked| Act::Raw(503, String::new(), b"down".to_vec()));
    config(&bench, &down, "    retries: 1\n", &format!("max_engine_failures: 5\n{steps}"));
    let said = galen(&bench, &["synth", "p.yaml", "--overwrite"]).exits(1);
    assert_has(&said.stderr, &["5 rows in a row had no answer", "status 503, saying `down`, tried 2 times"]);
    assert_eq!(journal(&bench, "01-generate.jsonl"), Vec::<Value>::new());

    // Another machine, a key in clear, no socket at all.
    for (url, more, words) in [
        (
            "http://teacher.test/v1",
            "",
            vec!["p.yaml:7", "host `teacher.test` is another machine", "allow_remote: [teacher.test]"],
        ),
        (
            "http://teacher.test/v1",
            "    allow_remote: [teacher.test]\n",
            vec!["p.yaml:7", "carry the key in clear", "https://"],
        ),
        ("http://u:pw@localhost/v1", "", vec!["p.yaml:7", "has an `@`"]),
    ] {
        let text = bench
            .read("p.yaml")
            .lines()
            .map(|l| {
                if l.contains("base_url") { format!("    base_url: {url}\n{more}") } else { format!("{l}\n") }
            })
            .collect::<String>();
        bench.write("q.yaml", &text);
        let said = galen(&bench, &["synth", "q.yaml", "--set", "output_dir=other"]).exits(2);
        assert_has(&said.stderr.replace("q.yaml", "p.yaml"), &words);
    }
    let said = galen(&bench, &["synth", "p.yaml", "--offline", "--set", "output_dir=other2"]).exits(2);
    assert_has(&said.stderr, &["`--offline` opens no socket"]);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        if entry.path().is_dir() { out.extend(walk(&entry.path())) } else { out.push(entry.path()) }
    }
    out
}

#[test]
fn a_server_that_asks_to_wait_is_waited_for_by_all() {
    let bench = Bench::in_memory();
    seeds(&bench, 12);
    let times: std::sync::Arc<std::sync::Mutex<Vec<Instant>>> = std::sync::Arc::default();
    let seen = times.clone();
    let mock = Mock::start(move |asked: &Asked| {
        seen.lock().unwrap().push(Instant::now());
        if asked.number == 3 {
            return Act::Raw(429, "Retry-After: 2\r\n".into(), b"{}".to_vec());
        }
        Act::Say(format!("note {}", asked.number), Duration::from_millis(30))
    });
    config(&bench, &mock, "    concurrency: 2\n", "steps:\n  - generate: {prompt: \"On {{ row.n }}\"}\n");
    galen(&bench, &["synth", "p.yaml"]).exits(0);
    let mut times = times.lock().unwrap().clone();
    times.sort();
    // One request may have been on its way beside the one that was told to wait.
    let longest = times.windows(2).map(|w| w[1] - w[0]).max().expect("gaps");
    assert!(longest >= Duration::from_millis(1_800), "{longest:?}");
    assert_eq!(times.len(), 13);
    drop(times);
    let rows = bench.read("out/rows.jsonl");
    assert_eq!(rows.lines().count(), 12);
}

#[test]
fn no_more_requests_a_minute_than_allowed() {
    let bench = Bench::in_memory();
    seeds(&bench, 8);
    let mock = Mock::start(|asked: &Asked| Act::Say(format!("note {}", asked.number), Duration::ZERO));
    let began = Instant::now();
    config(
        &bench,
        &mock,
        "    requests_per_minute: 300\n",
        "steps:\n  - generate: {prompt: \"On {{ row.n }}\"}\n",
    );
    galen(&bench, &["synth", "p.yaml"]).exits(0);
    // The first begins at once, each further one 0.2 s behind the one before.
    assert!(began.elapsed() >= Duration::from_millis(1_350), "{:?}", began.elapsed());
}

#[test]
fn configurations_are_checked_by_line_before_anything_is_asked() {
    let bench = Bench::in_memory();
    seeds(&bench, 3);
    let base = "seeds: seeds.jsonl\noutput_dir: out\nsteps:\n";
    for (rest, words) in [
        (
            "  - generat: {prompt: x}\n",
            vec!["p.yaml:4", "there is no step `generat`", "did you mean `generate`"],
        ),
        (
            "  - filter:\n      expresion: row.x\n",
            vec!["p.yaml:5", "no such parameter", "did you mean `expression`"],
        ),
        ("  - filter: {expression: 'row.'}\n", vec!["p.yaml:4", "`row.`"]),
        ("  - filter: {}\n", vec!["p.yaml:4", "is required"]),
        ("  - generate: {prompt: x}\n", vec!["p.yaml:4", "no engine is there to ask", "engines:"]),
        ("  - render: {template: nonesuch}\n", vec!["p.yaml:4", "no template `nonesuch`", "hint:"]),
        ("  - render: {prompt: '{% if %}'}\n", vec!["p.yaml:4", "line 1"]),
        ("  - dedup: {threshold: 0}\n", vec!["p.yaml:4", "above 0"]),
        ("  - contamination: {against: none.jsonl}\n", vec!["p.yaml:4", "none.jsonl"]),
        ("  - distractors: {}\n", vec!["p.yaml:4", "there is no taxonomy"]),
        ("  - verify: {checks: [{exact_mach: {}}]}\n", vec!["p.yaml:4", "did you mean `exact_match`"]),
        ("  - dedup\nstepz: 1\n", vec!["p.yaml:5", "did you mean `steps`"]),
        ("  - dedup\nengines: {t: {type: opena}}\n", vec!["p.yaml:5", "did you mean `openai`"]),
        (
            "  - dedup\noutputs: [{type: alpaca, path: a.jsonl, instruction: x}]\n",
            vec!["p.yaml:5", "`outputs[0].output`: is required"],
        ),
        ("  - dedup\noutputs: [{type: row, path: ../a.jsonl}]\n", vec!["p.yaml:5", "`../a.jsonl`"]),
        ("  - dedup: {label: a}\n  - dedup: {label: a}\n", vec!["p.yaml:5", "called `a` too"]),
        (
            "  - dedup\n  - sample: {n: 1, share: 0.5}\n  - length: {}\n",
            vec!["p.yaml:5", "p.yaml:6", "no bound is given"],
        ),
    ] {
        bench.write("p.yaml", &format!("{base}{rest}"));
        let said = galen(&bench, &["synth", "p.yaml"]).exits(2);
        assert_has(&said.stderr, &words);
        assert!(!bench.path("out").exists(), "{rest}");
    }
    // Not into a directory that holds something else, and no other configuration over a run.
    bench.write("p.yaml", &format!("{base}  - render: {{prompt: 'On {{{{ row.n }}}}'}}\n"));
    galen(&bench, &["synth", "p.yaml"]).exits(0);
    let said = galen(&bench, &["synth", "p.yaml"]).exits(2);
    assert_has(&said.stderr, &["is not empty", "--resume"]);
    let said = galen(&bench, &["synth", "p.yaml", "--resume", "--set", "steps[0].render.to=other"]).exits(1);
    assert_has(&said.stderr, &["01-render.jsonl", "another configuration", "hint: remove it"]);
    galen(&bench, &["synth", "p.yaml", "--overwrite"]).exits(0);
    std::fs::create_dir(bench.path("mine")).expect("a folder");
    bench.write("mine/file", "");
    let said = galen(&bench, &["synth", "p.yaml", "--overwrite", "--set", "output_dir=mine"]).exits(2);
    assert_has(&said.stderr, &["nothing in it is removed"]);
}
