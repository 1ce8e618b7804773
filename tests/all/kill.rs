//! Runs that are killed and go on, from outside: the same bits as the run that nobody killed.

use crate::cli::{Bench, Said, assert_has};
use galen_testkit::fuzz::Random;
use serde_json::Value;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The log without what a clock or the system says.
fn log(bench: &Bench, dir: &str) -> Vec<Value> {
    let text = bench.read(&format!("{dir}/log.jsonl"));
    let rows = text.lines().map(|line| {
        let mut row: Value = serde_json::from_str(line).expect("a row of JSON");
        for key in ["tokens_per_second", "step_seconds", "peak_rss_bytes"] {
            row.as_object_mut().expect("an object").remove(key);
        }
        row
    });
    rows.collect()
}

fn adapter(bench: &Bench, dir: &str) -> Vec<u8> {
    std::fs::read(bench.path(dir).join("adapter_model.safetensors")).expect("an adapter")
}

fn assert_same_run(bench: &Bench, dir: &str, what: &str) {
    assert!(adapter(bench, dir) == adapter(bench, "whole"), "{what}: the adapter differs");
    assert_eq!(log(bench, dir), log(bench, "whole"), "{what}: the log");
    let left = temporaries(bench, dir, ".tmp-");
    assert!(left.is_empty(), "{what}: {left:?}");
}

/// Entries of the run directory whose names begin so; none while there is no such directory.
fn temporaries(bench: &Bench, dir: &str, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(bench.path(dir)).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).filter(|n| n.starts_with(prefix)).collect()
}

/// Starts a run and kills it as soon as `now` says so; false where the run was over before.
fn killed_when(bench: &Bench, out: &str, mut now: impl FnMut() -> bool) -> bool {
    let mut child = bench.command(&["train", "c.yaml", "--set", out]).spawn().expect("the binary starts");
    while !now() {
        if child.try_wait().expect("a state").is_some() {
            return false;
        }
    }
    child.kill().expect("SIGKILL");
    !child.wait_with_output().expect("an end").status.success()
}

fn whole(bench: &Bench) -> Duration {
    let began = Instant::now();
    bench.galen(&["train", "c.yaml", "--set", "output_dir=whole"]).exits(0);
    let steps = log(bench, "whole").iter().filter(|r| r["loss"].is_number()).count();
    assert_eq!(steps, 20);
    began.elapsed()
}

pub fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().expect("`kill` runs");
    assert!(sent.success());
}

#[test]
fn killed_anywhere_and_resumed_it_ends_with_the_same_bits() {
    let bench = Bench::in_memory();
    let mut took = whole(&bench);
    let random = &mut Random::new(20);
    let (mut point, mut late) = (0_u32, 0);
    while point < 20 {
        let dir = format!("run{point}");
        let out = format!("output_dir={dir}");
        // One point in each twentieth of the run. A checkpoint after every step: most hit the writing of one.
        let within = (random.bits() >> 40) as f64 / (1_u64 << 24) as f64;
        let (began, delay) = (Instant::now(), took.mul_f64((f64::from(point) + within) / 20.0));
        let killed = killed_when(&bench, &out, || {
            std::thread::sleep(Duration::from_millis(1));
            began.elapsed() >= delay
        });
        if killed {
            point += 1;
        } else {
            // The machine has become faster than it was: the same point again, by the new measure.
            late += 1;
            assert!(late <= 40, "{late} kills came after the end");
            took = took.min(began.elapsed());
        }
        // Without a checkpoint `--resume` begins at the beginning.
        bench.galen(&["train", "c.yaml", "--set", &out, "--resume"]).exits(0);
        assert_same_run(&bench, &dir, &format!("killed after {delay:?} of {took:?}"));
        std::fs::remove_dir_all(bench.path(&dir)).expect("removed");
    }
}

#[test]
fn killed_within_the_writing_of_a_checkpoint_it_ends_with_the_same_bits() {
    let bench = Bench::in_memory();
    // Checkpoints of 6 MB, which take milliseconds to write.
    let large = bench.read("c.yaml").replace("lora_r: 4", "lora_r: 512");
    bench.write("c.yaml", &large.replace("save_steps: 1", "save_steps: 2\nsave_total_limit: 1"));
    whole(&bench);
    let (mut within, mut incomplete, mut attempts) = (0, 0, 0);
    // Throughout the run; a kill that came too late is tried again at another checkpoint.
    while within < 5 {
        attempts += 1;
        assert!(attempts <= 200, "only {within} of {attempts} kills met the writing of a checkpoint");
        let (dir, step) = (format!("run{attempts}"), attempts * 6 % 20);
        let (out, before) = (format!("output_dir={dir}"), bench.path(&format!("{dir}/checkpoint-{step}")));
        let killed = killed_when(&bench, &out, || {
            (step == 0 || before.exists()) && !temporaries(&bench, &dir, ".tmp-checkpoint-").is_empty()
        });
        // What was being written is still there: the process died before its rename.
        let left = temporaries(&bench, &dir, ".tmp-checkpoint-");
        if killed && !left.is_empty() {
            within += 1;
            let state = bench.path(&format!("{dir}/{}/trainer_state.json", left[0]));
            incomplete += u32::from(!state.exists());
            bench.galen(&["train", "c.yaml", "--set", &out, "--resume"]).exits(0);
            assert_same_run(&bench, &dir, &format!("killed while writing {left:?}"));
        }
        std::fs::remove_dir_all(bench.path(&dir)).expect("removed");
    }
    println!(
        "{within} of {attempts} kills met the writing of a checkpoint, {incomplete} before its last file"
    );
}

