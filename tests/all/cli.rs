//! A directory with a tiny model and data, and the release binary run in it.

use galen_testkit::tiny_gguf::tiny_gguf;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// The binary, which the workspace's own tests of the `galen` package make cargo build.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    // target/release/deps/all-0123 -> target/release/galen
    let target = test.parent().and_then(Path::parent).expect("a target directory");
    let path = target.join(format!("galen{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.is_file(),
        "{} is not built: run `cargo test --release --workspace`, or `cargo build --release -p galen` first",
        path.display()
    );
    path
}

/// What a command gave.
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    pub fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Checks the exit code.
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}:\n{}", self.stdout))
    }
}

/// Checks that each of `words` is in `text`.
pub fn assert_has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
}

/// A directory with `m.gguf`, `d.jsonl` (chats) and `c.yaml`.
pub struct Bench {
    dir: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self::within(tempfile::tempdir().expect("a directory"))
    }

    /// In memory where the system has such a place, for runs that wait for the disk hundreds of times.
    pub fn in_memory() -> Self {
        Self::within(galen_testkit::fuzz::folder())
    }

    fn within(dir: TempDir) -> Self {
        let bench = Self { dir };
        std::fs::write(bench.path("m.gguf"), tiny_gguf(5)).expect("a file");
        let row = |i: usize| {
            json!({"messages": [
                {"role": "user", "content": format!("Say {}.", i * 37 % 100)},
                {"role": "assistant", "content": format!("It is {}.", i % 3)},
            ]})
        };
        bench.write_rows("d.jsonl", &(0..24).map(row).collect::<Vec<_>>());
        bench.write(
            "c.yaml",
            "base_model: m.gguf\nadapter: lora\nlora_r: 4\nlora_dropout: 0.1\nlearning_rate: 0.01\nlr_scheduler: cosine\n\
             datasets:\n  - path: d.jsonl\n    type: chat_template\nval_set_size: 4\neval_steps: 5\nmicro_batch_size: 2\n\
             gradient_accumulation_steps: 1\nnum_epochs: 2\nsequence_len: 128\nsave_steps: 1\noutput_dir: run\n",
        );
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    pub fn write_bytes(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("a file");
    }

    pub fn write_rows(&self, name: &str, rows: &[Value]) {
        self.write(name, &rows.iter().map(|r| format!("{r}\n")).collect::<String>());
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The binary in the directory, offline and without the machine's caches.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).arg("--offline").current_dir(self.dir.path());
        command.env("XDG_CACHE_HOME", self.path("cache")).env("HF_HOME", self.path("hf"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn galen(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).output().expect("the binary starts"))
    }
}
