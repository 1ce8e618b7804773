//! A reward program that behaves, and every way it may not.

use crate::bench::{Sample, completions, one, samples};
use galen_reward::{Finish, RewardError, RewardSet};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What the scripts have in common: `$D` is their folder, `starts` counts how often they were started, `each CMD` runs CMD
/// for every request with its `$id` and `$line`, `answer ID REWARD` answers.
const PRELUDE: &str = r#"
D=$1
echo $$ >> "$D/starts"
first() { [ "$(wc -l < "$D/starts")" -eq 1 ]; }
each() { while IFS= read -r line; do printf '%s\n' "$line" >> "$D/seen"; id=${line#*\"id\":}; id=${id%%,*}; "$@"; done; }
answer() { printf '{"id": %s, "reward": %s}\n' "$1" "$2"; }
own() { answer "$id" "$id"; }
"#;

struct Program {
    dir: tempfile::TempDir,
    set: RewardSet<'static>,
}

impl Program {
    fn new(script: &str, options: Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("judge.sh"), format!("{PRELUDE}{script}")).unwrap();
        let path = |p: PathBuf| p.to_str().unwrap().to_owned();
        let mut entry = json!({"name": "command", "timeout_s": 60,
            "command": ["sh", path(dir.path().join("judge.sh")), path(dir.path().into())]});
        for (key, value) in options.as_object().unwrap() {
            entry[key] = value.clone();
        }
        Self { dir, set: one(&entry) }
    }

    fn score(&self, samples: &[Sample]) -> Result<Vec<Option<f64>>, RewardError> {
        self.set.score(&completions(samples)).map(|mut r| r.functions.remove(0).values)
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Ids of the requests it read, in order.
    fn seen(&self) -> Vec<u64> {
        let id = |l: &String| serde_json::from_str::<Value>(l).unwrap()["id"].as_u64().unwrap();
        self.lines("seen").iter().map(id).collect()
    }

    fn fails(&self, n: usize, expect: &[&str]) {
        let error = self.score(&samples(n)).unwrap_err().to_string();
        for part in expect {
            assert!(error.contains(part), "{error}\n(expected `{part}`)");
        }
        assert!(error.starts_with("reward `command`: `sh` "), "{error}");
    }
}

fn values(of: &[f64]) -> Vec<Option<f64>> {
    of.iter().copied().map(Some).collect()
}

/// Whether a process of this number is there, as a zombie too.
fn exists(pid: &str) -> bool {
    let found = Command::new("kill").args(["-0", pid]).stderr(Stdio::null()).status();
    found.unwrap().success()
}

fn gone_soon(pid: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while exists(pid) {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn one_process_judges_batch_after_batch() {
    let program = Program::new("each own", json!({}));
    program.set.start().unwrap();
    assert_eq!(program.score(&samples(3)).unwrap(), values(&[0.0, 1.0, 2.0]));
    assert_eq!(program.score(&samples(2)).unwrap(), values(&[3.0, 4.0]));
    assert_eq!(program.score(&[]).unwrap(), []);
    assert_eq!(program.lines("starts").len(), 1);
}

#[test]
fn a_request_says_all_there_is() {
    let program = Program::new("each own", json!({}));
    let mut sample = Sample::of_row("two\nlines \"é\"", json!({"answer": 4, "z": [1]}));
    sample.token_ids = vec![5, 6];
    sample.finish = Finish::Length;
    program.score(&[sample]).unwrap();
    let seen: Value = serde_json::from_str(&program.lines("seen")[0]).unwrap();
    let expect = json!({"id": 0, "prompt": "2 + 2?", "completion": "two\nlines \"é\"", "tokens": 2,
        "finish_reason": "length", "row": {"answer": 4, "z": [1]}});
    assert_eq!(seen, expect);
}

#[test]
fn answers_come_in_any_order_and_may_be_none() {
    let script = "all=; n=0\nkeep() { all=\"$id $all\"; n=$((n + 1)); if [ $n -eq 4 ]; then for i in $all; do answer $i 0.$i; \
                  done; fi; }\nnone() { if [ $id -eq 4 ]; then printf '\\n{\"reward\": null, \"id\": 4}\\r\\n'; else keep; fi; }\neach none";
    let program = Program::new(script, json!({}));
    let expect = [Some(0.0), Some(0.1), Some(0.2), Some(0.3), None];
    assert_eq!(program.score(&samples(5)).map_err(|e| e.to_string()), Ok(expect.to_vec()));
}

#[test]
fn a_text_is_split_into_words_and_nothing_is_expanded() {
    let line = r#"sh -c 'read -r line; echo "{\"id\": 0, \"reward\": ${#1}}"' judge 'a $HOME b'"#;
    let set = one(&json!({"command": {"command": line}}));
    assert_eq!(set.score(&completions(&samples(1))).unwrap().total, values(&[9.0]));
    let set = one(&json!({"command": {"command": "echo $(id) '{\"id\": 0, \"reward\": 1}'", "retries": 0}}));
    let error = set.score(&completions(&samples(1))).unwrap_err().to_string();
    assert!(error.contains("wrote `$(id) {"), "{error}");
}

#[test]
fn a_killed_program_loses_no_rollouts() {
    let script = "die() { own; [ $id -eq 2 ] && kill -9 $$; }\nif first; then each die; else each own; fi";
    let program = Program::new(script, json!({}));
    let got = program.score(&samples(6)).map_err(|e| e.to_string());
    assert_eq!(got, Ok(values(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])));
    assert_eq!(program.seen(), [0, 1, 2, 3, 4, 5], "only what was unanswered is sent again");
    assert_eq!(program.lines("starts").len(), 2);
    assert_eq!(program.score(&samples(1)).unwrap(), values(&[6.0]));
    assert_eq!(program.lines("starts").len(), 2);
}

#[test]
fn killed_from_outside_in_the_middle_of_a_batch() {
    let script = "if first; then read -r line; echo; touch \"$D/ready\"; exec sleep 600; else each own; fi";
    let program = Program::new(script, json!({}));
    let got = std::thread::scope(|scope| {
        let scored = scope.spawn(|| program.score(&samples(3)));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !program.dir.path().join("ready").exists() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = program.lines("starts")[0].clone();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        scored.join().unwrap()
    });
    assert_eq!(got.unwrap(), values(&[0.0, 1.0, 2.0]));
    assert_eq!(program.lines("starts").len(), 2);
}

#[test]
fn a_program_that_keeps_dying_is_given_up_with_what_it_said() {
    let program =
        Program::new("read -r line; answer 0 1; echo 'no model here' >&2; exit 3", json!({"retries": 0}));
    program.fails(
        2,
        &[
            "ended with 1 of 2 completions unanswered (exit status: 3), started 1 time;",
            "stderr:\n  no model here",
        ],
    );
    assert_eq!(program.lines("starts").len(), 1);

    let program =
        Program::new("echo \"start $(wc -l < \"$D/starts\")\" >&2; kill -9 $$", json!({"retries": 2}));
    program.fails(1, &["(signal: 9 (SIGKILL)), started 3 times;", "stderr:\n  start 3"]);
    assert_eq!(program.lines("starts").len(), 3);
}

#[test]
fn an_error_shows_the_last_lines_of_stderr_alone() {
    let script = "i=0; while [ $i -lt 50 ]; do echo \"line $i\" >&2; i=$((i + 1)); done; \
                  head -c 100000 /dev/zero | tr '\\0' e >&2; echo >&2; echo last >&2; exit 1";
    let program = Program::new(script, json!({"retries": 0}));
    let error = program.score(&samples(1)).unwrap_err().to_string();
    assert!(
        error.contains("line 49") && error.contains("\n  last") && !error.contains("line 30\n"),
        "{error}"
    );
    assert!(error.len() < 2000, "{}", error.len());
}

#[test]
fn a_program_that_takes_too_long_is_killed_with_what_it_started() {
    let script = "echo waiting >&2; sleep 600 & echo $! >> \"$D/child\"; wait";
    let program = Program::new(script, json!({"timeout_s": 2, "retries": 1}));
    program.fails(
        2,
        &[
            "took more than 2 s with 2 of 2 completions unanswered (it was killed), started 2 times;",
            "waiting",
        ],
    );
    assert_eq!(program.lines("starts").len(), 2);
    for pid in program.lines("starts").iter().chain(&program.lines("child")) {
        gone_soon(pid);
    }
}

#[test]
fn after_a_time_out_the_answers_so_far_count() {
    let script = "slow() { if first && [ $id -eq 1 ]; then exec sleep 600; fi; own; }\neach slow";
    let program = Program::new(script, json!({"timeout_s": 5}));
    assert_eq!(program.score(&samples(3)).unwrap(), values(&[0.0, 1.0, 2.0]));
    let seen = program.seen();
    assert_eq!(seen[seen.len() - 2..], [1, 2]);
    assert_eq!(seen.iter().filter(|id| **id == 0).count(), 1);
}

#[test]
fn what_breaks_the_protocol_stops_the_run_at_once() {
    for (script, expect) in [
        (
            "echo hello",
            &["wrote `hello`, which is not JSON", "hint: standard output is for answers alone"][..],
        ),
        ("printf '\\377\\376\\n'", &["which is not JSON"]),
        ("echo '{\"id\": 0, \"reward\": NaN}'", &["which is not JSON", "hint: JSON has no such number"]),
        ("echo '{\"id\": 0, \"reward\": -Infinity}'", &["hint: JSON has no such number"]),
        ("echo '{\"id\": 0, \"reward\": 1e999}'", &["which is not JSON"]),
        ("echo '{\"id\": 0, \"reward\": \"1\"}'", &["its `reward` is neither a number nor null"]),
        ("echo '{\"id\": 0}'", &["its `reward` is missing"]),
        ("echo '{\"id\": 9, \"reward\": 1}'", &["its `id` is of no request"]),
        ("echo '{\"id\": -1, \"reward\": 1}'", &["its `id` is of no request"]),
        ("echo '{\"id\": \"0\", \"reward\": 1}'", &["its `id` is of no request"]),
        ("echo '[1]'", &["its `id` is of no request"]),
        (
            "answer 0 1; answer 0 2",
            &["answered one request twice, the second time `{\"id\": 0, \"reward\": 2}`"],
        ),
        (
            "echo '{\"id\": 1, \"error\": \"no such code\"}'",
            &["cannot judge a completion of datasets/a.jsonl:17: `no such code`"],
        ),
        ("head -c 5000000 /dev/zero | tr '\\0' x; echo", &["wrote a line of more than `1000` bytes"]),
    ] {
        let program =
            Program::new(&format!("read -r line; {script}; sleep 600"), json!({"max_line_bytes": 1000}));
        program.fails(2, expect);
        assert_eq!(program.lines("starts").len(), 1, "{script}");
        gone_soon(&program.lines("starts")[0]);
    }
}

#[test]
fn a_second_answer_does_not_count_for_the_next_batch() {
    let program = Program::new("twice() { own; own; }\neach twice", json!({}));
    assert_eq!(program.score(&samples(1)).unwrap(), values(&[0.0]));
    program.fails(1, &["its `id` is of no request"]);
}

#[test]
fn output_in_pieces_is_one_line() {
    let script = "slowly() { printf '{\"id\": '; sleep 0.05; printf %s $id; sleep 0.05; printf ', \"reward\": 1}'; sleep 0.05; echo; }\n\
                  each slowly";
    let program = Program::new(script, json!({}));
    assert_eq!(program.score(&samples(3)).unwrap(), values(&[1.0; 3]));
}

#[test]
fn the_last_line_needs_no_end() {
    let program =
        Program::new("read -r line; printf '{\"id\": 0, \"reward\": 1}'; exit 0", json!({"retries": 0}));
    assert_eq!(program.score(&samples(1)).unwrap(), values(&[1.0]));
}

#[test]
fn full_pipes_in_every_direction_do_not_block() {
    let script = "pad=$(head -c 200000 /dev/zero | tr '\\0' p)\nhead -c 1000000 /dev/zero | tr '\\0' e >&2\n\
                  for i in 0 1 2 3; do printf '{\"pad\": \"%s\", \"id\": %s, \"reward\": %s}\\n' $pad $i $i; done\nexec cat > /dev/null";
    let program = Program::new(script, json!({}));
    let large: Vec<_> = (0..4).map(|_| Sample::new(&"y".repeat(1_000_000), 0)).collect();
    assert_eq!(program.score(&large).unwrap(), values(&[0.0, 1.0, 2.0, 3.0]));
}

#[test]
fn a_program_that_ends_between_batches_is_started_again() {
    let program = Program::new(
        "read -r line; id=${line#*\\\"id\\\":}; id=${id%%,*}; own; exit 0",
        json!({"retries": 1}),
    );
    for i in 0..4 {
        assert_eq!(program.score(&samples(1)).map_err(|e| e.to_string()), Ok(values(&[f64::from(i)])));
    }
    assert_eq!(program.lines("starts").len(), 4);
}

#[test]
fn a_program_that_closes_its_output_is_not_waited_for() {
    let program = Program::new("exec >&-; sleep 600", json!({"retries": 0}));
    program.fails(1, &["ended with 1 of 1 completions unanswered (it was killed)"]);
}

#[test]
fn dropping_it_ends_the_program() {
    let program = Program::new("each own", json!({}));
    program.score(&samples(1)).unwrap();
    let pid = program.lines("starts")[0].clone();
    assert!(exists(&pid));
    drop(program.set);
    assert!(!exists(&pid), "ended and reaped");

    let deaf =
        Program::new("trap '' TERM HUP INT PIPE; read -r line; answer 0 1; sleep 600; sleep 600", json!({}));
    deaf.score(&samples(1)).unwrap();
    let pid = deaf.lines("starts")[0].clone();
    drop(deaf.set);
    assert!(!exists(&pid), "one that does not listen too");
}

#[test]
fn a_program_that_is_not_there() {
    let set = one(&json!({"command": {"command": "galen-no-such-judge --fast"}}));
    for error in [set.start().unwrap_err(), set.score(&completions(&samples(1))).unwrap_err()] {
        let text = error.to_string();
        assert!(
            text.contains("`galen-no-such-judge` cannot be started: ") && text.contains("hint: "),
            "{text}"
        );
    }
}