#[test]
fn killed_before_its_record_a_run_can_be_overwritten() {
    let bench = Bench::in_memory();
    whole(&bench);
    let (mut early, mut seen) = (0, 0);
    for attempt in 0..4 {
        let (dir, before) = (format!("run{attempt}"), early);
        let out = format!("output_dir={dir}");
        killed_when(&bench, &out, || !temporaries(&bench, &dir, "").is_empty());
        let left = temporaries(&bench, &dir, "");
        early += u32::from(!left.is_empty() && !left.contains(&"run.json".into()));
        seen += u32::from(!left.is_empty());
        if early > before {
            bench.galen(&["train", "c.yaml", "--set", &out]).exits(2);
        }
        bench.galen(&["train", "c.yaml", "--set", &out, "--overwrite"]).exits(0);
        assert_same_run(&bench, &dir, &format!("overwritten: {left:?}"));
    }
    println!("{early} of {seen} kills came before the record");
    // And as such kills may leave it, whatever the timing above.
    for (i, files) in
        [&["config.yaml"][..], &[".tmp-config.yaml"], &["config.yaml", ".tmp-run.json"]].iter().enumerate()
    {
        let dir = format!("left{i}");
        std::fs::create_dir(bench.path(&dir)).expect("a directory");
        files.iter().for_each(|f| bench.write(&format!("{dir}/{f}"), "cut o"));
        let out = format!("output_dir={dir}");
        let refused = bench.galen(&["train", "c.yaml", "--set", &out]).exits(2);
        assert_has(&refused.stderr, &["is not empty", "--overwrite"]);
        bench.galen(&["train", "c.yaml", "--set", &out, "--overwrite"]).exits(0);
        assert_same_run(&bench, &dir, &format!("overwritten: {files:?}"));
    }
}

#[test]
fn killed_again_and_again_it_still_ends_with_the_same_bits() {
    let bench = Bench::in_memory();
    let took = whole(&bench);
    let random = &mut Random::new(3);
    for attempt in 0.. {
        // Longer every time, so that it ends.
        let delay = took.mul_f64(0.2 + 0.05 * f64::from(attempt) + random.below(100) as f64 / 500.0);
        let mut child = bench.command(&["train", "c.yaml", "--resume"]).spawn().expect("the binary starts");
        std::thread::sleep(delay);
        child.kill().expect("SIGKILL");
        if child.wait_with_output().expect("an end").status.success() {
            break;
        }
    }
    assert_same_run(&bench, "run", "killed many times");
}

#[test]
fn signals_write_a_checkpoint_and_tell_by_the_exit_code() {
    for (name, code, word) in [("-INT", 130, "Ctrl-C"), ("-TERM", 143, "SIGTERM")] {
        let bench = Bench::in_memory();
        whole(&bench);
        let long = ["train", "c.yaml", "--set", "num_epochs=500", "--set", "save_steps=100000"];
        let child = bench.command(&long).spawn().expect("the binary starts");
        let began = Instant::now();
        while !bench.path("run/log.jsonl").metadata().is_ok_and(|m| m.len() > 0) {
            assert!(began.elapsed() < Duration::from_secs(30), "no step within 30 s");
            std::thread::sleep(Duration::from_millis(5));
        }
        signal(&child, name);
        let said = Said::of(&child.wait_with_output().expect("an end")).exits(code);
        assert_has(&said.stderr, &["is written; `galen train run/config.yaml --resume` goes on", word]);
        let kept = std::fs::read_dir(bench.path("run")).expect("a directory");
        let checkpoints = kept
            .filter(|e| e.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with("checkpoint-")));
        assert_eq!(checkpoints.count(), 1);
    }
}

#[test]
fn what_may_not_be_resumed_or_overwritten_is_refused() {
    let bench = Bench::in_memory();
    whole(&bench);
    let fresh = bench.galen(&["train", "c.yaml", "--resume"]).exits(0);
    assert_eq!(fresh.stdout, "run\n");
    assert_same_run(&bench, "run", "--resume without a checkpoint");

    let changed = bench.galen(&["train", "c.yaml", "--resume", "--set", "learning_rate=0.02"]).exits(1);
    assert_has(&changed.stderr, &["`learning_rate: 0.01`", "`0.02`", "\nhint: "]);
    let occupied = bench.galen(&["train", "c.yaml"]).exits(2);
    assert_has(&occupied.stderr, &["`output_dir` run is not empty", "--resume", "--overwrite"]);
    assert_same_run(&bench, "run", "after two refusals");

    bench.galen(&["train", "c.yaml", "--overwrite", "--set", "learning_rate=0.02"]).exits(0);
    assert!(adapter(&bench, "run") != adapter(&bench, "whole"));
    std::fs::create_dir(bench.path("files")).expect("a directory");
    bench.write("files/thesis.txt", "years of work");
    let precious = bench.galen(&["train", "c.yaml", "--overwrite", "--set", "output_dir=files"]).exits(1);
    assert_has(&precious.stderr, &["files holds no run: not deleting it", "\nhint: "]);
    assert_eq!(bench.read("files/thesis.txt"), "years of work");
}
