//! `galen models`, and what `--offline` does not do.

use crate::cli::{Bench, Said, assert_has, binary};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

#[test]
fn caches_are_listed_and_emptied_of_what_is_left_over() {
    let bench = Bench::new();
    let old = SystemTime::now() - Duration::from_hours(1);
    let write = |name: &str, bytes: usize| {
        let path = bench.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, vec![0; bytes]).expect("a file");
        std::fs::File::open(path).expect("a file").set_modified(old).expect("its time");
    };
    let sha256 = "0".repeat(64);
    write(&format!("cache/galen/files/{sha256}/old.gguf"), 1000);
    write("hf/hub/models--o--r/blobs/abc", 2000);
    write("hf/hub/models--o--r/blobs/def.incomplete", 3000);
    let list = || bench.galen(&["models", "ls", "--json"]).exits(0).json();
    let held = |list: &Value| -> Vec<(String, u64)> {
        let held = list["held"].as_array().expect("a list").iter();
        held.map(|h| (h["name"].as_str().expect("a name").into(), h["bytes"].as_u64().expect("a size")))
            .collect()
    };
    let all = [("o/r", 5000), ("o/r: def.incomplete", 3000), ("old.gguf", 1000)];
    assert_eq!(held(&list()), all.map(|(n, b)| (n.to_owned(), b)));
    assert!(
        list()["catalogue"]
            .as_array()
            .is_some_and(|c| c.iter().any(|e| e["name"] == "smollm2-135m-instruct"))
    );
    let table = bench.galen(&["models", "ls"]).exits(0).stdout;
    assert_has(&table, &["smollm2-135m-instruct", "Apache-2.0", "o/r", "stale", "unfinished", "6.0 kB"]);

    let would = bench.galen(&["models", "prune", "--dry-run"]).exits(0);
    assert_has(
        &would.stderr,
        &["would delete old.gguf", "would delete o/r: def.incomplete", "2 things, 4.0 kB"],
    );
    assert_eq!(held(&list()).len(), 3);
    bench.galen(&["models", "prune"]).exits(0);
    assert_eq!(held(&list()), [("o/r".to_owned(), 2000)]);
    let unknown = bench.galen(&["models", "prune", "o/x"]).exits(2);
    assert_has(&unknown.stderr, &["`o/x` is in no cache", "galen models ls"]);
    bench.galen(&["models", "prune", "o/r"]).exits(0);
    assert!(held(&list()).is_empty() && !bench.path("hf/hub/models--o--r").exists());
    // What is being written is not taken away.
    write("hf/hub/models--o--r/blobs/def.incomplete", 3000);
    bench.write("hf/hub/models--o--r/blobs/def.incomplete", "more");
    bench.galen(&["models", "prune"]).exits(0);
    assert_eq!(held(&list()).len(), 2);
}

#[test]
fn fetching_prints_where_files_lie() {
    let bench = Bench::new();
    let said = bench.galen(&["models", "fetch", "m.gguf", "--json"]).exits(0).json();
    assert_eq!((&said[0]["path"], &said[0]["source"]), (&"m.gguf".into(), &"local".into()));
    let missing = bench.galen(&["models", "fetch", "smollm2-135m-instruct"]).exits(1);
    assert_has(&missing.stderr, &["smollm2-135m-instruct", "offline"]);
}

/// Without a network every command that has its files works, and one that has not says so at once.
#[test]
#[cfg(target_os = "linux")]
fn offline_needs_no_network() {
    let bench = Bench::new();
    let isolated = |program: &str, args: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", program]).args(args).current_dir(bench.path("."));
        command.env("XDG_CACHE_HOME", bench.path("cache")).env("HF_HOME", bench.path("hf"));
        command.stdin(Stdio::null()).output()
    };
    // A namespace of its own has one interface, which is down.
    let devices = isolated("cat", &["/proc/net/dev"]).map(|o| Said::of(&o));
    let Ok(devices) = devices.map(|d| d.stdout) else { return eprintln!("skipped: no `unshare`") };
    if !devices.contains("lo:") {
        return eprintln!("skipped: this user may make no network namespace");
    }
    assert_eq!(devices.lines().filter(|l| l.contains(':')).count(), 1, "{devices}");
    let galen = binary();
    let galen = |args: &[&str]| {
        let args = [args, &["--offline"]].concat();
        Said::of(&isolated(&galen.display().to_string(), &args).expect("it starts"))
    };
    galen(&["train", "c.yaml", "--set", "num_epochs=1"]).exits(0);
    let alone = galen(&["generate", "--adapter", "run", "-p", "Say 3.", "-n", "4", "--json"]).exits(0);
    let outside =
        bench.galen(&["generate", "--adapter", "run", "-p", "Say 3.", "-n", "4", "--json"]).exits(0);
    assert_eq!(alone.stdout, outside.stdout);
    galen(&["export", "--model", "run", "--format", "gguf", "--out", "x.gguf"]).exits(0);
    galen(&["models", "ls"]).exits(0);
    let start = std::time::Instant::now();
    let missing = galen(&["generate", "-m", "o/r", "-p", "x"]).exits(1);
    assert_has(&missing.stderr, &["o/r", "offline"]);
    // No name is looked up and nothing is connected to: that would wait for its time-out.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}
